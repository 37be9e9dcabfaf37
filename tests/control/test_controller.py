"""The controller: what it sets after what it observed, resuming, hostile input."""

import json
import math

import pytest
import torch

from entrostat.control import (
    Adapo,
    AdaptiveBonus,
    Constant,
    ConstantBonus,
    Curve,
    DualClipped,
    EntroPic,
    EntropicWeights,
    EntropyController,
    FixedWeights,
    IncreaseThenDecrease,
    Mai,
    Measured,
    OscillatoryDecay,
    Part,
    PolarityAware,
    RepoR,
    TargetEntropy,
    TargetWeights,
    TokenBatch,
)
from entrostat.control.part import bonus, weighting
from entrostat.entropy import polarity
from entrostat.objective import ClipRule, DppoClip, DualClip
from entrostat.recipe.methods import STRATEGIES, build
from entrostat.runs.schema import STEP
from entrostat.tokens import TokenStats, token_stats

TOTAL = 40


def test_the_rule_in_force_is_that_of_the_steps_done() -> None:
    strategy = IncreaseThenDecrease()
    controller = EntropyController(strategy, TOTAL)
    assert controller.rule() == strategy.rule(0, TOTAL)
    for step in range(1, TOTAL + 1):
        controller.observe(step, 2.0, 4)
        assert controller.rule() == strategy.rule(step, TOTAL)


def test_a_schedule_advances_without_a_measurement_and_nothing_observes_one() -> None:
    schedule, following = EntropyController(IncreaseThenDecrease(), TOTAL), EntropyController(OscillatoryDecay(), TOTAL)
    before = following.state_dict()["parts"]
    for step in (1, 5, TOTAL):
        schedule.advance(step)
        following.advance(step)
        assert schedule.rule() == IncreaseThenDecrease().rule(step, TOTAL)
    assert following.state_dict()["parts"] == before
    assert schedule.metrics() == {}
    with pytest.raises(ValueError, match="step is 4 after step 40"):
        schedule.advance(4)
    with pytest.raises(ValueError, match="of None"):
        EntropyController(Constant()).advance(1)
    observed = EntropyController(Constant(), TOTAL)
    observed.advance(3)
    observed.observe(4, 2.0, 1)
    assert observed.metrics()["entropy"] == 2.0


def test_entropy_is_the_sum_over_the_count_and_smoothed_from_the_first() -> None:
    controller = EntropyController(Constant(), TOTAL, ema=0.5)
    smoothed = []
    for step, (total, count) in enumerate([(8.0, 4), (4.0, 4), (0.0, 2)], start=1):
        controller.observe(step, total, count)
        smoothed.append(controller.metrics()["entropy_smoothed"])
    assert smoothed == [2.0, 1.5, 0.75]
    assert controller.metrics()["entropy"] == 0.0


def test_cutting_the_sums_over_ranks_changes_nothing() -> None:
    whole, cut = EntropyController(OscillatoryDecay(), TOTAL), EntropyController(OscillatoryDecay(), TOTAL)
    for step, (a, b) in enumerate([((3.0, 6), (5.0, 4)), ((0.1, 5), (0.2, 5))], start=1):
        cut.observe(step, a[0] + b[0], a[1] + b[1])
        whole.observe(step, (a[0] + b[0]) / 10 * (a[1] + b[1]), a[1] + b[1])
    assert whole.metrics() == cut.metrics()
    assert whole.rule() == cut.rule()


def test_the_strategy_sees_the_smoothed_entropy() -> None:
    raw, smooth = EntropyController(OscillatoryDecay(), TOTAL), EntropyController(OscillatoryDecay(), TOTAL, ema=0.9)
    for controller in (raw, smooth):
        controller.observe(1, 1.0, 1)
        controller.observe(2, 0.1, 1)
    assert raw.phase == "increase"
    assert smooth.phase == "decrease"


def test_the_record_has_what_was_in_force_during_the_observed_step() -> None:
    controller = EntropyController(OscillatoryDecay(h_init=1.0), TOTAL)
    controller.observe(1, 0.1, 1)
    record = controller.metrics()
    assert record["phase"] == "decrease"
    assert controller.phase == "increase"
    assert record["bounds"] == {
        "upper_slope": 0.0,
        "upper_intercept": 0.2,
        "lower_slope": -0.13,
        "lower_intercept": 0.3,
    }
    json.dumps(record, allow_nan=False)


