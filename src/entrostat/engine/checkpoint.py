"""Checkpoints of a run: named by their content, written atomically, found by tag.

    checkpoints/<digest>/   a model folder in Hugging Face format; a resume point adds optimizer.safetensors, state.json
    checkpoints/tags.json   tag -> digest and step: start, peak, held, end, resume, resume-<tag>

A tag moves only after the folder it names is whole on the disk, so a kill at any moment leaves the old or the new.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from entrostat.campaign.engine import Checkpoint
from entrostat.engine.policy import Policy
from entrostat.runs.files import atomic_write, folder_digest, sync

OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"
_TEMPORARY = ".writing-"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read; what was there before is intact."""


class CheckpointStore:
    """The checkpoints of one run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        for left_over in self.folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(left_over, ignore_errors=True)

    def save(
        self,
        policy: Policy,
        step: int,
        optimizer: torch.optim.Optimizer | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        """Write the policy, and for a resume point the optimizer and the JSON-able state.

        Raises CheckpointError when the disk refuses; no earlier checkpoint is touched.
        """
        temporary = self.folder / f"{_TEMPORARY}{os.getpid()}"
        try:
            policy.save(temporary)
            if optimizer is not None:
                save_file(_optimizer_tensors(optimizer), temporary / OPTIMIZER_FILE)
            if state is not None:
                (temporary / STATE_FILE).write_text(json.dumps(state, allow_nan=False), encoding="utf-8")
            digest = folder_digest(temporary)
            final = self.folder / digest
            if final.exists():
                shutil.rmtree(temporary)
            else:
                _flush(temporary)
                temporary.rename(final)
                sync(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            reason = error.strerror if isinstance(error, OSError) else None
            raise CheckpointError(
                f"checkpoint of step {step}: {self.folder} cannot be written ({reason or error}); "
                "free space or fix its permissions and start the same command again, which resumes the run"
            ) from error
        return Checkpoint(path=final, step=step)

    def tags(self) -> dict[str, Checkpoint]:
        """Every tagged checkpoint."""
        file = self.folder / "tags.json"
        if not file.exists():
            return {}
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            return {tag: Checkpoint(self.folder / entry["digest"], entry["step"]) for tag, entry in content.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{file}: not a tag file ({error}); restore it or start in a new folder") from error

    def retag(self, tags: Mapping[str, Checkpoint]) -> None:
        """Make these the tags, all at once, and delete every checkpoint that none of them names."""
        content = {tag: {"digest": kept.path.name, "step": kept.step} for tag, kept in sorted(tags.items())}
        atomic_write(self.folder / "tags.json", json.dumps(content, indent=1).encode() + b"\n")
        kept_names = {kept.path.name for kept in tags.values()}
        for path in self.folder.iterdir():
            if path.is_dir() and path.name not in kept_names:
                doomed = path.rename(
                    path.with_name(f"{_TEMPORARY}{path.name}")
                )  # half deleted, it has no digest's name
                shutil.rmtree(doomed)


def verify(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError where the folder's name is a digest and it is not there, or its content has another.

    A folder with a name of another kind, such as a user's own model, is taken as it is.
    """
    if re.fullmatch(r"[0-9a-f]{64}", checkpoint.path.name) is None:
        return
    if not checkpoint.path.is_dir():
        raise CheckpointError(f"{checkpoint.path}: the checkpoint of step {checkpoint.step} is missing; restore it")
    digest = folder_digest(checkpoint.path)
    if digest != checkpoint.path.name:
        raise CheckpointError(
            f"{checkpoint.path}: the checkpoint of step {checkpoint.step} is corrupt (its content hashes to {digest}); "
            "restore it from a copy or start in a new folder"
        )


def load_optimizer(checkpoint: Checkpoint, optimizer: torch.optim.Optimizer) -> None:
    """Put the saved moments and step counts back into an optimizer of the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load_file(checkpoint.path / OPTIMIZER_FILE).items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def load_state(checkpoint: Checkpoint) -> dict[str, Any]:
    """The JSON-able state of a resume point."""
    state: dict[str, Any] = json.loads((checkpoint.path / STATE_FILE).read_text(encoding="utf-8"))
    return state


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{i}.{key}": value.contiguous() for i, entry in state.items() for key, value in entry.items()}


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            sync(path)
    sync(folder)
