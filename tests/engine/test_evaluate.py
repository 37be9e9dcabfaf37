"""Evaluation: what the grader could not judge is never counted as wrong."""

import pytest

from entrostat.engine.evaluate import evaluate
from entrostat.engine.policy import load_policy
from entrostat.engine.rollout import Sampling
from entrostat.grading import Outcome, Verdict, WorkerError
from entrostat.tasks import listcraft


class Scripted:
    """A grader that answers with one letter a completion: p passed, f failed, x infrastructure error."""

    def __init__(self, script):
        self.script = script

    def grade(self, pairs):
        outcomes = {"p": Outcome.PASSED, "f": Outcome.WRONG, "x": Outcome.INFRASTRUCTURE_ERROR}
        return [Verdict(outcomes[letter], "no worker") for letter, _ in zip(self.script, pairs, strict=True)]


def measured(script):
    return evaluate(
        load_policy(),
        Scripted(script),
        listcraft.tasks("select", 2),
        Sampling(2, 4, batch_rows=8),
        0,
        pass_at=(1, 2),
    ).line


def test_infrastructure_errors_leave_n_and_the_pass_at_k_that_n_no_longer_reaches():
    line = measured("pfpx")
    assert [counts[1:] for counts in line["results"]] == [[2, 1], [1, 1]]
    assert line["pass_at"] == {"1": 0.75, "2": 1.0}
    assert measured("pxxf")["pass_at"]["2"] is None


def test_a_task_without_any_verdict_ends_the_evaluation_in_a_plain_error():
    with pytest.raises(WorkerError, match=r"no completion of task 'listcraft/.*' could be graded .no worker.; fix"):
        measured("pfxx")
