"""TargetEntropy on simulated responses: it finds its gain, follows curves, and resumes; curves; piecewise phases."""

import json
import math
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import told, weights_of

from entrostat.control import (
    Curve,
    DecreaseIncreaseDecrease,
    IncreaseThenDecrease,
    Piecewise,
    Stage,
    TargetEntropy,
    TargetWeights,
)
from entrostat.control.following import CurveFollower
from entrostat.control.strategies import LOWER, UPPER
from entrostat.control.target import LOWERING, RAISING
from entrostat.objective import ClipRule, LinearThreshold
from entrostat.tokens import token_stats

steady = settings(deadline=None, max_examples=50)
TOTAL = 200
STANDARD = LinearThreshold.constant(0.2)
CURVES = {
    "constant": Curve.constant(0.8),
    "falling line": Curve.between(1.0, 0.3),
    "rise then fall": Curve(((0.0, 1.0), (0.5, 1.5), (1.0, 0.5))),
}


class Plant:
    """ln H moves by drift + gain u a step, with lag in u and noise in the measurement.

    A step as a trainer has it: measure in the forward pass, update under the rule that was set before, then decide.
    """

    def __init__(self, gain: float, drift: float, noise: float = 0.05, seed: int = 0) -> None:
        self.gain, self.drift, self.noise = gain, drift, noise
        self.random = random.Random(seed)
        self.log_entropy, self.action = 0.0, 0.0

    def measure(self) -> float:
        return math.exp(self.log_entropy + self.noise * self.random.gauss(0, 1))

    def respond(self, action: float) -> None:
        self.action = 0.5 * self.action + 0.5 * action
        self.log_entropy += self.drift + self.gain * self.action


def by_thresholds(curve: Curve, plant: Plant) -> Iterator[None]:
    strategy = TargetEntropy(curve)
    rule = strategy.clip()
    for step in range(1, TOTAL + 1):
        entropy = plant.measure()
        width = rule.lower.intercept
        plant.respond((0.2 - width) / 0.19 if width < 0.2 else (0.2 - width) / 0.3)
        yield
        rule = told(strategy, step, TOTAL, entropy).clip()


def by_weights(curve: Curve, plant: Plant) -> Iterator[None]:
    weighting, mask = TargetWeights(curve, strength=0.6), torch.ones(1, dtype=torch.bool)
    expanding = token_stats(torch.tensor([[2.0, 0.0]]), torch.tensor([1]))
    for step in range(1, TOTAL + 1):
        entropy = plant.measure()
        plant.respond((weights_of(weighting, expanding, torch.ones(1), mask).item() - 1) / 0.6)
        yield
        told(weighting, step, TOTAL, entropy)


def by_nothing(curve: Curve, plant: Plant) -> Iterator[None]:
    for _ in range(TOTAL):
        yield plant.respond(0.0)


def mean_relative_error(hand, curve: Curve, plant: Plant) -> float:
    errors = [
        abs(math.exp(plant.log_entropy) / curve.at(step / TOTAL) - 1) for step, _ in enumerate(hand(curve, plant), 1)
    ]
    return sum(errors[20:]) / len(errors[20:])


@pytest.mark.parametrize("hand", [by_thresholds, by_weights])
@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
@pytest.mark.parametrize(("gain", "drift"), [(0.03, -0.02), (0.03, 0.01), (0.1, -0.02), (0.1, 0.01), (0.3, -0.02)])
def test_an_unknown_response_is_followed_within_a_tenth_on_every_curve(hand, curve, gain, drift) -> None:
    for seed in range(3):
        assert mean_relative_error(hand, curve, Plant(gain, drift, seed=seed)) < 0.1


def test_without_feedback_the_same_drift_leaves_the_curve() -> None:
    assert mean_relative_error(by_nothing, CURVES["constant"], Plant(gain=0.1, drift=-0.02)) > 0.5


def test_far_from_the_curve_the_rule_is_the_end_of_its_range() -> None:
    below, above = TargetEntropy(Curve.constant(1.0)), TargetEntropy(Curve.constant(1.0))
    assert told(below, 1, TOTAL, 0.01).clip() == RAISING
    assert told(above, 1, TOTAL, 100.0).clip() == LOWERING
    assert (below.phase, above.phase) == ("increase", "decrease")


def test_the_ends_of_its_range_are_the_callers() -> None:
    wide, tight = ClipRule.constant(0.1, 2.0), ClipRule.constant(0.5, 0.1)
    strategy = TargetEntropy(Curve.constant(1.0), raising=wide, lowering=tight)
    assert told(strategy, 1, TOTAL, 0.01).clip() == wide
    assert told(strategy, 2, TOTAL, 100.0).clip() == tight


