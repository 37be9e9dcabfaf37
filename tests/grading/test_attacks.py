"""Every known way to a false pass, one a section of attacks.txt, earns nothing."""

from __future__ import annotations

from entrostat.grading import Outcome


def test_an_attack_scores_zero(judge, attack):
    verdict = judge(attack)
    assert not verdict.passed
    assert verdict.outcome is not Outcome.INFRASTRUCTURE_ERROR, verdict
    assert verdict.reward == 0.0
