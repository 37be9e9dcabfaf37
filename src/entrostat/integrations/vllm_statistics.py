"""Exact entropy, sum p^2 and C from inside vLLM, as it samples: a logits processor of its v1 interface.

    llm = LLM(model, logits_processors=["entrostat.integrations.vllm_statistics:TokenStatistics"])
    llm.generate(prompts, SamplingParams(logprobs=0, extra_args={"entrostat": "my-request"}))

with ENTROSTAT_TOKENS=FOLDER in the environment of the engine. A request that is named so writes one line per token to
FOLDER/vllm-RANK.jsonl (RANK: that of the data-parallel replica):

    {"request": "my-request", "position": 0, "entropy": H, "collision": sum p^2, "correction": C}

p is the distribution at the request's temperature after penalties, before top-k, top-p and min-p of later processors;
logits are read, never changed. ln p_a is not known before the token is drawn: it is in vLLM's own `logprobs`
(logprobs_mode="processed_logprobs" gives it at the same temperature). vLLM reads long prompts in parts and may start a
request again: of several lines with one position the last one counts. Each step waits for the device.

Greedy requests are refused: vLLM leaves their logits out of such processors. So is n > 1, whose completions vLLM would
write under one name. Interface: vllm.v1.sample.logits_processor (vLLM 0.10 and later; where vLLM has a second model
runner, VLLM_USE_V2_MODEL_RUNNER=0 selects the one with this interface).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import LogitsProcessor

from entrostat.errors import EntrostatError
from entrostat.tokens import token_stats

NAME = "entrostat"  # of the request's extra argument
FOLDER = "ENTROSTAT_TOKENS"
Request = tuple[str, Sequence[int]]  # its name, and its tokens so far, which vLLM appends to


class TokenStatistics(LogitsProcessor):  # type: ignore[misc]
    """The processor; vLLM builds one per worker."""

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Raise ValueError for a request that asks for statistics and cannot have them; it is refused by vLLM."""
        name = _name(sampling_params)
        if name is None:
            return
        if not isinstance(name, str) or not name:
            raise ValueError(f"extra_args[{NAME!r}] is {name!r}; allowed: a text, the name of the request")
        if not sampling_params.temperature > 0:
            raise ValueError(
                f"temperature is {sampling_params.temperature} in the request {name!r}; allowed: above 0 where "
                f"extra_args has {NAME!r}, as vLLM shows no logits of greedy requests"
            )
        if (getattr(sampling_params, "n", 1) or 1) > 1:
            raise ValueError(
                f"n is {sampling_params.n} in the request {name!r}; allowed: 1 where extra_args has {NAME!r}. "
                "Send the prompt n times, under n names"
            )

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:  # noqa: ARG002
        """EntrostatError: ENTROSTAT_TOKENS is not set."""
        if not os.environ.get(FOLDER):
            raise EntrostatError(f"{FOLDER} is not set; name a folder for the statistics in the engine's environment")
        parallel = getattr(vllm_config, "parallel_config", None)
        self._writes = getattr(parallel, "rank", 0) == 0  # every rank of a replica has the same logits
        replica = getattr(parallel, "data_parallel_rank", 0) or 0
        self._file = Path(os.environ[FOLDER]) / f"vllm-{replica}.jsonl"
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._requests: dict[int, Request] = {}

    def is_argmax_invariant(self) -> bool:
        """Nothing is changed; vLLM then shows the logits after the temperature."""
        return True

    def update_state(self, batch_update: Any) -> None:
        """Follow the rows of the batch: requests that left, came and moved, in this order (vLLM's BatchUpdate)."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._requests.pop(row, None)
        for row, params, _, output in batch_update.added:
            self._requests.pop(row, None)
            if (name := _name(params)) is not None:
                self._requests[row] = (name, output)
        for source, target, direction in batch_update.moved:
            moving, staying = self._requests.pop(source, None), self._requests.pop(target, None)
            if moving is not None:
                self._requests[target] = moving
            if staying is not None and direction.name == "SWAP":
                self._requests[source] = staying

    def apply(self, logits: Tensor) -> Tensor:
        """Write a line per named request, and return the logits (requests, V) as they are."""
        if self._writes and self._requests:
            rows = sorted(self._requests)
            own = logits[rows]
            stats = token_stats(own, torch.zeros(len(rows), dtype=torch.long, device=own.device))
            columns = [part.tolist() for part in (stats.entropy, stats.collision, stats.correction)]
            lines = [self._line(row, values) for row, values in zip(rows, zip(*columns, strict=True), strict=True)]
            with self._file.open("a") as file:
                file.write("".join(lines))
        return logits

    def _line(self, row: int, values: tuple[float, ...]) -> str:
        name, output = self._requests[row]
        statistics = dict(zip(("entropy", "collision", "correction"), values, strict=True))
        return json.dumps({"request": name, "position": len(output), **statistics}) + "\n"


def _name(params: Any) -> Any:
    """What the request is called, or None where it asks for nothing."""
    return (getattr(params, "extra_args", None) or {}).get(NAME)
