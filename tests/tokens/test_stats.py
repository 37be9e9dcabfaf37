"""Properties of token_stats: exact values, limits, identities, gradients and hostile input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

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


def draw(seed: int, *shape: int, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(shape[-1], shape[:-1], generator=generator)
    return torch.randn(*shape, generator=generator) * scale, ids


@pytest.mark.parametrize("vocab", [2, 5, 1000, 151936])
@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0, 8.0])
def test_float32_agrees_with_float64_to_1e_5(vocab: int, scale: float) -> None:
    logits, ids = draw(0, 3, 4, vocab, scale=scale)
    for got, want in zip(fields(token_stats(logits, ids, 0.8)), exact(logits, ids, 0.8), strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_summed_in_float32(dtype: torch.dtype) -> None:
    logits, ids = draw(1, 6, 5000)
    half = logits.to(dtype)
    for got, want in zip(fields(token_stats(half, ids)), exact(half, ids), strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=0)


@given(seed=st.integers(0, 10**6), vocab=st.integers(1, 300), scale=st.floats(0, 20))
@settings(deadline=None, max_examples=60)
def test_identities_of_every_distribution(seed: int, vocab: int, scale: float) -> None:
    logits, _ = draw(seed, vocab, scale=scale)
    every = torch.arange(vocab)
    stats = token_stats(logits.double().expand(vocab, vocab), every)
    p, entropy, correction = stats.logp.exp(), stats.entropy[0], stats.correction[0]
    torch.testing.assert_close(p.sum(), torch.ones((), dtype=torch.float64))
    torch.testing.assert_close(-(p * stats.logp).sum(), entropy)
    torch.testing.assert_close(p.square().sum(), stats.collision[0])
    torch.testing.assert_close((p * p * (stats.logp + entropy)).sum(), correction, rtol=1e-7, atol=1e-14)
    assert correction >= 0
    assert math.exp(-entropy) - 1e-12 <= stats.collision[0] <= 1 + 1e-12


@given(seed=st.integers(0, 10**6), shift=st.floats(-50, 50))
@settings(deadline=None, max_examples=25)
def test_nothing_depends_on_the_order_of_the_vocabulary_or_a_shift(seed: int, shift: float) -> None:
    logits, ids = draw(seed, 4, 200)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(seed))
    moved = token_stats(logits.double()[:, order] + shift, order.argsort()[ids])
    for got, want in zip(fields(moved), fields(token_stats(logits.double(), ids)), strict=True):
        torch.testing.assert_close(got, want)


def test_no_second_copy_of_the_logits_is_made(largest: TorchDispatchMode) -> None:
    logits, ids = draw(6, 60, 20_000)
    half = logits.bfloat16().requires_grad_()
    with largest:
        stats = token_stats(half, ids)
    assert largest.bytes <= half.nbytes / 4
    with largest:
        stats.logp.sum().backward()
    assert largest.bytes == half.nbytes  # the gradient itself


def test_tokens_at_minus_infinity_change_nothing_and_get_no_gradient() -> None:
    logits, ids = draw(2, 5, 300)
    padded = torch.nn.functional.pad(logits, (0, 5000), value=-math.inf).requires_grad_()
    stats = token_stats(padded, ids, entropy_grad=True)
    for got, want in zip(fields(stats), fields(token_stats(logits, ids)), strict=True):
        torch.testing.assert_close(got, want)
    (grad,) = torch.autograd.grad((stats.logp + stats.entropy).sum(), padded)
    assert grad.isfinite().all()
    assert not grad[:, 300:].any()


@pytest.mark.parametrize("margin", [5.0, 15.0, 40.0, 80.0])
def test_a_peaked_row_keeps_its_precision_where_p_rounds_to_one(margin: float) -> None:
    logits = torch.tensor([[margin, 0.0]])
    tail = math.exp(-margin) / (1 + math.exp(-margin))
    stats = token_stats(logits, torch.tensor([0]))
    top_logp = -math.log1p(math.exp(-margin))
    assert stats.logp.item() == pytest.approx(top_logp, rel=1e-5)
    assert stats.entropy.item() == pytest.approx(-top_logp + tail * margin, rel=1e-5)
    assert stats.correction.item() == pytest.approx(tail * (1 - tail) * (1 - 2 * tail) * margin, rel=1e-5)


@pytest.mark.parametrize("vocab", [1, 2, 37, 50_000])
def test_a_uniform_row_has_no_correction(vocab: int) -> None:
    stats = token_stats(torch.full((2, vocab), 3.7), torch.zeros(2, dtype=torch.long))
    assert stats.correction.abs().max() <= 1e-9 / vocab
    torch.testing.assert_close(stats.entropy, torch.full((2,), math.log(vocab)))
    torch.testing.assert_close(stats.collision, torch.full((2,), 1 / vocab))


def test_a_nearly_uniform_row_keeps_its_correction() -> None:
    logits, ids = draw(3, 4, 50_000, scale=1e-3)
    want = exact(logits, ids)[3]
    torch.testing.assert_close(token_stats(logits, ids).correction.double(), want, rtol=1e-4, atol=0)


def test_a_one_hot_row_is_certain() -> None:
    logits = torch.tensor([[0.0, -math.inf, -math.inf]]).repeat(2, 1)
    stats = token_stats(logits, torch.tensor([0, 1]))
    assert stats.logp.tolist() == [0, -math.inf]
    assert [stats.entropy.tolist(), stats.collision.tolist(), stats.correction.tolist()] == [[0, 0], [1, 1], [0, 0]]


def test_a_row_without_support_has_defined_values_and_no_nan_gradient() -> None:
    logits = torch.full((1, 9000), -math.inf, requires_grad=True)
    stats = token_stats(logits, torch.tensor([4]), entropy_grad=True)
    assert [f.item() for f in fields(stats)] == [-math.inf, 0, 0, 0]
    (grad,) = torch.autograd.grad(stats.entropy.sum() + 0 * stats.logp.clamp(min=-9).sum(), logits)
    assert not grad.any()


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0), ()])
def test_any_leading_shape_is_kept(shape: tuple[int, ...]) -> None:
    logits = torch.zeros(*shape, 7, requires_grad=True)
    stats = token_stats(logits, torch.zeros(shape, dtype=torch.long))
    assert all(f.shape == shape for f in fields(stats))
    stats.logp.sum().backward()
    assert logits.grad is not None
    assert logits.grad.shape == logits.shape


def test_a_sliced_batch_gives_what_its_copy_gives() -> None:
    logits, ids = draw(4, 3, 9, 5000)
    view, copy = logits[:, :-1].requires_grad_(), logits[:, :-1].clone().requires_grad_()
    stats, other = token_stats(view, ids[:, 1:]), token_stats(copy, ids[:, 1:])
    for got, want in zip(fields(stats), fields(other), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)
    grads = [torch.autograd.grad(s.logp.sum(), z)[0] for s, z in ((stats, view), (other, copy))]
    torch.testing.assert_close(*grads, rtol=0, atol=0)


def test_narrow_ids_and_changes_in_place_are_fine() -> None:
    logits, ids = draw(5, 4, 100)
    stats = token_stats(logits.requires_grad_(), ids.to(torch.int32))
    expected = 2 * token_stats(logits, ids).logp
    torch.testing.assert_close(stats.logp.mul_(2), expected, rtol=0, atol=0)


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
    logits = torch.zeros(2, 3, 5000)
    logits[1, 0, 4500] = logits[1, 2, 7] = bad
    with pytest.raises(ValueError, match=r"logits\[1, 0, 4500\] is (nan|inf); allowed"):
        token_stats(logits, torch.zeros(2, 3, dtype=torch.long))


@pytest.mark.parametrize(
    ("logits", "ids", "temperature", "message"),
    [
        (torch.zeros(2, 3), torch.tensor([0, 3]), 1.0, r"token_ids\[1\] is 3; allowed: 0 to 2"),
        (torch.zeros(2, 3), torch.tensor([-100, 0]), 1.0, r"token_ids\[0\] is -100; allowed: 0 to 2"),
        (torch.zeros(2, 3), torch.tensor([0]), 1.0, r"logits has shape \(2, 3\) and token_ids \(1,\)"),
        (torch.zeros(2, 0), torch.tensor([0, 0]), 1.0, r"logits has shape \(2, 0\)"),
        (torch.zeros(2, 3), torch.tensor([0, 0]), 0.0, r"temperature is 0.0; allowed: a finite number > 0"),
        (torch.zeros(2, 3), torch.tensor([0, 0]), math.nan, r"temperature is nan"),
        (
            torch.zeros(2, 3).long(),
            torch.tensor([0, 0]),
            1.0,
            r"logits has dtype torch.int64; allowed: a floating type",
        ),
        (torch.zeros(2, 3), torch.tensor([0.0, 0.0]), 1.0, r"token_ids has dtype torch.float32; allowed: an integer"),
    ],
)
def test_bad_input_is_named(logits: Tensor, ids: Tensor, temperature: float, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        token_stats(logits, ids, temperature)


@pytest.mark.parametrize("cut", [lambda z: z[:, :-1], lambda z: z[:, :, 1:], lambda z: z.transpose(0, 1)])
def test_a_view_of_a_padded_batch_is_not_copied_either(cut, largest: TorchDispatchMode) -> None:
    logits = cut(draw(7, 20, 10, 5000)[0].bfloat16())
    with largest:
        token_stats(logits, torch.zeros(logits.shape[:-1], dtype=torch.long))
    assert largest.bytes <= logits.nbytes / 2
