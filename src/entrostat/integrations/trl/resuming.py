"""What a resumed run of TRL needs: the steps of the schedule, the controller's state, and the order of the prompts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback

from entrostat.control import EntropyController

Horizon = Literal["run", "extended", "controller"]


class TotalSteps(TrainerCallback):  # type: ignore[misc]
    """Sets the controller's total_steps, then loads its state from the checkpoint that a run resumes from.

    Only when training begins does a trainer know its steps: `num_train_epochs` needs the length of its data.
    horizon: see `EntropyGRPOTrainer`. Raises ValueError for an unknown one, and for "controller" without total_steps;
    when training begins, for a checkpoint of a run with another number of steps, unless the horizon is "extended".
    """

    def __init__(self, controller: EntropyController, horizon: Horizon) -> None:
        if horizon not in get_args(Horizon):
            raise ValueError(f"horizon is {horizon!r}; choose {', '.join(get_args(Horizon))}")
        if horizon == "controller" and controller.total_steps is None:
            raise ValueError("horizon is 'controller', but EntropyController.total_steps is None; give it")
        self.controller, self.horizon = controller, horizon
        self.resumed: Mapping[str, Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """state.max_steps is the run's, whether it was given in steps or in epochs."""
        steps, given = state.max_steps, self.controller.total_steps
        if self.horizon != "controller":
            if given not in (None, steps):
                warnings.warn(
                    f"EntropyController.total_steps is {given} and the run has {steps} optimizer steps; the schedule "
                    f"runs over {steps}: omit total_steps, or set horizon='controller' to keep {given}",
                    stacklevel=2,
                )
            self.controller.begin(steps)
        if self.resumed is not None:
            extended = self.horizon == "extended"
            try:
                self.controller.load_state_dict(self.resumed, extended=extended)
            except ValueError as error:
                raise ValueError(f"{error} (EntropyGRPOTrainer(horizon='extended'))") from error


class OrderOfEpoch(Sampler[int]):
    """TRL's shuffling RepeatSampler; after `set_epoch`, its order is that of an uninterrupted run.

    TRL draws the order of each epoch from one generator seeded with the run's seed, and does not save its state: a run
    resumed in a later epoch would start with the order of the first.
    """

    def __init__(self, plain: Any) -> None:
        self.plain = plain

    def set_epoch(self, epoch: int) -> None:
        """Set the order of `epoch`, counted from 0; transformers' Trainer calls it before each epoch."""
        generator: torch.Generator = self.plain.generator
        generator.manual_seed(self.plain.seed)
        for _ in range(epoch):
            torch.randperm(self.plain.num_samples, generator=generator)

    def __iter__(self) -> Iterator[int]:
        return iter(self.plain)

    def __len__(self) -> int:
        return len(self.plain)