@pytest.mark.parametrize("cut", [1, 3, 7])
def test_a_resumed_controller_continues_as_if_it_had_never_stopped(cut: int) -> None:
    course = [1.0, 0.6, 0.15, 0.1, 0.3, 0.95, 0.9, 0.2, 0.1]
    build = lambda: EntropyController(OscillatoryDecay(), TOTAL, ema=0.3, reweighting=FixedWeights(1.1, 0.9))  # noqa: E731
    whole, before, after = build(), build(), build()
    for step, entropy in enumerate(course, start=1):
        whole.observe(step, entropy, 1)
        if step <= cut:
            before.observe(step, entropy, 1)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert after.rule() == before.rule()
    for step, entropy in list(enumerate(course, start=1))[cut:]:
        after.observe(step, entropy, 1)
    assert after.state_dict() == whole.state_dict()
    assert after.rule() == whole.rule()
    assert after.metrics() == whole.metrics()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_entropy_that_is_not_finite_stops_with_its_step_and_keeps_the_last_good_state(bad: float) -> None:
    controller = EntropyController(OscillatoryDecay(), TOTAL, ema=0.5)
    controller.observe(4, 1.0, 2)
    state, metrics, rule = controller.state_dict(), controller.metrics(), controller.rule()
    with pytest.raises(ValueError, match=r"entropy is .* at step 5"):
        controller.observe(5, bad, 2)
    assert controller.state_dict() == state
    assert controller.metrics() == metrics
    assert controller.rule() == rule


@pytest.mark.parametrize("step", [0, 3])
def test_a_step_that_is_observed_twice_is_refused(step: int) -> None:
    controller = EntropyController(Constant(), TOTAL)
    controller.observe(3, 1.0, 1)
    with pytest.raises(ValueError, match=rf"step is {step} after step 3"):
        controller.observe(step, 1.0, 1)


@pytest.mark.parametrize("count", [0, -1, math.nan])
def test_a_step_without_tokens_is_refused(count: float) -> None:
    with pytest.raises(ValueError, match="token_count"):
        EntropyController(Constant(), TOTAL).observe(1, 1.0, count)


@pytest.mark.parametrize("ema", [1.0, -0.1, math.nan])
def test_a_smoothing_out_of_range_is_refused(ema: float) -> None:
    with pytest.raises(ValueError, match=r"EntropyController\.ema"):
        EntropyController(Constant(), TOTAL, ema=ema)


def test_the_state_of_another_strategy_is_refused() -> None:
    state = EntropyController(OscillatoryDecay(), TOTAL).state_dict()
    with pytest.raises(ValueError, match=r"OscillatoryDecay.*the recipe has .*Constant"):
        EntropyController(Constant(), TOTAL).load_state_dict(state)


def test_without_reweighting_the_weights_are_ones_and_the_coefficient_zero() -> None:
    stats = token_stats(torch.randn(4, 6), torch.arange(4))
    controller = EntropyController(Constant(), TOTAL)
    assert torch.equal(controller.weights(stats, torch.ones(4)), torch.ones(4))
    assert controller.entropy_coef() == 0.0


def test_fixed_weights_split_by_the_sign_of_the_polarity() -> None:
    stats = token_stats(torch.randn(50, 6, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 6)
    adv = torch.linspace(-1, 1, 50)
    weights = EntropyController(Constant(), TOTAL, reweighting=FixedWeights(1.3, 0.6)).weights(stats, adv)
    expands = polarity(stats, adv) > 0
    torch.testing.assert_close(weights, torch.where(expands, 1.3, 0.6))


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"FixedWeights\.contracting is -0\.1"):
        FixedWeights(contracting=-0.1)


