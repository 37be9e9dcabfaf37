"""What the entropy detectors compare, at their thresholds and in their formulas."""

import math

import numpy as np
import pytest
from tests.diagnosis.made import DETECTOR, EVERY, jump, level, look, recorded

from entrostat.diagnosis.remedies import COLLAPSE, COLLAPSE_BY_PUNISHMENT
from entrostat.diagnosis.statistics import fit_line, noise
from entrostat.runs.finding import Finding


def falling(rate, rows):
    return {"entropy": 2 * np.exp(-rate * np.arange(rows))}


@pytest.mark.parametrize("rate", [0.031, 0.11, 0.17])
def test_there_is_no_forecast_before_half_of_the_start_is_gone(rate):
    """Start and now are medians, so the values of the third row and of the last but one."""
    rows = 4 + math.ceil(math.log(2) / rate)
    assert look("entropy-collapse", falling(rate, rows - 1), end=9999, reach=99.0) is None
    assert look("entropy-collapse", falling(rate, rows), end=9999, reach=99.0) is not None


def test_a_forecast_needs_its_window():
    assert look("entropy-collapse", falling(0.3, 7), end=9999) is None
    assert look("entropy-collapse", falling(0.3, 8), end=9999).severity == "warning"
    assert look("entropy-collapse", falling(0.17, 11), end=9999, window=12) is None
    assert look("entropy-collapse", falling(0.17, 12), end=9999, window=12).severity == "warning"


@pytest.mark.parametrize(("left", "severity"), [(0.0499, "critical"), (0.05, "critical"), (0.0501, None)])
def test_the_floor_is_a_twentieth_of_the_start(left, severity):
    finding = look("entropy-collapse", {"entropy": jump(1, left)}, end=9999)
    assert (finding and finding.severity) == severity


@pytest.mark.parametrize(
    ("entropy", "severity"),
    [
        (level(9, 0), "note"),
        (level(9, 0.004), "warning"),
        ([*level(4, 0), 0.001, *level(4, 0)], "warning"),
        ([*level(4, 0.001), 0.0049, *level(4, 0.001)], "warning"),
        ([*level(4, 0.001), 0.005, *level(4, 0.001)], None),
        ([*level(5, 0.001), *level(4, 0.005)], None),
    ],
)
def test_an_entropy_that_was_never_there_was_below_a_two_hundredth_at_every_step(entropy, severity):
    finding = look("entropy-collapse", {"entropy": entropy})
    assert (finding and finding.severity) == severity
    if finding:
        assert finding.onset == EVERY
        assert finding.evidence == {"greatest": max(entropy)}


def test_a_forecast_has_the_interval_of_its_slope_around_the_centre_of_the_window():
    found = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        entropy = np.exp(-0.1 * np.arange(20) + 0.06 * rng.normal(size=20))
        finding = look("entropy-collapse", {"entropy": entropy}, end=9999, reach=99.0)
        if finding is None:
            continue
        found += 1
        steps = EVERY * np.arange(13.0, 21.0)
        whole, late = fit_line(steps, np.log(entropy[-8:])), fit_line(steps[4:], np.log(entropy[-4:]))
        floor = math.log(0.05 * np.median(entropy[:5]))
        height = whole.intercept + whole.slope * steps.mean() - floor
        soonest, latest = (steps.mean() - height / slope for slope in whole.slope_bounds(0.95))
        alone = (floor - late.intercept) / late.slope
        evidence = finding.evidence
        assert evidence["arrival"] == pytest.approx((floor - whole.intercept) / whole.slope)
        assert evidence["arrival_soonest"] == pytest.approx(soonest)
        assert evidence["arrival_latest"] == pytest.approx(max(latest, alone))
        assert evidence["arrival_latest"] >= evidence["arrival"] > finding.step
        assert whole.slope_bounds(0.95)[1] < 0
        assert late.slope < 0
        interval = f"[{evidence['arrival_soonest']:.0f}, {evidence['arrival_latest']:.0f}]"
        assert interval in finding.summary
    assert found > 5


