"""CARE: the posterior is the textbook's, the gate obeys its levels, and the deployed forms do what the paper says."""

import math
import statistics
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


def ridge(contexts, deltas, phi, noise, prior):
    """The same posterior by another way: the prior is three more rows of data, I x noise / prior, with effect 0."""
    rows = np.vstack([contexts, np.eye(3) * noise / prior])
    inverse = np.linalg.pinv(rows.T @ rows)
    mean = phi @ inverse @ rows.T @ np.concatenate([deltas, np.zeros(3)])
    return mean, noise * math.sqrt(1 + phi @ inverse @ phi)


@pytest.mark.parametrize("prior", [0.3, 1.0, 5.0])
def test_the_memory_is_a_ridge_regression_on_start_and_length(prior):
    care = Care(prior=prior, noise=(0.05, 0.3, 0.1))
    history = [
        trace(0.2, 0.5, 0.4, distinct=(1, 2), hard=(0.1, 0.3)),
        trace(0.4, 0.6, 0.3, steps=10, distinct=(2, 1), hard=(0.3, 0.2)),
        trace(0.6, 0.7, 0.65, steps=15, distinct=(1, 1.5), hard=(0.2, 0.25)),
    ]
    contexts = np.array([[1, 0.2, 1.0], [1, 0.4, 0.5], [1, 0.6, 0.75]])
    deltas = np.array([[0.2, 1, 0.2], [-0.1, -1, -0.1], [0.05, 0.5, 0.05]])
    effects = care.effects(history)
    assert np.array([effect.context for effect in effects]) == pytest.approx(contexts)
    assert np.array([effect.delta for effect in effects]) == pytest.approx(deltas)
    assert effects[0].deviation is None
    for n, effect in enumerate(effects):
        expected = [ridge(contexts[:n], deltas[:n, j], contexts[n], care.noise[j], prior) for j in range(3)]
        assert effect.confidence == pytest.approx(care.noise[0] / expected[0][1])
        if n:
            squares = [((deltas[n, j] - mean) / deviation) ** 2 for j, (mean, deviation) in enumerate(expected)]
            assert effect.deviation == pytest.approx(sum(squares))


HARMLESS = [trace(s, 0.5, s + 0.04, distinct=(1.0, 0.95), hard=(0.2, 0.19)) for s in (0.30, 0.33, 0.36, 0.39)]


def test_the_gate_goes_by_the_probability_of_a_protected_regression():
    """That of diversity and of hard cases: the worse of the two, against low and high."""
    care = Care(few=1)
    start = 0.36 + 0.04 + 0.03
    belief = care.predict(care.effects(HARMLESS), (1.0, start, 1.0))
    harm = max(
        statistics.NormalDist(mean, deviation).cdf(-tolerance)
        for mean, deviation, tolerance in zip(belief.mean[1:], belief.deviation[1:], care.tolerance, strict=True)
    )
    assert 0.2 < harm < 0.9
    below, above = harm - 1e-3, harm + 1e-3
    assert answer(Care(few=1, low=below / 2, high=below), HARMLESS) == "reject"
    assert answer(Care(few=1, low=below, high=above), HARMLESS) == "pilot"
    assert answer(Care(few=1, low=above, high=above), HARMLESS) in ("reuse", "adapt")
    assert (
        f"P(protected regression) {harm:.2f}, levels x 1.00" in Care(few=1, low=below, high=above).plan(HARMLESS).cause
    )


def test_a_gain_that_is_only_known_elsewhere_is_tried_at_half_the_rate():
    gained = [trace(s, 0.5, s + 0.05, hard=(0.2, 0.4), distinct=(1, 2)) for s in (0.30, 0.33)]
    inside, outside = trace(0.33, 0.4, 0.31, hard=(0.2, 0.4), distinct=(1, 2)), gained[0]
    sure = {"low": 1.0, "high": 1.0}
    reused = Care(**sure).plan([*gained, inside])  # starts at .31, within .30 ... .33
    assert (reused.rate, reused.budget) == (1.0, 20)
    adapted = Care(**sure).plan([*gained, outside])  # starts at .35, beyond all that gained
    assert (adapted.rate, adapted.budget) == (0.5, 20)
    assert "adapt: start 0.35 outside 0.30 ... 0.33" in adapted.cause
    assert Care(**sure, adapt_rate=0.25).plan([*gained, outside]).rate == 0.25


