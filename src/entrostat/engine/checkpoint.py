"""What a resume point of the embedded engine holds besides the policy: optimizer.safetensors and state.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from entrostat.campaign.checkpoints import STATE_FILE

OPTIMIZER_FILE = "optimizer.safetensors"


def save_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Write the moments and step counts into a folder that is there."""
    state = optimizer.state_dict()["state"]
    tensors = {f"{i}.{key}": value.contiguous() for i, entry in state.items() for key, value in entry.items()}
    save_file(tensors, folder / OPTIMIZER_FILE)


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Put the saved moments and step counts back into an optimizer of the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load_file(folder / OPTIMIZER_FILE).items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def save_state(state: Mapping[str, Any], folder: Path) -> None:
    """Write the JSON-able state of everything else into a folder that is there."""
    (folder / STATE_FILE).write_text(json.dumps(state, allow_nan=False), encoding="utf-8")


def load_state(folder: Path) -> dict[str, Any]:
    """What `save_state` wrote."""
    state: dict[str, Any] = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    return state
