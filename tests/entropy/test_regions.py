"""Regions: the table, the three conventions and how they differ, advantage 0, hostile input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entrostat.entropy import Region, polarity, regions
from entrostat.tokens import TokenStats, token_stats

F64 = torch.float64
CONVENTIONS = ["surprisal", "probability", "exact"]
seeds = st.integers(0, 10**6)
steady = settings(deadline=None, max_examples=50)


def sampled(seed: int = 0, count: int = 2000, vocab: int = 100, scale: float = 3.0) -> tuple[TokenStats, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(count, vocab, generator=generator, dtype=F64)
    ids = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    return token_stats(logits, ids), torch.randn(count, generator=generator, dtype=F64)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_likely_and_rare_tokens_of_both_signs_fill_the_table(convention) -> None:
    logits = torch.tensor([3.0, 0.0, 0.0], dtype=F64).expand(4, 3)
    stats = token_stats(logits, torch.tensor([0, 1, 0, 1]))
    adv = torch.tensor([0.5, 2.0, -0.1, -3.0])
    labels = regions(stats, adv, convention)
    assert labels.dtype == torch.int8
    assert labels.tolist() == [1, 2, 3, 4] == [Region.E1, Region.E2, Region.E3, Region.E4]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_zero_advantage_has_no_region(convention) -> None:
    stats, adv = sampled(count=20)
    assert (regions(stats, torch.zeros_like(adv), convention) == Region.NONE).all()


@steady
@given(seeds)
def test_exact_regions_have_the_sign_of_the_polarity(seed: int) -> None:
    stats, adv = sampled(seed, count=50)
    labels, direction = regions(stats, adv, "exact"), polarity(stats, adv)
    rises = (labels == Region.E2) | (labels == Region.E3)
    assert torch.equal(rises, direction > 0)
    assert torch.equal((labels == Region.E1) | (labels == Region.E4), direction < 0)


@steady
@given(seeds)
def test_rare_regions_of_the_surprisal_table_always_have_the_right_direction(seed: int) -> None:
    stats, adv = sampled(seed, count=50)
    labels, direction = regions(stats, adv), polarity(stats, adv)
    assert (direction[labels == Region.E2] > 0).all()
    assert (direction[labels == Region.E4] < 0).all()


def test_likely_regions_of_the_surprisal_table_err_where_s_lies_between_zero_and_c() -> None:
    stats, adv = sampled()
    labels, direction = regions(stats, adv), polarity(stats, adv)
    s = stats.logp.exp() * (stats.logp + stats.entropy)
    between = (s > 0) & (s < stats.correction)
    likely = (labels == Region.E1) | (labels == Region.E3)
    wrong = ((labels == Region.E1) & (direction > 0)) | ((labels == Region.E3) & (direction < 0))
    assert torch.equal(wrong, likely & between)
    assert 0.1 < wrong.sum() / likely.sum() < 0.3


@steady
@given(seeds)
def test_a_probability_above_seven_tenths_is_never_mislabelled(seed: int) -> None:
    stats, adv = sampled(seed, count=50, scale=5.0)
    labels, direction = regions(stats, adv, "probability"), polarity(stats, adv)
    assert (direction[labels == Region.E1] < 0).all()
    assert (direction[labels == Region.E3] > 0).all()


def test_the_probability_convention_leaves_the_middle_out() -> None:
    p = torch.tensor([0.2, 0.29, 0.31, 0.5, 0.69, 0.71, 0.9], dtype=F64)
    stats = TokenStats(p.log(), torch.ones(7, dtype=F64), p, p)
    assert regions(stats, torch.ones(7), "probability").tolist() == [2, 2, 0, 0, 0, 1, 1]


def test_one_advantage_per_sequence_is_spread_over_its_tokens() -> None:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    stats = token_stats(logits, torch.zeros(2, 3, dtype=torch.long))
    adv = torch.tensor([[1.0], [-1.0]])
    assert torch.equal(regions(stats, adv), regions(stats, adv.expand(2, 3)))


def test_nan_belongs_to_no_region() -> None:
    nan = torch.full((2,), math.nan)
    assert (regions(TokenStats(nan, nan, nan, nan), torch.ones(2)) == Region.NONE).all()


def test_an_unknown_convention_is_refused_with_the_choices() -> None:
    stats, adv = sampled(count=3)
    with pytest.raises(ValueError, match=r"'p'.*'surprisal', 'probability' or 'exact'"):
        regions(stats, adv, "p")  # type: ignore[arg-type]
