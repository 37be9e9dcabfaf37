"""Campaigns of a TRL trainer, so that a chain can drive it: `entrostat.campaign.engine.Engine`.

The run folder is that of any engine; TRL's own checkpoints, from which a killed campaign resumes, are in its trl/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import load_model
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from entrostat.campaign import CampaignTrace, Checkpoint
from entrostat.campaign.engine import Listener, Order, Plan, Progress
from entrostat.engine.checkpoint import verify
from entrostat.integrations.host_campaign import (
    HostCampaign,
    at_least_one_or_none,
    finished,
    finished_trace,
)
from entrostat.runs import Run

Build = Callable[[Path, int, Path], Any]
Measure = Callable[[Any, str, slice], Sequence[Sequence[Any]] | Mapping[str, Any]]


class TrlEngine:
    """Runs campaigns with trainers of TRL in this process.

    build(model_folder, steps, output_folder): a GRPOTrainer of the model for that many optimizer steps, with
    logging_steps=1 and, to be resumable, save_strategy="steps". measure(trainer, split, part): [task id, n, passed] of
    the tasks `part` of "select" or "report" (see `trl_tasks.pass_counts`), or all that `Host.measure` may give. split:
    tasks of the select split. every, listener: see HostCampaign.
    """

    def __init__(
        self, build: Build, measure: Measure, split: int, every: int | None = 1, listener: Listener | None = None
    ) -> None:
        at_least_one_or_none("TrlEngine.every", every)
        self.build, self.measure, self.split, self.every, self.listener = build, measure, split, every, listener

    def run(self, start: Checkpoint, plan: Plan, decide: Callable[[Progress], Order], record: Run) -> CampaignTrace:
        """See `Engine.run`. ValueError: a trainer of several processes, whose ranks would all write. CheckpointError:
        the start is corrupt.
        """
        if not finished(record):
            verify(start)
            _Training(self, start, plan, decide, record).train()
        return finished_trace(record)


class _Training(TrainerCallback):  # type: ignore[misc]
    """The trainer of one campaign as its `Host`; TRL calls it after each step."""

    def __init__(
        self, engine: TrlEngine, start: Checkpoint, plan: Plan, decide: Callable[[Progress], Order], record: Run
    ) -> None:
        self.engine, self.split, self.output = engine, engine.split, record.path / "trl"
        self.campaign = HostCampaign(self, record, plan, decide, engine.every, engine.listener)
        self.trainer = engine.build(start.path, max(plan.budget, 1), self.output)
        if self.trainer.accelerator.num_processes > 1:
            raise ValueError(
                f"TrlEngine: the trainer has {self.trainer.accelerator.num_processes} processes; run a chain in one"
            )
        self.trainer.args.learning_rate *= plan.rate
        self.trainer.add_callback(self)

    def train(self) -> None:
        """Train to the end, from TRL's last checkpoint if there is one."""
        resume = get_last_checkpoint(str(self.output)) if self.output.exists() else None
        if resume is None:
            self.campaign.begin()
        else:
            self.campaign.resume(int(resume.rpartition("-")[2]), loaded=False)
        if not self.campaign.over:
            self.trainer.train(resume_from_checkpoint=resume)
        self.campaign.close()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> Any:  # noqa: ARG002
        """Record a finished step and its log."""
        if logs and "loss" in logs:
            self.campaign.step(state.global_step, logs)
            control.should_training_stop = control.should_training_stop or self.campaign.over
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> Any:  # noqa: ARG002
        """TRL has written a checkpoint of the step that was logged last."""
        self.campaign.prune()
        return control

    def save(self, to: Checkpoint) -> None:
        """See `Host.save`."""
        self.trainer.save_model(str(to.path))

    def measure(self, split: str, part: slice, weights: Checkpoint | None) -> Mapping[str, Any]:
        """See `Host.measure`."""
        with self._with(weights):
            found = self.engine.measure(self.trainer, split, part)
        return found if isinstance(found, Mapping) else {"results": [list(row) for row in found]}

    @contextmanager
    def _with(self, weights: Checkpoint | None) -> Iterator[None]:
        """Put saved weights into the model for a while; None keeps the current ones."""
        if weights is None:
            yield
            return
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        held = {name: value.detach().clone() for name, value in model.state_dict().items()}
        load_model(model, weights.path / "model.safetensors")
        try:
            yield
        finally:
            model.load_state_dict(held)
