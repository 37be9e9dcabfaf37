"""Completions are graded while others are drawn: each once, for its own task, and a fault ends it all."""

import pytest

from entrostat.engine.policy import load_policy
from entrostat.engine.rollout import Sampling, sample, sample_graded
from entrostat.grading import Outcome, Verdict
from entrostat.tasks import listcraft

TASKS = listcraft.tasks("train", 6)


class Echo:
    """A grader whose verdict's detail is what it was given."""

    def __init__(self, fault=None):
        self.batches, self.fault, self.interrupted = [], fault, False

    def grade(self, pairs):
        if self.fault:
            raise self.fault
        self.batches.append(pairs)
        return [Verdict(Outcome.PASSED, f"{task.id}|{text!r}") for task, text in pairs]

    def interrupt(self):
        self.interrupted = True


def graded(grader, batch_rows=24):
    return sample_graded(load_policy(), grader, TASKS, Sampling(4, 32, batch_rows=batch_rows), 7)


@pytest.mark.parametrize("batch_rows", [24, 8, 1])
def test_every_completion_is_graded_once_for_its_own_task(batch_rows):
    grader = Echo()
    found = graded(grader, batch_rows)
    assert (
        found.rollout.texts
        == sample(load_policy(), [task.prompt for task in TASKS], Sampling(4, 32, batch_rows=24), 7).texts
    )
    owners = [task.id for task in TASKS for _ in range(4)]
    told = [verdict.detail for verdict in found.verdicts]
    assert told == [f"{owner}|{text!r}" for owner, text in zip(owners, found.rollout.texts, strict=True)]
    assert sum(len(batch) for batch in grader.batches) == 24


def test_short_completions_are_graded_before_the_longest_is_drawn():
    grader = Echo()
    lengths = dict(zip(graded(grader).rollout.texts, graded(Echo()).rollout.lengths.tolist(), strict=True))
    assert len(grader.batches) > 2
    longest = [max(lengths[text] for _, text in batch) for batch in grader.batches]
    assert longest == sorted(longest)


def test_a_fault_of_the_grader_is_raised_and_ends_what_is_under_way():
    grader = Echo(fault=RuntimeError("broken"))
    with pytest.raises(RuntimeError, match="broken"):
        graded(grader)
    assert grader.interrupted
