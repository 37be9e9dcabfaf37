"""What an optimizer step did: the change of entropy, predicted and measured, and the weights that rounding left alone.

A bfloat16 number has 8 significant bits, so w + d equals w if abs(d) is below about abs(w) / 512. AdamW moves a
weight by at most about its learning rate per step: at 1e-6 a weight of .02 never moves. Training needs weights in
float32 (master weights); the forward pass may still compute in bfloat16 (autocast).
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from entrostat.control import FlowCalibration


class ChangeMeter:
    """Predicts the change of mean entropy, then measures it on the step's own states.

    The predictor is learning rate x (flow_up + flow_down), because the flow is the change for a unit step on each
    token's own logits and the optimizer's step is proportional to the learning rate; or, if it is computed, the change
    to first order in the weights. Each prediction is made before its step enters the fit, so its error is out of
    sample.
    """

    def __init__(self) -> None:
        self.calibration = FlowCalibration()

    def read(self, predictor: float, before: float, after: Callable[[], float]) -> dict[str, Any]:
        """The fields of the step line.

        predicted_change, predicted_error: nats, None before three steps; measured_change: nats; measure_seconds: the
        time of the second scoring. before: mean entropy of the step's tokens in nats; after: scores them again.
        """
        started = time.perf_counter()
        prediction = self.calibration.predict(predictor)
        change = after() - before
        self.calibration.observe(predictor, change)
        return {
            "predicted_change": prediction.change if prediction else None,
            "predicted_error": prediction.error if prediction else None,
            "measured_change": change,
            "measure_seconds": time.perf_counter() - started,
        }

    def state_dict(self) -> dict[str, Any]:
        """The calibration's state, JSON-able."""
        return dict(self.calibration.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.calibration.load_state_dict(state)


class FirstOrder:
    """The change of the mean entropy to first order in the weights theta, in nats: <d H / d theta, step of theta>.

    Unlike the flow, which treats every token's logits as free variables, it includes the weights that tokens share and
    the optimizer's use of the gradient (momentum, preconditioning, clipping). It needs one more backward pass and a
    copy of the weights and of their gradient; it is accurate for small steps.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self.weights = list(weights)
        self._before = [weight.detach().clone() for weight in self.weights]
        self._gradients = [torch.zeros_like(weight) for weight in self.weights]

    def add(self, entropy: Tensor) -> None:
        """Add the summed entropy of a micro-batch, a scalar with its graph, which is kept for the loss."""
        gradients = torch.autograd.grad(entropy, self.weights, retain_graph=True, allow_unused=True)
        for total, gradient in zip(self._gradients, gradients, strict=True):
            if gradient is not None:
                total += gradient

    def change(self, tokens: float) -> float:
        """The first-order change of the mean entropy over `tokens` by the step taken since."""
        steps = ((weight.detach() - before) for weight, before in zip(self.weights, self._before, strict=True))
        return sum(float((g * s).double().sum()) for g, s in zip(self._gradients, steps, strict=True)) / tokens


SHORT = (torch.bfloat16, torch.float16)
NEGLIGIBLE = 0.01


@torch.no_grad()
def swallowed_share(weights: Tensor, update: float) -> float:
    """Share, in [0, 1], of updates +update and -update that leave a weight as it was in its own dtype; any shape."""
    local = weights.to_local() if isinstance(weights, DTensor) else weights
    if not local.numel():
        return 0.0
    exact = local.double() if local.dtype == torch.float32 else local.float()
    stays = sum((exact + sign * update).to(local.dtype).eq(local).double().mean() for sign in (1, -1))
    return float(stays) / 2


def swallowed_by(optimizer: Any) -> float:
    """Share of updates of one learning rate that rounding swallows over all weights that the optimizer holds.

    A group's learning rate is the largest known, `initial_lr` of a schedule or `lr`. Float32 weights count as moved.
    """
    swallowed, total = 0.0, 0
    for group in _groups(optimizer):
        rate = max(float(group["lr"]), float(group.get("initial_lr", 0.0)))
        for weights in group["params"]:
            total += weights.numel()
            if weights.dtype in SHORT:
                swallowed += swallowed_share(weights, rate) * weights.numel()
    return swallowed / max(total, 1)


def warn_of_rounding(optimizer: Any, remedy: str) -> None:
    """Warn, with the measured share, if the optimizer holds short weights and rounding swallows over 1 % of updates."""
    held = {weights.dtype for group in _groups(optimizer) for weights in group["params"]}
    short = {str(dtype).removeprefix("torch.") for dtype in held & set(SHORT)}
    if short and (share := swallowed_by(optimizer)) > NEGLIGIBLE:
        warnings.warn(
            f"the optimizer holds weights in {', '.join(sorted(short))}: rounding swallows {share:.1%} of updates of "
            f"the size of the learning rate, so most weights may never move; {remedy}",
            stacklevel=3,
        )


def _groups(optimizer: Any) -> list[dict[str, Any]]:
    """The parameter groups; none for a host's placeholder of an optimizer, which holds no weights."""
    return list(getattr(optimizer, "param_groups", ()))
