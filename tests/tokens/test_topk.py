"""Properties of topk_token_stats: its bounds hold, and they vanish as k grows."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from entrostat.tokens import TokenStats, TopkTokenStats, token_stats, topk_token_stats


def both(logits: Tensor, k: int) -> tuple[TokenStats, TopkTokenStats]:
    ids = logits.argmin(-1)
    stats = token_stats(logits, ids)
    top = logits.log_softmax(-1).topk(k, -1).values
    return stats, topk_token_stats(top, stats.logp, stats.entropy)


@given(seed=st.integers(0, 10**6), vocab=st.integers(1, 400), scale=st.floats(0, 12), k=st.integers(1, 30))
@settings(deadline=None, max_examples=150)
def test_the_true_values_lie_within_the_errors(seed: int, vocab: int, scale: float, k: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    truth, estimate = both(torch.randn(3, vocab, generator=generator).double() * scale, min(k, vocab))
    rounding = 1e-12
    assert ((estimate.collision - truth.collision).abs() <= estimate.collision_error + rounding).all()
    assert ((estimate.correction - truth.correction).abs() <= estimate.correction_error + rounding).all()


def test_the_whole_vocabulary_leaves_no_error() -> None:
    logits = torch.randn(5, 60, generator=torch.Generator().manual_seed(0)).double()
    truth, estimate = both(logits, 60)
    torch.testing.assert_close(estimate.correction, truth.correction)
    assert estimate.correction_error.max() < 1e-12
    assert estimate.collision_error.max() < 1e-12


@pytest.mark.parametrize("top", [0.5, 0.7, 0.9, 0.99])
def test_twenty_tokens_of_a_zipf_tail_give_the_correction_to_5e_4(top: float) -> None:
    tail = 1 / torch.arange(1, 150_000, dtype=torch.float64)
    p = torch.cat((torch.tensor([top], dtype=torch.float64), tail / tail.sum() * (1 - top)))
    truth, estimate = both(p.log()[None], 20)
    assert abs(estimate.correction / truth.correction - 1) <= 5e-4
    assert estimate.correction_error / truth.correction <= 0.05


def test_a_short_support_filled_up_with_minus_infinity_is_exact() -> None:
    logp = torch.tensor([[0.75, 0.25, 0.0]]).log()
    entropy = torch.tensor([-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))])
    estimate = topk_token_stats(logp, logp[:, 1], entropy)
    truth = token_stats(logp[:, :2], torch.tensor([1]))
    torch.testing.assert_close(estimate.correction, truth.correction)
    torch.testing.assert_close(estimate.correction_error, torch.zeros(1), atol=1e-6, rtol=0)


def test_gradients_flow_through_the_sampled_token_only() -> None:
    top, sampled, entropy = (torch.tensor(v, requires_grad=True) for v in ([[-0.5, -1.2]], [-1.2], [0.8]))
    stats = topk_token_stats(top, sampled, entropy)
    flows = [stats.logp, stats.entropy, stats.collision, stats.correction, stats.correction_error]
    assert [f.requires_grad for f in flows] == [True, False, False, False, False]


@pytest.mark.parametrize(
    ("top", "sampled", "entropy", "message"),
    [
        ([[-0.5, 0.3]], [-1.0], [0.5], r"topk_logprobs\[0, 1\] is 0.3"),
        ([[-0.5, math.nan]], [-1.0], [0.5], r"topk_logprobs\[0, 1\] is nan"),
        ([[-0.1, -0.1]], [-1.0], [0.5], r"topk_logprobs\[0\] has mass 1.81; allowed: at most 1"),
        ([[-0.5]], [-1.0, -2.0], [0.5], r"have shapes"),
        ([[-0.5]], [-1.0], [math.inf], r"entropy\[0\] is inf; allowed: finite, >= 0"),
    ],
)
def test_bad_input_is_named(top: list, sampled: list, entropy: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        topk_token_stats(torch.tensor(top), torch.tensor(sampled), torch.tensor(entropy))


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 3), (3,), (2,)),
        ((2, 3), (2,), (3,)),
        ((2, 3), (1,), (1,)),
        ((2, 3), (2, 1), (2, 1)),
        ((2, 0), (2,), (2,)),
        ((), (), ()),
    ],
)
def test_shapes_that_do_not_fit_are_named(shapes: tuple) -> None:
    with pytest.raises(ValueError, match=re.escape(f"have shapes {list(shapes)}")):
        topk_token_stats(*(torch.full(shape, value) for shape, value in zip(shapes, (-1.0, -1.0, 1.0), strict=True)))


def test_of_several_rows_the_first_bad_one_is_named() -> None:
    fine, heavy = [-0.5, -1.5], [-0.1, -0.2]
    with pytest.raises(ValueError, match=r"topk_logprobs\[1\] has mass 1.72"):
        topk_token_stats(torch.tensor([fine, heavy, heavy]), torch.full((3,), -1.0), torch.ones(3))
    with pytest.raises(ValueError, match=r"token_logprobs\[1\] is 0.5"):
        topk_token_stats(torch.tensor([fine] * 3), torch.tensor([-1.0, 0.5, 0.5]), torch.ones(3))
    with pytest.raises(ValueError, match=r"entropy\[2\] is -0.5"):
        topk_token_stats(torch.tensor([fine] * 3), torch.full((3,), -1.0), torch.tensor([1.0, 1.0, -0.5]))


def test_what_rounding_may_do_to_a_certain_token_is_accepted_and_counts_as_certain() -> None:
    """A log-probability or an entropy may miss 0 by 1e-3 and a mass 1 by 1e-2."""
    for top, own, entropy in ((5e-4, 0.0, 0.0), (0.0, 5e-4, 0.0), (0.0, 0.0, -5e-4)):
        stats = topk_token_stats(torch.tensor([[top]]), torch.tensor([own]), torch.tensor([entropy]))
        assert stats.collision.item() == pytest.approx(1)
        assert stats.correction.item() == pytest.approx(0, abs=1e-3)
        for wrong in ((top * 4, own, entropy), (top, own * 4, entropy), (top, own, entropy * 4)):
            if wrong != (top, own, entropy):
                with pytest.raises(ValueError, match="allowed"):
                    topk_token_stats(*(torch.tensor(value) for value in ([[wrong[0]]], [wrong[1]], [wrong[2]])))
    for excess, fine in ((9e-3, True), (1.1e-2, False)):
        top, own, entropy = torch.tensor([[0.5, 0.5 + excess]]).log(), torch.tensor([-1.0]), torch.tensor([0.7])
        if fine:
            assert topk_token_stats(top, own, entropy).collision_error.item() == 0
        else:
            with pytest.raises(ValueError, match="has mass"):
                topk_token_stats(top, own, entropy)
