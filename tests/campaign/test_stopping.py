from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrostat.campaign import CampaignTrace, Checkpoint, EarlyStop, Naive, Trajectory

CURVES = st.lists(st.floats(0, 1), min_size=1, max_size=40)


def trajectory(*values: float) -> Trajectory:
    return Trajectory(tuple(range(len(values))), values)


def trace(*values: float) -> CampaignTrace:
    select = trajectory(*values)
    start, peak, end = (Checkpoint(Path(str(s)), s) for s in (0, select.peak_step, select.steps[-1]))
    return CampaignTrace(select, select, start, peak, end)


@given(CURVES)
def test_naive_never_stops_and_hands_over_the_end(values: list[float]):
    assert not Naive().should_stop(trajectory(*values))
    assert Naive().hand_over(trace(*values)).step == len(values) - 1
    assert Naive(steps=7).budget([trace(*values)]) == 7


@given(CURVES, st.integers(1, 6))
def test_online_early_stop_ends_exactly_patience_steps_after_the_peak(values: list[float], patience: int):
    rule = EarlyStop(patience=patience)
    stopped = next((t for t in range(1, len(values) + 1) if rule.should_stop(trajectory(*values[:t]))), None)
    if stopped is None:
        assert len(values) - 1 < trajectory(*values).peak_step + patience
    else:
        assert stopped - 1 == trajectory(*values[:stopped]).peak_step + patience


@given(CURVES)
def test_early_stop_hands_over_the_first_maximum_in_both_modes(values: list[float]):
    for rule in (EarlyStop(), EarlyStop(mode="budget")):
        assert rule.hand_over(trace(*values)).step == values.index(max(values))


def test_a_campaign_that_only_falls_hands_over_its_start():
    assert EarlyStop().hand_over(trace(0.5, 0.4, 0.3, 0.2)).step == 0
    assert EarlyStop().should_stop(trajectory(0.5, 0.4, 0.3, 0.2))


def test_budget_mode_sets_the_next_budget_to_the_last_peak_plus_patience():
    rule = EarlyStop(mode="budget")
    assert rule.budget([]) == 20
    assert rule.budget([trace(0.1, 0.2, 0.3, 0.1)]) == 5
    assert rule.budget([trace(0.1, 0.2, 0.3, 0.4), trace(0.5, 0.1)]) == 3
    assert rule.budget([trace(*[s / 30 for s in range(19)])]) == 20
    assert not rule.should_stop(trajectory(0.5, 0.4, 0.3, 0.2, 0.1))


def test_online_mode_forgets_earlier_campaigns():
    assert EarlyStop().budget([trace(0.5, 0.1)]) == 20


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Naive(steps=0), "steps"),
        (lambda: EarlyStop(patience=0), "patience"),
        (lambda: EarlyStop(steps=0), "steps"),
        (lambda: EarlyStop(mode="offline"), "mode"),
    ],
)
def test_a_rule_out_of_range_is_refused_by_its_field(make, field: str):
    with pytest.raises(ValueError, match=f"^{field} is"):
        make()


def test_a_trace_whose_peak_checkpoint_is_of_another_step_is_refused():
    select, report = trajectory(0.1, 0.5, 0.2), trajectory(0.1, 0.2, 0.6)
    at = [Checkpoint(Path("c"), step) for step in range(3)]
    assert CampaignTrace(select, report, at[0], at[1], at[2]).steps_used == 2
    with pytest.raises(ValueError, match=r"^peak is a checkpoint of step 2"):
        CampaignTrace(select, report, at[0], at[2], at[2])
    with pytest.raises(ValueError, match="step 1 was not evaluated"):
        CampaignTrace(select, Trajectory((0, 2), (0.1, 0.2)), at[0], at[1], at[2])
