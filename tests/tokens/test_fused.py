"""Properties of fused_token_stats: it is token_stats of the logits that it never holds, however it is cut."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from entrostat.tokens import TokenStats, fused_token_stats, token_stats
from entrostat.tokens.chunks import exact_products


def fields(stats: TokenStats) -> tuple[Tensor, ...]:
    return stats.logp, stats.entropy, stats.collision, stats.correction


def problem(seed: int, rows: int, depth: int, vocab: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = torch.randn(rows, depth, generator=generator), torch.randn(vocab, depth, generator=generator)
    bias, ids = torch.randn(vocab, generator=generator), torch.randint(vocab, (rows,), generator=generator)
    hidden, weight, bias = (t.to(dtype).requires_grad_() for t in (hidden, weight / depth**0.5 * 3, bias))
    return hidden, weight, bias, ids


def reference(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, temperature: float, softcap: float | None
) -> TokenStats:
    """token_stats of the materialised logits, in float64."""
    y = hidden.double() @ weight.double().T + (0 if bias is None else bias.double())
    return token_stats(y if softcap is None else softcap * torch.tanh(y / softcap), ids, temperature, entropy_grad=True)


def loss(stats: TokenStats) -> Tensor:
    rows = torch.linspace(-1, 2, stats.logp.numel())
    return (stats.logp * rows).sum() + (stats.entropy * rows.flip(0)).sum()


CASES = [(1.0, None, False), (0.7, None, True), (1.3, 4.0, True), (1.0, 2.0, False)]


@pytest.mark.parametrize(("temperature", "softcap", "biased"), CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_values_and_gradients_are_those_of_materialised_logits(
    temperature: float, softcap: float | None, biased: bool, dtype: torch.dtype
) -> None:
    hidden, weight, bias, ids = problem(0, 40, 24, 2100, dtype)
    inputs = (hidden, weight, bias) if biased else (hidden, weight)
    used = bias if biased else None
    stats = fused_token_stats(hidden, weight, ids, used, temperature, entropy_grad=True, softcap=softcap)
    expected = reference(hidden, weight, used, ids, temperature, softcap)
    value_tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    for got, want in zip(fields(stats), fields(expected), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=value_tolerance, atol=1e-12)
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-5}.get(dtype, 2e-2)
    grads = torch.autograd.grad(loss(stats), inputs)
    for got, want in zip(grads, torch.autograd.grad(loss(expected), inputs), strict=True):
        assert got.dtype == dtype
        assert (got - want).double().norm() <= tolerance * want.double().norm()


def test_bfloat16_gradients_equal_those_of_unrounded_logits() -> None:
    """At logits of standard deviation 9, where rounding them to bfloat16 shows."""
    hidden, weight, _, ids = problem(11, 64, 256, 5000, torch.float32)
    half = [hidden.detach().bfloat16().requires_grad_(), (weight.detach() * 3).bfloat16().requires_grad_()]
    ours, exact, rounded = (
        torch.autograd.grad(loss(stats), half)
        for stats in (
            fused_token_stats(*half, ids, entropy_grad=True),
            reference(*half, None, ids, 1.0, None),
            token_stats(half[0] @ half[1].T, ids, entropy_grad=True),
        )
    )
    for got, want, other in zip(ours, exact, rounded, strict=True):
        error = (got - want).double().norm()
        assert error <= 6e-3 * want.double().norm()
        assert error <= (other - want).double().norm() / 3


def test_gradcheck() -> None:
    hidden, weight, bias, ids = problem(1, 3, 4, 7, torch.float64)

    def both(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        stats = fused_token_stats(*inputs[:2], ids, inputs[2], 0.8, entropy_grad=True, softcap=3.0)
        return stats.logp, stats.entropy

    assert torch.autograd.gradcheck(both, (hidden, weight, bias))


@given(budget=st.integers(1, 200_000), rows=st.integers(1, 30), vocab=st.integers(1, 90))
@settings(deadline=None, max_examples=30)
def test_the_budget_splits_the_work_and_does_not_change_the_result(budget: int, rows: int, vocab: int) -> None:
    hidden, weight, bias, ids = problem(2, rows, 5, vocab, torch.float64)
    small, whole = (fused_token_stats(hidden, weight, ids, bias, entropy_grad=True, budget=b) for b in (budget, 2**30))
    for got, want in zip(fields(small), fields(whole), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-13)
    inputs = (hidden, weight, bias)
    for got, want in zip(
        torch.autograd.grad(loss(small), inputs), torch.autograd.grad(loss(whole), inputs), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("vocab", [2000, 8000])
def test_working_memory_grows_with_the_budget_and_not_with_the_vocabulary(
    vocab: int, largest: TorchDispatchMode
) -> None:
    hidden, weight, _, ids = problem(10, 400, 4, vocab, torch.float32)
    budget = 200_000
    with largest:
        stats = fused_token_stats(hidden, weight, ids, budget=budget, entropy_grad=True)
    assert largest.bytes <= budget
    with largest:
        torch.autograd.grad(loss(stats), (hidden, weight))
    assert largest.bytes <= max(budget, weight.nbytes)
    assert weight.nbytes < 400 * vocab


def test_the_order_of_the_vocabulary_does_not_matter() -> None:
    hidden, weight, bias, ids = problem(3, 10, 8, 3000, torch.float32)
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(0))
    moved = fused_token_stats(hidden, weight[order], order.argsort()[ids], bias[order])
    for got, want in zip(fields(moved), fields(fused_token_stats(hidden, weight, ids, bias)), strict=True):
        torch.testing.assert_close(got, want, rtol=2e-5, atol=1e-7)


def test_padded_and_packed_batches_agree() -> None:
    hidden, weight, _, ids = problem(4, 12, 8, 500, torch.float32)
    packed = fused_token_stats(hidden, weight, ids)
    padded = fused_token_stats(hidden.view(3, 4, 8), weight, ids.view(3, 4))
    for got, want in zip(fields(padded), fields(packed), strict=True):
        torch.testing.assert_close(got, want.view(3, 4), rtol=0, atol=0)


def test_a_vocabulary_padded_by_a_bias_of_minus_infinity_is_the_vocabulary() -> None:
    hidden, weight, _, ids = problem(5, 6, 8, 700, torch.float32)
    bias = torch.zeros(1400).masked_fill_(torch.arange(1400) >= 700, -math.inf)
    wide = torch.cat((weight, torch.randn_like(weight) * 50))
    padded = fused_token_stats(hidden, wide, ids, bias, entropy_grad=True)
    plain = fused_token_stats(hidden, weight, ids, entropy_grad=True)
    for got, want in zip(fields(padded), fields(plain), strict=True):
        torch.testing.assert_close(got, want)
    got, want = (torch.autograd.grad(loss(s), hidden)[0] for s in (padded, plain))
    torch.testing.assert_close(got, want)


def test_a_peak_far_above_the_rest_keeps_its_precision() -> None:
    hidden, weight = torch.ones(1, 1), torch.tensor([[30.0]] + [[0.0]] * 2000)
    stats = fused_token_stats(hidden, weight, torch.tensor([0]))
    rest = 2000 * math.exp(-30)
    assert stats.logp.item() == pytest.approx(-math.log1p(rest), rel=1e-5)
    assert stats.entropy.item() == pytest.approx(math.log1p(rest) + rest * 30, rel=1e-5)
    assert stats.correction.item() == pytest.approx(rest * 30, rel=1e-5)


def test_only_wanted_gradients_are_computed() -> None:
    hidden, weight, bias, ids = problem(6, 5, 4, 50, torch.float32)
    stats = fused_token_stats(hidden.detach(), weight, ids, bias.detach())
    stats.logp.sum().backward()
    assert hidden.grad is None
    assert bias.grad is None
    assert weight.grad is not None
    assert [f.requires_grad for f in fields(stats)] == [True, False, False, False]


def test_autocast_changes_nothing() -> None:
    hidden, weight, _, ids = problem(7, 9, 16, 300, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = fused_token_stats(hidden, weight, ids)
    for got, want in zip(fields(inside), fields(fused_token_stats(hidden, weight, ids)), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_the_precision_setting_of_the_process_is_left_as_it_was() -> None:
    hidden, weight, _, ids = problem(8, 4, 8, 30, torch.bfloat16)
    before = torch.backends.mkldnn.matmul.fp32_precision
    fused_token_stats(hidden, weight, ids).logp.sum().backward()
    assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_empty_batches_and_a_vocabulary_of_one() -> None:
    none = fused_token_stats(torch.zeros(0, 3, requires_grad=True), torch.zeros(5, 3), torch.zeros(0, dtype=torch.long))
    none.logp.sum().backward()
    assert none.entropy.shape == (0,)
    one = fused_token_stats(torch.randn(2, 3), torch.randn(1, 3), torch.zeros(2, dtype=torch.long))
    assert [f.tolist() for f in fields(one)] == [[0, 0], [0, 0], [1, 1], [0, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_that_are_masked_certain_or_uniform_have_defined_values_and_gradients(dtype: torch.dtype) -> None:
    hidden, weight = torch.ones(1, 4, dtype=dtype).requires_grad_(), torch.ones(1100, 4, dtype=dtype).requires_grad_()
    masked = torch.full((1100,), -math.inf)
    one_hot = masked.clone().index_fill_(0, torch.tensor([1050]), 0.0)
    for bias, ids, expected in (
        (masked, [7], [-math.inf, 0, 0, 0]),
        (one_hot, [1050], [0, 0, 1, 0]),
        (one_hot, [7], [-math.inf, 0, 1, 0]),
        (None, [7], [-math.log(1100), math.log(1100), 1 / 1100, 0]),
    ):
        stats = fused_token_stats(hidden, weight, torch.tensor(ids), bias, entropy_grad=True)
        assert torch.cat(fields(stats)).tolist() == pytest.approx(expected, rel=1e-6, abs=1e-12)
        for grad in torch.autograd.grad((stats.logp + stats.entropy).sum(), (hidden, weight)):
            assert grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_first_bad_logit_is_named(bad: float, dtype: torch.dtype) -> None:
    hidden, weight, bias, ids = (t.detach() for t in problem(9, 6, 4, 2000, torch.float32))
    weight = weight.to(dtype)
    bias[1500] = bad
    with pytest.raises(ValueError, match=r"logits\[0, 0, 1500\] is (nan|inf); allowed: finite"):
        fused_token_stats(hidden.view(2, 3, 4), weight, ids.view(2, 3), bias)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(4, 7)}, r"weight has shape \(4, 7\); allowed: \(V >= 1, 4\)"),
        ({"bias": torch.zeros(3)}, r"bias has shape \(3,\); allowed: \(9,\)"),
        ({"softcap": -1.0}, r"softcap is -1.0; allowed: a finite number > 0"),
        ({"budget": 0}, r"budget is 0; allowed"),
        ({"token_ids": torch.tensor([0, 9])}, r"token_ids\[1\] is 9; allowed: 0 to 8"),
        ({"hidden": torch.zeros(2, 4, dtype=torch.int32)}, r"hidden has dtype torch.int32"),
    ],
)
def test_bad_input_is_named(change: dict[str, object], message: str) -> None:
    good = {"hidden": torch.zeros(2, 4), "weight": torch.zeros(9, 4), "token_ids": torch.tensor([0, 8])}
    with pytest.raises((ValueError, TypeError), match=message):
        fused_token_stats(**(good | change))


def test_the_depth_that_a_weight_should_have_is_that_of_the_last_axis() -> None:
    with pytest.raises(ValueError, match=r"\(V >= 1, 4\), since hidden ends in 4\. Transpose"):
        fused_token_stats(torch.zeros(2, 3, 4), torch.zeros(4, 7), torch.zeros(2, 3, dtype=torch.long))


@pytest.mark.parametrize(
    ("hidden", "weight", "rounded"),
    [
        *[(torch.bfloat16, torch.bfloat16, True), (torch.float32, torch.float32, False)],
        *[(torch.bfloat16, torch.float32, False), (torch.float32, torch.bfloat16, False)],
    ],
)
def test_bfloat16_units_multiply_only_where_both_factors_are_bfloat16(hidden, weight, rounded) -> None:
    settings = torch.backends.mkldnn.matmul
    before = settings.fp32_precision
    with exact_products(torch.zeros(1, dtype=hidden), torch.zeros(1, dtype=weight)):
        assert (settings.fp32_precision == "bf16") == rounded
    assert settings.fp32_precision == before
