"""A campaign of a host's trainer: when it is evaluated, which weights are kept, how it resumes, how it ends.

The host trains and reports each step; in between, the campaign calls the methods of `Host`. Kept weights are folders in
Hugging Face format in the record's checkpoints/, named by their step, and by their content once the campaign is over.
A folder that is not ours (`entrostat.runs.ownership`) is never deleted.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from entrostat.campaign import CampaignTrace, Checkpoint
from entrostat.campaign.engine import Evaluate, GoOn, Listener, Order, Plan, Progress, Stop, whole_trajectory
from entrostat.integrations.records import nested
from entrostat.runs import Run, RunError, Trajectory, atomic_write
from entrostat.runs.files import folder_digest
from entrostat.runs.ownership import digest, is_ours, remove, scratch, seal, sweep, whole_number

EVERYTHING = slice(None)
_STEP_FOLDER = re.compile(r"step-([0-9]{6}|[1-9][0-9]{6,})")
_REMEDY = "restore it, or delete the folder of the campaign to run it again"
NAMES = {  # name in a host's log -> name in a step line
    "learning_rate": "lr",
    "actor/lr": "lr",
    "actor/pg_loss": "loss",
    "actor/grad_norm": "grad_norm",
    "actor/entropy": "entropy",
    "critic/score/mean": "reward",
    "response_length/mean": "length",
    "response_length/clip_ratio": "truncated",
    "kl": "kl_reference",
    "actor/kl_loss": "kl_reference",
    "actor/ppo_kl": "kl_old",
    "rollout_corr/kl": "kl_sampler",
}


class Host(Protocol):
    """A trainer between two of its steps."""

    @property
    def split(self) -> int:
        """Number of tasks of the select split."""
        ...

    def save(self, to: Checkpoint) -> None:
        """Write the current weights, which are those of to.step, to the new folder to.path."""
        ...

    def measure(self, split: str, part: slice, weights: Checkpoint | None) -> Mapping[str, Any]:
        """Evaluate the tasks `part` of "select" or "report" with the current weights, or with saved ones; training then
        continues with the current weights.

        Returns the fields of an evaluation line: results, a [task id, n, passed] per task, and any other measurements.
        `samples` are completions to keep.
        """
        ...


class HostCampaign:
    """One campaign under way: `begin` or `resume`, a `step` for each of the host's until it is `over`, then `close`.

    every: steps between evaluations; None evaluates only when the controller orders it. listener: called with
    every step line and evaluation line as it is written.
    """

    def __init__(
        self,
        host: Host,
        record: Run,
        plan: Plan,
        decide: Callable[[Progress], Order],
        every: int | None,
        listener: Listener | None = None,
    ) -> None:
        self.host, self.record, self.plan, self.decide, self.every = host, record, plan, decide, every
        self.listener = listener or (lambda _: None)
        self.at = 0
        self.order: Order | None = None
        self._held: int | None = 0  # the step whose weights the host has

    @property
    def over(self) -> bool:
        """Whether there is no further step to train."""
        return isinstance(self.order, Stop) or self.at == self.plan.budget

    def begin(self) -> None:
        """From the start, which the host has loaded."""
        self._forget_after(-1)
        self._keep()
        self._evaluate_on_schedule()
        self._evaluate("report", 0)
        self._ask()

    def resume(self, step: int, *, loaded: bool) -> None:
        """From the host's own checkpoint of `step`; loaded: whether it has those weights already."""
        self._forget_after(step)
        self.at, self._held = step, step if loaded else None
        self.order = self.decide(self._progress())

    def step(self, step: int, logged: Mapping[str, Any]) -> None:
        """Record a step of the host and its log, evaluate on schedule, and follow the controller's orders."""
        self.at = self._held = step
        line = step_line(step, logged)
        self.record.log_step(line)
        self.listener(line)
        if step == self.plan.budget:
            self._keep()
        self._evaluate_on_schedule()
        self._ask()
        if isinstance(self.order, Stop):
            self._keep()

    def prune(self) -> None:
        """Delete weights that neither controller nor peak needs. Call it when a killed host would resume at this
        step: until then, steps since its last checkpoint may be repeated and may need any of these weights.
        """
        wanted = {0, self._best(), self.order.keep if isinstance(self.order, GoOn | Stop) else None}
        wanted |= {self.at} if self.over else set()
        for step in set(self.kept()) - wanted:
            remove(self._folder(step))

    def close(self) -> None:
        """Fix the peak, measure it and the end on the report split, and delete all other weights except the start's."""
        confirmed = self.order.keep if isinstance(self.order, Stop) else None
        if confirmed is None and self.at not in {line["step"] for line in self.record.evals("select")}:
            self._evaluate("select", self.at)
        peak = self._best() if confirmed is None else confirmed
        for step in sorted({peak, self.at} - {line["step"] for line in self.record.evals("report")}):
            self._evaluate("report", step)
        for other in set(self.kept()) - {0, peak, self.at}:
            remove(self._folder(other))
        digests = {step: folder_digest(self._folder(step)) for step in (0, peak, self.at)}
        settled = {"peak": peak, "end": self.at, "confirmed": confirmed, "digests": digests}
        atomic_write(_settled_file(self.record), json.dumps(settled).encode())

    def kept(self) -> list[int]:
        """Steps whose weights are kept."""
        names = (_STEP_FOLDER.fullmatch(folder.name) for folder in self.record.checkpoints_dir.iterdir())
        return sorted(int(name[1]) for name in names if name)

    def _ask(self) -> None:
        """Follow the controller's orders until it continues or stops."""
        while isinstance(order := self.decide(self._progress()), Evaluate):
            self._evaluate("select", order.step, slice(order.first, order.last))
        self.order = order
        if isinstance(order, GoOn) and order.keep == self.at:
            self._keep()

    def _progress(self) -> Progress:
        steps, evals = self.record.steps(), self.record.evals("select")
        kept = tuple(sorted({*self.kept(), self.at}))
        return Progress(self.at, self.plan.budget, steps, evals, kept, self.host.split)

    def _evaluate_on_schedule(self) -> None:
        if self.every is not None and (self.at % self.every == 0 or self.at == self.plan.budget):
            self._evaluate("select", self.at)
            if self._best() == self.at:
                self._keep()

    def _evaluate(self, split: str, step: int, part: slice = EVERYTHING) -> None:
        weights = None if step == self._held else Checkpoint(self._folder(step), step)
        found = dict(self.host.measure(split, part, weights))
        late = {"at": self.at} if step != self.at else {}
        said = {} if part is EVERYTHING else {"tasks": [part.start, part.stop]}
        if samples := found.pop("samples", None):
            self.record.log_samples(step, split, samples)
        line = {"step": step, "split": split, **late, **said, **found}
        self.record.log_eval(line)
        self.listener(line)

    def _best(self) -> int:
        """The step of the first maximum over the evaluations of the whole select split; 0 before any."""
        select = whole_trajectory(self.record.evals("select"))
        return select.peak_step if select else 0

    def _folder(self, step: int) -> Path:
        return self.record.checkpoints_dir / f"step-{step:06d}"

    def _keep(self) -> None:
        """Save the current weights under their step, once; a folder left incomplete by a kill is replaced."""
        folder = self._folder(self.at)
        if is_ours(folder):
            return
        if folder.exists():
            raise RunError(f"{folder}: was not made by this campaign, or was changed; move it to another place")
        temporary = scratch(folder.parent)
        self.host.save(Checkpoint(temporary, self.at))
        seal(temporary)
        temporary.rename(folder)

    def _forget_after(self, step: int) -> None:
        """Forget what a killed process did after `step`."""
        self.record.rewind(step)
        sweep(self.record.checkpoints_dir)
        for other in self.kept():
            if other > step:
                remove(self._folder(other))