def test_total_steps_may_be_set_later_by_the_trainer():
    later, given = EntropyController(IncreaseThenDecrease()), EntropyController(IncreaseThenDecrease(), 4)
    assert later.rule() == given.rule()
    with pytest.raises(ValueError, match="total_steps is None"):
        later.observe(1, 1.0, 1.0)
    later.begin(4)
    for step in range(1, 5):
        for controller in (later, given):
            controller.observe(step, 1.0, 1.0)
        assert (later.rule(), later.phase) == (given.rule(), given.phase)
    with pytest.raises(ValueError, match="total_steps is 0"):
        later.begin(0)


def test_the_state_of_a_run_of_another_length_is_refused_and_changes_nothing():
    whole = EntropyController(IncreaseThenDecrease(), 4)
    for step in range(1, 4):
        whole.observe(step, 1.0, 1.0)
    other = EntropyController(IncreaseThenDecrease(), 8)
    with pytest.raises(ValueError, match="total_steps is 8, but the resumed run had 4"):
        other.load_state_dict(whole.state_dict())
    assert other.state_dict()["step"] == 0
    other.load_state_dict(whole.state_dict(), extended=True)
    assert other.rule() == IncreaseThenDecrease().rule(3, 8)


class Recorder(Part):
    """Keeps what it is told and asked."""

    def __init__(self) -> None:
        self.told: list[Measured] = []
        self.asked: list[TokenBatch] = []

    def observe(self, step: Measured) -> None:
        self.told.append(step)

    def weights(self, batch: TokenBatch) -> torch.Tensor:
        self.asked.append(batch)
        return torch.full_like(batch.stats.logp, 0.5)

    def bonus(self) -> float:
        return 0.25


def test_weights_multiply_bonuses_add_and_one_part_owns_the_band() -> None:
    controller = EntropyController(
        FixedWeights(1.3, 0.6), DppoClip(0.1), Recorder(), ConstantBonus(0.5), total_steps=TOTAL
    )
    assert controller.rule() == DppoClip(0.1)
    assert controller.entropy_coef() == 0.75
    stats = token_stats(torch.randn(9, 6), torch.arange(9) % 6)
    alone = EntropyController(Constant(), TOTAL, reweighting=FixedWeights(1.3, 0.6))
    advantages = torch.linspace(-1, 1, 9)
    expected = 0.5 * alone.weights(stats, advantages)
    torch.testing.assert_close(controller.weights(stats, advantages), expected)
    with pytest.raises(ValueError, match=r"Constant and IncreaseThenDecrease each own the clip band"):
        EntropyController(ClipRule(), IncreaseThenDecrease())


def test_a_part_receives_the_step_and_the_tokens_under_the_band_in_force() -> None:
    part = Recorder()
    controller = EntropyController(ClipRule.constant(0.2, 0.2), part, total_steps=10, ema=0.5)
    controller.observe(1, 8.0, 4, kl_old=0.1, pass_rate=0.25)
    controller.observe(2, 0.0, 4, kl_sampler=0.2)
    assert part.told == [
        Measured(1, 0.1, 2.0, kl_old=0.1, pass_rate=0.25),
        Measured(2, 0.2, 1.0, kl_sampler=0.2),
    ]
    stats = token_stats(torch.zeros(3, 4), torch.tensor([0, 1, 2]))
    old = stats.logp - torch.tensor([0.0, 0.5, -0.5])
    mask = torch.tensor([1, 1, 1])
    controller.weights(
        stats, torch.tensor([1.0, 1.0, -1.0]), mask, old_logp=old, token_weights=torch.tensor([1.0, 2, 3])
    )
    batch = part.asked[0]
    torch.testing.assert_close(batch.ratio, torch.tensor([0.0, 0.5, -0.5]).exp())
    assert batch.clipped_high.tolist() == [False, True, False]
    assert batch.clipped_low.tolist() == [False, False, True]
    assert batch.token_weights.tolist() == [1, 2, 3]


def test_weights_outside_the_mask_are_one_whatever_is_there() -> None:
    stats = token_stats(torch.randn(4, 6), torch.arange(4))
    last, others = torch.tensor([3]), (stats.entropy, stats.collision, stats.correction)
    stats = TokenStats(stats.logp.index_fill(0, last, -math.inf), *(x.index_fill(0, last, math.nan) for x in others))
    advantages = torch.tensor([1.0, -1.0, 0.5, math.nan])
    mask = torch.tensor([True, True, True, False])
    for name in weighting:
        if name == "gepo":
            continue
        part = build(weighting, {"name": name, **REQUIRED.get(name, {})})
        found = EntropyController(part, total_steps=TOTAL).weights(stats, advantages, mask, old_entropy=stats.entropy)
        assert bool(found.isfinite().all()), name
        assert found[3] == 1