def test_before_any_entropy_it_holds_the_standard_band() -> None:
    strategy = TargetEntropy(Curve.constant(1.0))
    assert strategy.clip() == ClipRule(STANDARD, STANDARD)
    assert strategy.phase == "hold"


def test_a_second_query_at_the_same_step_changes_nothing() -> None:
    strategy = TargetEntropy(Curve.constant(1.0))
    told(strategy, 1, TOTAL, 0.9)
    first, state = told(strategy, 2, TOTAL, 0.95).clip(), strategy.state_dict()
    assert strategy.clip() == first
    assert strategy.state_dict() == state


@pytest.mark.parametrize("cut", [1, 17, 90])
def test_a_resumed_target_continues_as_if_it_had_never_stopped(cut: int) -> None:
    whole, before, after = (TargetEntropy(CURVES["rise then fall"]) for _ in range(3))
    course = [math.exp(-0.01 * step + 0.05 * math.sin(step)) for step in range(1, 101)]
    expected = [told(whole, step, TOTAL, entropy).clip() for step, entropy in enumerate(course, start=1)]
    for step, entropy in enumerate(course[:cut], start=1):
        told(before, step, TOTAL, entropy)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    resumed = [told(after, step, TOTAL, entropy).clip() for step, entropy in enumerate(course[cut:], start=cut + 1)]
    assert resumed == expected[cut:]


def test_a_policy_without_any_entropy_left_is_pushed_up() -> None:
    strategy = TargetEntropy(Curve.constant(1.0))
    told(strategy, 1, TOTAL, 0.5)
    assert told(strategy, 2, TOTAL, 0.0).clip() == RAISING


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_entropy_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"entropy is .* at progress 0\.015"):
        told(TargetEntropy(Curve.constant(1.0)), 3, TOTAL, bad)


def test_bad_settings_of_the_target_are_refused() -> None:
    with pytest.raises(ValueError, match="memory 0"):
        TargetEntropy(Curve.constant(1.0), memory=0)
    with pytest.raises(ValueError, match="reach 0"):
        TargetEntropy(Curve.constant(1.0), reach=0)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
@steady
@given(share=st.floats(0, 1))
def test_a_curve_stays_between_its_ends_and_passes_through_its_points(shape, share: float) -> None:
    curve = Curve(((0.2, 1.0), (0.6, 3.0)), shape)
    assert 1.0 <= curve.at(share) <= 3.0
    assert (curve.at(0.0), curve.at(0.2), curve.at(0.6), curve.at(1.0)) == (1.0, 1.0, 3.0, 3.0)
    assert curve.at(0.4) == pytest.approx(2.0)


def test_a_cosine_starts_and_ends_flat() -> None:
    curve = Curve.between(1.0, 2.0, "cosine")
    assert curve.at(0.1) - 1.0 < 0.03
    assert 2.0 - curve.at(0.9) < 0.03
    assert Curve.constant(0.7).at(0.3) == 0.7


@pytest.mark.parametrize(
    "points", [(), ((0.5, 1.0), (0.5, 2.0)), ((0.0, 1.0), (1.2, 1.0)), ((0.0, 0.0),), ((0.0, math.nan),)]
)
def test_invalid_curves_are_refused(points) -> None:
    with pytest.raises(ValueError, match=r"Curve\.points"):
        Curve(points)


@pytest.mark.parametrize("step", [0, 1, 59, 120, 121, 200, 201, 300, 399, 400, 500])
def test_piecewise_contains_id_and_did(step: int) -> None:
    raised, standard, lowered = ClipRule(UPPER, STANDARD), ClipRule(STANDARD, STANDARD), ClipRule(STANDARD, LOWER)
    by_id = Piecewise((Stage(0.3, raised, standard, "increase"), Stage(1.0, lowered, standard, "decrease")))
    by_did = Piecewise((Stage(0.3, standard, raised), Stage(1.0, ClipRule(UPPER, LOWER), raised)))
    for ours, published in ((by_id, IncreaseThenDecrease(split=0.3)), (by_did, DecreaseIncreaseDecrease(split=0.3))):
        rule, expected = ours.rule(step, 400), published.rule(step, 400)
        for side in ("upper", "lower"):
            for p in (0.0, 1.0):
                assert getattr(rule, side).at(p) == pytest.approx(getattr(expected, side).at(p))
    assert by_id.phase_at(min(step / 400, 1)) == IncreaseThenDecrease(split=0.3).phase_at(min(step / 400, 1))


