"""reasoning-gym's puzzles: their own answers pass, others do not, and the same seed gives the same puzzles."""

from __future__ import annotations

import pytest

from entrostat.grading import Outcome, PuzzleGrader
from entrostat.tasks import TaskError
from entrostat.tasks.sources import puzzles, split, unique

pytest.importorskip("reasoning_gym", reason="pip install reasoning-gym for its puzzles")
FAMILIES = ("chain_sum", "countdown", "word_sorting", "polynomial_equations", "caesar_cipher", "simple_equations")


@pytest.fixture(scope="module")
def grader():
    with PuzzleGrader(workers=2, timeout=3.0) as grader:
        yield grader


def test_the_package_s_own_answers_pass_and_others_do_not(grader):
    tasks = [task for family in FAMILIES for task in puzzles(family, 4, seed=7)]
    answers = [f"Thinking.\n<answer>{task.entry['answer']}</answer>" for task in tasks]
    assert [v for v in grader.grade(zip(tasks, answers, strict=True)) if not v.passed] == []
    assert {v.reward for v in grader.grade([(task, "<answer>no idea</answer>") for task in tasks])} == {0.0}


def test_an_answer_that_would_run_something_earns_nothing(grader):
    tasks = puzzles("countdown", 2, seed=1)
    for text in ("__import__('os')._exit(0)", "exit()", "9**9**9**9", "<answer></answer>", ""):
        assert {v.reward for v in grader.grade([(task, text) for task in tasks])} == {0.0}


def test_the_seed_decides(grader):
    assert puzzles("chain_sum", 5, seed=1) == puzzles("chain_sum", 5, seed=1)
    first, second = ({task.prompt for task in puzzles("chain_sum", 5, seed=seed)} for seed in (1, 2))
    assert first != second
    tasks = unique(puzzles("chain_sum", 200, seed=1))
    parts = split(tasks, {"train": 0.5, "report": 0.5}, seed=0)
    assert len(parts["train"]) + len(parts["report"]) == len(tasks)


def test_an_unknown_family_is_named():
    with pytest.raises(TaskError, match="'no_such_family'"):
        puzzles("no_such_family", 1, seed=0)


def test_a_slow_answer_is_a_timeout_or_wrong(grader):
    (task,) = puzzles("polynomial_equations", 1, seed=0)
    verdict = grader.grade([(task, "9**9**9**9**9")])[0]
    assert verdict.outcome in (Outcome.TIMEOUT, Outcome.WRONG, Outcome.MEMORY, Outcome.RUNTIME_ERROR)


def test_the_last_marked_answer_counts_and_marks_cost_no_time(grader):
    (task,) = puzzles("chain_sum", 1, seed=0)
    right = task.entry["answer"]
    for text, passes in (
        (f"<answer>no</answer> wait <answer> {right} </answer> done", True),
        (f"<answer>{right}</answer> and a stray </answer>", True),
        (f"<answer>{right}</answer><answer>no</answer>", False),
        (f"<answer>no <answer>{right}</answer>", True),
        (right, True),
        ("<answer>" * 100_000, False),
        ("<answer>" * 100_000 + "</answer>" * 100_000, False),
    ):
        verdict = grader.grade([(task, text)])[0]
        assert verdict.outcome is (Outcome.PASSED if passes else Outcome.WRONG), (text[:60], verdict)


def test_nothing_is_searched_for_in_the_trainer(grader):
    (task,) = puzzles("chain_sum", 1, seed=0)
    text = "<answer>" * 1000
    assert grader.arguments(task, text)[-1] is text


@pytest.mark.parametrize(
    "family", ["game_of_life_halting", "complex_arithmetic", "coin_flip", "chain_sum", "countdown"]
)
def test_no_verifier_pays_for_an_answer_to_every_puzzle(grader, family):
    """What earns the reward of different puzzles, whatever they ask, is none of them."""
    tasks = puzzles(family, 3, seed=5)
    junk = ("unanswered", "nan", "nan+nanj", "inf", "0", "0.0", "-0", "[]", "None", "answer", "1e999", "\x00", "\ud800")
    pairs = [(task, text) for task in tasks for text in junk]
    passed = [text for (_, text), verdict in zip(pairs, grader.grade(pairs), strict=True) if verdict.passed]
    assert passed == []


@pytest.mark.parametrize(
    ("family", "spell"),
    [
        ("game_of_life_halting", str.lower),
        ("complex_arithmetic", lambda text: text.replace(".0", "").replace(" ", "")),
        ("coin_flip", lambda text: f"{float(text):.4f}"),
        ("coin_flip", lambda text: "{}/{}".format(*float(text).as_integer_ratio())),
    ],
)
def test_a_right_answer_to_a_lenient_verifier_passes_in_another_spelling(grader, family, spell):
    tasks = [task for task in puzzles(family, 6, seed=5) if family != "coin_flip" or float(task.entry["answer"]) > 0.01]
    assert tasks
    assert all(v.passed for v in grader.grade([(task, spell(str(task.entry["answer"]))) for task in tasks]))


@pytest.mark.parametrize("text", ["(" * 50_000, "9" * 300_000, "\ud800"])
def test_hostile_answers_to_puzzles_cost_the_limit_and_earn_nothing(grader, text):
    tasks = [puzzles(family, 1, seed=3)[0] for family in ("countdown", "polynomial_equations", "simple_equations")]
    assert {v.reward for v in grader.grade([(task, f"<answer>{text}</answer>") for task in tasks])} == {0.0}
