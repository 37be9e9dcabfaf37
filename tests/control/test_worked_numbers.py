"""Each weighting on one batch whose every number can be had by hand.

One state of two tokens, p = .8 and .2. With two tokens ln p + H = (1 - p) ln(p / (1 - p)), so in units of ln 4, for the
top token and the other:
    ln p + H = .2, -.8     S = p (ln p + H) = .16, -.16     C = .8 S_top + .2 S_other = .096     T = C - S = -.064, .256
Four sampled tokens, and their polarities in units of .064 ln 4:
    token       top   other   top   other
    advantage    1      1     -1     -.5
    P           -1      4      1     -2          U = 5 expanding, D = 3 contracting
"""

import math

import pytest
import torch
from parts import batch_of, measured, weights_of
from torch import Tensor

from entrostat.control import (
    Entrocraft,
    EntroPic,
    EntropicWeights,
    FixedWeights,
    Gepo,
    HighEntropyTokens,
    Opefo,
    Part,
    PolarityAware,
    Stare,
    Steer,
)
from entrostat.entropy import polarity
from entrostat.tokens import TokenStats, token_stats

F64 = torch.float64
LN4 = math.log(4)
STATS = token_stats(torch.tensor([0.8, 0.2], dtype=F64).log().expand(4, 2), torch.tensor([0, 1, 0, 1]))
ADVANTAGES = torch.tensor([1.0, 1.0, -1.0, -0.5], dtype=F64)
EVERY = torch.ones(4, dtype=torch.bool)


def weights(weighting: Part, *entropies: float, progress: float = 0.5) -> list[float]:
    for entropy in entropies:
        weighting.observe(measured(entropy, progress))
    return weights_of(weighting, STATS, ADVANTAGES, EVERY).tolist()


def test_the_batch_is_what_its_hand_computation_says() -> None:
    torch.testing.assert_close(STATS.correction, torch.full((4,), 0.096 * LN4, dtype=F64))
    units = torch.tensor([-1.0, 4.0, 1.0, -2.0], dtype=F64)
    torch.testing.assert_close(polarity(STATS, ADVANTAGES), 0.064 * LN4 * units)


def test_fixed_weights_go_by_the_sign_of_the_polarity_and_leave_a_polarity_of_zero_alone() -> None:
    assert weights(FixedWeights(expanding=1.2, contracting=0.0)) == [0.0, 1.2, 1.2, 0.0]
    still = weights_of(FixedWeights(1.2, 0.0), STATS, torch.zeros(4, dtype=F64), EVERY)
    assert still.tolist() == [1, 1, 1, 1]


def test_polarity_aware_level() -> None:
    """Reference 1, entropy .9, scale .2: u = .1 / .2 = .5, so 1 +- .4 x .5; far above the reference u = -1."""
    assert weights(PolarityAware(strength=0.4, scale=0.2), 1.0, 0.9) == pytest.approx([0.8, 1.2, 1.2, 0.8])
    assert weights(PolarityAware(strength=0.4, scale=0.2), 1.0, 5.0) == pytest.approx([1.4, 0.6, 0.6, 1.4])


def test_polarity_aware_slope() -> None:
    """From .8 to .72 within the lag of 2: -(.72 - .8) / (.2 x .8) = .5."""
    slope = PolarityAware(signal="slope", lag=2, strength=0.4, scale=0.2)
    assert weights(slope, 0.8, 0.9, 0.72) == pytest.approx([0.8, 1.2, 1.2, 0.8])


def test_opefo_has_the_weights_of_zero_net_flow() -> None:
    """lambda = (3 - 5) / (3 + 5) = -1/4, and 3/4 x 5 = 5/4 x 3; a bound of .1 stops it at 1 -+ .1."""
    assert weights(Opefo()) == pytest.approx([1.25, 0.75, 0.75, 1.25])
    assert weights(Opefo(bound=0.1)) == pytest.approx([1.1, 0.9, 0.9, 1.1])


