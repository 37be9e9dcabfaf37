"""Campaigns of a TRL trainer, so that a chain can drive it: `entrostat.campaign.engine.Engine`.

The run folder is that of any engine; TRL's own checkpoints, from which a killed campaign goes on, lie in its trl/.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from entrostat.campaign import CampaignTrace, Checkpoint
from entrostat.integrations.records import nested
from entrostat.runs import Run, Trajectory

Build = Callable[[Path, int, Path], Any]
Measure = Callable[[Any, str], Sequence[Sequence[Any]]]
SPLITS = ("select", "report")


class TrlEngine:
    """Runs campaigns with trainers of TRL in this process.

    build(model_folder, steps, output_folder): a GRPOTrainer of the model for that many optimizer steps, with
    logging_steps=1 and, to be resumable, save_strategy="steps". measure(trainer, split): [task id, n, passed] of every
    task of "select" or "report" (see `trl_tasks.pass_counts`). every: steps from one evaluation to the next.
    """

    def __init__(self, build: Build, measure: Measure, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"TrlEngine.every is {every}; give at least 1")
        self.build, self.measure, self.every = build, measure, every

    def run(
        self, start: Checkpoint, budget: int, should_stop: Callable[[Trajectory], bool], record: Run
    ) -> CampaignTrace:
        """See `Engine.run`. Raises ValueError for a trainer of several processes, whose ranks would all write."""
        campaign = _Campaign(self, start, budget, should_stop, record)
        if not campaign.finished.exists():
            campaign.train()
        return campaign.trace()


class _Campaign(TrainerCallback):  # type: ignore[misc]
    """One campaign under way, told by TRL of each step."""

    def __init__(
        self, engine: TrlEngine, start: Checkpoint, budget: int, should_stop: Callable[[Trajectory], bool], record: Run
    ) -> None:
        self.engine, self.start, self.budget = engine, start, budget
        self.should_stop, self.record = should_stop, record
        self.output = record.path / "trl"
        self.finished = record.checkpoints_dir / "finished.json"
        self.trainer: Any = None

    def train(self) -> None:
        """To the end, from TRL's last checkpoint where there is one."""
        self.trainer = self.engine.build(self.start.path, self.budget, self.output)
        if self.trainer.accelerator.num_processes > 1:
            raise ValueError(
                f"TrlEngine: the trainer has {self.trainer.accelerator.num_processes} processes; run a chain in one"
            )
        self.trainer.add_callback(self)
        resume = get_last_checkpoint(str(self.output)) if self.output.exists() else None
        if resume is None:
            self.record.rewind(-1)
            self._evaluate(0)
            self._keep(0)
        else:
            self.record.rewind(int(resume.rpartition("-")[2]))
        self.trainer.train(resume_from_checkpoint=resume)
        end = self.trainer.state.global_step
        self._keep(end)
        peak = self._select().peak_step
        for folder in self.record.checkpoints_dir.glob("step-*"):
            if folder not in {self._folder(step) for step in (0, peak, end)}:
                shutil.rmtree(folder)
        self.finished.write_text(json.dumps({"end": end}))

    def trace(self) -> CampaignTrace:
        """What the finished campaign did."""
        select = self._select()
        end = json.loads(self.finished.read_text())["end"]
        start, peak, last = (Checkpoint(self._folder(step), step) for step in (0, select.peak_step, end))
        report = Trajectory.from_evals(self.record.evals("report"))
        return CampaignTrace(select=select, report=report, start=start, peak=peak, end=last)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """Evaluate when it is time, keep a new peak, and stop when the rule says so."""
        step = state.global_step
        if step % self.engine.every and step != self.budget:
            return control
        self._evaluate(step)
        select = self._select()
        if select.peak_step == step:
            self._keep(step)
        if self.should_stop(select):
            control.should_training_stop = True
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:  # noqa: ARG002
        """Write TRL's log line of a step as a step line."""
        if not logs or "loss" not in logs:
            return
        numbers = {
            name: value for name, value in logs.items() if isinstance(value, int | float) and math.isfinite(value)
        }
        self.record.log_step({"step": state.global_step, **nested(numbers)})

    def _evaluate(self, step: int) -> None:
        for split in SPLITS:
            rows = [list(row) for row in self.engine.measure(self.trainer, split)]
            self.record.log_eval({"step": step, "split": split, "results": rows})

    def _select(self) -> Trajectory:
        return Trajectory.from_evals(self.record.evals("select"))

    def _folder(self, step: int) -> Path:
        return self.record.checkpoints_dir / f"step-{step:06d}"

    def _keep(self, step: int) -> None:
        """Save the model under its step; a folder that a kill left half written is replaced."""
        folder = self._folder(step)
        temporary = folder.with_name(f".writing-{folder.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        self.trainer.save_model(str(temporary))
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
