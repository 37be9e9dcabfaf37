"""A host's loss beside its steered self: loss, gradient and metrics of a step, and each token's own thresholds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from parity.batch import CUTS, Tokens
from torch import Tensor

from entrostat.control import Constant, IncreaseThenDecrease
from entrostat.integrations.losses.steering import Steering
from entrostat.objective import ClipBand

LOW, HIGH = 0.2, 0.28
STEP, TOTAL = 5, 100
TOLERANCE = 2e-6

Rows = tuple[int, ...]
Cut = tuple[tuple[Rows, ...], ...]
# A step of one micro-batch: (tokens, its rows, its rank, the whole cut) -> (loss as it is given to backward, metrics).
Ran = tuple[float, Tensor, list[Mapping[str, Any]]]
Step = Callable[[Tokens, Rows, int, Cut], tuple[Tensor, Mapping[str, Any]]]


@dataclass(frozen=True)
class ConstantAsTensors(ClipBand):
    """The host's own thresholds, a tensor of a token's shape each."""

    def bounds(self, old_logp: Tensor) -> tuple[Tensor, Tensor]:
        """(1 - LOW, 1 + HIGH), of the shape of old_logp."""
        return torch.full_like(old_logp, 1 - LOW), torch.full_like(old_logp, 1 + HIGH)


@dataclass(frozen=True)
class Case:
    """A setting of a host. host(low, high): its own step with two numbers. steered(steering, step): ours.

    clips: some ratio lies outside the thresholds; not so where pi_old is the policy itself.
    """

    name: str
    host: Callable[[float, float], Step]
    steered: Callable[[Steering, int], Step]
    cuts: tuple[str, ...] = tuple(CUTS)
    clips: bool = True


@dataclass(frozen=True)
class Row:
    """A comparison: the largest differences of loss, gradient and metrics, None where there is nothing to compare.

    moved: tokens whose gradient ID's thresholds change, so that the comparison could have failed.
    """

    case: str
    cut: str
    band: str
    loss: float | None
    gradient: float
    metrics: float | None
    moved: int | None = None

    @property
    def agrees(self) -> bool:
        """All differences are at rounding, and there was something to see."""
        return self.moved != 0 and all(
            value is None or value <= TOLERANCE for value in (self.loss, self.gradient, self.metrics)
        )


def compare(case: Case) -> Iterator[Row]:
    """The host's thresholds as tensors against the host with two numbers; then ID, token by token."""
    same = Steering(Constant(ConstantAsTensors()), TOTAL)
    moving = Steering(IncreaseThenDecrease(), TOTAL)
    for name in case.cuts:
        theirs, ours = (run(step, CUTS[name]) for step in (case.host(LOW, HIGH), case.steered(same, STEP)))
        yield Row(case.name, name, "constant", *differences(theirs, ours))
        found = run(case.steered(moving, STEP), CUTS[name])
        alone = token_by_token(case, moving, CUTS[name])
        moved = int((found[1] != theirs[1]).sum()) if case.clips else None
        yield Row(case.name, name, "id", None, float((found[1] - alone).abs().max()), None, moved)


def run(step: Step, cut: Cut) -> Ran:
    """(sum of the losses, gradient for every ln pi, metrics of every micro-batch) of an optimizer step.

    Ranks are averaged, as data-parallel training averages gradients.
    """
    tokens, total, seen = Tokens(), 0.0, []
    for rank, micro_batches in enumerate(cut):
        for rows in micro_batches:
            loss, metrics = step(tokens, rows, rank, cut)
            (loss / len(cut)).backward()
            total += float(loss.detach()) / len(cut)
            seen.append(dict(metrics))
    gradient = tokens.logp.grad
    assert gradient is not None
    return total, torch.where(tokens.mask, gradient, 0.0), seen


def token_by_token(case: Case, steering: Steering, cut: Cut) -> Tensor:
    """The gradient of every token as the host gives it with that token's two thresholds for all tokens."""
    tokens = Tokens()
    lows, highs = steering.thresholds(STEP, tokens.old)
    found = torch.zeros_like(tokens.old)
    for place in tokens.mask.nonzero():
        row, column = place.tolist()
        low, high = (float(x[row, column]) if isinstance(x, Tensor) else x for x in (lows, highs))
        found[row, column] = run(case.host(low, high), cut)[1][row, column]
    return found


def differences(theirs: Ran, ours: Ran) -> tuple[float, float, float]:
    """The largest absolute differences of loss, gradient and metrics; metrics of other names differ without bound."""
    worst = 0.0
    for a, b in zip(theirs[2], ours[2], strict=True):
        if a.keys() != b.keys():
            return abs(theirs[0] - ours[0]), float((theirs[1] - ours[1]).abs().max()), math.inf
        worst = max([worst, *(_gap(a[name], b[name]) for name in a)])
    return abs(theirs[0] - ours[0]), float((theirs[1] - ours[1]).abs().max()), worst


def _gap(a: Any, b: Any) -> float:
    a, b = (torch.as_tensor(x, dtype=torch.float64) for x in (a, b))
    same = (a == b) | (a.isnan() & b.isnan())
    return float(torch.where(same, 0.0, (a - b).abs()).max()) if a.numel() else 0.0
