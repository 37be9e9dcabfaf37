"""A host's loss beside its steered self: loss, gradient and metrics of a step, under each kind of control."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from parity.batch import CUTS, Tokens
from torch import Tensor

from entrostat.control import (
    Constant,
    ConstantBonus,
    EntropicWeights,
    EntropyController,
    FixedWeights,
    IncreaseThenDecrease,
    Part,
    SkipRegion,
    TokenBatch,
)
from entrostat.integrations.losses.steering import Steering, Tier
from entrostat.objective import ClipBand, policy_loss

LOW, HIGH = 0.2, 0.28
COEFFICIENT = 0.05
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


@dataclass
class Unlikely(Part):
    """Weights 1 - p / 2, which need ln p alone."""

    def weights(self, batch: TokenBatch) -> Tensor:
        """(...), as the tokens."""
        return 1 - batch.stats.logp.exp() / 2


WEIGHTINGS: dict[Tier, Part] = {"A": Unlikely(), "B": SkipRegion("E2"), "C": FixedWeights(1.5, 0.25)}


@dataclass(frozen=True)
class Case:
    """A setting of a host. host(low, high): its own step with two numbers. steered(steering): ours.

    tier: what its loss gets. clips: some ratio lies outside the thresholds; not so where pi_old is the policy itself.
    bonus(coefficient): the host's own step with an entropy coefficient, None if its loss has none.
    """

    name: str
    tier: Tier
    host: Callable[[float, float], Step]
    steered: Callable[[Steering], Step]
    cuts: tuple[str, ...] = tuple(CUTS)
    clips: bool = True
    bonus: Callable[[float], Step] | None = None


@dataclass(frozen=True)
class Row:
    """A comparison: the largest differences of loss, gradient and metrics, None where there is nothing to compare.

    moved: tokens whose gradient the control changes, so that the comparison could have failed.
    """

    case: str
    cut: str
    control: str
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
    """Every control on every cut of a step; the rows say which two things are compared.

    nothing    a controller whose band are the host's thresholds, as tensors, and whose weights are 1: the host
    id         ID's thresholds: the host given each token's own two thresholds, token by token (gradient)
    weights    a weighting: the host given advantages times the weights that the library computes of the same tokens
    library    ID and the weighting: `policy_loss` times the host's own scale of each token (gradient)
    bonus      a bonus: the host's own entropy coefficient
    entropy    the mean entropy that a controller would follow: that of the tokens (under "gradient")
    """
    weighting = WEIGHTINGS[case.tier]
    for name in case.cuts:
        cut = CUTS[name]
        theirs = run(case.host(LOW, HIGH), cut)

        def row(control: str, *values: Any, name: str = name) -> Row:
            return Row(case.name, name, control, *values)

        def ours(*parts: Part, cut: Cut = cut) -> Ran:
            return run(case.steered(control_of(case, *parts)), cut)

        yield row("nothing", *differences(theirs, ours(Constant(ConstantAsTensors()), FixedOne())))
        moved = ours(IncreaseThenDecrease())
        alone = token_by_token(case, cut)
        seen = int((moved[1] != theirs[1]).sum()) if case.clips else None
        yield row("id", None, largest(moved[1], alone), None, seen)
        weighted = ours(Constant(ConstantAsTensors()), weighting)
        expected = run(case.host(LOW, HIGH), cut, Tokens(factors_of(weighting, case.tier)))
        yield row("weights", *differences(expected, weighted), int((weighted[1] != theirs[1]).sum()))
        if case.clips:
            both = ours(IncreaseThenDecrease(), weighting)[1]
            yield row("library", None, largest(both, by_library(case, cut)), None, int((both != theirs[1]).sum()))
        if case.bonus is not None:
            paid = ours(Constant(ConstantAsTensors()), ConstantBonus(COEFFICIENT))
            yield row("bonus", *differences(run(case.bonus(COEFFICIENT), cut), paid), int((paid[1] != theirs[1]).sum()))
        if case.tier != "A":
            control, tokens = control_of(case, EntropicWeights(target=1.0)), Tokens()
            run(case.steered(control), cut)
            entropy = float(tokens.entropy[tokens.mask].detach().double().mean())
            yield row("entropy", None, abs(control.mean() - entropy), None)


@dataclass
class FixedOne(Part):
    """A weighting that weighs nothing, so that the weighted path runs."""

    def weights(self, batch: TokenBatch) -> Tensor:
        """All 1."""
        return torch.ones_like(batch.stats.logp)


def control_of(case: Case, *parts: Part) -> Steering:
    """A controller at step STEP of TOTAL, as a host of that tier holds it."""
    coefficient = None if case.bonus is None else "the host's coefficient"
    control = Steering(EntropyController(*parts, total_steps=TOTAL), case.tier, coefficient)
    control.begin_step(STEP)
    return control


def factors_of(weighting: Part, tier: Tier) -> Tensor:
    """The weights that the library gives the tokens."""
    tokens = Tokens()
    control = Steering(EntropyController(weighting, total_steps=TOTAL), tier)
    return control.weights(tokens.stats, tokens.advantages, tokens.mask, tokens.old, tokens.sampler)


def run(step: Step, cut: Cut, tokens: Tokens | None = None) -> Ran:
    """(sum of the losses, gradient for every ln pi, metrics of every micro-batch) of an optimizer step.

    Ranks are averaged, as data-parallel training averages gradients.
    """
    tokens, total, seen = Tokens() if tokens is None else tokens, 0.0, []
    for rank, micro_batches in enumerate(cut):
        for rows in micro_batches:
            loss, metrics = step(tokens, rows, rank, cut)
            (loss / len(cut)).backward()
            total += float(loss.detach()) / len(cut)
            seen.append(dict(metrics))
    gradient = tokens.logp.grad
    assert gradient is not None
    return total, torch.where(tokens.mask, gradient, 0.0), seen


def token_by_token(case: Case, cut: Cut) -> Tensor:
    """The gradient of every token as the host gives it with that token's two thresholds of ID for all tokens."""
    tokens = Tokens()
    lows, highs = control_of(case, IncreaseThenDecrease()).thresholds(tokens.old, (LOW, HIGH))
    found = torch.zeros_like(tokens.old)
    for place in tokens.mask.nonzero():
        row, column = place.tolist()
        low, high = (float(x[row, column]) if isinstance(x, Tensor) else x for x in (lows, highs))
        found[row, column] = run(case.host(low, high), cut)[1][row, column]
    return found


