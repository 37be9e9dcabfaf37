"""listcraft, the embedded task family: small Python functions over lists of integers, specified in words.

A program is a chain of one to four operations. Its prompt says in words what each does, its tests are calls with
the values that the chain returns. An operation's Python expression is its only definition: the reference solution
is made of these expressions, and the expected values are what they evaluate to.

There are no loops, strings or functions of several arguments, so a policy of a million parameters can learn the family.

Splits follow behaviour: programs with equal results on a fixed set of probe inputs share one digest, and the
digest names the split. No program of one split does what a program of another does, however it is worded.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from types import CodeType
from typing import Any, Literal, get_args

from entrostat.tasks.sources import task_source
from entrostat.tasks.task import Call, Task, TaskError

Split = Literal["train", "select", "report"]
Value = Any  # a list of integers, or the integer that a closing operation makes of it

LEVELS = (1, 2, 3, 4)
ENTRY_POINT = "solve"
TESTS_PER_TASK = 5
_SPLIT_OF_BUCKET: tuple[Split, ...] = ("train",) * 8 + ("select", "report")  # ("train" x 8, "select", "report")


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of a program. words: ways to ask for it; expressions: ways to write it, all of the list `xs`."""

    name: str
    kind: Literal["filter", "map", "arrange", "close"]
    words: tuple[str, ...]
    expressions: tuple[str, ...]

    def apply(self, xs: list[int]) -> Value:
        """The operation's value on `xs`."""
        return eval(_compiled(self.expressions[0]), {"xs": xs})


@cache
def _compiled(expression: str) -> CodeType:
    return compile(expression, "<listcraft>", "eval")


def _filter(name: str, condition: str, *words: str) -> Operation:
    expressions = (f"[x for x in xs if {condition}]", f"list(filter(lambda x: {condition}, xs))")
    return Operation(name, "filter", words, expressions)


def _map(name: str, value: str, *words: str) -> Operation:
    expressions = (f"[{value} for x in xs]", f"list(map(lambda x: {value}, xs))")
    return Operation(name, "map", words, expressions)


def _arrange(name: str, words: tuple[str, ...], *expressions: str) -> Operation:
    return Operation(name, "arrange", words, expressions)


def _close(name: str, words: tuple[str, ...], *expressions: str) -> Operation:
    return Operation(name, "close", words, expressions)


def _all_operations() -> tuple[Operation, ...]:
    operations = [
        _filter("even", "x % 2 == 0", "keep the even numbers", "drop the odd numbers"),
        _filter("odd", "x % 2 == 1", "keep the odd numbers", "drop the even numbers"),
        _filter("positive", "x > 0", "keep the positive numbers"),
        _filter("negative", "x < 0", "keep the negative numbers"),
        _map("square", "x * x", "square every number"),
        _map("negate", "-x", "negate every number"),
        _map("absolute", "abs(x)", "take the absolute value of every number"),
        _arrange("reverse", ("reverse the list",), "xs[::-1]", "list(reversed(xs))"),
        _arrange("sort", ("sort the list", "sort up"), "sorted(xs)"),
        _arrange("sort-down", ("sort down",), "sorted(xs, reverse=True)", "sorted(xs)[::-1]"),
        _arrange("unique", ("drop repeated numbers",), "list(dict.fromkeys(xs))"),
        _arrange("every-second", ("keep every second number",), "xs[::2]"),
        _close("sum", ("return the sum",), "sum(xs)"),
        _close("largest", ("return the largest or 0",), "max(xs, default=0)"),
        _close("smallest", ("return the smallest or 0",), "min(xs, default=0)"),
        _close("count", ("return the count",), "len(xs)"),
    ]
    for k in range(2, 8):
        operations += [
            _filter(f"above-{k}", f"x > {k}", f"keep the numbers above {k}"),
            _filter(f"below-{k}", f"x < {k}", f"keep the numbers below {k}"),
            _map(f"add-{k}", f"x + {k}", f"add {k} to every number"),
            _map(f"subtract-{k}", f"x - {k}", f"subtract {k} from every number"),
            _map(f"times-{k}", f"x * {k}", f"multiply every number by {k}"),
            _map(f"modulo-{k}", f"x % {k}", f"take every number modulo {k}"),
        ]
    for k in range(3, 6):
        operations.append(_filter(f"multiple-of-{k}", f"x % {k} == 0", f"keep the multiples of {k}"))
    for k in range(2, 5):
        operations += [
            _arrange(f"first-{k}", (f"keep the first {k}",), f"xs[:{k}]"),
            _arrange(f"last-{k}", (f"keep the last {k}",), f"xs[-{k}:]"),
            _arrange(f"without-first-{k}", (f"drop the first {k}",), f"xs[{k}:]"),
            _arrange(f"without-last-{k}", (f"drop the last {k}",), f"xs[:-{k}]"),
        ]
    return tuple(operations)


OPERATIONS = _all_operations()
_OPEN = tuple(op for op in OPERATIONS if op.kind != "close")


