"""The coefficient of an entropy bonus: constant, and moved towards a target."""

import json

import pytest
from parts import measured

from entrostat.control import AdaptiveBonus, Constant, ConstantBonus, Curve, EntropyController


def test_a_constant_bonus_is_the_controllers_coefficient() -> None:
    controller = EntropyController(Constant(), 10, bonus=ConstantBonus(0.01))
    controller.observe(1, 0.5, 1)
    assert controller.entropy_coef() == controller.metrics()["entropy_coef"] == 0.01


def test_adaptive_rises_below_the_target_falls_above_and_is_in_force_only_below() -> None:
    bonus, course = AdaptiveBonus(target=0.5, delta=0.1, most=0.25), []
    for entropy in (0.4, 0.5, 0.3, 0.6, 0.7, 0.4):
        bonus.observe(measured(entropy, 0.0))
        course.append(bonus.bonus())
    assert course == pytest.approx([0.1, 0.2, 0.25, 0.0, 0.0, 0.15])


def test_adaptive_is_off_before_the_first_entropy_and_never_negative() -> None:
    bonus = AdaptiveBonus(target=0.5, start=0.01)
    assert bonus.bonus() == 0.0
    for _ in range(9):
        bonus.observe(measured(0.9, 0.0))
    bonus.observe(measured(0.4, 0.0))
    assert bonus.bonus() == pytest.approx(0.005)


def test_a_resumed_bonus_continues_as_if_it_had_never_stopped() -> None:
    first, second = AdaptiveBonus(target=0.5), AdaptiveBonus(target=0.5)
    first.observe(measured(0.4, 0.0))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for bonus in (first, second):
        bonus.observe(measured(0.3, 0.0))
    assert first.bonus() == second.bonus() > 0.005


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="ConstantBonus"):
        ConstantBonus(-0.1)
    for settings in ({"target": 0.0}, {"target": 1.0, "delta": 0.0}, {"target": 1.0, "start": 2.0}):
        with pytest.raises(ValueError, match="AdaptiveBonus"):
            AdaptiveBonus(**settings)


def test_an_adaptive_target_may_be_a_curve() -> None:
    bonus = AdaptiveBonus(Curve.between(1.0, 0.2), delta=0.1)
    bonus.observe(measured(0.5, 0.25))
    assert bonus.bonus() == pytest.approx(0.1)
    bonus.observe(measured(0.5, 0.75))
    assert bonus.bonus() == 0