def test_a_fall_that_may_be_a_rise_or_has_turned_into_one_is_not_forecast():
    fallen = [*level(20, 1), *np.exp(-0.3 * np.arange(1, 5))]
    unsure = [0.3, 0.2, 0.35, 0.15, 0.32, 0.24, 0.2, 0.1]
    turned = np.exp(-0.3 * np.array([5, 6, 7, 8, 8, 7.9, 7.8, 7.7]))
    steps = np.arange(8.0)
    assert fit_line(steps, np.log(unsure)).slope_bounds(0.95)[1] > 0
    assert fit_line(steps[4:], np.log(unsure[4:])).slope < 0
    assert fit_line(steps, np.log(turned)).slope_bounds(0.95)[1] < 0
    assert fit_line(steps[4:], np.log(turned[4:])).slope > 0
    for late in (unsure, turned):
        assert look("entropy-collapse", {"entropy": [*fallen, *late]}, end=9999, reach=99.0) is None


@pytest.mark.parametrize(
    ("arrival", "step", "since", "believed"),
    [(200, 100, 50, True), (200, 100, 51, False), (201, 100, 50, False), (300, 100, 0, True), (None, 100, 100, True)],
)
def test_a_forecast_is_believed_once_it_has_stood_for_half_as_long_as_it_looks_ahead(arrival, step, since, believed):
    evidence = {} if arrival is None else {"arrival": float(arrival)}
    finding = Finding("entropy-collapse", "warning", step=step, onset=1, summary="", evidence=evidence, columns=())
    assert DETECTOR["entropy-collapse"].believed(finding, since, 9) == believed


def test_an_entropy_that_only_expands_blames_no_region_and_equal_shares_are_not_punishment():
    fallen = {"entropy": jump(1, 0.01)}
    expanding = look("entropy-collapse", {**fallen, "flow_E1": level(20, 1), "flow_E4": level(20, 0)})
    assert not [name for name in expanding.evidence if name.startswith("share")]
    assert expanding.summary.endswith("1% of its start.")
    for punished, remedies in ((0.9, COLLAPSE), (1.0, COLLAPSE), (1.1, COLLAPSE_BY_PUNISHMENT)):
        flows = {"flow_E1": level(20, -1), "flow_E4": level(20, -punished)}
        assert look("entropy-collapse", {**fallen, **flows}).remedies == remedies


def test_an_explosion_is_measured_from_the_least_median_of_five_rows_before_the_last_three():
    found = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        entropy = np.exp(rng.normal(size=int(rng.integers(10, 16))))
        entropy[-3:] *= 8
        start, now = np.median(entropy[:5]), np.median(entropy[-3:])
        low = min(np.median(entropy[i : i + 5]) for i in range(len(entropy) - 7))
        explodes = now > 1.5 * start and now > 2.5 * low and now - low > 6 * noise(entropy)
        finding = look("entropy-explosion", {"entropy": entropy})
        assert (finding is not None) == explodes
        if finding:
            found += 1
            assert finding.evidence == pytest.approx({"start": start, "low": low, "now": now})
            assert finding.levels == pytest.approx({"start": start, "lowest": low})
    assert found > 20


@pytest.mark.parametrize(("score", "ending"), [(0.5, "lowest."), (0.1, "and the score has fallen since.")])
def test_an_explosion_says_whether_the_score_has_fallen(score, ending):
    finding = look("entropy-explosion", {"entropy": jump(1, 9), "reward": jump(0.5, score)})
    assert finding.summary.endswith(ending)


@pytest.mark.parametrize(("entropy", "stands"), [(0.09, True), (0.1, True), (0.101, False)])
def test_a_collapse_stands_until_the_entropy_has_doubled_from_its_floor(entropy, stands):
    finding = look("entropy-collapse", {"entropy": jump(1, 0.01)})
    later = recorded({"entropy": [*jump(1, 0.01), *level(3, entropy)]})
    assert DETECTOR["entropy-collapse"].persists(later, finding) == stands
