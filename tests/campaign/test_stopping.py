from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrostat.campaign import CampaignTrace, Checkpoint, EarlyStop, GoOn, Naive, Plan, Progress, Stop, Trajectory
from entrostat.campaign.stopping import standing

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


def test_online_early_stop_ends_at_the_first_evaluation_beyond_its_patience():
    assert not EarlyStop(patience=6).should_stop(Trajectory((0, 5), (0.5, 0.4)))
    assert EarlyStop(patience=4).should_stop(Trajectory((0, 5), (0.5, 0.4)))
    assert EarlyStop(patience=5).should_stop(Trajectory((0, 5), (0.5, 0.4)))


def test_a_mode_that_was_read_from_a_file_is_the_same_mode():
    online, budget = ("".join(list(mode)) for mode in ("online", "budget"))
    assert EarlyStop(mode=online).should_stop(trajectory(0.5, 0.4, 0.3, 0.2))
    assert EarlyStop(mode=budget).budget([trace(0.5, 0.1)]) == 3


def test_where_a_campaign_stands_is_its_end_and_its_peak():
    expected = "pass@1 on select is 0.200 at step 9, its highest was 0.500 at step 3"
    assert standing(Trajectory((0, 3, 9), (0.1, 0.5, 0.2))) == expected


@pytest.mark.parametrize(("budget", "rate"), [(-1, 1.0), (1, 0.0), (1, -0.5), (-1, 0.0)])
def test_a_plan_is_of_0_steps_or_more_at_a_rate_above_0(budget, rate):
    with pytest.raises(ValueError, match="give budget >= 0 and rate > 0"):
        Plan(budget, rate)
    assert (Plan(0).budget, Plan(0).rate, Plan(1, 1e-9).rate) == (0, 1.0, 1e-9)


def test_a_rule_decides_at_the_steps_that_were_evaluated():
    evals = [{"step": step, "results": [["t", 10, c]]} for step, c in ((0, 5), (3, 4))]

    def order(step, lines):
        return EarlyStop().decide(Progress(step, 20, [], lines, (0, step), 1), [])

    stop = order(3, evals)
    assert isinstance(stop, Stop)
    assert stop.cause == "EarlyStop: pass@1 on select is 0.400 at step 3, its highest was 0.500 at step 0"
    assert order(4, evals) == order(2, evals[:1]) == order(1, []) == GoOn()


@pytest.mark.parametrize(
    ("at", "confirmed", "refused"),
    [
        *[((0, 1, 2), None, None), ((1, 1, 2), None, "start"), ((0, 0, 2), None, "peak"), ((0, 1, 1), None, "end")],
        *[((0, 2, 2), 2, None), ((0, 1, 2), 2, "peak"), ((1, 2, 2), 2, "start"), ((0, 0, 1), 0, None)],
    ],
)
def test_a_trace_has_the_checkpoints_of_its_steps(at, confirmed, refused):
    """Of a campaign whose rule chose the peak the select split need not have been evaluated at the end."""
    curve = trajectory(0.1, 0.5, 0.2)
    points = [Checkpoint(Path("c"), step) for step in at]
    if refused is None:
        assert CampaignTrace(curve, curve, *points, confirmed=confirmed).steps_used == at[-1]
    else:
        with pytest.raises(ValueError, match=f"^{refused} is a checkpoint of step"):
            CampaignTrace(curve, curve, *points, confirmed=confirmed)
