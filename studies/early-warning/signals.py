"""Signals of a run, one value per step: each uses what was logged up to that step, and is large in danger.

`now` is the step's own value; `held` the largest of the last four steps, a pass over each of four epochs, because a
ratio is 1 by definition on the first pass over a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Line = Mapping[str, Any]
HOLD = 4

NOW = {
    "learning rate": lambda x: x["lr"],
    "entropy, low": lambda x: -x["entropy"],
    "entropy, high": lambda x: x["entropy"],
    "expanding flow": lambda x: x["flow_up"],
    "contracting flow": lambda x: -x["flow_down"],
    "net flow, contracting": lambda x: -(x["flow_up"] + x["flow_down"]),
    "net flow, expanding": lambda x: x["flow_up"] + x["flow_down"],
    "expanding share of the flow": lambda x: x["flow_up"] / (x["flow_up"] - x["flow_down"] or 1.0),
    "net flow, size": lambda x: abs(x["flow_up"] + x["flow_down"]),
    "flow, rms of a token": lambda x: x["flow_rms"],
    "flow, lowest token": lambda x: -x["flow_lowest"],
    "flow, highest token": lambda x: x["flow_highest"],
    "share of contracting tokens": lambda x: x["share_down"],
    "share of E1": lambda x: x["regions"]["E1"]["share"],
    "share of E2": lambda x: x["regions"]["E2"]["share"],
    "share of E3": lambda x: x["regions"]["E3"]["share"],
    "share of E4": lambda x: x["regions"]["E4"]["share"],
    "flow share of E4": lambda x: x["regions"]["E4"]["flow_share"],
    "KL to the sampler": lambda x: x["kl_old"],
    "share outside .8-1.2": lambda x: x["ratio_outside"],
    "lowest punished log-ratio": lambda x: -(x["log_ratio_min_punished"] or 0.0),
    "gradient norm": lambda x: x["grad_norm"],
    "train reward, low": lambda x: -x["reward"],
    "reward variance, low": lambda x: -x["reward"] * (1 - x["reward"]),
    "share of mixed groups, low": lambda x: -x["groups"]["mixed"],
    "length": lambda x: x["length"],
    "truncated": lambda x: x["truncated"],
}

SCALED = (
    "gradient norm",
    "KL to the sampler",
    "flow, rms of a token",
    "expanding flow",
    "contracting flow",
    "entropy, high",
)


def signals(lines: Sequence[Line]) -> dict[str, np.ndarray]:
    """Every signal of a run over its steps 1, 2, ...: `NAME` and `NAME, held`."""
    now = {name: np.array([read(line) for line in lines], dtype=float) for name, read in NOW.items()}
    now["entropy, falling"] = -_slope(now["entropy, high"])
    now["entropy, rising"] = _slope(now["entropy, high"])
    now["train reward, falling"] = -_slope(-now["train reward, low"])
    now["length, rising"] = _slope(now["length"])
    norm = now["gradient norm"]
    first = np.array([norm[i - line["epoch"]] for i, line in enumerate(lines)])
    now["gradient norm against the first pass"] = np.divide(norm, first, out=np.ones_like(norm), where=first > 0)
    for name in SCALED:
        now[f"{name}, against its past"] = _against_past(now[name])
    return with_held(now)


def with_held(now: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The signals, and each of them held."""
    return {**now, **{f"{name}, held": _held(values) for name, values in now.items()}}


def _against_past(values: np.ndarray) -> np.ndarray:
    """The value over the median of itself and all earlier ones that are not 0; 1 while there is none."""
    usual = [np.median(past[past > 0]) if (past := values[: i + 1]).any() else np.inf for i in range(len(values))]
    return np.where(np.isfinite(usual), values / np.array(usual), 1.0)


def _slope(values: np.ndarray) -> np.ndarray:
    """Change over the last HOLD steps."""
    padded = np.concatenate([np.full(HOLD, values[0]), values])
    return values - padded[: len(values)]


def _held(values: np.ndarray) -> np.ndarray:
    padded = np.concatenate([np.full(HOLD - 1, values[0]), values])
    return np.lib.stride_tricks.sliding_window_view(padded, HOLD).max(1)
