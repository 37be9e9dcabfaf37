"""What an optimizer step did to the entropy, beside what its flow announced."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from entrostat.control import FlowCalibration


class ChangeMeter:
    """Predicts the change of mean entropy from a step's flow, then measures it on the step's own states.

    The regressor is learning rate x (flow_up + flow_down): the flow is the change for a unit step on each token's own
    logits, and the optimizer's step is proportional to the learning rate. A prediction is made before its step is
    learned from, so its error is an honest one.
    """

    def __init__(self) -> None:
        self.calibration = FlowCalibration()

    def read(self, flow: float, learning_rate: float, before: float, after: Callable[[], float]) -> dict[str, Any]:
        """The fields of the step line.

        predicted_change, predicted_error: nats, None before three steps; measured_change: nats; measure_seconds: what
        the second scoring cost. before: mean entropy of the step's tokens in nats; after: scores them again.
        """
        started = time.perf_counter()
        announced = learning_rate * flow
        prediction = self.calibration.predict(announced)
        change = after() - before
        self.calibration.observe(announced, change)
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
