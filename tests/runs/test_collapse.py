import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrostat.runs import (
    Trajectory,
    carryover,
    collapse_report,
    end_to_peak,
    evaluation_error,
    find_cliff,
    hindsight_oracle,
    noise_floor,
    slope_of_ends,
    trace_oracle,
)

VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def trajectory(*values: float, every: int = 1) -> Trajectory:
    return Trajectory(tuple(range(0, every * len(values), every)), values)


def test_the_first_maximum_is_the_peak():
    assert trajectory(0.1, 0.5, 0.3, 0.5).peak_step == 1
    assert trajectory(0.2, 0.2, every=4).peak_step == 0
    assert trajectory(0.1, 0.2, 0.4, every=4).peak_step == 8


@pytest.mark.parametrize(
    ("steps", "values"), [((), ()), ((0, 1), (0.5,)), ((1, 1), (0.5, 0.5)), ((2, 1), (0.5, 0.5)), ((0,), (1.5,))]
)
def test_a_trajectory_that_is_none_is_refused(steps: tuple[int, ...], values: tuple[float, ...]):
    with pytest.raises(ValueError, match=r"steps|pass_at_1"):
        Trajectory(steps, values)


def test_nan_is_no_pass_at_1():
    with pytest.raises(ValueError, match="nan at step 0"):
        Trajectory((0,), (math.nan,))


def test_a_trajectory_is_the_task_mean_of_each_evaluation():
    lines = [
        {"step": 2, "split": "select", "results": [["a", 4, 4], ["b", 2, 0]]},
        {"step": 0, "split": "select", "results": [["a", 4, 1], ["b", 2, 0]]},
    ]
    assert Trajectory.from_evals(lines) == Trajectory((0, 2), (0.125, 0.5))


def test_an_unevaluated_step_has_no_value():
    with pytest.raises(ValueError, match="step 3"):
        trajectory(0.1, 0.2).at(3)


def test_the_peak_is_chosen_on_select_and_read_on_report():
    select = trajectory(0.1, 0.6, 0.5, 0.2)
    report = trajectory(0.1, 0.4, 0.9, 0.1)
    found = collapse_report(select, report)
    assert (found.peak_step, found.peak, found.end, found.start) == (1, 0.4, 0.1, 0.1)
    assert found.gap == pytest.approx(0.3)
    assert found.select_gap == pytest.approx(0.4)


def test_the_noise_floor_counts_every_evaluation_of_the_report_split():
    both = trajectory(0.2, 0.5, 0.4, 0.4)
    counts = [(16, 8)] * 30
    assert collapse_report(both, both, counts).noise_floor == noise_floor(counts, 4)
    assert collapse_report(both, both).noise_floor is None


@given(VALUES, VALUES)
def test_the_report_split_cannot_move_the_peak(select: list[float], report: list[float]):
    length = min(len(select), len(report))
    chosen = collapse_report(trajectory(*select[:length]), trajectory(*report[:length])).peak_step
    assert chosen == trajectory(*select[:length]).peak_step


@pytest.mark.parametrize(("end", "collapsed"), [(0.29, True), (0.35, False)])
def test_a_gap_above_a_fifth_is_a_collapse(end: float, collapsed: bool):
    both = trajectory(0.2, 0.5, end)
    assert collapse_report(both, both).collapsed is collapsed


def test_a_cliff_worked_by_hand():
    cliff = find_cliff(trajectory(0.1, 0.6, 0.55, 0.45, 0.05, 0.1, every=2))
    assert cliff is not None
    assert (cliff.low, cliff.onset_largest, cliff.onset_half, cliff.decisions_left) == (0.05, 8, 8, 1)
    assert cliff.phase_score == pytest.approx(0.4 / 0.55)


def test_a_slow_fall_has_its_half_before_its_end():
    cliff = find_cliff(trajectory(0.8, 0.6, 0.4, 0.2, 0.0))
    assert cliff is not None
    assert cliff.phase_score == pytest.approx(0.25)
    assert cliff.onset_half == 3


@given(VALUES)
def test_a_cliff_exists_exactly_where_something_falls(values: list[float]):
    path = trajectory(*values)
    cliff = find_cliff(path)
    assert (cliff is None) == (min(values[path.peak_index :]) == path.peak)
    if cliff is not None:
        assert 0.0 < cliff.phase_score <= 1.0 + 1e-12
        assert cliff.low < path.peak
        assert path.peak_step < cliff.onset_half
        assert path.peak_step < cliff.onset_largest