def step_line(step: int, logged: Mapping[str, Any]) -> dict[str, Any]:
    """A step line of a run folder: the finite numbers that a host logged, under the run folder's own names."""
    numbers = {
        NAMES.get(name, name).removeprefix("actor/" if name.startswith("actor/entrostat/") else ""): value
        for name, value in logged.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
    return {"step": step} | nested(numbers) | {"step": step}


def finished(record: Run) -> bool:
    """Whether the campaign in `record` was closed."""
    return _settled_file(record).exists()


def finished_trace(record: Run) -> CampaignTrace:
    """The trace of a closed campaign. RunError: its file is damaged, or names no checkpoints."""
    file = _settled_file(record)
    settled = read_fields(file, "peak", "end", "confirmed", "digests")
    if not isinstance(settled["digests"], dict):
        raise RunError(f"{file}: digests: got {settled['digests']!r}, where steps and digests belong; {_REMEDY}")
    names = {"peak": settled["peak"], "end": settled["end"], "start": 0}
    steps = {name: whole_number(step, f"{file}: {name}") for name, step in names.items()}
    if missing := [step for step in steps.values() if str(step) not in settled["digests"]]:
        raise RunError(f"{file}: digests: step {missing[0]} is missing; {_REMEDY}")
    confirmed = None if settled["confirmed"] is None else whole_number(settled["confirmed"], f"{file}: confirmed")
    digests = {
        step: digest(settled["digests"][str(step)], f"{file}: digests.{step}") for step in sorted({*steps.values()})
    }
    places = {step: _named_by_content(record, step, name) for step, name in digests.items()}
    start, peak, end = (Checkpoint(places[steps[name]], steps[name]) for name in ("start", "peak", "end"))
    evals = record.evals("select")
    return CampaignTrace(
        select=Trajectory.from_evals(evals),
        report=Trajectory.from_evals(record.evals("report")),
        start=start,
        peak=peak,
        end=end,
        confirmed=confirmed,
        steps=record.steps(),
        evals=evals,
    )


def read_fields(file: Path, *fields: str) -> dict[str, Any]:
    """The JSON object in `file`. RunError: it is not one, or lacks one of `fields`."""
    try:
        content: dict[str, Any] = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file}: damaged ({error}); {_REMEDY}") from error
    if not isinstance(content, dict):
        raise RunError(f"{file}: damaged (no JSON object); {_REMEDY}")
    if missing := [field for field in fields if field not in content]:
        raise RunError(f"{file}: field {missing[0]!r} is missing; {_REMEDY}")
    return content


def at_least_one_or_none(field: str, every: int | None) -> None:
    """ValueError: `every` is neither None nor a whole number from 1."""
    if every is not None and every < 1:
        raise ValueError(f"{field} is {every}; give at least 1, or None")


def _settled_file(record: Run) -> Path:
    return record.checkpoints_dir / "finished.json"


def _named_by_content(record: Run, step: int, name: str) -> Path:
    """The folder of a closed campaign's weights of `step`, which a kill may have left under its step.

    RunError: the folder named by the step was not made by this campaign.
    """
    named, folder = record.checkpoints_dir / name, record.checkpoints_dir / f"step-{step:06d}"
    if folder.exists() and named.exists():
        remove(folder)
    elif folder.exists():
        if folder.is_symlink() or folder_digest(folder) != name:
            raise RunError(
                f"{folder}: was changed after the campaign saved it; restore it, or move it to another place"
            )
        folder.rename(named)
    return named
