"""Every known way to a false pass, one a section of attacks.txt, earns nothing, whichever way the tests are run."""

from __future__ import annotations

import pytest

from entrostat.grading import Outcome

# Right under ==, which is all that an assertion asks: 2.0 == 2, and arithmetic is what the task wants.
RIGHT_BY_ASSERTION = ("floats for integers",)


@pytest.mark.parametrize("kind", ["calls", "script"])
def test_an_attack_scores_zero(attack_verdicts, attack, kind):
    verdict = attack_verdicts[kind][attack]
    if kind == "script" and attack in RIGHT_BY_ASSERTION:
        pytest.skip("an honest answer to an assertion")
    assert verdict.outcome not in (Outcome.PASSED, Outcome.INFRASTRUCTURE_ERROR), verdict
    assert verdict.reward == 0.0
