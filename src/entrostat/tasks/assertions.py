"""Assertions as hidden tests: `assert f(1, [2]) == 3` is the call f(1, [2]) with the expected value 3."""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterable

from entrostat.tasks.task import Call, Expression


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
