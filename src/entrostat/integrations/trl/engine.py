"""Campaigns of a TRL trainer, so that a chain can drive it: `entrostat.campaign.engine.Engine`.

The run folder is that of any engine; TRL's own checkpoints, from which a killed campaign resumes, are in its trl/.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_model
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from entrostat.campaign import CampaignTrace, Checkpoint
from entrostat.campaign.checkpoints import STATE_FILE, verify
from entrostat.campaign.engine import Listener, Order, Plan, Progress
from entrostat.campaign.loop import CampaignLoop, Schedule
from entrostat.integrations.records import step_line
from entrostat.runs import Run

Build = Callable[[Path, int, Path], Any]
Measure = Callable[[Any, str, slice], Sequence[Sequence[Any]] | Mapping[str, Any]]
TRAINER_STATE = "trainer_state.json"  # the last file of a checkpoint that the trainer writes


class TrlEngine:
    """Runs campaigns with trainers of TRL in this process.

    build(model_folder, steps, output_folder): a GRPOTrainer of the model for that many optimizer steps, with
    logging_steps=1 and, to be resumable, save_strategy="steps". measure(trainer, split, part): [task id, n, passed] of
    the tasks `part` of "select", "report" or "ood" (see `trl.tasks.pass_counts`), or all that `Host.evaluate` may give.
    split: tasks of the select split. measured: the splits that no decision reads. every, report: see
    `entrostat.campaign.loop.Schedule`. listener: called with every line as it is written.
    ValueError: every below 1, or another report.
    """

    def __init__(
        self,
        build: Build,
        measure: Measure,
        split: int,
        every: int | None = 1,
        listener: Listener | None = None,
        *,
        report: Literal["peak", "every"] = "peak",
        measured: Sequence[str] = ("report",),
    ) -> None:
        self.build, self.measure, self.listener = build, measure, listener
        self.schedule = Schedule(every, report)
        self.split, self.measured = split, measured

    def run(self, start: Checkpoint, plan: Plan, decide: Callable[[Progress], Order], record: Run) -> CampaignTrace:
        """See `Engine.run`. ValueError: a trainer of several processes, whose ranks would all write. CheckpointError:
        the start is corrupt.
        """
        loop = CampaignLoop(record, plan, decide, self.schedule, self.listener)
        if not loop.finished:
            verify(start)
            _Training(self, start, plan, loop).train()
        return loop.trace()


class _Training(TrainerCallback):  # type: ignore[misc]
    """The trainer of one campaign as its `Host`; TRL calls it after each step."""

    def __init__(self, engine: TrlEngine, start: Checkpoint, plan: Plan, loop: CampaignLoop) -> None:
        self.engine, self.split, self.measured = engine, engine.split, engine.measured
        self.loop, self.output = loop, loop.record.path / "trl"
        self.trainer = engine.build(start.path, max(plan.budget, 1), self.output)
        if self.trainer.accelerator.num_processes > 1:
            raise ValueError(
                f"TrlEngine: the trainer has {self.trainer.accelerator.num_processes} processes; run a chain in one"
            )
        self.trainer.args.learning_rate *= plan.rate
        self.trainer.add_callback(self)

    def train(self) -> None:
        """To the end, from TRL's last checkpoint where there is one."""
        resume = last_whole_checkpoint(self.output, self.loop.resume.step if self.loop.resume else 0)
        if resume is None:
            self.loop.begin(self)
        else:
            self.trainer._load_from_checkpoint(str(resume))  # for what the loop does before `train` loads it again
            self.loop.go_on(self, _step_of(resume))
        if not self.loop.over:
            self.trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        self.loop.close()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> Any:  # noqa: ARG002
        """Record a finished step and its log."""
        if logs and "loss" in logs:
            self.loop.stepped(step_line(state.global_step, logs))
            if self.loop.over:
                control.should_training_stop, control.should_save = True, False
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> Any:  # noqa: ARG002
        """TRL has written a checkpoint of the step that was logged last."""

        def name_it(folder: Path) -> None:
            folder.mkdir()
            checkpoint = f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            (folder / STATE_FILE).write_text(json.dumps({"checkpoint": f"{self.output.name}/{checkpoint}"}))

        self.loop.save_resume_point(name_it)
        return control

    def save(self, to: Checkpoint) -> None:
        """See `Host.save`."""
        self.trainer.save_model(str(to.path))

    def evaluate(self, split: str, part: slice, weights: Checkpoint | None) -> Mapping[str, Any]:
        """See `Host.evaluate`."""
        with self._with(weights):
            measured = self.engine.measure(self.trainer, split, part)
        return measured if isinstance(measured, Mapping) else {"results": [list(row) for row in measured]}

    @contextmanager
    def _with(self, weights: Checkpoint | None) -> Iterator[None]:
        """Put saved weights into the model for a while; None leaves the current ones."""
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


def last_whole_checkpoint(output: Path, least: int) -> Path | None:
    """The trainer's checkpoint with the most steps that a kill has not left half written; None where there is none of
    `least` steps or more.
    """
    checkpoints = [
        path for path in output.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.rpartition("-")[2].isdecimal()
    ]
    whole = [path for path in checkpoints if _step_of(path) >= least and _reads(path / TRAINER_STATE)]
    return max(whole, key=_step_of, default=None)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _reads(file: Path) -> bool:
    """Whether `file` holds a whole JSON value."""
    try:
        json.loads(file.read_bytes())
    except (OSError, ValueError):
        return False
    return True
