"""What the detectors of gradients and broken numbers compare, at their thresholds and in their formulas."""

import math

import numpy as np
import pytest
from tests.diagnosis.made import EVERY, jump, level, look, wobble

from entrostat.diagnosis import Watchdog
from entrostat.diagnosis.statistics import noise


@pytest.mark.parametrize(
    ("last", "found"),
    [
        (level(10, 0.001), True),
        ([*level(9, 0.001), 1.0], True),
        ([1.0, *level(9, 0.001)], True),
        ([*level(8, 0.001), 1.0, 1.0], False),
        (level(10, 0), True),
        ([*level(9, 0), 0.001], True),
        ([*level(9, 0), 1.0], False),
        ([0.0, *level(8, 0.001), 1.0], False),
    ],
)
def test_one_spike_aside_all_of_the_last_ten_have_faded_and_none_aside_where_some_are_0(last, found):
    assert (look("gradient-fade", {"grad_norm": [*level(10, 1), *last]}) is not None) == found
    assert (look("gradient-fade", {"grad_norm": [*level(10, 1), *level(3, 9), *last]}) is not None) == found


@pytest.mark.parametrize("late", [0.0, 0.001])
@pytest.mark.parametrize("alive", range(11))
def test_a_gradient_is_compared_with_the_first_ten_that_are_not_0_if_there_are_three(alive, late):
    first = np.concatenate([level(alive, 2), level(10 - alive, 0)])
    for order in (first, first[::-1]):
        finding = look("gradient-fade", {"grad_norm": [*order, *level(5, 1), *level(10, late)]})
        assert (finding is not None) == (alive >= 3)
        if finding:
            assert finding.evidence == {"reference": 2.0, "now": late}


def test_a_gradient_that_is_seldom_there_breaks_nothing():
    watchdog = Watchdog(60)
    for step in range(60):
        watchdog.observe(step, {"grad_norm": 1.0 if step in (3, 15, 16, 17, 18) else 0.0})


def test_a_gradient_that_never_was_says_for_how_many_steps():
    finding = look("gradient-fade", {"grad_norm": level(8, 0)})
    assert (finding.severity, finding.onset) == ("critical", EVERY)
    assert finding.evidence == {"now": 0.0, "steps": 8.0}


@pytest.mark.parametrize(("share", "found"), [(0.94, True), (0.95, False), (0.96, False)])
def test_nearly_all_groups_agree_from_19_of_20_on(share, found):
    """With a score that has risen, nothing is left to learn."""
    columns = {"grad_norm": jump(1, 0.001), "reward": jump(0.2, 0.9), "equal_groups": [share]}
    assert (look("gradient-fade", columns) is not None) == found


def test_of_two_columns_that_tell_of_agreement_the_share_of_groups_counts():
    columns = {"grad_norm": jump(1, 0.001), "reward": jump(0.2, 0.9)}
    assert look("gradient-fade", columns) is not None
    assert look("gradient-fade", {**columns, "equal_groups": [1.0], "reward_std": [0.4]}) is None
    assert look("gradient-fade", {**columns, "equal_groups": [0.5], "reward_std": [0.0]}) is not None


def test_a_score_has_risen_if_it_did_after_the_first_ten_gradients():
    columns = {"grad_norm": jump(1, 0.001, 20, 20), "equal_groups": [1.0]}
    assert look("gradient-fade", {**columns, "reward": jump(0.2, 0.9, 20, 20)}) is None
    assert look("gradient-fade", {**columns, "reward": jump(0.2, 0.9, 2, 38)}) is not None


# --- explosion