@given(VALUES)
def test_a_phase_score_is_free_of_scale(values: list[float]):
    cliff, halved = find_cliff(trajectory(*values)), find_cliff(trajectory(*(v / 2 for v in values)))
    if cliff is not None and cliff.low > 1e-300:
        assert halved == replace(cliff, low=cliff.low / 2)


@pytest.mark.parametrize(("samples", "floor"), [(64, 0.10), (480, 0.037)])
def test_the_noise_floor_of_a_flat_quarter(samples: int, floor: float):
    assert noise_floor([(samples, samples // 4)], evaluations=20) == pytest.approx(floor, rel=0.02)


def test_the_noise_floor_is_the_gap_that_a_flat_policy_shows():
    """Monte Carlo: evaluate a policy that never changes, and average max - end."""
    generator = np.random.default_rng(0)
    p = np.array([0.05, 0.2, 0.5, 0.8] * 8)
    evaluations = generator.binomial(16, p, size=(4_000, 20, p.size)).mean(axis=2) / 16
    measured = float((evaluations.max(axis=1) - evaluations[:, -1]).mean())
    floors = [noise_floor([(16, int(c)) for c in generator.binomial(16, p)], 20) for _ in range(50)]
    assert np.mean(floors) == pytest.approx(measured, rel=0.03)


def test_one_evaluation_has_no_gap_and_two_have_a_known_one():
    counts = [(100, 50)]
    assert noise_floor(counts, 1) == pytest.approx(0.0, abs=1e-12)
    assert noise_floor(counts, 2) == pytest.approx(evaluation_error(counts) / math.sqrt(math.pi))


@given(st.integers(1, 400))
def test_more_evaluations_raise_the_floor(evaluations: int):
    assert noise_floor([(10, 4)], evaluations + 1) > noise_floor([(10, 4)], evaluations)


def test_the_error_is_unbiased_and_leaves_the_spread_of_tasks_out():
    assert evaluation_error([(4, 4), (4, 0)]) == 0.0
    exact = sum(math.comb(5, c) * 0.3**c * 0.7 ** (5 - c) * evaluation_error([(5, c)]) ** 2 for c in range(6))
    assert exact == pytest.approx(0.3 * 0.7 / 5)


def test_single_samples_are_bounded_by_their_pooled_spread():
    assert evaluation_error([(1, 1), (1, 0), (1, 0), (1, 0)]) == pytest.approx(math.sqrt(0.25 * 0.75 / 4))


def test_empty_input_is_refused():
    with pytest.raises(ValueError, match="counts is empty"):
        evaluation_error([])
    with pytest.raises(ValueError, match="evaluations is 0"):
        noise_floor([(4, 1)], 0)
    with pytest.raises(ValueError, match="chain is empty"):
        hindsight_oracle([])


def test_the_trace_oracle_hands_over_the_peak_seen_before_the_stop():
    select = trajectory(0.1, 0.4, 0.3, 0.2, 0.9)
    report = trajectory(0.0, 0.35, 0.3, 0.2, 0.8)
    assert trace_oracle(select, report, lambda seen: seen.steps[-1] >= seen.peak_step + 2) == 0.35
    assert trace_oracle(select, report, lambda seen: False) == 0.8


def test_the_hindsight_oracle_is_the_best_of_all():
    assert hindsight_oracle([trajectory(0.1, 0.3), trajectory(0.6, 0.2)]) == 0.6


def test_the_end_to_peak_ratio_of_nothing_is_one():
    assert end_to_peak(trajectory(0.1, 0.4, 0.1)) == pytest.approx(0.25)
    assert end_to_peak(trajectory(0.0, 0.04, 0.0)) == 1.0
    assert end_to_peak(trajectory(0.0), least_peak=0.0) == 1.0


def test_what_a_chain_carries_over():
    chain = [trajectory(0.2, 0.5), trajectory(0.4, 0.3), trajectory(0.3, 0.1)]
    assert carryover(chain) == pytest.approx((-0.1, 0.0))
    assert slope_of_ends(chain) == pytest.approx(-0.2)
    with pytest.raises(ValueError, match="at least 2"):
        slope_of_ends(chain[:1])


def test_the_smallest_fall_that_floats_can_show_is_found():
    cliff = find_cliff(trajectory(1.0, math.nextafter(1.0, 0.0), 1.0))
    assert cliff is not None
    assert (cliff.onset_half, cliff.onset_largest, cliff.phase_score) == (1, 1, 1.0)