def test_the_bands_of_stages_are_all_their_rules() -> None:
    narrow, wide = ClipRule.constant(upper=0.1), ClipRule.constant(upper=0.28)
    assert Piecewise((Stage(0.5, narrow, wide), Stage(1.0, wide))).bands() == [narrow, wide, wide]


def test_a_stage_without_an_end_keeps_its_rule() -> None:
    wide = ClipRule.constant(upper=0.28)
    strategy = Piecewise((Stage(0.5), Stage(1.0, wide)))
    assert strategy.rule(200, 400) == ClipRule.constant()
    assert strategy.rule(201, 400) == strategy.rule(400, 400) == wide


def test_each_stage_moves_from_its_start_to_its_end_between_the_end_of_the_one_before_and_its_own() -> None:
    ends = (0.1, 0.3, 0.6, 1.0)
    rules = [ClipRule.constant(lower=0.2, upper=upper) for upper in (0.1, 0.3, 0.2, 0.6, 0.4, 0.9, 0.5, 0.8)]
    stages = [Stage(until, *rules[2 * i : 2 * i + 2]) for i, until in enumerate(ends)]
    strategy, begin = Piecewise(tuple(stages)), 0.0
    for stage in stages:
        for part in (0.25, 0.5, 1.0):
            band = strategy.at(begin + part * (stage.until - begin))
            start, end = stage.start.upper.intercept, stage.end.upper.intercept
            assert band.upper.intercept == pytest.approx(start + part * (end - start))
        begin = stage.until


@pytest.mark.parametrize("ends", [(), (0.5,), (0.5, 0.5, 1.0), (0.0, 1.0), (0.6, 0.4, 1.0)])
def test_stages_that_do_not_fill_the_run_are_refused(ends: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"Piecewise\.stages"):
        Piecewise(tuple(Stage(until) for until in ends))


@pytest.mark.parametrize(("memory", "reach"), [(30.0, 5), (8.0, 2), (1.0, 1)])
def test_the_follower_is_the_least_squares_fit_and_the_gap_to_the_curve(memory: float, reach: int) -> None:
    """Against numpy: rows (1, u), weights (1 - 1 / memory) ^ age, and two rows of the prior: no drift, gain .05."""
    curve = Curve.between(1.0, 0.4)
    follower = CurveFollower(curve, memory, reach)
    noise = random.Random(3)
    course = [math.exp(-0.02 * k + 0.1 * noise.gauss(0, 1)) for k in range(30)]
    actions, changes = [0.0, 0.0], []
    for k, entropy in enumerate(course, start=1):
        progress = k / 60
        if k > 1:
            changes.append(math.log(entropy / course[k - 2]))
        rows = [[1.0, 0.0], [0.0, 1.0]] + [[1.0, actions[i + 1]] for i in range(len(changes))]
        seen = np.array([0.0, 0.05, *changes])
        weights = np.array([1.0, 1.0, *((1 - 1 / memory) ** np.arange(len(changes))[::-1])])
        design = np.array(rows) * np.sqrt(weights)[:, None]
        drift, gain = np.linalg.lstsq(design, seen * np.sqrt(weights), rcond=None)[0]
        if gain < 0.005:  # the least gain, and the drift that then fits best
            gain = 0.005
            drift = (weights * np.array([r[0] for r in rows]) * (seen - gain * np.array([r[1] for r in rows]))).sum()
            drift /= (weights * np.array([r[0] for r in rows])).sum()
        after = math.log(entropy) + drift + gain * actions[-1]
        ahead = progress + (1 + reach) / 60
        wanted = ((math.log(curve.at(ahead)) - after) / reach - drift) / gain
        assert follower.observe(entropy, progress) == pytest.approx(min(max(wanted, -1.0), 1.0), abs=1e-9), k
        actions.append(follower.action)


@pytest.mark.parametrize(("error", "phase"), [(0.0, "hold"), (0.3, "decrease"), (-0.3, "increase")])
def test_the_phase_is_the_direction_of_the_action_and_hold_below_a_twentieth(error, phase) -> None:
    strategy = TargetEntropy(Curve.constant(1.0))
    told(strategy, 1, TOTAL, math.exp(error))
    assert strategy.phase == phase
    for action, expected in ((0.049, "hold"), (0.05, "increase"), (-0.049, "hold"), (-0.05, "decrease")):
        strategy._follower.action = action
        assert strategy.phase == expected


def test_the_bands_of_a_target_are_its_three_rules() -> None:
    assert list(TargetEntropy(Curve.constant(1.0)).bands()) == [RAISING, ClipRule(STANDARD, STANDARD), LOWERING]
