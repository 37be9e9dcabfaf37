"""Campaigns of a TRL trainer, so that a chain can drive it: `entrostat.campaign.engine.Engine`.

The run folder is that of any engine; TRL's own checkpoints, from which a killed campaign goes on, lie in its trl/.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import load_model
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from entrostat.campaign import CampaignTrace, Checkpoint
from entrostat.campaign.engine import Evaluate, GoOn, Order, Plan, Progress, Stop, whole_trajectory
from entrostat.integrations.records import nested
from entrostat.runs import Run, Trajectory

Build = Callable[[Path, int, Path], Any]
Measure = Callable[[Any, str, slice], Sequence[Sequence[Any]]]
EVERYTHING = slice(None)


class TrlEngine:
    """Runs campaigns with trainers of TRL in this process.

    build(model_folder, steps, output_folder): a GRPOTrainer of the model for that many optimizer steps, with
    logging_steps=1 and, to be resumable, save_strategy="steps". measure(trainer, split, part): [task id, n, passed] of
    the tasks `part` of "select" or "report" (see `trl_tasks.pass_counts`). split: tasks of the select split. every:
    steps from one evaluation to the next, None for none but those that the controller orders.
    """

    def __init__(self, build: Build, measure: Measure, split: int, every: int | None = 1) -> None:
        if every is not None and every < 1:
            raise ValueError(f"TrlEngine.every is {every}; give at least 1, or None")
        self.build, self.measure, self.split, self.every = build, measure, split, every

    def run(self, start: Checkpoint, plan: Plan, decide: Callable[[Progress], Order], record: Run) -> CampaignTrace:
        """See `Engine.run`. Raises ValueError for a trainer of several processes, whose ranks would all write."""
        campaign = _Campaign(self, start, plan, decide, record)
        if not campaign.finished.exists():
            campaign.train()
        return campaign.trace()


class _Campaign(TrainerCallback):  # type: ignore[misc]
    """One campaign under way, told by TRL of each step."""

    def __init__(
        self, engine: TrlEngine, start: Checkpoint, plan: Plan, decide: Callable[[Progress], Order], record: Run
    ) -> None:
        self.engine, self.start, self.plan, self.decide, self.record = engine, start, plan, decide, record
        self.output = record.path / "trl"
        self.finished = record.checkpoints_dir / "finished.json"
        self.trainer: Any = None
        self.order: Order | None = None

    def train(self) -> None:
        """To the end, from TRL's last checkpoint where there is one."""
        self.trainer = self.engine.build(self.start.path, max(self.plan.budget, 1), self.output)
        if self.trainer.accelerator.num_processes > 1:
            raise ValueError(
                f"TrlEngine: the trainer has {self.trainer.accelerator.num_processes} processes; run a chain in one"
            )
        self.trainer.args.learning_rate *= self.plan.rate
        self.trainer.add_callback(self)
        resume = get_last_checkpoint(str(self.output)) if self.output.exists() else None
        if resume is None:
            self.record.rewind(-1)
            self._keep(0)
            self._evaluate_on_schedule(0)
            self._ask(0)
        else:
            self.record.rewind(int(resume.rpartition("-")[2]))
            self.order = self.decide(self._progress(int(resume.rpartition("-")[2])))
        if self.plan.budget and not isinstance(self.order, Stop):
            self.trainer.train(resume_from_checkpoint=resume)
        self._close(self._steps()[-1])

    def trace(self) -> CampaignTrace:
        """What the finished campaign did."""
        settled = json.loads(self.finished.read_text())
        start, peak, end = (Checkpoint(self._folder(step), step) for step in (0, settled["peak"], settled["end"]))
        evals = self.record.evals("select")
        return CampaignTrace(
            select=Trajectory.from_evals(evals),
            report=Trajectory.from_evals(self.record.evals("report")),
            start=start,
            peak=peak,
            end=end,
            confirmed=settled["confirmed"],
            steps=self.record.steps(),
            evals=evals,
        )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> Any:  # noqa: ARG002
        """A step is done and its log line is written: evaluate when it is time, ask, and stop when told to."""
        if not logs or "loss" not in logs:
            return control
        step = state.global_step
        numbers = {
            name: value for name, value in logs.items() if isinstance(value, int | float) and math.isfinite(value)
        }
        self.record.log_step({"step": step, **nested(numbers)})
        if step == self.plan.budget:
            self._keep(step)
        self._evaluate_on_schedule(step)
        self._ask(step)
        if isinstance(self.order, Stop):
            self._keep(step)
            control.should_training_stop = True
        self._prune(step)
        return control

    def _ask(self, step: int) -> None:
        """Do what the controller orders until it wants to go on or to stop."""
        while isinstance(order := self.decide(self._progress(step)), Evaluate):
            with self._weights_of(order.step, step):
                self._evaluate("select", order.step, step, slice(order.first, order.last))
        self.order = order
        if isinstance(order, GoOn) and order.keep == step:
            self._keep(step)

    def _progress(self, step: int) -> Progress:
        steps, evals = self.record.steps(), self.record.evals("select")
        return Progress(step, self.plan.budget, steps, evals, tuple(sorted({*self._steps(), step})), self.engine.split)

    def _evaluate_on_schedule(self, step: int) -> None:
        every = self.engine.every
        if every is not None and (step % every == 0 or step == self.plan.budget):
            self._evaluate("select", step, step)
            if self._best() == step:
                self._keep(step)
        if step == 0:
            self._evaluate("report", step, step)

    def _evaluate(self, split: str, of: int, at: int, part: slice = EVERYTHING) -> None:
        rows = [list(row) for row in self.engine.measure(self.trainer, split, part)]
        said = {} if part is EVERYTHING else {"tasks": [part.start, part.stop]}
        self.record.log_eval({"step": of, "split": split, **({"at": at} if at != of else {}), **said, "results": rows})

    def _close(self, end: int) -> None:
        """Settle the peak, and measure it and the end on the report split."""
        confirmed = self.order.keep if isinstance(self.order, Stop) else None
        if confirmed is None and end not in {line["step"] for line in self.record.evals("select")}:
            with self._weights_of(end, end):
                self._evaluate("select", end, end)
        peak = self._best() if confirmed is None else confirmed
        for step in sorted({peak, end} - {line["step"] for line in self.record.evals("report")}):
            with self._weights_of(step, None):
                self._evaluate("report", step, end)
        for other in set(self._steps()) - {0, peak, end}:
            shutil.rmtree(self._folder(other))
        self.finished.write_text(json.dumps({"peak": peak, "end": end, "confirmed": confirmed}))

    @contextmanager
    def _weights_of(self, step: int, now: int | None) -> Iterator[None]:
        """Put the weights of a kept step into the model for a while; nothing to do where they are those of now."""
        if step == now:
            yield
            return
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        held = {name: value.detach().clone() for name, value in model.state_dict().items()}
        load_model(model, self._folder(step) / "model.safetensors")
        try:
            yield
        finally:
            model.load_state_dict(held)

    def _best(self) -> int:
        """The step of the first maximum over the evaluations of the whole select split; 0 before any."""
        select = whole_trajectory(self.record.evals("select"))
        return select.peak_step if select else 0

    def _steps(self) -> list[int]:
        """Steps whose weights are kept."""
        return sorted(int(folder.name[5:]) for folder in self.record.checkpoints_dir.glob("step-*"))

    def _prune(self, step: int) -> None:
        """Forget the weights that neither the controller nor the peak nor a resumed campaign needs."""
        wanted = {self._best(), self.order.keep if isinstance(self.order, GoOn | Stop) else None}
        resumable = get_last_checkpoint(str(self.output)) if self.output.exists() else None
        oldest = min(step, int(resumable.rpartition("-")[2])) if resumable else 0
        for other in self._steps():
            if 0 < other <= oldest and other not in wanted:
                shutil.rmtree(self._folder(other))

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
