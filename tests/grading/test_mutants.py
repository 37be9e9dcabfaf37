"""Mutants: no change to an attack makes it pass, and a changed solution passes exactly when it still answers right."""

from __future__ import annotations

import ast
import random
import re
import secrets
from pathlib import Path

import pytest

from entrostat.grading import CodeGrader, Outcome
from entrostat.tasks import Call, Task

ATTACKS = re.split(r"^=== .+\n", (Path(__file__).parent / "attacks.txt").read_text(), flags=re.MULTILINE)[1:]
RIGHT = """
def solve(numbers):
    total, seen = 0, {}
    for place, n in enumerate(numbers):
        if n % 2 == 0 and n not in seen:
            total += 2 * n - place
        elif n < -1 or place > 3:
            total -= seen.get(n, 1)
        seen[n] = place
    return [total, len(seen) == len(numbers), total / 2]
"""
INPUTS = ([3, 2, 4], [], [7, 9, 7], [-2, 0, 5, 10, -2], [8, 8, 1, -3, 6, 6, 5])


def mutated_attack(rng: random.Random) -> str:
    lines = rng.choice(ATTACKS).splitlines()
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines) + 1)
        change = rng.choice(["drop", "double", "splice", "number", "swap"])
        if change == "drop" and len(lines) > 1:
            del lines[at - 1]
        elif change == "double":
            lines.insert(at, lines[at - 1])
        elif change == "splice":
            lines += rng.choice(ATTACKS).splitlines()
        elif change == "number":
            lines = [re.sub(r"\d+", lambda _: str(rng.choice([0, 1, 3, 255, 2**31])), line) for line in lines]
        else:
            lines[at - 1 :] = [lines[at - 1].replace("None", "numbers"), *lines[at:]]
    return "\n".join(lines) + "\n"


class Mutate(ast.NodeTransformer):
    """Change one node, the one that the countdown ends at."""

    def __init__(self, rng: random.Random, countdown: int) -> None:
        self.rng, self.countdown = rng, countdown

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        options: list[ast.AST] = []
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            options = [ast.Constant(node.value + step) for step in (-1, 1)]
        elif isinstance(node, ast.BinOp):
            options = [ast.BinOp(node.left, op(), node.right) for op in (ast.Add, ast.Sub, ast.Mult)]
        elif isinstance(node, ast.Compare):
            options = [ast.Compare(node.left, [op()], node.comparators) for op in (ast.Lt, ast.GtE, ast.NotEq)]
        elif isinstance(node, ast.BoolOp):
            options = [ast.BoolOp(op(), node.values) for op in (ast.And, ast.Or)]
        if not options:
            return node
        self.countdown -= 1
        return self.rng.choice(options) if self.countdown == 0 else node


def mutated_solution(rng: random.Random) -> str:
    return ast.unparse(ast.fix_missing_locations(Mutate(rng, rng.randint(1, 20)).visit(ast.parse(RIGHT))))


def answers(code: str) -> list[object]:
    namespace: dict[str, object] = {}
    exec(code, namespace)
    found = []
    for numbers in INPUTS:
        try:
            found.append(namespace["solve"](list(numbers)))
        except Exception as error:
            found.append(type(error))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_nothing_passes_a_task_whose_answers_cannot_be_known(seed):
    task = Task(
        id="secrets",
        prompt="",
        entry_point="solve",
        tests=tuple(Call((numbers,), secrets.token_hex(8)) for numbers in INPUTS),
    )
    rng = random.Random(seed)
    with CodeGrader(workers=2, timeout=0.2, memory=128 << 20) as grader:
        verdicts = grader.grade([(task, mutated_attack(rng)) for _ in range(100)])
    assert {v.reward for v in verdicts} == {0.0}
    assert len({v.outcome for v in verdicts}) > 3


def test_a_mutant_passes_exactly_when_it_answers_as_the_original(grader):
    truth = answers(RIGHT)
    task = Task(
        id="mutants",
        prompt="",
        entry_point="solve",
        tests=tuple(Call((numbers,), answer) for numbers, answer in zip(INPUTS, truth, strict=True)),
    )
    mutants = [mutated_solution(random.Random(seed)) for seed in range(200)]
    right = [repr(answers(mutant)) == repr(truth) for mutant in mutants]
    verdicts = grader.grade([(task, mutant) for mutant in mutants])
    assert [v.passed for v in verdicts] == right
    assert 10 < sum(right) < 190
    assert {v.outcome for v in verdicts} <= {Outcome.PASSED, Outcome.WRONG, Outcome.RUNTIME_ERROR}
