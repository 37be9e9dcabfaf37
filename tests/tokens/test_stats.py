"""Properties of token_stats: exact values, limits, gradients and hostile input."""

import math

import pytest
import torch
from torch import Tensor

from entrostat.tokens import TokenStats, token_stats


def exact(logits: Tensor, ids: Tensor, temperature: float = 1.0) -> tuple[Tensor, ...]:
    """The four definitions, literally, in float64."""
    log_p = (logits.double() / temperature).log_softmax(-1)
    p = log_p.exp()
    entropy = -(p * log_p).nan_to_num(0).sum(-1)
    correction = (p.square() * (log_p + entropy[..., None])).nan_to_num(0).sum(-1)
    return log_p.gather(-1, ids[..., None])[..., 0], entropy, p.square().sum(-1), correction


def fields(stats: TokenStats) -> tuple[Tensor, ...]:
    return stats.logp, stats.entropy, stats.collision, stats.correction


@pytest.mark.parametrize("vocab", [2, 5, 1000, 151936])
@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0, 8.0])
def test_float32_agrees_with_float64_to_1e_5(vocab: int, scale: float) -> None:
    torch.manual_seed(0)
    logits, ids = torch.randn(3, 4, vocab) * scale, torch.randint(vocab, (3, 4))
    for got, want in zip(fields(token_stats(logits, ids, 0.8)), exact(logits, ids, 0.8), strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("margin", [5.0, 15.0, 40.0, 80.0])
def test_a_peaked_row_keeps_its_digits_where_p_rounds_to_one(margin: float) -> None:
    logits = torch.tensor([[margin, 0.0]])
    tail = math.exp(-margin) / (1 + math.exp(-margin))
    stats = token_stats(logits, torch.tensor([0]))
    top_logp = -math.log1p(math.exp(-margin))
    entropy = -top_logp + tail * margin
    assert stats.logp.item() == pytest.approx(top_logp, rel=1e-6)
    assert stats.entropy.item() == pytest.approx(entropy, rel=1e-6)
    assert stats.correction.item() == pytest.approx(tail * (1 - tail) * (1 - 2 * tail) * margin, rel=1e-5)


@pytest.mark.parametrize("vocab", [1, 2, 37, 50_000])
def test_a_uniform_row_has_no_correction(vocab: int) -> None:
    stats = token_stats(torch.full((2, vocab), 3.7), torch.zeros(2, dtype=torch.long))
    assert stats.correction.tolist() == [0, 0]
    torch.testing.assert_close(stats.entropy, torch.full((2,), math.log(vocab)))
    torch.testing.assert_close(stats.collision, torch.full((2,), 1 / vocab))


def test_gradcheck_of_logp_and_entropy() -> None:
    torch.manual_seed(1)
    logits, ids = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True), torch.randint(6, (3, 4))

    def both(z: Tensor) -> tuple[Tensor, Tensor]:
        stats = token_stats(z, ids, 0.7, entropy_grad=True)
        return stats.logp, stats.entropy

    assert torch.autograd.gradcheck(both, logits)


def test_gradients_flow_only_where_promised() -> None:
    logits = torch.randn(2, 5, requires_grad=True)
    ids = torch.tensor([0, 4])
    assert [f.requires_grad for f in fields(token_stats(logits, ids))] == [True, False, False, False]
    assert [f.requires_grad for f in fields(token_stats(logits, ids, entropy_grad=True))] == [True, True, False, False]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_logit_is_named(bad: float) -> None:
    logits = torch.zeros(2, 3, 4)
    logits[1, 0, 2] = bad
    with pytest.raises(ValueError, match=r"logits\[1, 0, 2\] is (nan|inf); allowed"):
        token_stats(logits, torch.zeros(2, 3, dtype=torch.long))
