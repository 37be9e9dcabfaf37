"""The thermostat on simulated responses: curves, delays, lags, noise, saturation, resumption; the weights it moves."""

import json
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import told, weights_of

from entrostat.control import AdaptiveBonus, Curve, Entrocraft, PolarityAware, TargetEntropy, TargetWeights
from entrostat.control.thermostat import HISTORY, MANY, Thermostat
from entrostat.entropy import polarity
from entrostat.tokens import token_stats

TOTAL = 200
CONSTANT = Curve.constant(1.0)
CURVES = {
    "constant": CONSTANT,
    "falling": Curve.between(1.0, 0.3),
    "falling, rising, falling": Curve(((0.0, 1.0), (0.35, 0.5), (0.65, 0.9), (1.0, 0.4))),
    "rise from half": Curve(((0.0, 0.5), (0.5, 0.5), (1.0, 1.0))),
}
RESPONSES = {"at once": (0, 0), "4 late": (4, 0), "10 late": (10, 0), "lag 9": (0, 9), "2 late, lag 9": (2, 9)}


def course(
    curve, gain, delay=0, lag=0, noise=0.05, drift=0.0, seed=0, total=TOTAL, start=None, passes=1, thermostat=None
):
    """ln H, the curve's and the actions of a run whose ln H moves by drift + gain v, v the delayed and lagged action.

    As in a trainer: measure, update by the action chosen before, choose. noise: of a batch, passed over `passes` times.
    """
    draw, thermostat = random.Random(seed), thermostat or Thermostat(curve)
    level, acting, pending, batch = math.log(curve.at(0) if start is None else start), 0.0, [0.0] * (delay + 1), 0.0
    levels, actions = [], []
    for step in range(1, total + 1):
        if (step - 1) % passes == 0:
            batch = noise * draw.gauss(0, 1)
        entropy = math.exp(level + batch)
        pending = [thermostat.action, *pending[:-1]]
        acting = pending[-1] if lag == 0 else acting + (pending[-1] - acting) / lag
        level += drift(step) if callable(drift) else drift
        level += gain * acting
        actions.append(thermostat.observe(entropy, step / total))
        levels.append(level)
    aims = [math.log(curve.at(step / total)) for step in range(1, total + 1)]
    return np.array(levels), np.array(aims), np.array(actions)