def test_what_was_usual_is_the_median_of_the_first_half_that_is_not_0():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        before = np.exp(0.2 * rng.normal(size=int(rng.integers(12, 60)))) * (rng.random(1) < 0.8)
        before[rng.integers(0, len(before), 3)] = 0.0
        finding = look("gradient-explosion", {"grad_norm": [*before, *level(5, 900)]})
        alive = before[before > 0]
        assert (finding is not None) == (len(alive) >= 10)
        if finding:
            usual = np.median(alive[: max(10, len(alive) // 2)])
            assert finding.evidence == pytest.approx({"usual": usual, "now": 900})


@pytest.mark.parametrize(("zeros", "found"), [(0, True), (1, False)])
def test_ten_gradients_before_have_to_be_other_than_0(zeros, found):
    before = [*level(zeros, 0), *level(10 - zeros, 1)]
    assert (look("gradient-explosion", {"grad_norm": [*before, *level(5, 50)]}) is not None) == found
    assert look("gradient-explosion", {"grad_norm": [0, *before, *level(zeros, 1), *level(5, 50)]}) is not None


def test_a_gradient_that_has_been_large_for_half_of_the_run_is_not_reported_anew():
    assert look("gradient-explosion", {"grad_norm": jump(1, 50, 20, 24)}) is not None
    assert look("gradient-explosion", {"grad_norm": jump(1, 50, 20, 25)}) is None


def test_a_gradient_that_varies_by_s_has_to_grow_by_six_of_its_noises():
    for s in (0.5, 1.0):
        usual = wobble(60, 0, s)
        sigma = noise(usual)
        for by, found in ((5.9, False), (6.1, True)):
            growth = np.concatenate([level(60, 0), level(5, by * sigma - s)])
            column = np.exp(np.concatenate([usual, level(5, 0)]) + growth)
            middle = np.median(column[:30])
            column[-5:] = middle * math.exp(by * sigma)
            assert (look("gradient-explosion", {"grad_norm": column}) is not None) == found


@pytest.mark.parametrize(("growth", "spread", "least"), [(12, 0, "part"), (500, 0, "three"), (5e4, 0.3, "noises")])
def test_an_explosion_begins_at_three_times_the_usual_or_three_noises_or_three_tenths_of_it(growth, spread, least):
    rise = np.linspace(0, math.log(growth), 41)
    column = np.exp(np.concatenate([wobble(300, 0, spread), rise, level(10, math.log(growth))]))
    before, usual = np.log(column[:-5]), np.log(np.median(column[: len(column[:-5]) // 2]))
    grown = math.log(growth) - usual
    begins = {"part": 0.3 * grown, "three": math.log(3), "noises": 3 * noise(before)}
    assert begins[least] == min(begins["part"], max(begins["three"], begins["noises"]))
    finding = look("gradient-explosion", {"grad_norm": column})
    first = 300 + int(np.argmax(rise > usual + begins[least]))
    assert finding.onset / EVERY - 1 == pytest.approx(first, abs=1)


@pytest.mark.parametrize(("score", "ending"), [(0.5, "the usual 1."), (0.1, "and the score has fallen since.")])
def test_an_explosion_says_whether_the_score_has_fallen(score, ending):
    finding = look("gradient-explosion", {"grad_norm": jump(1, 50), "reward": jump(0.5, score)})
    assert finding.summary.endswith(ending)


# --- numbers that are none


def broken(**late):
    """Twenty rows of ones, of which the last of each column are broken."""
    return look("not-finite", {name: [*level(20 - n, 1), *level(n, math.nan)] for name, n in late.items()})


def test_a_break_dates_from_the_quantity_that_broke_first_and_is_as_grave_as_the_longest():
    finding = broken(loss=1, reward=2)
    assert (finding.severity, finding.onset) == ("warning", EVERY * 19)
    assert broken(loss=1, reward=3).severity == "critical"
    assert broken(loss=3, reward=1).severity == "critical"
    assert broken(loss=0, reward=0) is None


def test_a_break_names_at_most_three_columns_and_first_those_that_broke_last():
    assert len(broken(loss=1, grad_norm=1, entropy=1, kl=1).columns) == 3
    columns = {"loss": [*level(18, 1), math.nan], "kl": [*level(18, 1), math.nan, math.nan]}
    assert look("not-finite", columns).columns == ("loss", "kl")
    early = {"loss": [math.nan, math.nan], "kl": level(2, math.nan)}
    watchdog = Watchdog()
    watchdog.observe(1, {"loss": math.nan, "kl": math.nan})
    watchdog.observe(2, {"kl": early["kl"][0]})
    assert watchdog.standing()[0].columns == ("kl", "loss")


def test_a_break_in_step_0_is_found_there():
    watchdog = Watchdog()
    [finding] = watchdog.observe(0, {"loss": math.nan})
    assert (finding.onset, finding.evidence) == (0, {"loss_broken_steps": 1})


def test_only_the_last_broken_values_in_a_row_count():
    finding = look("not-finite", {"loss": [math.nan, 1, math.nan, math.nan, 1, math.nan]})
    assert finding.evidence == {"loss_broken_steps": 1}
    assert finding.onset == 6 * EVERY


@pytest.mark.parametrize(
    ("loss", "found"), [(jump(2, 0.9, 20, 20), False), (jump(2, 1.1, 20, 20), True), (jump(2, -3, 20, 20), True)]
)
def test_a_gradient_that_fades_with_a_supervised_loss_has_arrived(loss, found):
    columns = {"grad_norm": jump(1, 0.001, 20, 20), "loss": loss}
    assert (look("gradient-fade", columns) is not None) == found
    assert look("gradient-fade", {**columns, "entropy": [1.0]}) is not None
