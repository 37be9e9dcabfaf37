"""Strategies: the published table at T = 400, hysteresis, phases, resuming, what is refused."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import told

from entrostat.control import Constant, DecreaseIncreaseDecrease, IncreaseThenDecrease, OscillatoryDecay, Strategy
from entrostat.objective import ClipRule, LinearThreshold

steady = settings(deadline=None, max_examples=50)
TOTAL = 400
STANDARD = LinearThreshold.constant(0.2)
H = LinearThreshold(-0.25, 0.5)
M = LinearThreshold(-0.13, 0.3)
FLAT = (0.2, 0.2)
ALL = [Constant, IncreaseThenDecrease, DecreaseIncreaseDecrease, OscillatoryDecay]


def ends(threshold: LinearThreshold) -> tuple[float, float]:
    return threshold.at(0), threshold.at(1)


@pytest.mark.parametrize(
    ("strategy", "step", "upper", "lower"),
    [
        (IncreaseThenDecrease, 0, (0.5, 0.25), FLAT),
        (IncreaseThenDecrease, 100, (0.35, 0.225), FLAT),
        (IncreaseThenDecrease, 200, FLAT, FLAT),
        (IncreaseThenDecrease, 201, FLAT, (0.2995, 0.17015)),
        (IncreaseThenDecrease, 300, FLAT, (0.25, 0.185)),
        (IncreaseThenDecrease, 400, FLAT, FLAT),
        (DecreaseIncreaseDecrease, 0, FLAT, FLAT),
        (DecreaseIncreaseDecrease, 100, (0.35, 0.225), FLAT),
        (DecreaseIncreaseDecrease, 200, (0.5, 0.25), FLAT),
        (DecreaseIncreaseDecrease, 201, (0.5, 0.25), (0.2995, 0.17015)),
        (DecreaseIncreaseDecrease, 300, (0.5, 0.25), (0.25, 0.185)),
        (DecreaseIncreaseDecrease, 400, (0.5, 0.25), FLAT),
    ],
)
def test_published_table(strategy: type[Strategy], step: int, upper: tuple, lower: tuple) -> None:
    rule = strategy().rule(step, TOTAL)
    assert ends(rule.upper) == pytest.approx(upper, abs=1e-12)
    assert ends(rule.lower) == pytest.approx(lower, abs=1e-12)


@pytest.mark.parametrize("split", [0.3, 0.4, 0.5, 0.6])
@pytest.mark.parametrize("strategy", [IncreaseThenDecrease, DecreaseIncreaseDecrease])
def test_the_split_moves_the_turn_and_stretches_both_fades(strategy, split: float) -> None:
    moved = strategy(split=split)
    turn = round(split * TOTAL)
    assert moved.rule(turn, TOTAL).lower == STANDARD
    assert moved.rule(turn + 1, TOTAL).lower.at(0) > 0.299
    half_first, half_second = moved.rule(turn // 2, TOTAL), moved.rule(turn + (TOTAL - turn) // 2, TOTAL)
    assert half_first.upper.at(0) == pytest.approx(0.35)
    assert half_second.lower.at(0) == pytest.approx(0.25)


@pytest.mark.parametrize("strategy", ALL)
@steady
@given(step=st.integers(0, 500), entropy=st.floats(0, 5))
def test_every_step_has_a_valid_rule_and_a_second_query_changes_nothing(strategy, step: int, entropy: float) -> None:
    held = told(strategy(), step, TOTAL, entropy)
    first, state = (held.clip(), held.phase), held.state_dict()
    assert (held.clip(), held.phase) == first
    assert held.state_dict() == state


@pytest.mark.parametrize("strategy", [Constant, IncreaseThenDecrease, DecreaseIncreaseDecrease])
def test_after_the_last_step_the_last_rule_stays(strategy) -> None:
    assert strategy().rule(TOTAL + 7, TOTAL) == strategy().rule(TOTAL, TOTAL)
    assert strategy().rule(1, 1) == strategy().rule(TOTAL, TOTAL)


def test_constant_is_grpo_by_default_and_any_rule_if_given() -> None:
    assert Constant().rule(17, TOTAL) == ClipRule(STANDARD, STANDARD)
    higher = ClipRule.constant(upper=0.28)
    assert Constant(higher).rule(17, TOTAL) == higher
    assert Constant().phase_at(17 / TOTAL) == "hold"


def test_phases_turn_where_the_thresholds_do() -> None:
    by_id = [IncreaseThenDecrease().phase_at(step / TOTAL) for step in (0, 100, 200, 201, 400)]
    assert by_id == ["increase", "increase", "increase", "decrease", "decrease"]
    by_did = [DecreaseIncreaseDecrease().phase_at(step / TOTAL) for step in (0, 100, 101, 200, 201, 400)]
    assert by_did == ["decrease", "decrease", "increase", "increase", "decrease", "decrease"]


def test_oscillation_boosts_at_the_lower_bound_until_the_falling_upper_one() -> None:
    strategy = OscillatoryDecay(h_init=1.0)
    boost, suppress = ClipRule(H, STANDARD), ClipRule(STANDARD, M)
    course = [
        (0, 1.0, suppress),
        (10, 0.21, suppress),
        (11, 0.20, boost),
        (20, 0.50, boost),
        (50, 0.90, boost),
        (100, 0.80, boost),
        (101, 0.799, suppress),
        (200, 0.30, suppress),
        (210, 0.19, boost),
        (399, 0.201, boost),
        (399, 0.203, suppress),
    ]
    for step, entropy, expected in course:
        assert told(strategy, step, TOTAL, entropy).clip() == expected, (step, entropy)
        assert strategy.phase == ("increase" if expected == boost else "decrease")


def test_oscillation_starts_suppressing_and_uses_the_first_entropy_as_its_ceiling() -> None:
    strategy = OscillatoryDecay()
    assert strategy.clip() == ClipRule(STANDARD, M)
    told(strategy, 1, TOTAL, 0.5)
    assert told(strategy, 2, TOTAL, 0.11).clip() == ClipRule(STANDARD, M)
    assert told(strategy, 3, TOTAL, 0.10).clip() == ClipRule(H, STANDARD)


def test_a_configured_ceiling_wins_over_the_first_entropy() -> None:
    strategy = OscillatoryDecay(h_init=2.0)
    assert told(strategy, 1, TOTAL, 0.5).clip() == ClipRule(STANDARD, M)
    assert told(strategy, 2, TOTAL, 0.4).clip() == ClipRule(H, STANDARD)


@steady
@given(st.lists(st.floats(0.0, 2.0), min_size=2, max_size=30), st.data())
def test_oscillation_resumes_on_the_same_course(course: list[float], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(course) - 1))
    whole, before, after = OscillatoryDecay(), OscillatoryDecay(), OscillatoryDecay()
    expected = [told(whole, step, TOTAL, entropy).clip() for step, entropy in enumerate(course)]
    for step, entropy in enumerate(course[:cut]):
        told(before, step, TOTAL, entropy)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert [told(after, cut + i, TOTAL, entropy).clip() for i, entropy in enumerate(course[cut:])] == expected[cut:]


def test_a_strategy_without_memory_refuses_another_ones_state() -> None:
    state = OscillatoryDecay().state_dict()
    with pytest.raises(ValueError, match=r"IncreaseThenDecrease has no state.*boost"):
        IncreaseThenDecrease().load_state_dict(state)
    assert IncreaseThenDecrease().state_dict() == {}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: IncreaseThenDecrease(split=0.0), "split is 0"),
        (lambda: DecreaseIncreaseDecrease(split=1.0), "split is 1"),
        (lambda: IncreaseThenDecrease(eps_std=-0.1), "inverts the band"),
        (lambda: DecreaseIncreaseDecrease(upper=LinearThreshold(1.5, 0.2)), "denominator.*zero at q = 0.6667"),
        (lambda: IncreaseThenDecrease(lower=LinearThreshold(-0.5, 0.3)), "ClipRule.lower.* at q = 1"),
        (lambda: OscillatoryDecay(h_init=0.0), "h_init is 0"),
        (lambda: OscillatoryDecay(h_init=math.nan), "h_init is nan"),
        (lambda: OscillatoryDecay(h_min_ratio=1.0), "h_min_ratio is 1"),
        (lambda: OscillatoryDecay(upper=LinearThreshold(0.0, -0.1)), "inverts the band"),
        (lambda: told(OscillatoryDecay(), 3, TOTAL, math.nan), "entropy is nan at step 3"),
        (lambda: Constant().rule(-1, TOTAL), "step is -1"),
        (lambda: IncreaseThenDecrease().rule(0, 0), "total_steps is 0"),
    ],
)
def test_bad_settings_are_refused_when_built_with_the_field_and_the_value(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