def test_effects_are_near_within_the_radius_and_few_of_them_are_a_pilot():
    history = [trace(0.30, 0.4, 0.35), trace(0.35, 0.5, 0.40), trace(0.40, 0.5, 0.45)]  # the next starts at .45
    sure = {"low": 1.0, "high": 1.0}
    for radius, near in ((0.04, 0), (0.06, 1), (0.11, 2), (0.16, 3)):
        for few in (1, 2, 3):
            plan = Care(**sure, radius=radius, few=few).plan(history)
            assert (plan.budget == 10) == (near < few)
            assert (f"{near} effects remembered near pass@1 0.45" in plan.cause) == (near < few)
    assert answer(Care(**sure, memory=False, radius=0.04), history) == "pilot"
    assert answer(Care(**sure, memory=False, radius=0.06), history) != "pilot"


def test_a_revision_multiplies_both_levels():
    steady = [trace(0.3, 0.4, 0.35)] * 6
    surprised = [*steady, trace(0.3, 0.4, 0.0), trace(0.3, 0.4, 0.3)]
    care = Care(few=1, tighten=0.5, low=0.3, high=0.6)
    assert care.revisions(care.effects(surprised)) == 1
    assert "levels x 0.50" in care.plan(surprised).cause
    assert care.lesson(surprised[-1], surprised[:-1])["revisions"] == 1


@pytest.mark.parametrize(
    ("worse", "unexpected"),
    [
        *[({"end": 0.0}, 1), ({"distinct": (1.0, -1.0)}, 1), ({"hard": (0.1, -0.9)}, 1)],
        *[({"end": 0.9}, 0), ({"distinct": (1.0, 9.0)}, 0), ({"hard": (0.1, 0.9)}, 0)],
    ],
)
def test_a_regression_of_any_capability_that_nothing_foretold_is_a_revision(worse, unexpected):
    care = Care()
    steady = [trace(0.3, 0.9, 0.35)] * 8
    odd = trace(0.3, 0.9, worse.pop("end", 0.35), **worse)
    assert care.revisions(care.effects([*steady, odd])) == unexpected


def test_the_forms_without_a_gate_go_by_the_predicted_gain():
    for end, budget in ((0.31, 20), (0.29, 10)):
        plan = Care(gate=False).plan([trace(0.3, 0.4, end)] * 9)
        assert plan.budget == budget
        assert f"predicted gain {'+' if end > 0.3 else '-'}0.0" in plan.cause
    assert Care(gate=False).plan([]).budget == 20
    assert Care(pilot=30).plan([]).budget == 20


def test_an_evaluation_without_hard_tasks_counts_pass_at_1_for_them():
    without = trace(0.2, 0.4, 0.3)
    for line in without.evals:
        line["hard"] = None
    assert Care().effects([without])[0].delta == pytest.approx((0.1, 0.0, 0.1))


def test_a_detection_says_how_many_campaigns_fell():
    cause = CareV1(threshold=0.5).plan([FALLEN, GOOD, FALLEN]).cause
    assert "2 of 3 campaigns ended below 0.5 of their peak" in cause
    assert CareV1().plan([GOOD]).cause is None
    exactly = trace(0.2, 0.4, 0.2)
    assert CareV1().plan([exactly]).rate == 1
    assert CareV2().plan([exactly]).budget == 20
    assert CareV2(pilot=30).plan([FALLEN]).budget == 20
    assert "10 of 20 steps" in CareV2().plan([FALLEN]).cause


def test_the_form_without_a_gate_predicts_a_full_campaign_from_the_current_start():
    """Short campaigns among the past: what they did is not what a full one will do."""
    care = Care(gate=False)
    history = [trace(0.2, 0.5, 0.4), trace(0.4, 0.6, 0.35, steps=10), trace(0.35, 0.5, 0.3, steps=5)]
    gain = care.predict(care.effects(history), (1.0, 0.3, 1.0)).mean[0]
    assert f"predicted gain {gain:+.3f}" in care.plan(history).cause
    for other in ((1.0, 0.3, 0.0), (1.0, 0.3, 2.0), (0.0, 0.3, 1.0), (2.0, 0.3, 1.0), (1.0, 0.2, 1.0)):
        assert f"{care.predict(care.effects(history), other).mean[0]:+.3f}" != f"{gain:+.3f}"
    level = [trace(0.3, 0.4, 0.3)] * 3
    assert care.plan(level).budget == 20  # a gain of exactly 0 is no loss


