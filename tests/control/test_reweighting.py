"""Weightings: worked numbers, what each leaves alone, signs that never turn, resuming."""

import json
import math

import pytest
import torch
from parts import measured, weights_of
from torch import Tensor

from entrostat.control import (
    ClipCov,
    Constant,
    Curve,
    Entrocraft,
    EntropicWeights,
    EntropyController,
    EntropyOutliers,
    EntropyRatioClip,
    FixedWeights,
    Gepo,
    HighEntropyTokens,
    Opefo,
    Part,
    PolarityAware,
    SkipRegion,
    Stare,
    Steer,
    TargetWeights,
)
from entrostat.entropy import Region, polarity, regions, sensitivity
from entrostat.tokens import TokenStats, token_stats

F64 = torch.float64


class Batch:
    """Sampled tokens (12, 20) of random states, with advantages of both signs and a mask."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        logits = 2 * torch.randn(12, 20, 30, generator=generator, dtype=F64)
        ids = torch.multinomial(logits.softmax(-1).flatten(0, 1), 1, generator=generator).view(12, 20)
        self.stats = token_stats(logits, ids)
        self.advantages = torch.randn(12, 20, generator=generator, dtype=F64)
        self.mask = torch.rand(12, 20, generator=generator) < 0.8

    def weights(self, weighting: Part) -> Tensor:
        return weights_of(weighting, self.stats, self.advantages, self.mask)


def told(weighting: Part, *entropies: float, progress: float = 0.5) -> Part:
    for entropy in entropies:
        weighting.observe(measured(entropy, progress))
    return weighting


def stats_of(p: list[float], entropy: list[float]) -> TokenStats:
    logp, h = torch.tensor(p, dtype=F64).log(), torch.tensor(entropy, dtype=F64)
    return TokenStats(logp, h, torch.zeros_like(h), torch.zeros_like(h))


EVERY = [
    lambda: FixedWeights(1.2, 0.8),
    lambda: told(PolarityAware(), 1.0, 0.5),
    lambda: told(PolarityAware(graded=True, signal="slope", lag=1), 1.0, 0.5),
    Opefo,
    lambda: told(Stare(), 0.1),
    Steer,
    lambda: Steer(form="exponential"),
    lambda: told(EntropicWeights(target=1.0), 0.2),
    lambda: told(TargetWeights(Curve.constant(1.0)), 0.2),
    lambda: told(Entrocraft(), 0.1),
    lambda: Gepo(group_size=4),
    HighEntropyTokens,
    lambda: ClipCov(low=0.1),
    EntropyOutliers,
    lambda: EntropyOutliers(limit=2.0, centred=True),
    lambda: told(Stare(variant="C2"), 0.1),
    lambda: HighEntropyTokens(divide_by_kept=False),
    lambda: SkipRegion("E1"),
]


@pytest.mark.parametrize("build", EVERY)
def test_no_weight_is_negative_and_all_have_the_shape_of_the_tokens(build) -> None:
    batch = Batch()
    weights = batch.weights(build())
    assert weights.shape == batch.mask.shape
    assert (weights >= 0).all()
    assert not weights.requires_grad


@pytest.mark.parametrize("build", EVERY)
def test_tokens_outside_the_mask_do_not_change_the_weights_of_the_others(build) -> None:
    torch.manual_seed(0)
    batch = Batch()
    clean = batch.weights(build())[batch.mask]
    other = Batch(seed=1)
    mixed = TokenStats(
        *(
            torch.where(batch.mask, getattr(batch.stats, field), getattr(other.stats, field))
            for field in ("logp", "entropy", "collision", "correction")
        )
    )
    batch.stats, batch.advantages = mixed, torch.where(batch.mask, batch.advantages, 99.0)
    torch.manual_seed(0)
    torch.testing.assert_close(batch.weights(build())[batch.mask], clean)


def test_polarity_aware_level_expands_below_its_reference_and_contracts_above() -> None:
    batch = Batch()
    expands = polarity(batch.stats, batch.advantages) > 0
    low = told(PolarityAware(strength=0.4, scale=0.5), 1.0, 0.75)
    assert low.push == pytest.approx(0.5)
    torch.testing.assert_close(batch.weights(low), torch.where(expands, 1.2, 0.8).to(F64))
    high = told(PolarityAware(strength=0.4, scale=0.5), 1.0, 9.0)
    assert high.push == -1
    torch.testing.assert_close(batch.weights(high), torch.where(expands, 0.6, 1.4).to(F64))


def test_polarity_aware_rewarded_only_leaves_punished_tokens_alone() -> None:
    plain, rewarded = (told(PolarityAware(rewarded_only=only), 1.0, 0.5) for only in (False, True))
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    mask = torch.ones(1, 4, dtype=torch.bool)
    stats = token_stats(torch.randn(1, 4, 9, generator=torch.Generator().manual_seed(0)), torch.tensor([[0, 1, 2, 3]]))
    both, own = weights_of(plain, stats, advantages, mask), weights_of(rewarded, stats, advantages, mask)
    assert own[advantages < 0].tolist() == [1.0, 1.0]
    assert torch.equal(own[advantages > 0], both[advantages > 0])
    assert not torch.equal(own, both)


def test_polarity_aware_follows_a_scheduled_reference() -> None:
    weighting = PolarityAware(scale=1.0, reference=Curve.between(2.0, 1.0))
    weighting.observe(measured(1.0, 0.0))
    assert weighting.push == pytest.approx(0.5)
    weighting.observe(measured(1.0, 1.0))
    assert weighting.push == 0


def test_polarity_aware_slope_waits_for_its_lag_and_answers_a_fall_by_expansion() -> None:
    weighting = PolarityAware(signal="slope", lag=2, scale=0.5)
    phases = []
    for entropy in (1.0, 0.9, 0.8, 0.9):
        weighting.observe(measured(entropy, 0.0))
        phases.append(weighting.push)
    assert phases == pytest.approx([0.0, 0.0, 0.4, 0.0])


def test_graded_weights_grow_with_the_size_of_the_sensitivity() -> None:
    batch = Batch()
    size = sensitivity(batch.stats).abs()[batch.mask]
    push = (batch.weights(told(PolarityAware(graded=True), 1.0, 0.1))[batch.mask] - 1).abs()
    assert push.min() == 0
    assert push.max() == pytest.approx(0.5)
    assert torch.equal(size.argsort(), push.argsort())


def test_before_any_entropy_polarity_aware_leaves_the_advantages_alone() -> None:
    assert (Batch().weights(PolarityAware()) == 1).all()


def test_opefo_makes_the_net_flow_zero() -> None:
    batch = Batch()
    flow = polarity(batch.stats, batch.advantages)
    assert flow[batch.mask].sum().abs() > 0.1
    balanced = (batch.weights(Opefo()) * flow)[batch.mask].sum()
    torch.testing.assert_close(balanced, torch.zeros_like(balanced), atol=1e-12, rtol=0)


def test_opefo_keeps_within_its_bound_and_leaves_a_batch_without_flow_alone() -> None:
    batch = Batch()
    batch.advantages = polarity(batch.stats, torch.ones_like(batch.advantages)).sign()
    weights = batch.weights(Opefo(bound=0.3))
    torch.testing.assert_close(weights.unique(), torch.tensor([0.7], dtype=F64))
    batch.advantages = torch.zeros_like(batch.advantages)
    assert (batch.weights(Opefo()) == 1).all()


def test_stare_lifts_the_most_surprising_tenth_of_the_rewarded_tokens_while_entropy_is_low() -> None:
    batch = Batch()
    weights = batch.weights(told(Stare(), 0.2))
    lifted = weights > 1
    rewarded = batch.mask & (batch.advantages > 0)
    assert int(lifted.sum()) == math.ceil(0.1 * int(rewarded.sum()))
    assert not (lifted & ~rewarded).any()
    assert batch.stats.logp[lifted].max() <= batch.stats.logp[rewarded & ~lifted].min()
    torch.testing.assert_close(weights[lifted], torch.full_like(weights[lifted], 1.1))
    assert (batch.weights(told(Stare(), 0.4)) == 1).all()


def test_stare_lifts_at_least_one_rewarded_token_and_rounds_up() -> None:
    batch = Batch()
    batch.mask &= batch.mask.cumsum(-1) + 8 * torch.arange(12)[:, None] <= 13
    rewarded = int((batch.mask & (batch.advantages > 0)).sum())
    for share in (1e-4, 0.1, 0.5, 1.0):
        lifted = batch.weights(told(Stare(share=share), 0.2)) > 1
        assert int(lifted.sum()) == math.ceil(share * rewarded)


def test_adaptive_stare_starts_at_its_weight_moves_in_steps_of_a_hundredth_and_is_gated() -> None:
    assert told(Stare(adaptive=True), *[0.1] * 3).state_dict()["weight"] == pytest.approx(1.13)
    assert told(Stare(adaptive=True), *[0.1] * 99).state_dict()["weight"] == 1.5
    high = told(Stare(adaptive=True), *[0.1] * 5, 0.5)
    assert high.state_dict()["weight"] == pytest.approx(1.14)
    assert (Batch().weights(high) == 1).all()
    assert told(high, *[0.5] * 20).state_dict()["weight"] == 1.0


def test_stare_c2_weighs_the_most_surprising_punished_tokens_less_as_well() -> None:
    batch = Batch()
    weights = batch.weights(told(Stare(variant="C2", adaptive=True), 0.2))
    punished = batch.mask & (batch.advantages < 0)
    lowered = weights < 1
    assert int(lowered.sum()) == math.ceil(0.1 * int(punished.sum()))
    assert batch.stats.logp[lowered].max() <= batch.stats.logp[punished & ~lowered].min()
    torch.testing.assert_close(weights[lowered], torch.full_like(weights[lowered], 0.89))
    assert (weights[batch.mask & (batch.advantages > 0)].max() - 1.11).abs() < 1e-9


def test_steer_worked_numbers() -> None:
    stats = stats_of([0.5, 0.1, 0.9], [1.0, 1.0, 0.3])
    adv, mask = torch.tensor([1.0, -2.0, 0.5], dtype=F64), torch.ones(3, dtype=torch.bool)
    old = stats.logp - torch.tensor([2.0, 1.0, 1.0], dtype=F64).log()  # the first token's ratio is 2
    omega = [2 * 0.5 * (1 - math.log(2)), 2 * 0.9 * (math.log(10) - 1), 0.5 * 0.1 * (0.3 + math.log(0.9))]
    share = (omega[0] - omega[2]) / (omega[1] - omega[2])
    linear = weights_of(Steer(), stats, adv, mask, old_logp=old)
    torch.testing.assert_close(linear, torch.tensor([1.2 - 0.4 * share, 0.8, 1.2], dtype=F64))
    exponential = weights_of(Steer(form="exponential"), stats, adv, mask, old_logp=old)
    torch.testing.assert_close(exponential, torch.tensor([0.8 ** (x / omega[1]) for x in omega], dtype=F64))


def test_steer_falls_less_steeply_where_every_change_is_small() -> None:
    stats = stats_of([0.5, 0.5], [0.6, 0.6])
    adv = torch.tensor([0.02, 0.0], dtype=F64)
    omega = 0.02 * 0.5 * (math.log(2) - 0.6)
    weights = weights_of(Steer(form="exponential"), stats, adv, torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(weights[0], torch.tensor(0.8 ** (omega / 0.02), dtype=F64))
    same = weights_of(Steer(), stats, torch.ones(2, dtype=F64), torch.ones(2, dtype=torch.bool))
    assert same.tolist() == [1.0, 1.0]


def test_entropic_answers_low_entropy_by_learning_from_failures() -> None:
    batch = Batch()
    weights = batch.weights(told(EntropicWeights(target=1.0, kp=0.5, ki=0.1), 0.8))
    expected = torch.where(batch.advantages > 0, 1 - 0.12, 1 + 0.12).to(F64)
    torch.testing.assert_close(weights, expected)


def test_entropic_integral_grows_with_a_lasting_error_and_stops_at_the_bound() -> None:
    balances = []
    weighting = EntropicWeights(target=1.0, kp=0.5, ki=0.1)
    for _ in range(60):
        weighting.observe(measured(0.8, 0.0))
        balances.append(weighting.state_dict()["balance"])
    assert balances[:3] == pytest.approx([0.12, 0.14, 0.16])
    assert balances[-1] == pytest.approx(0.9)
    weighting.observe(measured(1.2, 0.0))
    assert weighting.state_dict()["balance"] < 0.75


def test_entrocraft_learns_from_rewarded_tokens_above_its_falling_band_and_from_punished_ones_below() -> None:
    batch = Batch()
    kept = {
        entropy: batch.weights(told(Entrocraft(), entropy, progress=share)) > 0
        for entropy, share in ((0.65, 0.0), (0.55, 0.0), (0.71, 0.0), (0.551, 1.0))
    }
    assert kept[0.65].all()
    assert torch.equal(kept[0.55], batch.advantages < 0)
    assert torch.equal(kept[0.71], batch.advantages > 0)
    assert torch.equal(kept[0.551], batch.advantages > 0)


def test_entrocraft_takes_the_rewards_themselves_where_it_has_them() -> None:
    batch = Batch()
    rewards = torch.where(torch.arange(12) % 3 == 0, 1.0, -1.0).to(F64)[:, None].expand(12, 20)
    advantages = batch.advantages.masked_fill((torch.arange(12) < 4)[:, None], 0)  # a group without a difference
    for entropy, expected in ((0.9, rewards.clamp_min(0)), (0.1, rewards.clamp_max(0)), (0.6, advantages)):
        controller = EntropyController(Entrocraft(), total_steps=4)
        controller.observe(1, entropy, 1.0)
        found = controller.advantages(batch.stats, advantages, batch.mask, old_logp=batch.stats.logp, rewards=rewards)
        assert torch.equal(found, expected)


def test_gepo_shrinks_rewards_in_low_and_punishment_in_high_entropy_groups() -> None:
    surprisal = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9, 1.1], dtype=F64)[:, None].expand(6, 2)
    stats = TokenStats(-surprisal, surprisal, surprisal, surprisal)
    adv = torch.tensor([1.0, -1.0], dtype=F64).expand(6, 2)
    weights = weights_of(Gepo(group_size=2), stats, adv, torch.ones(6, 2, dtype=torch.bool))
    expected = [[0.5, 1.0]] * 2 + [[1.0, 1.0]] * 2 + [[1.0, 0.2]] * 2
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=F64))


def test_gepo_moves_its_edges_by_a_hundredth_of_the_way_per_step_and_only_when_observed() -> None:
    def batch(level: float) -> tuple[TokenStats, Tensor, Tensor]:
        surprisal = torch.tensor([level - 0.1, level + 0.1], dtype=F64)[:, None].expand(2, 3)
        return TokenStats(*[-surprisal] * 1, *[surprisal] * 3), surprisal, torch.ones(2, 3, dtype=torch.bool)

    weighting = Gepo(group_size=1)
    for level, expected in ((0.5, (0.48, 0.53)), (1.5, (0.49, 0.54))):
        for _ in range(3):
            weights_of(weighting, *batch(level))
        weighting.observe(measured(level, 0.0))
        assert weighting.state_dict()["edges"] == pytest.approx(list(expected))
    weighting.observe(measured(9.0, 0.0))
    assert weighting.state_dict()["edges"] == pytest.approx([0.49, 0.54])


def test_gepo_refuses_tokens_that_are_not_whole_groups() -> None:
    batch = Batch()
    with pytest.raises(ValueError, match="not form whole groups of 5 rows"):
        batch.weights(Gepo(group_size=5))


def test_high_entropy_tokens_keeps_a_fifth_of_the_tokens_and_the_most_uncertain_ones() -> None:
    batch = Batch()
    weights = batch.weights(HighEntropyTokens())
    keep, count = weights > 0, int(batch.mask.sum())
    assert int((keep & batch.mask).sum()) == math.ceil(0.2 * count)
    keep &= batch.mask
    torch.testing.assert_close(weights[batch.mask].sum(), torch.tensor(float(count), dtype=F64))
    assert set(batch.weights(HighEntropyTokens(divide_by_kept=False))[batch.mask].tolist()) == {0.0, 1.0}
    assert batch.stats.entropy[keep].min() > batch.stats.entropy[batch.mask & ~keep].max()
    assert (batch.weights(HighEntropyTokens(share=1.0)) > 0).equal(batch.mask)


def test_clip_cov_drops_its_share_from_the_tokens_within_the_covariance_band() -> None:
    torch.manual_seed(0)
    batch = Batch()
    dropped = batch.weights(ClipCov(share=0.05, low=0.5, high=2.0)) == 0
    adv, logp = batch.advantages, batch.stats.logp
    product = (adv - adv[batch.mask].mean()) * (logp - logp[batch.mask].mean())
    assert int(dropped.sum()) == int(0.05 * int(batch.mask.sum()))
    assert not (dropped & ~batch.mask).any()
    assert ((product[dropped] > 0.5) & (product[dropped] < 2.0)).all()


def test_clip_cov_without_candidates_drops_nothing_and_with_some_at_least_one() -> None:
    batch = Batch()
    assert (batch.weights(ClipCov(low=1e6, high=1e7)) == 1).all()
    assert int((batch.weights(ClipCov()) == 0).sum()) == 1


def test_clip_cov_draws_no_token_that_the_band_clips() -> None:
    batch = Batch()
    moved = batch.stats.logp - batch.advantages.sign() * 0.5  # every token has moved beyond the band
    assert int((batch.weights(ClipCov(share=1.0, low=0.0)) == 0).sum()) > 10
    assert (
        weights_of(ClipCov(share=1.0, low=0.0), batch.stats, batch.advantages, batch.mask, old_logp=moved) == 1
    ).all()


@pytest.mark.parametrize("centred", [False, True])
def test_entropy_outliers_are_the_punished_tokens_that_would_lower_the_entropy(centred: bool) -> None:
    batch = Batch()
    limit = 1.0
    weights = batch.weights(EntropyOutliers(limit, centred))
    s = batch.stats.logp.exp() * (batch.stats.logp + batch.stats.entropy)
    gap = s - batch.stats.correction if centred else s - s[batch.mask].mean()
    below = (gap < -limit * gap[batch.mask].std(unbiased=False)) & (batch.advantages < 0) & batch.mask
    assert below.any()
    assert torch.equal((weights == 0) & batch.mask, below)
    kept = (batch.mask & ~below).sum()
    torch.testing.assert_close(weights[batch.mask & ~below], (batch.mask.sum() / kept).expand(kept).to(F64))
    assert (polarity(batch.stats, batch.advantages)[below] < 0).all()


def test_entropy_outliers_removes_at_most_its_share_and_the_furthest_first() -> None:
    batch = Batch()
    every = (batch.weights(EntropyOutliers(0.5)) == 0) & batch.mask
    some = (batch.weights(EntropyOutliers(0.5, most=0.01)) == 0) & batch.mask
    s = batch.stats.logp.exp() * (batch.stats.logp + batch.stats.entropy)
    assert int(some.sum()) == max(int(0.01 * int(batch.mask.sum())), 1) < int(every.sum())
    assert s[some].max() <= s[every & ~some].min()


def test_erc_removes_tokens_whose_entropy_ratio_leaves_its_band() -> None:
    batch = Batch()
    factor = torch.tensor([0.9, 0.951, 1.0, 1.049, 1.1], dtype=F64).repeat(12, 4)
    weights = EntropyController(EntropyRatioClip(), total_steps=1).weights(
        batch.stats, batch.advantages, batch.mask, old_entropy=batch.stats.entropy / factor
    )
    kept = (factor > 0.94) & (factor < 1.06)
    assert torch.equal(weights[batch.mask], kept.to(F64)[batch.mask])
    with pytest.raises(ValueError, match="entropy of pi_old"):
        EntropyController(EntropyRatioClip(), total_steps=1).weights(batch.stats, batch.advantages, batch.mask)


@pytest.mark.parametrize(
    "build",
    [
        lambda: PolarityAware(signal="slope", lag=3),
        lambda: Stare(adaptive=True),
        lambda: EntropicWeights(target=0.5),
        lambda: TargetWeights(Curve.between(0.9, 0.4)),
        Entrocraft,
    ],
)
@pytest.mark.parametrize("cut", [1, 4])
def test_a_resumed_weighting_continues_as_if_it_had_never_stopped(build, cut: int) -> None:
    course = [0.9, 0.7, 0.55, 0.3, 0.2, 0.45]
    whole, before, after = told(build(), *course), told(build(), *course[:cut]), build()
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    told(after, *course[cut:])
    assert after.state_dict() == whole.state_dict()
    batch = Batch()
    assert torch.equal(batch.weights(after), batch.weights(whole))


def test_the_controller_passes_its_weighting_the_smoothed_entropy_and_the_progress() -> None:
    weighting = PolarityAware(scale=1.0, reference=Curve.between(2.0, 1.0))
    controller = EntropyController(Constant(), 4, reweighting=weighting, ema=0.5)
    controller.observe(1, 1.0, 1)
    controller.observe(2, 0.5, 1)
    assert weighting.push == pytest.approx((1.5 - 0.75) / 1.5)
    resumed = EntropyController(Constant(), 4, reweighting=PolarityAware(scale=1.0), ema=0.5)
    resumed.load_state_dict(json.loads(json.dumps(controller.state_dict())))
    batch = Batch()
    ours, theirs = (c.weights(batch.stats, batch.advantages, batch.mask) for c in (resumed, controller))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PolarityAware(strength=1.0), r"PolarityAware\.strength is 1"),
        (lambda: PolarityAware(signal="speed"), r"signal is 'speed'"),
        (lambda: PolarityAware(lag=0), "lag 0"),
        (lambda: TargetWeights(Curve.constant(1.0), strength=1.0), r"TargetWeights\.strength is 1"),
        (lambda: Opefo(bound=0.0), r"Opefo\.bound is 0"),
        (lambda: Stare(share=0.0), "Stare"),
        (lambda: Steer(low=1.1), "Steer"),
        (lambda: Steer(form="cubic"), "form is 'cubic'"),
        (lambda: EntropicWeights(target=0.0), "EntropicWeights"),
        (lambda: Entrocraft(lower=Curve.constant(0.9)), "Entrocraft"),
        (lambda: Gepo(group_size=0), "Gepo"),
        (lambda: HighEntropyTokens(share=0.0), "HighEntropyTokens"),
        (lambda: ClipCov(low=5.0), "ClipCov"),
        (lambda: EntropyOutliers(limit=0.0), "EntropyOutliers"),
        (lambda: EntropyOutliers(most=0.0), r"EntropyOutliers\.most"),
        (lambda: EntropyRatioClip(low=1.0), "EntropyRatioClip"),
        (lambda: Stare(variant="O2"), r"Stare\.variant"),
        (lambda: Stare(punished=1.1), "Stare"),
        (lambda: Steer(least=0.0), "Steer"),
        (lambda: Gepo(group_size=2, rate=0.0), "Gepo"),
        (lambda: Gepo(group_size=2, punished=0.6), "punished <= rewarded"),
    ],
)
def test_bad_settings_are_refused(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("convention", ["surprisal", "probability", "exact"])
def test_the_four_skipped_regions_are_disjoint_and_exactly_the_labelled_tokens(convention) -> None:
    batch = Batch()
    labels = regions(batch.stats, batch.advantages, convention)
    for region in ("E1", "E2", "E3", "E4"):
        skipped = batch.weights(SkipRegion(region, convention)) == 0
        assert skipped.any()
        assert torch.equal(skipped, labels == Region[region])


@pytest.mark.parametrize(("region", "rises"), [("E1", True), ("E2", False), ("E3", False), ("E4", True)])
def test_skipping_an_exact_region_moves_the_flow_as_its_name_predicts(region, rises) -> None:
    batch = Batch()
    flow = polarity(batch.stats, batch.advantages)
    change = (flow * batch.weights(SkipRegion(region, "exact"))).sum() - flow.sum()
    assert bool(change > 0) == rises


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_graded_weights_go_from_none_to_the_whole_push_however_few_tokens_there_are(count: int) -> None:
    batch = Batch()
    batch.mask = torch.zeros_like(batch.mask)
    batch.mask.view(-1)[: 9 * count : 9] = True
    push = (batch.weights(told(PolarityAware(graded=True), 1.0, 0.1))[batch.mask] - 1).abs()
    assert sorted(push.tolist()) == pytest.approx([0.5 * i / max(count - 1, 1) for i in range(count)])
