"""The run folder: everything a run writes, and all that is needed to resume it.

    run.json         recipe (resolved), seed, hashes (of what the run reads), versions
    steps.jsonl      one line per optimizer step
    evals.jsonl      one line per evaluation of a split
    decisions.jsonl  one line per finding, stop, roll-back or switch, with its cause
    samples/         a few completions with their verdicts, one file per step and split
    checkpoints/     written by the engine

`entrostat.runs.schema` lists the fields of a line and what each holds, docs/metrics.md explains them. Only `step` is
required of a step line, so that a host writes what it can measure; an evaluation needs step, split and results.
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entrostat.runs.checks import checked
from entrostat.runs.files import (
    Record,
    RunError,
    append_line,
    atomic_write,
    count_lines,
    iterate_lines,
    read_lines,
    refusal,
    to_line,
    write_lines,
)
from entrostat.runs.html import Library, frame, table
from entrostat.runs.ownership import whole_number
from entrostat.runs.schema import DECISION, EVALUATION, HEADER, SAMPLE, STEP, under_new_names

IDENTITY = ("recipe", "seed", "hashes")
SPLITS = ("train", "select", "report", "ood")
_SAMPLE_FILE = re.compile(rf"([0-9]{{6,}})-({'|'.join(SPLITS)})\.jsonl")


@dataclass(frozen=True, slots=True, repr=False)
class Run:
    """One run's folder, open for reading and appending.

    Every line is on its way to the disk when a log method returns. All methods raise RunError with a plain message.
    """

    path: Path
    recipe: dict[str, Any]
    seed: int
    hashes: dict[str, str]
    versions: dict[str, str]

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, seed={self.seed})"

    def _repr_html_(self) -> str:
        measured = ("step", "reward", "entropy", "loss", "grad_norm", "length")
        steps = self.steps()
        shown = [steps[place] for place in sorted({0, len(steps) // 2, len(steps) - 1})] if steps else []
        rows = [{name: line.get(name, "") for name in measured} for line in shown]
        return table(f"{self.path}: seed {self.seed}, {len(steps)} steps", rows)

    @classmethod
    def create(
        cls,
        path: Path | str,
        recipe: Mapping[str, Any],
        seed: int,
        hashes: Mapping[str, str],
        versions: Mapping[str, str],
        read: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda recipe: recipe,
    ) -> Run:
        """Begin a run in the folder `path`, or resume the same run where it stopped.

        The same run has the same recipe, seed and hashes; versions are those it began with. read: what a recipe that
        was written by an earlier version says in terms of this one.
        RunError: the folder holds another run, or files that are not a run's.
        """
        folder = Path(path)
        wanted = {"recipe": recipe, "seed": seed, "hashes": hashes, "versions": versions}
        header = to_line(wanted, "run.json")
        if (folder / "run.json").exists():
            run = cls.open(folder)
            theirs = {"recipe": read(run.recipe), "seed": run.seed, "hashes": run.hashes}
            _refuse_another(folder, theirs, json.loads(header))
            return run
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(f"{folder}: holds something that is not a run; choose another folder with --out")
        _write_header(folder, header)
        return cls.open(folder)

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """The run in the folder `path`. RunError: there is none, or its run.json is damaged."""
        folder = Path(path)
        try:
            header = json.loads((folder / "run.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RunError(f"{folder}: not a run folder (no run.json in it); name the folder given as --out") from error
        except OSError as error:
            raise refusal(folder / "run.json", error) from error
        except (ValueError, RecursionError) as error:
            raise RunError(
                f"{folder / 'run.json'}: damaged ({error}); restore the file or delete the folder"
            ) from error
        if not isinstance(header, dict):
            raise RunError(f"{folder / 'run.json'}: not a JSON object; restore the file or delete the folder")
        HEADER.check(header, str(folder / "run.json"))
        return cls(folder, header["recipe"], header["seed"], header["hashes"], header["versions"])

    @property
    def checkpoints_dir(self) -> Path:
        """Where the engine keeps its checkpoints; made on first use."""
        folder = self.path / "checkpoints"
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise refusal(folder, error) from error
        return folder

    @contextmanager
    def sole_writer(self) -> Iterator[None]:
        """Keep every other process from writing this run meanwhile; a kill releases the lock.

        RunError: another one writes it now.
        """
        with (self.path / "run.json").open("rb") as header:
            try:
                fcntl.flock(header, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunError(f"{self.path}: another process is writing this run; wait for it or end it") from error
            yield

    def change_recipe(self, recipe: Mapping[str, Any]) -> None:
        """Let the run have another recipe from here on, as one that is extended has."""
        header = {"recipe": recipe, "seed": self.seed, "hashes": self.hashes, "versions": self.versions}
        _write_header(self.path, to_line(header, "run.json"))

    def log_step(self, line: Record) -> None:
        """Add an optimizer step. RunError: no step number, a value that is not finite or not plain, no space."""
        STEP.check(line, "steps.jsonl")
        append_line(self._steps, line)

    def log_eval(self, line: Record) -> None:
        """Add an evaluation of one split. RunError: as in log_step."""
        EVALUATION.check(line, "evals.jsonl")
        append_line(self._evals, line)

    def log_samples(self, step: int, split: str, samples: Sequence[Record]) -> None:
        """Keep `samples` (task, prompt, completion, outcome) of one step and split, in place of earlier ones.

        RunError: as in log_step, or a split of another name.
        """
        if split not in SPLITS:
            raise RunError(f"samples: split is {split!r}; choose one of {', '.join(SPLITS)}")
        whole_number(step, "samples: step")
        lines = [{"step": step, "split": split, **sample} for sample in samples]
        for line in lines:
            SAMPLE.check(line, "samples")
        write_lines(self.path / "samples" / f"{step:06d}-{split}.jsonl", lines)

    def note_decision(self, line: Record) -> None:
        """Add a decision: step, kind ("stop", "roll-back", ...) and cause. An existing one is not repeated."""
        DECISION.check(line, "decisions.jsonl")
        if line not in self.decisions():
            append_line(self._decisions, line)

    def steps(self) -> list[dict[str, Any]]:
        """The step lines, oldest first."""
        return checked([under_new_names(line) for line in read_lines(self._steps)], STEP, self._steps)

    def evals(self, split: str | None = None) -> list[dict[str, Any]]:
        """The evaluation lines, oldest first: of one split, or of all."""
        lines = checked(read_lines(self._evals), EVALUATION, self._evals)
        return [line for line in lines if split in (None, line["split"])]

    def steps_frame(self, library: Library = "pandas") -> Any:
        """The step lines as a DataFrame of pandas or polars. FrameError: the library is not installed."""
        return frame(self.steps(), library)

    def evals_frame(self, split: str | None = None, library: Library = "pandas") -> Any:
        """The evaluation lines as a DataFrame of pandas or polars. FrameError: the library is not installed."""
        return frame(self.evals(split), library)

    def samples(self, step: int | None = None) -> list[dict[str, Any]]:
        """The samples kept: of one step, or of all in order of their steps."""
        return list(self.iterate_samples(step))

    def iterate_samples(self, step: int | None = None, split: str | None = None) -> Iterator[dict[str, Any]]:
        """`samples`, of one split or of all, one at a time: a long run's samples need not fit into memory."""
        for at, own, file in self._sample_files():
            if step in (None, at) and split in (None, own):
                for line in iterate_lines(file):
                    yield from checked([line], SAMPLE, file)

    def sample_counts(self) -> dict[tuple[int, str], int]:
        """How many samples each (step, split) has, in order of the steps, without reading what they hold."""
        return {(at, split): lines for at, split, file in self._sample_files() if (lines := count_lines(file))}

    def decisions(self) -> list[dict[str, Any]]:
        """The decisions, oldest first."""
        return checked(read_lines(self._decisions), DECISION, self._decisions)

    def trace(self) -> dict[str, list[dict[str, Any]]]:
        """Steps and evaluations without their timings: equal for two runs that did the same."""
        return {"steps": _untimed(self.steps()), "evals": _untimed(self.evals())}

    def rewind(self, step: int) -> None:
        """Forget everything after `step`, so that a run resumed from the checkpoint of `step` writes it once."""
        logs = {self._steps: self.steps(), self._evals: self.evals(), self._decisions: self.decisions()}
        for log, lines in logs.items():
            kept = [line for line in lines if line.get("at", line["step"]) <= step]
            if len(kept) < len(lines):
                write_lines(log, kept)
        for at, _, file in self._sample_files():
            if at > step:
                file.unlink()

    @property
    def _steps(self) -> Path:
        return self.path / "steps.jsonl"

    @property
    def _evals(self) -> Path:
        return self.path / "evals.jsonl"

    @property
    def _decisions(self) -> Path:
        return self.path / "decisions.jsonl"

    def _sample_files(self) -> list[tuple[int, str, Path]]:
        """Step, split and path of each file, in order of the steps."""
        folder = self.path / "samples"
        names = [_SAMPLE_FILE.fullmatch(file.name) for file in folder.iterdir()] if folder.is_dir() else []
        return sorted((int(name[1]), name[2], folder / name[0]) for name in names if name)


def _write_header(folder: Path, line: bytes) -> None:
    atomic_write(folder / "run.json", json.dumps(json.loads(line), indent=2).encode() + b"\n")


def _refuse_another(folder: Path, theirs_all: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for part in IDENTITY:
        difference = _first_difference(part, theirs_all[part], wanted[part])
        if difference:
            field, theirs, ours = difference
            raise RunError(
                f"{folder}: belongs to another run: {field} is {theirs} there and {ours} here; "
                "choose another folder with --out, or delete this one"
            )


def _first_difference(field: str, found: Any, wanted: Any) -> tuple[str, str, str] | None:
    """The dotted name and the two values of the first place where two JSON values differ."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in [*wanted, *(key for key in found if key not in wanted)]:
            if key not in found or key not in wanted:
                return f"{field}.{key}", _shown(found, key), _shown(wanted, key)
            difference = _first_difference(f"{field}.{key}", found[key], wanted[key])
            if difference:
                return difference
        return None
    return None if found == wanted else (field, json.dumps(found), json.dumps(wanted))


def _shown(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key]) if key in values else "absent"


def _untimed(lines: Sequence[Record]) -> list[dict[str, Any]]:
    return [{field: value for field, value in line.items() if field != "seconds"} for line in lines]