def test_stare_lifts_the_surprising_half_of_the_rewarded_tokens_below_its_target() -> None:
    assert weights(Stare(share=0.5), 0.29) == pytest.approx([1, 1.1, 1, 1])
    assert weights(Stare(share=0.5), 0.3) == [1, 1, 1, 1]
    assert weights(Stare(share=0.5, adaptive=True), 0.2, 0.2, 0.4, 0.2) == pytest.approx([1, 1.12, 1, 1])
    assert weights(Stare(share=0.5, adaptive=True), 0.2, 0.2, 0.4) == [1, 1, 1, 1]


def test_steer_linear_runs_from_its_upper_end_to_its_lower_one() -> None:
    """abs(Omega) = abs(A) (1 - p) abs(ln p + H) = (.04, .64, .04, .32) ln 4.

    From the smallest to the largest 0, 1, 0 and 7/15; with the published ends a weight is 1.2 - .4 x share.
    """
    assert weights(Steer()) == pytest.approx([1.2, 0.8, 1.2, 1.2 - 0.4 * 7 / 15])


def test_steer_exponential_ends_at_its_lower_bound() -> None:
    """In shares of the largest 1/16, 1, 1/16 and 1/2: .7 to the power of the share."""
    expected = [0.7**share for share in (1 / 16, 1, 1 / 16, 1 / 2)]
    assert weights(Steer(form="exponential", low=0.7)) == pytest.approx(expected)


def test_entropic_adds_the_error_and_its_sum() -> None:
    """Errors .1, .1, -.1: a = .1 + .5 x .1 = .15, then .1 + .5 x .2 = .2, then -.1 + .5 x .1 = -.05."""
    pic = EntropicWeights(target=0.5, kp=1.0, ki=0.5)
    for entropy, balance in ((0.4, 0.15), (0.4, 0.2), (0.6, -0.05)):
        expected = [1 - balance, 1 - balance, 1 + balance, 1 + balance]
        assert weights(pic, entropy) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("progress", "entropy", "kept"),
    [
        (0.0, 0.59, "punished"),
        (0.0, 0.65, "all"),
        (0.0, 0.71, "rewarded"),
        (0.5, 0.49, "punished"),
        (0.5, 0.55, "all"),
        (0.5, 0.61, "rewarded"),
        (1.0, 0.39, "punished"),
        (1.0, 0.45, "all"),
        (1.0, 0.51, "rewarded"),
    ],
)
def test_entrocraft_has_the_published_band_at_the_start_half_way_and_at_the_end(progress, entropy, kept) -> None:
    expected = {"punished": [0, 0, 1, 1], "all": [1, 1, 1, 1], "rewarded": [1, 1, 0, 0]}[kept]
    assert weights(Entrocraft(), entropy, progress=progress) == expected


def of_entropy(rows: list[list[float]]) -> TokenStats:
    entropy = torch.tensor(rows, dtype=F64)
    return TokenStats(-entropy, entropy, entropy, entropy)


def gepo(gepo: Gepo, entropy: list[list[float]], mask: Tensor | None = None) -> list[list[float]]:
    stats = of_entropy(entropy)
    advantages = torch.tensor([1.0, -1.0], dtype=F64).expand(len(entropy), 2)
    return weights_of(gepo, stats, advantages, torch.ones(len(entropy), 2).bool() if mask is None else mask).tolist()


def test_gepo_takes_its_thresholds_from_mean_and_deviation_of_the_groups_entropies() -> None:
    """Groups of entropy .1, .2, .3, .4: mean .25, deviation .1118, thresholds .2276 and .2835."""
    entropy = [[0.1, 0.1], [0.2, 0.2], [0.3, 0.3], [0.4, 0.4]]
    assert gepo(Gepo(group_size=1), entropy) == [[0.5, 1], [0.5, 1], [1, 0.2], [1, 0.2]]
    # half a deviation below and one above: .1941 and .3618
    wide = [[0.5, 1], [1, 1], [1, 1], [1, 0.2]]
    assert gepo(Gepo(group_size=1, below=0.5, above=1.0), entropy) == wide


