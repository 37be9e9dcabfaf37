"""Checkpoints of a run: named by their content, written atomically, found by tag.

    checkpoints/<digest>/   a model folder in Hugging Face format; a resume point adds optimizer.safetensors, state.json
    checkpoints/tags.json   tag -> digest and step: start, peak, held, end, resume, resume-<tag>

A tag moves only after the folder it names is completely on disk, so a kill at any moment leaves the old or the new.
A folder that is not ours (`entrostat.runs.ownership`) is never deleted.
"""

from __future__ import annotations

import json
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
from entrostat.errors import EntrostatError
from entrostat.runs import RunError
from entrostat.runs.files import atomic_write, folder_digest, sync
from entrostat.runs.ownership import digest, is_digest, remove_digests, scratch, seal, sweep, whole_number

OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"


class CheckpointError(EntrostatError, RuntimeError):
    """A checkpoint that cannot be written or read; earlier checkpoints are intact."""


class CheckpointStore:
    """The checkpoints of one run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep(self.folder)

    def save(
        self,
        policy: Policy,
        step: int,
        optimizer: torch.optim.Optimizer | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        """Write the policy and, for a resume point, the optimizer and the JSON-able state.

        Raises CheckpointError if the disk refuses; no earlier checkpoint is changed.
        """
        temporary = scratch(self.folder)
        try:
            policy.save(temporary)
            if optimizer is not None:
                save_file(_optimizer_tensors(optimizer), temporary / OPTIMIZER_FILE)
            if state is not None:
                (temporary / STATE_FILE).write_text(json.dumps(state, allow_nan=False), encoding="utf-8")
            final = self.folder / folder_digest(temporary)
            if final.exists():
                shutil.rmtree(temporary)
            else:
                seal(temporary)
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

    def tags(self, *needed: str) -> dict[str, Checkpoint]:
        """Every tagged checkpoint.

        CheckpointError: the file is damaged, lacks a required tag, or names something that is not a checkpoint.
        """
        file = self.folder / "tags.json"
        if not file.exists():
            return {}
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if missing := [tag for tag in needed if tag not in content]:
                raise KeyError(missing[0])
            return {
                tag: Checkpoint(
                    self.folder / digest(entry["digest"], f"{tag}.digest"), whole_number(entry["step"], f"{tag}.step")
                )
                for tag, entry in content.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, RunError) as error:
            raise CheckpointError(f"{file}: not a tag file ({error}); restore it or start in a new folder") from error

    def retag(self, tags: Mapping[str, Checkpoint]) -> None:
        """Replace all tags at once, and delete every checkpoint of ours that no tag names."""
        content = {tag: {"digest": kept.path.name, "step": kept.step} for tag, kept in sorted(tags.items())}
        atomic_write(self.folder / "tags.json", json.dumps(content, indent=1).encode() + b"\n")
        remove_digests(self.folder, keep={kept.path.name for kept in tags.values()})


def verify(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError if the folder's name is a digest, and it is missing or its content has another digest.

    A folder with any other name, such as a user's own model, is accepted as it is.
    """
    if not is_digest(checkpoint.path.name):
        return
    if not checkpoint.path.is_dir():
        raise CheckpointError(f"{checkpoint.path}: the checkpoint of step {checkpoint.step} is missing; restore it")
    actual = folder_digest(checkpoint.path)
    if actual != checkpoint.path.name:
        raise CheckpointError(
            f"{checkpoint.path}: the checkpoint of step {checkpoint.step} is corrupt (its content hashes to {actual}); "
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
