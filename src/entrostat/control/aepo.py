"""AEPO of QwenLong-L1.5: punished tokens are left out while the entropy is high."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from entrostat.control.part import Measured, Part, State, TokenBatch, weighting


@weighting("aepo")
@dataclass
class Aepo(Part):
    """AEPO: from a step with entropy above `high` until one below `low`, punished tokens (A < 0) have no gradient.

    Source: the hysteresis as QwenLong-L1.5 uses it; not AEPO of arXiv 2510.08141, which draws samples at another
    temperature. high and low in nats; there are no defaults, because the thresholds belong to a model. It lowers the
    entropy and cannot raise it. Raises ValueError unless 0 < low < high.
    """

    needs_entropy = True

    low: float
    high: float
    _off: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise ValueError(f"Aepo: low {self.low} and high {self.high}; give 0 < low < high, in nats")

    @override
    def observe(self, step: Measured) -> None:
        self._off = step.entropy > self.high or (self._off and step.entropy >= self.low)

    @override
    @torch.no_grad()
    def weights(self, batch: TokenBatch) -> Tensor:
        ones = torch.ones_like(batch.stats.logp)
        return torch.where(batch.advantages < 0, 0.0, ones) if self._off else ones

    @override
    def state_dict(self) -> State:
        return {"off": self._off}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._off = state["off"]