def by_library(case: Case, cut: Cut) -> Tensor:
    """The gradient of `policy_loss` under ID and the weighting, times the host's scale of each token, plus the rest.

    The rest is what the host's gradient is with advantages of 0 (its KL, its bonus); the scale is what it makes of
    -r A where nothing is clipped: its aggregation, its corrections and its masks.
    """
    tokens, weighting = Tokens(), WEIGHTINGS[case.tier]
    rest = run(case.host(LOW, HIGH), cut, Tokens(0.0))[1]
    free = run(case.host(1.0, 1e6), cut)[1] - rest
    scale = free / -(torch.exp(tokens.logp.detach() - tokens.old) * tokens.advantages)
    advantages = tokens.advantages * factors_of(weighting, case.tier)
    rule = IncreaseThenDecrease().rule(STEP, TOTAL)
    loss = policy_loss(tokens.logp, tokens.old, advantages, tokens.mask, rule=rule).per_token
    (gradient,) = torch.autograd.grad(loss[tokens.mask].sum(), tokens.logp)
    return torch.where(tokens.mask, scale * gradient + rest, 0.0)


def largest(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference."""
    return float((a - b).abs().max())


def differences(theirs: Ran, ours: Ran) -> tuple[float, float, float]:
    """The largest absolute differences of loss, gradient and metrics; metrics of other names differ without bound."""
    worst = 0.0
    for a, b in zip(theirs[2], ours[2], strict=True):
        if a.keys() != b.keys():
            return abs(theirs[0] - ours[0]), largest(theirs[1], ours[1]), math.inf
        worst = max([worst, *(_gap(a[name], b[name]) for name in a)])
    return abs(theirs[0] - ours[0]), largest(theirs[1], ours[1]), worst


def _gap(a: Any, b: Any) -> float:
    a, b = (torch.as_tensor(x, dtype=torch.float64).detach() for x in (a, b))
    same = (a == b) | (a.isnan() & b.isnan())
    return float(torch.where(same, 0.0, (a - b).abs()).max()) if a.numel() else 0.0
