"""What the detector of groups that teach nothing compares, at its thresholds and in its formulas."""

import numpy as np
import pytest
from scipy.stats import binom
from tests.diagnosis.made import EVERY, jump, level, look

from entrostat.diagnosis.remedies import ALL_RIGHT, ALL_WRONG


@pytest.mark.parametrize(
    ("rate", "share", "severity", "remedies"),
    [
        *[(0.9, 0.9, "note", ALL_RIGHT), (0.9, 0.95, "note", ALL_RIGHT), (0.9, 0.96, "warning", ALL_RIGHT)],
        *[(0.1, 0.9, "warning", ALL_WRONG), (0.1, 0.95, "warning", ALL_WRONG), (0.1, 0.96, "critical", ALL_WRONG)],
        (0.5, 0.9, "warning", ALL_WRONG),  # as many right as wrong
    ],
)
def test_too_hard_is_graver_than_too_easy_and_nearly_all_than_most(rate, share, severity, remedies):
    finding = look("degenerate-groups", {"equal_groups": level(10, share), "reward": level(10, rate)})
    assert (finding.severity, finding.remedies) == (severity, remedies)
    assert ("too easy" in finding.summary) == (remedies == ALL_RIGHT)
    assert ("too hard" in finding.summary) == (remedies == ALL_WRONG)
    assert finding.levels == {"limit": 0.85}


def test_the_mean_reward_that_tells_right_from_wrong_is_that_of_the_last_ten_rows():
    columns = {"equal_groups": level(40, 0.9), "reward": jump(0.0, 0.6, 30)}
    assert look("degenerate-groups", columns).evidence["all_right"] == pytest.approx(0.55)


def test_both_kinds_are_read_where_both_have_ten_values_and_else_their_sum():
    kinds = {"all_right": level(12, 0.7), "equal_groups": level(12, 0.9)}
    ten = look("degenerate-groups", {**kinds, "all_wrong": jump(0.2, 0.25, 2, 8)})
    assert ten.columns == ("all_right", "all_wrong")
    assert ten.summary.startswith("95% of the groups")  # of the last four rows, for there is one every ten steps
    assert ten.levels == {}
    assert look("degenerate-groups", {**kinds, "all_wrong": level(9, 0.2)}).columns == ("equal_groups",)
    assert look("degenerate-groups", {**kinds, "all_right": level(9, 0.7), "all_wrong": level(12, 0.2)}).columns == (
        "equal_groups",
    )


@pytest.mark.parametrize(("spread", "found"), [(0.0, True), (1e-10, True), (1e-8, False)])
def test_a_spread_of_less_than_a_billionth_is_none(spread, found):
    assert (look("degenerate-groups", {"reward_std": level(20, spread)}) is not None) == found


def test_without_any_spread_it_is_certain_after_18_steps_or_where_all_earn_the_same():
    def severity(rows, **columns):
        finding = look("degenerate-groups", {"reward_std": level(rows, 0), **columns})
        return finding and finding.severity

    differ = [0.1, *level(30, 0.2)]
    assert [severity(rows) for rows in (8, 9, 17, 18)] == [None, "warning", "warning", "critical"]
    assert [severity(rows, reward=level(rows, 0.2)) for rows in (5, 6)] == [None, "critical"]
    assert [severity(rows, reward=differ[:rows]) for rows in (8, 9, 17)] == [None, "warning", "warning"]


def test_what_never_differed_dates_from_the_first_step_whatever_the_limit():
    for limit in (0.85, 1.0):
        assert look("degenerate-groups", {"reward_std": level(20, 0)}, limit=limit).onset == EVERY


@pytest.mark.parametrize("seed", range(30))
def test_steps_with_and_without_spread_are_judged_in_the_shortest_window_that_shows_it(seed):
    """Windows that have holes as well: one without a finding leaves the answer to the next."""
    rng = np.random.default_rng(seed)
    course = np.concatenate([rng.random(int(rng.integers(3, 40))) < 0.2, rng.random(int(rng.integers(5, 25))) < 0.93])
    if course.all():
        return
    expected = None
    for window in (5, 10, 20):
        before, now = course[:-window], course[-window:].mean()
        if len(before) >= 5 and now > 0.85:
            chance = binom.sf(round(now * window) - 1, window, (before.sum() + 1) / (len(before) + 2))
            if chance < 0.01:
                expected = f"{now:.0%}", "critical" if chance < 0.001 else "warning"
                break
    finding = look("degenerate-groups", {"reward_std": np.where(course, 0.0, 0.4)})
    assert (finding and (finding.summary.split()[0], finding.severity)) == expected


@pytest.mark.parametrize(
    ("holes", "found"),
    [((), True), ((3,), True), ((3, 8), True), ((3, 8, 15), False), ((7, 13), True)],
)
def test_of_the_last_steps_more_than_85_percent_have_no_spread(holes, found):
    """One hole in five or two in ten are too many for these windows, three of twenty are the limit itself."""
    alike = np.concatenate([level(40, 0), level(20, 1)])
    for hole in holes:
        alike[-hole] = 0
    assert (look("degenerate-groups", {"reward_std": 1 - alike}) is not None) == found


@pytest.mark.parametrize(
    ("rewards", "bounds", "right"),
    [
        (level(12, 0.3), {}, 0.25),
        (level(12, -1.0), {"reward_min": level(12, -1.0), "reward_max": level(12, 3.0)}, 0.0),
        (level(12, 1.0), {"reward_min": level(12, -1.0), "reward_max": level(12, 3.0)}, 0.45),
        (level(12, 2.0), {"reward_min": level(12, -2.0)}, 0.9),
        (level(12, -2.0), {"reward_max": level(12, 2.0)}, 0.0),
        (jump(-3.0, 1.0, 2), {}, 0.9),
        (jump(5.0, 1.0, 2), {}, 0.15),
        (level(12, 0.5), {"reward_min": level(12, 0.2), "reward_max": level(12, 0.7)}, 0.45),
    ],
)
def test_rewards_are_put_on_0_to_1_by_the_least_and_the_greatest_seen(rewards, bounds, right):
    finding = look("degenerate-groups", {"equal_groups": level(12, 0.9), "reward": rewards, **bounds})
    assert finding.evidence["all_right"] == pytest.approx(right)
    assert finding.evidence["all_wrong"] == pytest.approx(0.9 - right)
