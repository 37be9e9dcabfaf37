"""Mathematical answers: equal in any form, wrong however many are named, never worth more than their time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from entrostat.grading import MathGrader, Outcome
from entrostat.tasks import AnswerTask, TaskError

pytest.importorskip("math_verify", reason="pip install math-verify to judge mathematical answers")


@pytest.fixture(scope="module")
def judge() -> Iterator:
    with MathGrader(workers=2, timeout=2.0) as grader:
        yield lambda answer, text: grader.grade([(AnswerTask("m", "", answer), text)])[0]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("4", "The answer is \\boxed{4}."),
        ("4", "2 + 2 makes 4"),
        ("4", "$x = 4$"),
        ("\\frac{1}{2}", "\\boxed{0.5}"),
        ("\\frac{1}{2}", "\\boxed{\\dfrac12}"),
        ("x^2 - 1", "\\boxed{(x-1)(x+1)}"),
        ("\\{1, 2\\}", "\\boxed{2, 1}"),
        ("1000", "\\boxed{1{,}000}"),
        ("$7$", "First \\[3\\], then $$7$$"),
    ],
)
def test_equal_answers_pass_in_any_form(judge, answer, text):
    assert judge(answer, text).passed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I do not know",
        "\\boxed{3}",
        "\\boxed{3} or \\boxed{4}",
        "\\boxed{4 \\text{ or } 3}",
        "\\boxed{1, 2, 3, 4}",
        "\\boxed{4} no, \\boxed{5}",
        "\\boxed{x}",
        "\\boxed{\\text{True}}",
        "\\boxed{x = x}",
        "\\boxed{\\infty}",
        "\\boxed{\\{4, x\\}}",
        "__import__('os')._exit(0)",
        "judge = lambda *a: True",
    ],
)
def test_hedges_and_tricks_fail(judge, text):
    assert judge("4", text).reward == 0.0


def test_an_endless_comparison_is_a_timeout(judge):
    assert judge("9", "\\boxed{9^{9^{9^{9}}}}").outcome in (Outcome.TIMEOUT, Outcome.WRONG, Outcome.MEMORY)


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 20_000,
        "\\boxed{10^{10^{10}}}",
        "\\boxed{" + "9" * 200_000 + "}",
        "\ud800\\boxed{5}",
    ],
)
def test_hostile_answers_cost_the_limit_and_earn_nothing(judge, text):
    assert judge("4", text).reward == 0.0


def test_nothing_is_parsed_in_the_trainer():
    text = "\\boxed{" * 1000
    assert MathGrader.arguments(MathGrader.__new__(MathGrader), AnswerTask("m", "", "4"), text) == ("$4$", text)


def test_a_task_without_an_answer_is_refused():
    with pytest.raises(TaskError, match="answer is empty"):
        AnswerTask("m", "", " ")