def test_what_gained_is_told_by_pass_at_1_alone():
    """Both gained pass@1 or not, whatever happened to diversity; no change at all is no gain."""
    sure = {"low": 1.0, "high": 1.0, "radius": 1.0}
    up = trace(0.30, 0.5, 0.36, distinct=(1.0, 0.95))
    level = trace(0.90, 0.95, 0.90, distinct=(1.0, 1.05))
    down = trace(0.60, 0.7, 0.55, distinct=(1.0, 1.05))
    last = trace(0.30, 0.5, 0.40, distinct=(1.0, 0.95))
    plan = Care(**sure).plan([up, down, level, up, up, last])
    assert "start 0.40 outside 0.30 ... 0.30" in plan.cause
    lesson = Care(**sure).lesson(last, [up, down, level])
    assert lesson["boundary"] == "gains known for pass@1 0.30 ... 0.30"
    assert Care(**sure).lesson(down, [level])["boundary"] == "no gain known"


def test_a_start_at_the_edge_of_what_gained_is_within_it():
    sure = {"low": 1.0, "high": 1.0, "radius": 1.0}
    gained = [trace(s, 0.9, s + 0.125) for s in (0.25, 0.5)]
    for edge in (0.25, 0.5):
        assert answer(Care(**sure), [*gained, trace(0.375, 0.9, edge)]) == "reuse"
    for beyond in (0.125, 0.625):
        assert answer(Care(**sure), [*gained, gained[1], trace(0.5, 0.9, beyond)]) in ("adapt", "reuse")


def test_a_lesson_is_of_the_campaign_that_ended():
    lesson = Care().lesson(trace(0.4, 0.5, 0.45, steps=10, distinct=(1, 3), hard=(0.2, 0.5)), [GOOD])
    assert (lesson["strategy"], lesson["cause"]) == ("10 steps", "care: effect of 10 steps")
    assert lesson["context"] == {"positive_rate": 0.4, "share_of_steps": 0.5}
    assert lesson["delta"] == pytest.approx({"pass@1": 0.05, "diversity": 2.0, "hard": 0.3})
    assert lesson["deviation"] > 0
    assert Care().lesson(GOOD, [])["deviation"] is None


@pytest.mark.parametrize(
    "settings",
    [
        *(
            {name: 0}
            for name in ("pilot", "steps", "low", "high", "adapt_rate", "quantile", "tighten", "prior", "radius")
        ),
        *({name: 1.01} for name in ("high", "adapt_rate", "quantile", "tighten")),
        *[{"noise": (0.1, 0.0, 0.1)}, {"noise": (0.1, 0.1, 0.0)}],
    ],
)
def test_every_setting_of_care_has_its_range(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Care(**settings)


def test_settings_at_the_end_of_their_ranges_are_accepted():
    Care(low=1, high=1, adapt_rate=1, quantile=1, tighten=1, pilot=1, few=1, steps=1, radius=1e-9, prior=1e-9)
    Care(low=0.5, high=0.5)
    assert CareV1(threshold=1, factor=1, steps=1).plan([FALLEN]).rate == 1
    assert CareV2(threshold=1, pilot=1, steps=1).plan([FALLEN]).budget == 1
    for make in (
        lambda: CareV1(factor=0),
        lambda: CareV1(factor=1.1),
        lambda: CareV1(steps=0),
        lambda: CareV2(steps=0),
    ):
        with pytest.raises(ValueError, match="give"):
            make()


@pytest.mark.parametrize(("worse", "distinct", "hard"), [(1, (1.0, 0.85), (0.2, 0.24)), (2, (1.0, 1.2), (0.2, 0.17))])
def test_the_worse_of_the_two_protected_capabilities_decides_by_its_own_deviation(worse, distinct, hard):
    care = Care(few=1, low=1.0, high=1.0)
    history = [trace(s, 0.5, s + 0.04, distinct=distinct, hard=hard) for s in (0.30, 0.33, 0.36)]
    belief = care.predict(care.effects(history), (1.0, 0.40, 1.0))
    harms = [statistics.NormalDist(belief.mean[j], belief.deviation[j]).cdf(-care.tolerance[j - 1]) for j in (1, 2)]
    assert max(harms) == harms[worse - 1]
    assert f"P(protected regression) {max(harms):.2f}," in Care(few=1, radius=1.0).plan(history).cause
