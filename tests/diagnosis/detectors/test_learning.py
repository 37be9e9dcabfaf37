"""What the detectors of a reward that never rose, or no longer rises, compare."""

import math

import numpy as np
import pytest
from tests.diagnosis.made import EVERY, jump, level, look, wobble

from entrostat.diagnosis.statistics import noise


def gain(first, last):
    """Difference of the means and its standard error, by the larger of each part's spread and its noise."""
    errors = [max(part.std(), noise(part)) / math.sqrt(len(part)) for part in (first, last)]
    return last.mean() - first.mean(), math.hypot(*errors)


def never_learned(reward):
    """Whether the reward has not risen, by the formulas of the detector."""
    first, third = reward[: max(8, len(reward) // 10)], len(reward) // 3
    inside = reward.min() >= 0 and reward.max() <= 1
    low, high = (0.0, 1.0) if inside else np.quantile(reward, [0.05, 0.95])
    if reward[-third:].mean() >= (low + high) / 2 + (0 if inside else 0.05 * (high - low)):
        return False
    gains = [gain(first, later) for later in (reward[third:-third], reward[-third:])]
    return all(up + 2 * error < 0.05 * (high - low) for up, error in gains)


@pytest.mark.parametrize("least", [20, 80])
def test_a_reward_has_never_risen_if_its_formulas_say_so(least):
    rng = np.random.default_rng(least)
    answers = []
    for _ in range(150):
        n = int(rng.integers(least, 3 * least))
        scale, start, spread = rng.choice([0.3, 1, 20]), rng.uniform(-0.2, 0.8), rng.choice([0.0, 0.02, 0.1])
        course = np.interp(np.linspace(0, 1, n), [0, 0.2, 0.5, 1], start + rng.uniform(-0.06, 0.06, 4))
        reward = scale * (course + spread * rng.normal(size=n)) - 0.2 * (scale > 1)
        finding = look("never-learned", {"reward": reward}, least=least)
        assert (finding is not None) == never_learned(reward)
        answers.append(finding is not None)
        if finding:
            change, error = gain(reward[: max(8, n // 10)], reward[-(n // 3) :])
            assert finding.evidence["gain"] == pytest.approx(change, abs=1e-12)
            assert finding.evidence["gain_error"] == pytest.approx(error)
            assert f"a change of {finding.evidence['gain']:+.2g} ± {2 * error:.2g}." in finding.summary
            assert (finding.severity, finding.onset) == ("warning", EVERY)
    assert 20 < sum(answers) < 130


@pytest.mark.parametrize(
    ("heldout", "found"),
    [
        *[(jump(0.2, 0.2104, 45, 45), True), (jump(0.2, 0.2107, 45, 45), False)],  # a twentieth of its greatest value
        *[(jump(0.2, 0.3, 2, 3), True), (jump(0.2, 0.3, 3, 3), False)],
        *[(jump(0.2, 0.3, 4, 5), False), (jump(0.2, 0.3, 5, 2), False), (jump(0.2, 0.3, 6, 1), True)],
        (jump(0.3, 0.2, 45, 45), True),
    ],
)
def test_a_held_out_score_that_rose_between_its_outer_thirds_has_learned(heldout, found):
    reward = wobble(90, 0.1, 0.001)
    assert (look("never-learned", {"reward": reward, "heldout": heldout}) is not None) == found


@pytest.mark.parametrize(("errors", "found"), [(1.9, True), (2.1, False)])
def test_a_held_out_score_has_to_rise_by_two_errors(errors, found):
    for size in (10, 30):
        first, last = wobble(size, 0.3, 0.1), wobble(size, 0.3, 0.1)
        last = last + errors * gain(first, last)[1]
        assert last.mean() - 0.3 > 0.05 * last.max()
        columns = {"reward": wobble(90, 0.1, 0.001), "heldout": [*first, *level(size, 0.3), *last]}
        assert (look("never-learned", columns) is not None) == found


@pytest.mark.parametrize(("reward", "found"), [(0.999, True), (1.0, False), (5.0, False), (-1.0, True)])
def test_a_reward_that_is_always_the_same_is_dated_to_the_start(reward, found):
    finding = look("never-learned", {"reward": level(15, reward)})
    assert (finding is not None) == found
    if finding:
        assert (finding.severity, finding.onset) == ("critical", EVERY)
        assert finding.evidence == {"now": reward, "steps": 15.0}
    for place in (0, 7, 14):
        course = level(15, reward)
        course[place] += 0.1
        assert look("never-learned", {"reward": course}) is None


@pytest.mark.parametrize(
    ("bounds", "found"),
    [
        ({}, False),
        ({"reward_max": level(90, 9)}, True),
        ({"reward_max": jump(0, 9, 46, 44)}, False),  # of most steps
        ({"reward_max": jump(0, 9, 44, 46)}, True),
        ({"reward_min": level(90, -40)}, False),
        ({"reward_min": level(90, -40), "reward_max": level(90, 40)}, True),
        ({"reward_min": level(90, 0), "reward_max": level(90, 0)}, False),
    ],
)
def test_the_range_of_rewards_is_that_of_most_steps_or_of_the_bounds_that_are_logged(bounds, found):
    reward = np.concatenate([level(30, -1), level(60, -0.8)])
    finding = look("never-learned", {"reward": reward, **bounds})
    assert (finding is not None) == found
    if finding:
        low = -40 if "reward_min" in bounds else -1
        assert (finding.evidence["least"], finding.evidence["greatest"]) == (low, bounds["reward_max"][-1])


# --- plateau


def standing(low=0.2, high=0.6, late=None, rows=96, left=0.8):
    """A reward that rises over a quarter of the rows, and stands; the entropy that is left at the end."""
    quarter, late = rows // 4, high if late is None else late
    reward = [*np.linspace(low, high, quarter), *level(rows - 2 * quarter, high), *level(quarter, late)]
    return {"reward": np.array(reward), "entropy": np.array([*level(rows - 5, 1), *level(5, left)])}


def plateau(reward, least=24):
    """Whether the reward has risen and stands, by the formulas of the detector."""
    half = len(reward) // 2
    late, early = reward[-half:], reward[: max(half // 4, 3)]
    inside = reward.min() >= 0 and reward.max() <= 1
    scale = reward.max() if inside else np.ptp(reward)
    change, error = gain(late[: half // 2], late[half // 2 :])
    risen, unsure = gain(early, late)
    too_good = scale <= 1 and late.mean() > 0.9
    return abs(change) + 2 * error < 0.05 * scale and risen >= max(3 * unsure, 0.1 * scale) and not too_good


@pytest.mark.parametrize("least", [5, 24])
def test_a_reward_stands_if_its_formulas_say_so(least):
    rng = np.random.default_rng(least)
    answers = []
    for _ in range(200):
        n, scale = int(rng.integers(2 * least, 6 * least)), rng.choice([0.8, 1.0, 4.0])
        course = np.interp(np.linspace(0, 1, n), [0, 0.15, 0.5, 0.8, 1], [*rng.uniform(0.2, 1, 2), 0.9, 0.9, 0.9])
        course += np.interp(np.linspace(0, 1, n), [0, 0.7, 1], [0, 0, rng.uniform(-0.1, 0.1)])
        reward = scale * (course + rng.choice([0.0, 0.01, 0.05]) * rng.normal(size=n))
        finding = look("plateau", {"reward": reward, "entropy": level(n, 1)}, least=least)
        assert (finding is not None) == plateau(reward, least)
        answers.append(finding is not None)
        if finding:
            half = n // 2
            late = reward[-half:]
            change, error = gain(late[: half // 2], late[half // 2 :])
            expected = {"now": late.mean(), "gain": change, "gain_error": error, "entropy_left": 1.0}
            assert finding.evidence == pytest.approx(expected, abs=1e-12)
            assert finding.onset == EVERY * (n - half + 1)
    assert 20 < sum(answers) < 180


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (standing(high=3.0), True),  # above `top`, but not a share
        ({**standing(high=0.95), "reward": np.append(standing(high=0.95)["reward"][1:], 1.0)}, False),
        ({**standing(), "entropy": jump(1, 0.8, 5, 18)}, False),
        ({**standing(), "entropy": jump(1, 0.8, 5, 19)}, True),
        ({**standing(), "entropy": [*level(3, 1), *level(20, 9), 0.6, 0.6, 0.6, 9, 9]}, True),
        ({**standing(), "entropy": [*level(3, 1), *level(21, 9), 0.6, 0.6, 9, 9, 9]}, True),
        ({**standing(), "entropy": [*level(2, 1), *level(22, 9), 0.6, 0.6, 0.6, 9, 9]}, False),
        ({**standing(), "entropy": [*level(90, -1), *level(6, -0.3)]}, False),
        ({**standing(), "entropy": level(96, 0)}, False),
        ({**standing(), "heldout": np.linspace(0, 0.9, 48)}, False),
    ],
)
def test_a_plateau_needs_entropy_and_a_score_below_its_top(columns, found):
    assert (look("plateau", columns) is not None) == found
