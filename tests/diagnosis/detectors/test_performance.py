"""What the detectors of a fall and of a divergence compare, at their thresholds and in their formulas."""

import math

import numpy as np
import pytest
from tests.diagnosis.made import DETECTOR, EVERY, jump, level, look, recorded, wobble
from tests.diagnosis.test_falls import courses

from entrostat.diagnosis.falls import fall_from_peak
from entrostat.diagnosis.history import Series
from entrostat.diagnosis.statistics import began, expected_maximum, fit_line, roughness
from entrostat.runs.finding import Finding


def measured(values, name="reward", error=None):
    """The fall, with the settings of either score."""
    window, design = (3, 1.0) if name == "heldout" else (5, 4.0)
    steps = EVERY * np.arange(1, len(values) + 1)
    return fall_from_peak(Series(steps, np.asarray(values)), window, 0.2, 0.05, design, 8.0, error)


@pytest.mark.parametrize("name", ["heldout", "reward"])
def test_a_fall_is_reported_while_it_is_certain_and_has_not_come_back(name):
    found = {True: 0, False: 0}
    for values, error in courses():
        error = 9 * (error or 0.0)
        errors = {"heldout_error": level(len(values), error)} if error and name == "heldout" else {}
        finding = look("rise-then-fall", {name: values, **errors})
        fall = measured(values, name, error if name == "heldout" else None)
        last = fall and max(min(3 if name == "heldout" else 5, fall.span), fall.span // 3)
        expected = (
            fall is not None
            and fall.errors > fall.needed
            and values[-last:].mean() <= fall.peak - (fall.peak - fall.now) / 2
        )
        found[expected] += 1
        assert (finding is not None) == expected
        if finding:
            evidence = {key: finding.evidence[key] for key in ("peak", "peak_step", "now", "gap", "noise_floor")}
            assert evidence == pytest.approx(
                {"peak": fall.peak, "peak_step": fall.peak_step, "now": fall.now}
                | {"gap": fall.gap, "noise_floor": fall.noise}
            )
            assert finding.evidence["certainty"] == pytest.approx(fall.errors / fall.needed)
            assert finding.evidence["goes_back"] == 0.0
            series = Series(EVERY * np.arange(1, len(values) + 1), values)
            begins = began(series, fall.peak - 0.3 * fall.gap, upwards=False)
            assert finding.onset == max(begins, fall.peak_step)
            assert f"noise explains {fall.noise:.2g} of that" in finding.summary
    assert min(found.values()) > 2


@pytest.mark.parametrize("rows", [9, 14])
def test_a_fall_of_which_half_was_made_good_lately_is_not_reported(rows):
    """The last third of the values that show the fall decide, three at least."""
    answers = set()
    for late in range(1, 7):
        for height in np.linspace(0.2, 0.8, 7):
            values = np.concatenate([level(20, 0.8), level(rows, 0.05), level(late, height)])
            values += wobble(len(values), 0, 1e-4)
            fall = measured(values, "heldout", 0.0)
            if fall is None or fall.errors <= fall.needed:
                continue
            last = max(min(3, fall.span), fall.span // 3)
            come_back = values[-last:].mean() > fall.peak - (fall.peak - fall.now) / 2
            assert (look("rise-then-fall", {"heldout": values}) is None) == come_back
            answers.add(bool(come_back))
    assert answers == {True, False}


@pytest.mark.parametrize("times", [2, 3, 4, 7])
@pytest.mark.parametrize("name", ["heldout", "reward"])
def test_a_value_that_is_logged_several_times_counts_once(name, times):
    """With a window of as many values as before, so of fewer different ones, at least two."""
    rng = np.random.default_rng(times)
    values = np.concatenate([np.linspace(0.2, 0.7, 30), np.linspace(0.6, 0.1, 12)]) + 0.01 * rng.normal(size=42)
    window = "window" if name == "heldout" else "reward_window"
    usual = {"window": 3, "reward_window": 5}[window]
    once = look("rise-then-fall", {name: values}, **{window: max(2, math.ceil(usual / times))})
    repeated = look("rise-then-fall", {name: np.repeat(values, times)})
    for key in ("peak", "now", "gap", "noise_floor", "certainty"):
        assert repeated.evidence[key] == pytest.approx(once.evidence[key])


@pytest.mark.parametrize(("name", "rows"), [("heldout", 6), ("reward", 7)])
def test_a_fall_needs_its_rows(name, rows):
    for n, found in ((rows - 1, False), (rows, True), (rows + 1, True)):
        values = 9 * wobble(n, 1, 1e-6) * jump(1, 0, n - 2, 2)
        assert (look("rise-then-fall", {name: values}) is not None) == found


@pytest.mark.parametrize(
    ("errors", "found"),
    [([*level(59, 5), 0.001], True), ([*level(59, 0.001), 5], False), ([*level(58, 0.001), 5, 0.001], True)],
)
def test_the_error_of_an_evaluation_is_the_latest(errors, found):
    columns = {"heldout": jump(8, 2, 57, 3), "heldout_error": errors}
    assert (look("rise-then-fall", columns) is not None) == found


def test_the_error_of_evaluations_says_nothing_of_the_reward():
    columns = {"reward": jump(8, 2, 57, 3), "heldout_error": level(60, 5)}
    assert look("rise-then-fall", columns) is not None


def test_a_certain_fall_of_the_held_out_score_comes_before_one_of_the_reward():
    fallen = jump(0.8, 0.2, 40, 20)
    assert look("rise-then-fall", {"heldout": fallen, "reward": fallen}).columns == ("heldout",)
    assert look("rise-then-fall", {"heldout": level(5, 0.8), "reward": fallen}).columns == ("reward",)


@pytest.mark.parametrize(("errors", "found"), [(-1.9, False), (-2.1, True)])
def test_a_reward_has_not_fallen_while_the_held_out_score_is_within_two_errors_of_what_it_was(errors, found):
    """The change is of the eight values up to the peak and the last eight."""
    heldout = wobble(60, 0.5, 0.05)
    reward = jump(0.8, 0.2, 40, 20)
    heldout[40:] += errors * roughness(heldout) * math.sqrt(1 / 8 + 1 / 8)
    scaled = (heldout[40:].mean() - 0.5) / (roughness(heldout) * 0.5)
    heldout[40:] += (errors - scaled) * roughness(heldout) * 0.5
    assert look("rise-then-fall", {"heldout": heldout}) is None
    assert (look("rise-then-fall", {"heldout": heldout, "reward": reward}) is not None) == found


@pytest.mark.parametrize(
    ("columns", "goes_back", "certainty", "since", "looks", "believed"),
    [
        (("heldout",), 0.0, 1.0, 100, 1, True),
        (("reward",), 1.0, 1.0, 100, 1, True),
        (("reward",), 0.0, 1.3, 100, 1, True),
        (("reward",), 0.0, 1.29, 100, 1, False),
        (("reward",), 0.0, 1.0, 92, 4, True),
        (("reward",), 0.0, 1.0, 93, 4, False),
        (("reward",), 0.0, 1.0, 92, 3, False),
        (("reward",), 0.0, 1.0, 0, 9, True),
    ],
)
def test_a_fall_of_the_reward_alone_is_believed_once_it_is_sure_or_has_lasted(
    columns, goes_back, certainty, since, looks, believed
):
    evidence = {"goes_back": goes_back, "certainty": certainty}
    finding = Finding("rise-then-fall", "warning", step=100, onset=1, summary="", evidence=evidence, columns=columns)
    assert DETECTOR["rise-then-fall"].believed(finding, since, looks) == believed


@pytest.mark.parametrize("by", [0.0, 0.02, 0.1])
def test_a_fall_stands_until_half_of_it_is_made_good_by_two_errors(by):
    """Five values that stray by s have a roughness of s sqrt(2)."""
    columns = {"heldout": jump(0.8, 0.2, 40, 20)}
    finding = look("rise-then-fall", columns)
    unsure = 2 * by * math.sqrt(2) / math.sqrt(5)
    for x, stands in ((0.5 + unsure - 1e-6, True), (0.5 + unsure + 1e-6, False)):
        late = wobble(5, 0, by)
        later = {"heldout": [*columns["heldout"], *(late - late.mean() + x)]}
        assert DETECTOR["rise-then-fall"].persists(recorded(later), finding) == stands


# --- what goes back with the reward


def returned(values, fall):
    """How certainly the values go back after the peak, in errors, by the formulas of the detector."""
    top, sigma = fall.peak_step // EVERY, max(roughness(values), 1e-12)
    if len(values) < 24 or top >= len(values) - fall.span + 1:
        return 0.0
    start, peak, now = values[: max(8, top // 8)], values[max(top - fall.width, 0) : top], values[-fall.span :]
    if len(peak) < 3 or top - fall.width < len(start):
        return 0.0
    moved, back = peak.mean() - start.mean(), peak.mean() - now.mean()
    if abs(moved) < 4 * sigma * math.sqrt(1 / len(peak) + 1 / len(start)) or back / moved < 1 / 3:
        return 0.0
    floor = sigma / math.sqrt(len(peak)) * expected_maximum(len(values) / len(peak))
    return max(abs(back) - floor, 0) / (sigma * math.sqrt(1 / len(peak) + 1 / len(now)))


def test_a_fall_that_is_uncertain_alone_is_found_if_both_together_are_certain():
    rng = np.random.default_rng(3)
    answers = {True: 0, False: 0}
    for case in range(500):
        n = int(rng.integers(22, 130))
        part, t = rng.uniform(0.25, 0.9), np.linspace(0, 1, n)
        fell = rng.uniform(0.5, 2.5)
        reward = np.interp(t, [0, part, min(part + 0.05, 1), 1], [0, 4, 4 - fell, 4 - fell]) + 0.8 * rng.normal(size=n)
        back = rng.uniform(0, 1.2)
        other = np.interp(t, [0, part, 1], [0, 1, 1 - back]) + rng.choice([0.0, 0.1, 0.4]) * rng.normal(size=n)
        fall = measured(reward)
        if fall is None or fall.errors > fall.needed:
            continue
        if reward[-max(min(5, fall.span), fall.span // 3) :].mean() > fall.peak - fall.gap / 2:
            continue
        errors = returned(other, fall)
        expected = errors > 2 and (fall.errors + errors) / math.sqrt(2) > fall.needed
        finding = look("rise-then-fall", {"reward": reward, "length" if case % 2 else "truncated": other})
        assert (finding is not None) == expected
        answers[expected] += 1
        if finding:
            assert finding.evidence["goes_back"] == 1.0
            assert finding.evidence["certainty"] <= 1
    assert min(answers.values()) > 15


# --- a reward and a held-out score that part


def parting(fall=0.1, rise=0.5, rows=40, late=16):
    down, up = np.linspace(0, fall, late), np.linspace(0, rise, late)
    reward = [0, 1, *level(rows - late - 2, 0.2), *(0.2 + up)]
    return {"heldout": np.array([*level(rows - late, 0.8), *(0.8 - down)]), "reward": np.array(reward)}


@pytest.mark.parametrize("shift", [0.0, -2.0, 3.0])
@pytest.mark.parametrize("factor", [1 - 1e-6, 1 + 1e-6])
def test_the_held_out_score_does_not_follow_by_a_fifth_of_the_reward_at_the_upper_bound_of_its_slope(shift, factor):
    """For a reward that is no share the two are brought to one scale by their ranges."""
    columns = parting()
    columns["heldout"] = columns["heldout"] + wobble(40, 0, 0.1)
    columns["reward"] = columns["reward"] * (1 if shift == 0 else 2) + shift
    steps = EVERY * np.arange(25.0, 41.0)
    down, up = fit_line(steps, columns["heldout"][-16:]), fit_line(steps, columns["reward"][-16:])
    bound = down.slope_bounds(0.95)[1] / up.slope
    assert bound > 0
    same = 1.0 if shift == 0 else np.ptp(columns["heldout"]) / np.ptp(columns["reward"])
    finding = look("divergence", columns, recent=(0.4,), follow=factor * bound / same)
    assert (finding is not None) == (factor > 1)
    if finding:
        names = ("heldout_slope", "heldout_slope_error", "reward_slope", "reward_slope_error")
        expected = (down.slope, down.error, up.slope, up.error)
        assert [finding.evidence[name] for name in names] == pytest.approx(expected)


@pytest.mark.parametrize(("fall", "found"), [(0.0692, False), (0.0695, True)])
def test_the_scale_of_a_divergence_is_the_highest_mean_of_three_evaluations(fall, found):
    columns = parting(fall)
    columns["heldout"][7] = 1.0  # .8, 1, .8 are .8667 in the mean
    assert (look("divergence", columns, recent=(0.4,)) is not None) == found


@pytest.mark.parametrize(("rows", "late"), [(20, 8), (21, 8), (22, 9), (60, 24), (61, 24)])
def test_a_divergence_is_looked_for_in_two_fifths_of_the_evaluations(rows, late):
    finding = look("divergence", parting(0.2, 0.5, rows, late), recent=(0.4,))
    assert finding.onset == EVERY * (rows - late + 1)
    assert finding.evidence["heldout_fall"] == pytest.approx(0.2)
    assert finding.evidence["reward_rise"] == pytest.approx(0.5)


@pytest.mark.parametrize(("rewards", "found"), [(6, False), (7, True)])
def test_a_divergence_needs_seven_rewards_within_its_time(rewards, found):
    columns = parting()
    columns["reward"] = np.linspace(0, 1, rewards)
    assert (look("divergence", columns, recent=(0.4,)) is not None) == found


def test_rewards_before_the_time_of_a_divergence_do_not_count():
    columns = parting()
    columns["reward"][: 40 - 16] = np.linspace(1, 0, 24)
    columns["reward"][40 - 16 :] = np.linspace(0, 0.5, 16)
    assert look("divergence", columns, recent=(0.4,)).evidence["reward_rise"] == pytest.approx(0.5)