CURVE = {"points": [[0, 0.5], [1, 0.2]]}
REQUIRED = {
    "skip-region": {"region": "E1"},
    "target-weights": {"curve": CURVE},
    "target-entropy": {"curve": CURVE},
    "entropic": {"target": 0.5, "likely": 0.2},
    "entropic-weights": {"target": 0.5},
    "repo-r": {"target": 0.5},
    "adapo": {"target": 0.5},
    "aepo": {"low": 0.1, "high": 0.5},
    "gepo": {"group_size": 2},
    "free-region": {"region": "E1"},
    "piecewise": {"stages": [{"until": 1}]},
    "adaptive": {"target": 0.5},
}
EVERY = [
    *((STRATEGIES, name) for name in STRATEGIES),
    *((weighting, name) for name in weighting),
    (bonus, "adaptive"),
]


@pytest.mark.parametrize(("table", "name"), EVERY, ids=lambda value: value if isinstance(value, str) else value.kind)
def test_queries_do_not_change_a_part_and_it_resumes_from_its_state(table, name) -> None:
    course = [0.6, 0.1, 0.3, 0.05, 0.7, 0.2]

    def made() -> EntropyController:
        return EntropyController(build(table, {"name": name, **REQUIRED.get(name, {})}), total_steps=len(course))

    def answers(controller: EntropyController) -> tuple[object, ...]:
        torch.manual_seed(0)
        weights = controller.weights(STATS, SIGNS, old_logp=STATS.logp - 0.1, old_entropy=STATS.entropy * 1.03)
        term = controller.unclipped(STATS, SIGNS, torch.ones(4, 5))
        return controller.rule(), controller.phase, controller.entropy_coef(), weights.tolist(), term.tolist()

    asked, silent = made(), made()
    for step, entropy in enumerate(course, start=1):
        for _ in range(3):
            answers(asked)
        if name == "gepo":  # its thresholds come from the batch whose weights were asked for, however often
            answers(silent)
        asked.observe(step, entropy, 1)
        silent.observe(step, entropy, 1)
        assert asked.state_dict() == silent.state_dict()
        assert answers(asked) == answers(silent)
        if step == 3:
            silent, before = made(), silent
            silent.load_state_dict(json.loads(json.dumps(before.state_dict())))
            assert answers(silent) == answers(before)


STATS = token_stats(torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0)), torch.arange(20).view(4, 5) % 6)
SIGNS = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))


def test_a_schedule_works_with_a_dual_clip() -> None:
    plain, dual = IncreaseThenDecrease(), DualClipped(IncreaseThenDecrease(), cap=3.0)
    one, other = EntropyController(plain, total_steps=8), EntropyController(dual, total_steps=8)
    for step in range(1, 9):
        for controller in (one, other):
            controller.observe(step, 0.5, 1)
        assert other.rule() == DualClip(one.rule(), 3.0)
        assert other.phase == one.phase
    with pytest.raises(ValueError, match="the strategy already has a dual clip"):
        DualClipped(Constant(DualClip()))


def test_the_state_of_a_controller_that_had_roles_is_read() -> None:
    controller = EntropyController(OscillatoryDecay(), FixedWeights(), total_steps=TOTAL)
    controller.observe(1, 1.0, 1)
    state = controller.state_dict()
    roles = {**state, "parts": dict(zip(("strategy", "reweighting"), state["parts"], strict=True))}
    other = EntropyController(OscillatoryDecay(), FixedWeights(), total_steps=TOTAL)
    other.load_state_dict(roles)
    assert other.state_dict() == state


def test_two_controllers_may_share_a_schedule() -> None:
    shared = IncreaseThenDecrease()
    ahead, behind = EntropyController(shared, total_steps=8), EntropyController(shared, total_steps=8)
    ahead.observe(6, 0.5, 1)
    assert behind.rule() == shared.rule(0, 8)
    assert ahead.rule() == shared.rule(6, 8)
    assert (ahead.phase, behind.phase) == ("decrease", "increase")