@dataclass(frozen=True, slots=True)
class Program:
    """A chain of operations; only the last may close the list into a number."""

    operations: tuple[Operation, ...]

    @property
    def name(self) -> str:
        """The operations' names in order, as in `even+times-2+sum`."""
        return "+".join(op.name for op in self.operations)

    def run(self, xs: Sequence[int]) -> Value:
        """The program's value on `xs`, which stays as it is."""
        value: Value = list(xs)
        for op in self.operations:
            value = op.apply(value)
        return value

    def prompt(self, rng: random.Random) -> str:
        """The specification as a comment line, in one of its wordings."""
        return "# " + ", then ".join(rng.choice(op.words) for op in self.operations) + "\n"

    def solution(self, rng: random.Random) -> str:
        """Python source that meets the specification, in one of its forms."""
        expressions = [rng.choice(op.expressions) for op in self.operations]
        lines = [f"    xs = {expression}\n" for expression in expressions[:-1]]
        return f"def {ENTRY_POINT}(xs):\n" + "".join(lines) + f"    return {expressions[-1]}"

    def neighbours(self) -> Iterator[Program]:
        """Every program that differs in one operation of the same kind."""
        for i, op in enumerate(self.operations):
            for other in OPERATIONS:
                if other.kind == op.kind and other is not op:
                    yield Program((*self.operations[:i], other, *self.operations[i + 1 :]))

    def shortened(self) -> Iterator[Program]:
        """Every program with one operation left out."""
        for i in range(len(self.operations)):
            yield Program(self.operations[:i] + self.operations[i + 1 :])


def random_program(rng: random.Random, level: int) -> Program:
    """A chain of `level` operations drawn at random."""
    return Program((*(rng.choice(_OPEN) for _ in range(level - 1)), rng.choice(OPERATIONS)))


def _random_list(rng: random.Random) -> list[int]:
    return [rng.randint(-9, 19) for _ in range(rng.randint(4, 10))]


@cache
def _probes() -> tuple[list[int], ...]:
    rng = random.Random("listcraft probes")
    return ([], [1], *(_random_list(rng) for _ in range(30)))


def behaviour(program: Program) -> tuple[Value, ...]:
    """The program's values on the fixed probe inputs."""
    return tuple(program.run(xs) for xs in _probes())


def split_of(values: tuple[Value, ...]) -> Split:
    """The one split to which programs of this behaviour belong: 8 in 10 train, 1 select, 1 report."""
    digest = hashlib.sha256(repr(values).encode()).digest()
    return _SPLIT_OF_BUCKET[digest[0] % len(_SPLIT_OF_BUCKET)]


def is_sound(program: Program, values: tuple[Value, ...]) -> bool:
    """Whether every operation matters and the answers differ from input to input."""
    if len({repr(v) for v in values}) < len(values) // 4:
        return False
    return all(behaviour(shorter) != values for shorter in program.shortened())


def programs(split: Split, seed: int = 0, levels: Sequence[int] = (1, 2, 3)) -> Iterator[Program]:
    """Distinct sound programs of a split, the same for the same seed; the levels take turns until none has more."""
    if split not in get_args(Split):
        raise TaskError(f"split is {split!r}; give {', '.join(map(repr, get_args(Split)))}")
    unknown = [level for level in levels if level not in LEVELS]
    if unknown or not levels:
        raise TaskError(f"tasks.levels: got {list(levels)}; give one or more of {list(LEVELS)}")
    rng = random.Random(f"listcraft {split} {seed}")
    seen: set[str] = set()
    exhausted: set[int] = set()
    while len(exhausted) < len(set(levels)):
        for level in levels:
            if level in exhausted:
                continue
            for _ in range(2000):
                program = random_program(rng, level)
                values = behaviour(program)
                key = repr(values)
                if key not in seen and split_of(values) == split and is_sound(program, values):
                    seen.add(key)
                    yield program
                    break
            else:
                exhausted.add(level)


def _tests(program: Program, rng: random.Random) -> tuple[Call, ...]:
    """Calls, the empty list among them, chosen greedily so that as many neighbours as possible give another answer."""
    candidates = [[], *(_random_list(rng) for _ in range(24))]
    answers = [program.run(xs) for xs in candidates]
    alive = list(program.neighbours())
    caught = [{i for i, other in enumerate(alive) if other.run(xs) != answers[c]} for c, xs in enumerate(candidates)]
    chosen = [0]
    told_apart = set(caught[0])
    while len(chosen) < TESTS_PER_TASK:
        best = max((c for c in range(len(candidates)) if c not in chosen), key=lambda c: len(caught[c] - told_apart))
        chosen.append(best)
        told_apart |= caught[best]
    return tuple(Call(args=(candidates[c],), expected=answers[c]) for c in chosen)


def task_of(program: Program) -> Task:
    """The program as a task: wording and tests are drawn from the program's name, the same every time."""
    rng = random.Random(f"listcraft task {program.name}")
    return Task(
        id=f"listcraft/{program.name}",
        prompt=program.prompt(rng),
        entry_point=ENTRY_POINT,
        tests=_tests(program, rng),
        level=len(program.operations),
    )


def tasks(split: Split, count: int, seed: int = 0, levels: Sequence[int] = (1, 2, 3)) -> list[Task]:
    """`count` distinct tasks of a split, the same for the same seed.

    Raises TaskError for another split or level, and when the levels asked for hold fewer distinct tasks.
    """
    found = [task_of(program) for program, _ in zip(programs(split, seed, levels), range(count), strict=False)]
    if len(found) < count:
        raise TaskError(
            f"count: {count} tasks asked for, but split {split!r} holds {len(found)} at levels {list(levels)}; "
            "ask for fewer or add a level"
        )
    return found


def program_named(name: str) -> Program:
    """The program of a task's name, as in `even+times-2+sum`."""
    by_name = {op.name: op for op in OPERATIONS}
    return Program(tuple(by_name[part] for part in name.split("+")))


@task_source("listcraft")
def report_tasks() -> list[Task]:
    """A hundred tasks of the report split; a recipe's splits have settings of their own."""
    return list(tasks("report", 100))