@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES)
@pytest.mark.parametrize("gain", [0.02, 0.06, 0.2])
@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_an_unknown_response_is_followed_on_every_curve(curve, gain, response) -> None:
    delay, lag = response
    levels, aims, _ = course(curve, gain, delay, lag, drift=-0.25 * gain)
    assert np.abs(levels - aims)[40:].mean() < 0.1


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("delay", range(11))
@pytest.mark.parametrize("gain", [0.004, 0.04, 0.4])
def test_two_decades_of_gain_and_any_delay_cause_no_sustained_oscillation(gain, delay, noise) -> None:
    """In the second half of a constant curve the level stays close, and no more than the noise lets it move."""
    levels, _, actions = course(CONSTANT, gain, delay, noise=noise, drift=-0.3 * gain, seed=delay)
    late = levels[TOTAL // 2 :]
    assert np.abs(late).mean() < 0.03 + 0.8 * noise
    assert late.std() < 0.02 + 0.8 * noise
    if not noise:
        assert np.ptp(actions[-40:]) < 0.2


def test_a_batch_that_is_passed_several_times_is_followed_too() -> None:
    levels, aims, _ = course(CURVES["falling, rising, falling"], 0.06, 1, 5, noise=0.1, drift=-0.015, passes=4)
    assert np.abs(levels - aims)[40:].mean() < 0.12


def test_a_ramp_is_tracked_without_a_lasting_lag() -> None:
    levels, aims, _ = course(CURVES["falling"], 0.1, 3, noise=0.0, drift=0.01)
    assert np.abs((levels - aims)[60:]).max() < 0.03


def test_it_recovers_from_saturation_without_overshoot() -> None:
    """A start far below the curve keeps the action at its limit for long; the integral of a PI rule would wind up."""
    levels, _, actions = course(CONSTANT, 0.03, 2, noise=0.0, start=0.1, total=300)
    assert (actions[10:60] > 0.95).all()
    assert levels.max() < 0.12
    assert np.abs(levels[-100:]).max() < 0.03


def test_it_recovers_when_a_disturbance_exceeded_its_strength() -> None:
    levels, _, actions = course(CONSTANT, 0.05, 1, noise=0.0, drift=lambda k: -0.1 if k < 40 else 0.0, total=300)
    assert levels[38] < -1
    assert actions[38] == pytest.approx(1)
    assert levels[50:].max() < 0.15
    assert np.abs(levels[-80:]).max() < 0.03


def test_it_finds_the_gain() -> None:
    for gain in (0.01, 0.3):
        thermostat = Thermostat(CURVES["falling, rising, falling"])
        course(thermostat.curve, gain, noise=0.01, thermostat=thermostat)
        assert 0.6 < thermostat.gain / gain < 1.6


@settings(deadline=None, max_examples=20)
@given(
    entropies=st.lists(st.floats(0, 1e6), min_size=2, max_size=40),
    most=st.floats(0.01, 2.0),
)
def test_the_action_is_bounded_and_moves_slowly_and_the_state_stays_finite(entropies, most) -> None:
    thermostat, last = Thermostat(CONSTANT, most_change=most), 0.0
    for step, entropy in enumerate(entropies, start=1):
        action = thermostat.observe(entropy, step / 40)
        assert abs(action) <= 1
        assert abs(action - last) <= most + 1e-12
        last = action
    state = thermostat.state_dict()
    assert np.isfinite(state["means"]).all()
    assert (np.diagonal(state["covariances"], axis1=1, axis2=2) > 0).all()
    assert len(state["past"]) == HISTORY + 1
    assert len(state["means"]) == MANY


def test_a_long_run_without_any_need_to_act_keeps_its_state_bounded() -> None:
    thermostat = Thermostat(CONSTANT)
    for step in range(1, 3001):
        thermostat.observe(1.0, step / 3000)
    assert np.abs(np.array(thermostat.state_dict()["covariances"])).max() < 1


@pytest.mark.parametrize("cut", [1, 17, 90])
def test_a_resumed_run_continues_as_if_it_had_never_stopped(cut) -> None:
    whole, before, after = (TargetWeights(CURVES["falling"]) for _ in range(3))
    seen = [math.exp(-0.01 * step + 0.05 * math.sin(step)) for step in range(1, 101)]
    expected = []
    for step, entropy in enumerate(seen, start=1):
        told(whole, step, TOTAL, entropy)
        expected.append(whole.push)
    for step, entropy in enumerate(seen[:cut], start=1):
        told(before, step, TOTAL, entropy)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    for step, entropy in enumerate(seen[cut:], start=cut + 1):
        told(after, step, TOTAL, entropy)
        assert after.push == expected[step - 1]


def test_the_state_of_another_version_is_refused_and_nothing_changes() -> None:
    part = TargetWeights(CONSTANT)
    told(part, 1, TOTAL, 0.5)
    before = part.state_dict()
    with pytest.raises(ValueError, match="saved by another version"):
        part.load_state_dict({"action": 1.0, "seen": 0.0, "moments": [0.0] * 5, "log_entropy": 0.0, "progress": 0.1})
    assert part.state_dict() == before


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_entropy_that_is_not_finite_is_refused(bad) -> None:
    part = TargetWeights(CONSTANT)
    with pytest.raises(ValueError, match=r"entropy is .* at progress 0\.015"):
        told(part, 3, TOTAL, bad)
    assert part.push == 0


# --- the curve ---


def test_a_curve_relative_to_the_start_is_that_curve_times_the_first_entropy() -> None:
    points = ((0.0, 1.0), (1.0, 0.5))
    relative, nats = Thermostat(Curve(points, unit="start")), Thermostat(Curve(tuple((x, 0.7 * y) for x, y in points)))
    for step in range(1, 50):
        entropy = 0.7 * math.exp(-0.01 * (step - 1))
        assert relative.observe(entropy, step / 50) == pytest.approx(nats.observe(entropy, step / 50), abs=1e-9)


def test_polarity_aware_takes_a_reference_relative_to_the_start() -> None:
    part = PolarityAware(reference=Curve(((0.0, 0.5),), unit="start"))
    told(part, 1, TOTAL, 2.0)
    told(part, 2, TOTAL, 0.9)
    assert part.push == pytest.approx(0.1 / 0.2)


@pytest.mark.parametrize(
    "make",
    [
        lambda curve: TargetEntropy(curve),
        lambda curve: AdaptiveBonus(curve),
        lambda curve: Entrocraft(upper=curve),
    ],
)
def test_a_part_that_reads_nats_refuses_a_relative_curve(make) -> None:
    with pytest.raises(ValueError, match="this method reads nats"):
        make(Curve(((0.0, 1.0),), unit="start"))


def test_a_relative_curve_without_a_start_and_an_unknown_unit_are_refused() -> None:
    with pytest.raises(ValueError, match="no entropy has been measured"):
        Curve(((0.0, 1.0),), unit="start").at(0.5)
    with pytest.raises(ValueError, match=r"Curve\.unit is 'bits'"):
        Curve(((0.0, 1.0),), unit="bits")  # type: ignore[arg-type]


# --- the weights ---


def pushed(entropy: float, **chosen) -> tuple[TargetWeights, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A part with an action, and the statistics, advantages and weights of 400 tokens."""
    part = TargetWeights(CONSTANT, **chosen)
    for step in range(1, 9):
        told(part, step, TOTAL, entropy)
    draw = torch.Generator().manual_seed(0)
    stats = token_stats(2 * torch.randn(400, 12, generator=draw), torch.randint(12, (400,), generator=draw))
    advantages = torch.randn(400, generator=draw)
    return part, stats, advantages, weights_of(part, stats, advantages, torch.ones(400, dtype=torch.bool))


@pytest.mark.parametrize("entropy", [0.1, 10.0])
@pytest.mark.parametrize("punished", [0.0, 0.3, 1.0])
def test_the_push_is_by_polarity_and_punished_tokens_get_their_share(entropy, punished) -> None:
    part, stats, advantages, weights = pushed(entropy, strength=0.6, punished=punished)
    assert abs(part.push) == pytest.approx(1)
    sign = polarity(stats, advantages).sign()
    share = torch.where(advantages < 0, punished, 1.0)
    assert torch.allclose(weights, 1 + 0.6 * part.push * share * sign)


@pytest.mark.parametrize("entropy", [0.1, 10.0])
def test_by_logp_needs_only_log_probabilities_and_favours_rare_tokens_when_rewarded(entropy) -> None:
    part, stats, advantages, weights = pushed(entropy, strength=0.6, by="logp")
    rare = stats.logp < -1
    assert torch.allclose(weights[rare & (advantages > 0)], torch.tensor(1 + 0.6 * part.push))
    assert torch.allclose(weights[rare & (advantages < 0)], torch.tensor(1 - 0.6 * part.push))
    sure = stats.logp.clamp_min(-1)
    assert torch.allclose(weights, 1 - 0.6 * part.push * advantages.sign() * sure)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"strength": 1.0}, r"strength is 1\.0"),
        ({"punished": 1.1}, r"punished is 1\.1"),
        ({"punished": -0.1}, r"punished is -0\.1"),
        ({"by": "entropy"}, "by is 'entropy'"),
        ({"reach": 0}, "reach is 0"),
        ({"most_change": 0.0}, r"most_change is 0\.0"),
        ({"most_change": 2.1}, r"most_change is 2\.1"),
    ],
)
def test_settings_out_of_range_are_refused(chosen, message) -> None:
    with pytest.raises(ValueError, match=message):
        TargetWeights(CONSTANT, **chosen)


def plain_actions(curve: Curve, entropies: list[float], reach: int, most: float) -> list[float]:
    """The actions by the formulas of the class, one model and one number at a time."""
    shapes = [np.eye(32)[delay] for delay in (0, 2, 4, 6, 8, 10)]
    shapes += [np.exp(-np.arange(32) / lag) / np.exp(-np.arange(32) / lag).sum() for lag in (3, 9)]
    models = [(w, noise) for w in shapes for noise in (0.02, 0.07, 0.25)]
    means = [np.array([math.log(entropies[0]), 0.0, 0.05]) for _ in models]
    covariances = [np.diag([noise**2, 0.03**2, 0.1**2]) for _, noise in models]
    evidence, past, actions = np.zeros(len(models)), [0.0] * 33, []
    for k, entropy in enumerate(entropies):
        wanted = []
        for i, (w, noise) in enumerate(models):
            m, p = means[i], covariances[i]
            if k:
                step = np.array([[1, 1, sum(w[j] * past[1 + j] for j in range(32))], [0, 1, 0], [0, 0, 1]])
                m, p = step @ m, step @ p @ step.T + np.diag([0.02**2, 0.002**2, 0.001**2])
                if p[2, 2] > 0.1**2:
                    limited = np.diag([1, 1, 0.1 / math.sqrt(p[2, 2])])
                    p = limited @ p @ limited
                surprise, variance = math.log(entropy) - m[0], p[0, 0] + noise**2
                m = m + p[:, 0] / variance * surprise
                m[2] = min(max(m[2], 0.002), 1.0)
                p = p - np.outer(p[:, 0], p[0]) / variance
                evidence[i] = 0.998 * evidence[i] - (math.log(variance) + surprise**2 / variance) / 2
                means[i], covariances[i] = m, p
            ahead = 1 + reach + math.ceil(sum(j * w[j] for j in range(32)) - 1e-9)
            aim = math.log(curve.at(min(k / 40 + ahead * (1 / 40 if k else 0.0), 1.0)))
            still = sum((w[: age + ahead].sum() - w[:age].sum()) * past[age] for age in range(32))
            effect = sum(w[:s].sum() for s in range(ahead))
            u = (aim - m[0] - ahead * m[1] - m[2] * still) / effect * m[2] / (m[2] ** 2 + 0.05 * p[2, 2])
            wanted.append(min(max(u, -1.0), 1.0))
        weights = np.exp(evidence - evidence.max())
        chosen = float(weights @ wanted / weights.sum())
        chosen = min(max(chosen, past[0] - most), past[0] + most)
        actions.append(min(max(chosen, -1.0), 1.0))
        past = [actions[-1], *past[:-1]]
    return actions


@pytest.mark.parametrize(("reach", "most"), [(5, 0.25), (1, 2.0), (9, 0.1)])
def test_the_action_is_what_the_formulas_say(reach: int, most: float) -> None:
    rng = np.random.default_rng(0)
    entropies = (1.0 * np.exp(-0.02 * np.arange(40) + 0.05 * rng.normal(size=40))).tolist()
    for curve in (Curve.between(1.0, 0.6), Curve.between(0.8, 1.5, "cosine")):
        thermostat = Thermostat(curve, reach=reach, most_change=most)
        found = [thermostat.observe(entropy, k / 40) for k, entropy in enumerate(entropies)]
        assert found == pytest.approx(plain_actions(curve, entropies, reach, most), rel=1e-6, abs=1e-9)