def test_a_gepo_groups_entropy_is_the_mean_over_its_unmasked_tokens_not_over_its_rows() -> None:
    """Group 0 has .9 once and .1 twice, mean .367 (over rows .5); group 1 has .4 everywhere and so is the higher."""
    entropy = [[0.9, 7.0], [0.1, 0.1], [0.4, 0.4], [0.4, 0.4]]
    mask = torch.tensor([[True, False], [True, True], [True, True], [True, True]])
    assert gepo(Gepo(group_size=2), entropy, mask) == [[0.5, 1], [0.5, 1], [1, 0.2], [1, 0.2]]


def test_eighty_twenty_keeps_the_two_most_uncertain_of_ten_tokens() -> None:
    stats = of_entropy([[0.1 * i for i in range(10)]])
    mask = torch.ones(1, 10, dtype=torch.bool)
    kept = weights_of(HighEntropyTokens(), stats, torch.ones(1, 10), mask)
    assert kept.tolist() == [[0] * 8 + [5, 5]]


def test_a_gepo_group_counts_by_its_mean_however_many_tokens_it_has() -> None:
    """Means .9, .5 and .1 over one, four and two tokens."""
    stats = of_entropy([[0.9, 7, 7, 7], [0.5] * 4, [0.1, 0.1, 7, 7]])
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    weights = weights_of(Gepo(group_size=1), stats, torch.tensor([[1.0, -1, 1, -1]], dtype=F64).expand(3, 4), mask)
    assert weights.tolist() == [[1, 0.2, 1, 0.2], [1, 1, 1, 1], [0.5, 1, 0.5, 1]]


def test_entropic_as_released_adds_its_term_on_likely_tokens_alone() -> None:
    """H is that of the batch, .8 ln(5/4) + .2 ln 5 = .5004 nats; two of four tokens are likely, so each counts double.

    Errors before: .1 and .3 above .5. alpha = 2 x .0004 + .05 x .4 = .0208.
    """
    pic = EntroPic(target=0.5, kp=2.0, ki=0.05, likely=0.7)
    for entropy in (0.6, 0.8):
        pic.observe(measured(entropy))
    alpha = 2 * (0.8 * math.log(5 / 4) + 0.2 * math.log(5) - 0.5) + 0.05 * 0.4
    term = pic.unclipped(batch_of(STATS, ADVANTAGES, EVERY))
    assert term.tolist() == pytest.approx([2 * alpha, 0, 2 * alpha, 0])
    assert weights_of_all_ones(pic)


def weights_of_all_ones(part: Part) -> bool:
    """Whether a part leaves the advantages as they are."""
    return not part.weighs and part.weights(batch_of(STATS, ADVANTAGES, EVERY)) is None


def test_entropic_lets_likely_tokens_fall_below_the_target_and_rise_above_it() -> None:
    for target, direction in ((0.1, 1), (2.0, -1)):
        term = EntroPic(target=target, likely=0.7).unclipped(batch_of(STATS, ADVANTAGES, EVERY))
        assert [math.copysign(1, each) for each in term.tolist() if each] == [direction, direction]


def test_the_term_of_entropic_stays_within_its_bound_and_leaves_a_batch_without_likely_tokens_alone() -> None:
    far = EntroPic(target=50.0, likely=0.7, bound=0.25).unclipped(batch_of(STATS, ADVANTAGES, EVERY))
    assert far.tolist() == pytest.approx([-0.5, 0, -0.5, 0])
    assert EntroPic(target=50.0).unclipped(batch_of(STATS, ADVANTAGES, EVERY)).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("make", [Stare, PolarityAware, lambda: EntropicWeights(target=0.5), Entrocraft])
def test_before_the_first_measurement_every_token_weighs_one(make) -> None:
    """Parts that answer to the entropy have none to answer to."""
    assert weights(make()) == [1, 1, 1, 1]
