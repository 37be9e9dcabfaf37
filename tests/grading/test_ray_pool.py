"""Grading by Ray actors: the same verdicts, and none invented when an actor dies."""

from __future__ import annotations

import pytest

from entrostat.grading import Outcome
from entrostat.grading.ray_pool import RayGrader
from entrostat.tasks import Call, Task

ray = pytest.importorskip("ray", reason="pip install ray to grade on a cluster")
ADD = Task("add", "", "solve", (Call((1,), 2),))
CODES = ["def solve(x):\n    return x + 1", "def solve(x):\n    return 0", "no code"] * 7


@pytest.fixture(scope="module")
def pool():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    with RayGrader(actors=2, timeout=2.0) as pool:
        yield pool
    ray.shutdown()


def test_verdicts_keep_their_order(pool):
    outcomes = [verdict.outcome for verdict in pool.grade([(ADD, code) for code in CODES])]
    assert outcomes == [Outcome.PASSED, Outcome.WRONG, Outcome.NO_CODE] * 7


def test_an_actor_that_dies_costs_no_verdict(pool):
    ray.kill(pool._actors[0])
    outcomes = [verdict.outcome for verdict in pool.grade([(ADD, code) for code in CODES])]
    assert outcomes == [Outcome.PASSED, Outcome.WRONG, Outcome.NO_CODE] * 7


def test_what_is_not_begun_by_the_deadline_is_no_reward_at_all(pool):
    assert {verdict.reward for verdict in pool.grade([(ADD, code) for code in CODES], deadline=0)} == {None}


def test_no_pairs_are_no_verdicts(pool):
    assert pool.grade([]) == []
