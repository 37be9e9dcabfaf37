"""CARE: the posterior is the textbook's, the gate obeys its levels, and the deployed forms do what the paper says."""

import math
from pathlib import Path

import numpy as np
import pytest

from entrostat.campaign import CampaignTrace, Care, CareV1, CareV2, Checkpoint, Trajectory


def trace(start, peak, end, steps=20, distinct=(1.0, 1.0), hard=(0.1, 0.1)):
    """A campaign with its peak in the middle."""
    at = (0, max(1, steps // 2), steps) if steps > 1 else (0, 1, 2)
    values = (start, peak, end)
    select = Trajectory(at, values)
    vectors = {0: (distinct[0], hard[0]), at[2]: (distinct[1], hard[1]), at[1]: (distinct[1], hard[1])}
    evals = [{"step": s, "results": [], "distinct": vectors[s][0], "hard": vectors[s][1]} for s in at]
    points = [Checkpoint(Path("x"), s) for s in (0, select.peak_step, at[2])]
    return CampaignTrace(select, select, *points, evals=evals)


GOOD, FALLEN = trace(0.2, 0.4, 0.38), trace(0.2, 0.4, 0.1)


def test_v1_halves_the_rate_at_each_detection_and_v2_sets_the_next_budget_alone():
    assert [CareV1().plan(h).rate for h in ([], [GOOD], [FALLEN], [FALLEN, GOOD, FALLEN])] == [1, 1, 0.5, 0.25]
    assert [CareV2().plan(h).budget for h in ([], [GOOD], [FALLEN], [FALLEN, GOOD])] == [20, 20, 10, 20]
    for rule in (CareV1(), CareV2(), Care()):
        assert rule.hand_over(FALLEN) == FALLEN.end


def test_the_posterior_mean_of_many_equal_campaigns_is_their_effect_and_its_deviation_the_noise():
    care = Care()
    belief = care.predict(care.effects([trace(0.2, 0.4, 0.3)] * 200), (1.0, 0.2, 1.0))
    assert belief.mean == pytest.approx([0.1, 0.0, 0.0], abs=1e-3)
    assert belief.deviation == pytest.approx(care.noise, rel=0.01)


def test_without_campaigns_the_prediction_is_the_prior():
    phi = (1.0, 0.5, 1.0)
    belief = Care(prior=2.0, noise=(0.1, 0.1, 0.1)).predict([], phi)
    assert np.allclose(belief.mean, 0)
    assert belief.deviation == pytest.approx([math.sqrt(0.01 + 4 * (1 + 0.25 + 1))] * 3)


def test_the_posterior_is_the_batch_solution_whatever_the_order():
    care = Care()
    traces = [trace(0.1, 0.3, 0.2), trace(0.3, 0.5, 0.1), trace(0.2, 0.2, 0.2, steps=10)]
    one = care.predict(care.effects(traces), (1.0, 0.25, 1.0))
    other = care.predict(care.effects(traces[::-1]), (1.0, 0.25, 1.0))
    assert one.mean == pytest.approx(other.mean)
    assert one.deviation == pytest.approx(other.deviation)


def answer(care, history):
    return care.plan(history).cause.split(": ")[1]


def test_the_gate_pilots_what_it_does_not_know_reuses_what_helped_and_rejects_what_harms_a_protected_capability():
    care = Care()
    helped = [trace(0.30, 0.4, 0.36), trace(0.34, 0.42, 0.40), trace(0.36, 0.42, 0.41), trace(0.35, 0.4, 0.36)]
    harmed = [trace(0.3, 0.3, 0.3, distinct=(2.0, 0.8), hard=(0.4, 0.1))] * 4
    far = [trace(0.9, 0.95, 0.92)] * 4
    assert answer(care, []) == "pilot"
    assert answer(care, helped[:1]) == "pilot"
    assert answer(care, helped) == "reuse"
    assert answer(care, [*far, trace(0.9, 0.9, 0.2)]) in ("pilot", "reject")
    assert answer(care, harmed) == "reject"
    assert care.plan(harmed).budget == 0
    assert care.plan(helped).budget == 20


def test_a_surprising_regression_tightens_the_gate_and_a_surprising_gain_does_not():
    care = Care()
    steady = [trace(0.3, 0.4, 0.35)] * 6
    assert care.revisions(care.effects(steady)) == 0
    assert care.revisions(care.effects([*steady, trace(0.3, 0.9, 0.9)])) == 0
    assert care.revisions(care.effects([*steady, trace(0.3, 0.4, 0.0)])) == 1


def test_the_ablations_differ_where_their_module_is_missing():
    fallen = [trace(0.3, 0.4, 0.1)] * 3
    assert Care(gate=False).plan(fallen).budget == 10
    assert Care(gate=False).plan([trace(0.3, 0.5, 0.45)] * 3).budget == 20
    gate_only = Care(memory=False)
    harmful, harmless = trace(0.3, 0.3, 0.3, hard=(0.6, 0.0)), trace(0.3, 0.31, 0.31)
    assert gate_only.plan([harmful, harmless]) == gate_only.plan([harmless])


def test_the_memory_entry_names_context_effect_boundary_and_confidence():
    lesson = Care().lesson(FALLEN, [GOOD])
    assert lesson["kind"] == "memory"
    assert lesson["context"]["positive_rate"] == 0.2
    assert lesson["delta"]["pass@1"] == pytest.approx(-0.1)
    assert 0 < lesson["confidence"] <= 1
    assert "0.20 ... 0.20" in lesson["boundary"]


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Care(low=0.8), "low is 0.8"),
        (lambda: Care(noise=(0.0, 1.0, 1.0)), "noise"),
        (lambda: Care(few=0), "few is 0"),
        (lambda: CareV1(threshold=0), "threshold is 0"),
        (lambda: CareV2(pilot=0), "pilot is 0"),
    ],
)
def test_a_setting_out_of_range_is_refused(make, field):
    with pytest.raises(ValueError, match=field):
        make()
