"""The Triton kernels agree with the PyTorch path: on a GPU where there is one, else in Triton's interpreter on the CPU.

The interpreter multiplies bfloat16 numbers as integers, so that float16 stands for the 16-bit types there.
"""

import ctypes
import faulthandler
import math
import mmap
import multiprocessing

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALF = torch.bfloat16 if DEVICE == "cuda" else torch.float16
pytest.importorskip("triton", reason="Triton is made for Linux only")

from entrostat.tokens import TokenStats, chunks, fused, fused_token_stats, triton_kernel  # noqa: E402
from entrostat.tokens.chunks import Head  # noqa: E402
from entrostat.tokens.partial import Upstream  # noqa: E402


def fields(stats: TokenStats) -> tuple[Tensor, ...]:
    return stats.logp, stats.entropy, stats.collision, stats.correction


@pytest.fixture(params=[torch.float32, HALF])
def problem(request: pytest.FixtureRequest) -> tuple[Tensor, ...]:
    """More than a tile of rows, columns and depth, and no multiple of any."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(150, 70, generator=generator), torch.randn(700, 70, generator=generator) * 0.4
    bias, ids = torch.randn(700, generator=generator), torch.randint(700, (150,), generator=generator)
    return *(t.to(DEVICE, request.param).requires_grad_() for t in (hidden, weight, bias)), ids.to(DEVICE)


def by_triton(monkeypatch: pytest.MonkeyPatch, *args: Tensor, **options: object) -> TokenStats:
    monkeypatch.setattr(fused, "backend", lambda *_: triton_kernel)
    return fused_token_stats(*(arg.to(DEVICE) for arg in args), **options)


@pytest.mark.parametrize(("temperature", "softcap"), [(1.0, None), (0.7, 5.0)])
@pytest.mark.parametrize(("biased", "entropy_grad"), [(False, False), (True, True)])
def test_values_and_gradients_agree(
    monkeypatch: pytest.MonkeyPatch,
    problem: tuple[Tensor, ...],
    temperature: float,
    softcap: float | None,
    biased: bool,
    entropy_grad: bool,
) -> None:
    hidden, weight, bias, ids = problem
    inputs = (hidden, weight, bias) if biased else (hidden, weight)
    args = (hidden, weight, ids, bias if biased else None, temperature, entropy_grad)
    results = []
    for path in (triton_kernel, chunks):
        monkeypatch.setattr(fused, "backend", lambda *_, path=path: path)
        stats = fused_token_stats(*args, softcap=softcap, budget=150 * 256 * 4)
        results.append((stats, torch.autograd.grad((stats.logp + 0.5 * stats.entropy).sum(), inputs)))
    (kernel, grads), (plain, expected) = results
    for got, want in zip(fields(kernel), fields(plain), strict=True):
        torch.testing.assert_close(got, want, rtol=2e-5, atol=1e-7)
    tolerance = 1e-5 if hidden.dtype == torch.float32 else 2e-2
    for got, want in zip(grads, expected, strict=True):
        assert (got - want).float().norm() <= tolerance * want.float().norm()


def test_the_programs_that_share_a_vocabulary_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, ids = torch.randn(5, 16), torch.randn(900, 16), torch.arange(5) * 200
    results = []
    for programs in (1, 3, 1000):
        monkeypatch.setattr(triton_kernel, "PROGRAMS", programs)
        results.append(fields(by_triton(monkeypatch, hidden, weight, ids)))
    for result in results[1:]:
        for got, want in zip(result, results[0], strict=True):
            torch.testing.assert_close(got, want, rtol=2e-5, atol=1e-7)


def test_a_peak_far_above_the_rest_keeps_its_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.zeros(300, 16)
    weight[200, 0] = 30.0
    stats = by_triton(monkeypatch, torch.ones(1, 16), weight, torch.tensor([200]))
    rest = 299 * math.exp(-30)
    assert stats.logp.item() == pytest.approx(-math.log1p(rest), rel=1e-5)
    assert stats.correction.item() == pytest.approx(rest * 30, rel=1e-5)


def test_corners_have_defined_values(monkeypatch: pytest.MonkeyPatch) -> None:
    masked = torch.full((140,), -math.inf)
    empty = by_triton(monkeypatch, torch.ones(2, 16), torch.ones(140, 16), torch.tensor([0, 139]), masked)
    assert [f.tolist() for f in fields(empty)] == [[-math.inf] * 2, [0, 0], [0, 0], [0, 0]]
    masked[139] = 0
    one_hot = by_triton(monkeypatch, torch.ones(2, 16), torch.ones(140, 16), torch.tensor([0, 139]), masked)
    assert [f.tolist() for f in fields(one_hot)] == [[-math.inf, 0], [0, 0], [1, 1], [0, 0]]
    nothing = by_triton(monkeypatch, torch.ones(0, 16), torch.ones(3, 16), torch.zeros(0, dtype=torch.long))
    assert nothing.logp.shape == (0,)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_first_bad_logit_is_named(monkeypatch: pytest.MonkeyPatch, bad: float) -> None:
    bias = torch.zeros(300)
    bias[130] = bad
    with pytest.raises(ValueError, match=r"logits\[0, 130\] is (nan|inf); allowed"):
        by_triton(monkeypatch, torch.ones(2, 16), torch.ones(300, 16), torch.tensor([0, 1]), bias)


def test_the_budget_bounds_the_gradient_of_the_logits_that_is_held(
    monkeypatch: pytest.MonkeyPatch, largest: TorchDispatchMode
) -> None:
    budget = 130 * 128 * 4
    hidden, weight = torch.randn(130, 16, device=DEVICE), torch.randn(400, 16, device=DEVICE)
    stats = by_triton(monkeypatch, hidden.requires_grad_(), weight, torch.zeros(130, dtype=torch.long), budget=budget)
    with largest:
        stats.logp.sum().backward()
    assert largest.bytes == budget


def before_a_guard(values: Tensor) -> Tensor:
    """A copy that ends where a page begins that may not be touched."""
    size = values.numel() * values.element_size()
    pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, pages + mmap.PAGESIZE)
    first = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(first + pages), mmap.PAGESIZE, 0) == 0
    flat = np.frombuffer(memory, np.uint8, size, pages - size)
    return torch.from_numpy(flat).view(values.dtype).view(values.shape).copy_(values)


def run_between_guards() -> None:
    faulthandler.disable()
    new_empty = torch.Tensor.new_empty
    torch.Tensor.new_empty = lambda *args, **kwargs: before_a_guard(new_empty(*args, **kwargs))
    rows, depth, vocab = 70, 33, 150
    hidden, weight, bias = (before_a_guard(torch.randn(*s)) for s in ((rows, depth), (vocab, depth), (vocab,)))
    ids, head = before_a_guard(torch.randint(vocab, (rows,))), Head(weight, bias, 1.0, None)
    triton_kernel.head_sums(hidden, head, ids, 2**20)
    upstream = Upstream(*(before_a_guard(torch.randn(rows)) for _ in range(4)))
    triton_kernel.head_grads(hidden, head, ids, upstream, chunks.Gradients(None, None, None), 2**20)


@pytest.mark.skipif(DEVICE == "cuda", reason="the guard pages are the host's")
def test_nothing_beyond_the_end_of_a_tensor_is_read_or_written() -> None:
    """In a child process, which a touched guard page ends."""
    child = multiprocessing.get_context("fork").Process(target=run_between_guards)
    child.start()
    child.join()
    assert child.exitcode == 0