class Given(Part):
    """A part that keeps the batch that it is given, and weighs nothing."""

    def weights(self, batch):
        self.batch = batch


def given_batch():
    stats = token_stats(torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(0)), torch.ones(2, 5).long())
    return stats, torch.linspace(-1, 1, 10).view(2, 5), torch.arange(10).view(2, 5) % 3 > 0


def test_a_part_is_given_what_the_trainer_passes() -> None:
    stats, advantages, mask = given_batch()
    passed = {
        name: torch.full((2, 5), float(i))
        for i, name in enumerate(("old_logp", "sampler_logp", "token_weights", "sequences", "old_entropy"))
    }
    for ask in ("weights", "advantages"):
        part = Given()
        getattr(EntropyController(part, total_steps=4), ask)(stats, advantages, mask, **passed)
        assert part.batch.stats is stats
        assert torch.equal(part.batch.mask, mask)
        assert torch.equal(part.batch.advantages, advantages)
        assert part.batch.rule == ClipRule()
        for name, value in passed.items():
            assert torch.equal(getattr(part.batch, name), value), name


def test_what_the_trainer_does_not_pass_is_on_policy_unmasked_and_weighed_alike() -> None:
    stats, advantages, mask = given_batch()
    part = Given()
    controller = EntropyController(part, total_steps=4)
    assert torch.equal(controller.weights(stats, advantages), torch.ones(2, 5))
    assert torch.equal(part.batch.old_logp, stats.logp)
    assert part.batch.mask.all()
    assert torch.equal(part.batch.token_weights, torch.ones(2, 5))
    assert part.batch.sampler_logp is part.batch.sequences is part.batch.old_entropy is None
    assert torch.equal(controller.advantages(stats, advantages, mask, old_logp=stats.logp), advantages)
    assert torch.equal(part.batch.token_weights, torch.ones(2, 5))


def test_advantages_that_a_part_sets_are_weighed_by_the_others() -> None:
    class Doubled(Part):
        def advantages(self, batch):
            return 2 * batch.advantages

        def weights(self, batch):
            return torch.full_like(batch.advantages, 3.0)

    stats, advantages, mask = given_batch()
    found = EntropyController(Doubled(), total_steps=4).advantages(stats, advantages, mask, old_logp=stats.logp)
    assert torch.equal(found, torch.where(mask, 6 * advantages, 2 * advantages))


LINE = Curve.between(0.6, 0.2)
STEERED = [
    TargetWeights(LINE),
    TargetEntropy(LINE),
    PolarityAware(reference=LINE),
    AdaptiveBonus(LINE),
    RepoR(LINE),
    EntroPic(LINE),
    EntropicWeights(LINE),
    Mai(LINE),
    Adapo(LINE),
]


@pytest.mark.parametrize("part", STEERED, ids=lambda part: type(part).__name__)
def test_the_record_has_the_entropy_that_a_part_steers_to_at_that_step(part: Part):
    controller = EntropyController(part, total_steps=10)
    for step in range(1, 11):
        push = part.push
        controller.observe(step, 0.5, 1)
        metrics = controller.metrics()
        if type(part) is not PolarityAware or step > 1:
            assert metrics["entropy_target"] == pytest.approx(LINE.at((step - 1) / 10))
        assert metrics.get("entropy_push") == push
        STEP.check({"step": step} | metrics, "steps.jsonl")


def test_a_curve_relative_to_the_start_is_recorded_in_nats_once_the_start_is_known():
    controller = EntropyController(TargetWeights(Curve(((0.0, 0.5),), unit="start")), 4)
    records = []
    for step, entropy in enumerate((0.8, 0.7, 0.3), 1):
        controller.observe(step, entropy, 1)
        records.append(controller.metrics().get("entropy_target"))
    assert records == [None, 0.4, 0.4]


def test_a_run_without_a_target_records_none():
    controller = EntropyController(Constant(), total_steps=2)
    controller.observe(1, 0.5, 1)
    assert not {"entropy_target", "entropy_push"} & set(controller.metrics())
