"""The change of entropy by an optimizer step, predicted from its tokens' flow or its step in weights, and measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

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
