"""Grading a file of samples: verdicts out line by line, so that an interrupted run resumes where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entrostat.errors import EntrostatError
from entrostat.grading.code import CodeGrader
from entrostat.grading.extraction import continuation, defines
from entrostat.grading.judging import AnyTask
from entrostat.grading.verdict import Outcome, Verdict
from entrostat.tasks import ProgramTask, TaskError
from entrostat.tasks.records import Record, records

_BATCH = 256
_LINE_START = b'{"key": "'


class SamplesError(EntrostatError, ValueError):
    """A samples file that cannot be graded; the message names the file, the line and the remedy."""


@dataclass(frozen=True, slots=True)
class FileReport:
    """The result of grading a samples file.

    verdicts: the file that holds them. counts: (n, c) of each task that has graded samples, n graded and c passed, from
    which any pass@k with k <= n follows. outcomes: samples per outcome. infrastructure_errors: samples without a
    verdict; grade the file again for them. unfit: the tasks that cannot be graded by this grader, each with the
    reason; no verdict on them is kept. without_samples: the tasks that the file holds no sample of.
    """

    verdicts: Path
    counts: dict[str, tuple[int, int]]
    outcomes: Counter[str]
    infrastructure_errors: int
    unfit: dict[str, str] = field(default_factory=dict)
    without_samples: tuple[str, ...] = ()


def grade_file(
    samples: str | Path,
    tasks: Iterable[AnyTask],
    grader: CodeGrader,
    verdicts: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FileReport:
    """Grade samples in EvalPlus's format: JSON lines with "task_id" and "solution" or "completion".

    A solution is whole code or a chat answer. A completion is that too if it defines the entry point; else it
    continues the task's prompt, as HumanEval's do. Verdicts go to the file `verdicts` (default: beside the samples,
    with the suffix .verdicts.jsonl), one line per sample, flushed after each batch; samples that have a line there are
    not graded again unless they changed. progress: called with (samples done, all samples).

    Raises SamplesError, before anything is graded or written, for a line that is not such a record or names a task that
    is not among `tasks`, and for a file of verdicts that is a link or holds anything else.
    """
    samples = Path(samples)
    target = Path(verdicts) if verdicts else samples.with_suffix(".verdicts.jsonl")
    by_id = {task.id: task for task in tasks}
    jobs = list(_read_samples(samples, by_id))
    done = _read_verdicts(target)
    waiting = [job for job in jobs if job.key not in done]
    missed = 0
    unfit: dict[str, str] = {}
    with target.open("a", encoding="utf-8") as out:
        for start in range(0, len(waiting), _BATCH):
            batch = [job for job in waiting[start : start + _BATCH] if job.task.id not in unfit]
            for job, verdict in zip(batch, grader.grade([(job.task, job.text) for job in batch]), strict=True):
                if verdict.outcome is Outcome.INFRASTRUCTURE_ERROR:
                    missed += 1
                elif verdict.outcome is Outcome.UNFIT_TASK:
                    unfit.setdefault(job.task.id, verdict.detail)
                else:
                    done[job.key] = str(verdict.outcome)
                    out.write(_line(job, verdict))
            out.flush()
            if progress:
                progress(len(jobs) - len(waiting) + start + min(_BATCH, len(waiting) - start), len(jobs))
    graded = [(job.task.id, done[job.key]) for job in jobs if job.key in done]
    passed = Counter(task for task, outcome in graded if outcome == Outcome.PASSED)
    total = Counter(task for task, _ in graded)
    counts = {task: (total[task], passed[task]) for task in by_id if task in total}
    sampled = {job.task.id for job in jobs}
    without = tuple(task for task in by_id if task not in sampled)
    return FileReport(target, counts, Counter(outcome for _, outcome in graded), missed, unfit, without)


def sample_counts(samples: str | Path, tasks: Iterable[AnyTask]) -> dict[str, int]:
    """How many samples of each task a file holds; SamplesError as in grade_file."""
    by_id = {task.id: task for task in tasks}
    return dict.fromkeys(by_id, 0) | Counter(job.task.id for job in _read_samples(Path(samples), by_id))


def verdict_counts(verdicts: str | Path) -> dict[str, tuple[int, int]]:
    """(n, c) of each task in a file of verdicts; SamplesError for a file that is none."""
    counts: dict[str, tuple[int, int]] = {}
    try:
        for where, record in records(verdicts):
            name, outcome = record.get("task_id"), record.get("outcome")
            if not isinstance(name, str) or not isinstance(outcome, str):
                raise SamplesError(f"{where}: not a verdict; give a file that `entrostat grade` wrote")
            n, c = counts.get(name, (0, 0))
            counts[name] = n + 1, c + (outcome == Outcome.PASSED)
    except TaskError as error:
        raise SamplesError(f"{error}; give a file of verdicts that `entrostat grade` wrote") from None
    if not counts:
        raise SamplesError(f"{verdicts}: holds no verdict; grade the samples first")
    return counts


@dataclass(frozen=True, slots=True)
class _Job:
    task: AnyTask
    text: str
    line: int

    @property
    def key(self) -> str:
        """Changes with anything that the verdict depends on."""
        content = json.dumps([self.line, self.task.content_hash(), self.text])
        return hashlib.sha256(content.encode()).hexdigest()[:32]


def _read_samples(path: Path, tasks: dict[str, AnyTask]) -> Iterator[_Job]:
    numbers = {name: found for name, found in _by_number(tasks).items() if name not in tasks}
    try:
        for where, record in records(path):
            yield _job(where, record, int(where.rpartition(" ")[2]), {**numbers, **tasks})
    except TaskError as error:
        raise SamplesError(f'{error}; samples are JSON records with "task_id" and "solution" or "completion"') from None


def _by_number(tasks: dict[str, AnyTask]) -> dict[str, AnyTask]:
    """Tasks by the number at the end of their id, as sets publish it (11 for Mbpp/11), where only one has it."""
    ends = Counter(name.rpartition("/")[2] for name in tasks)
    return {end: task for name, task in tasks.items() if ends[end := name.rpartition("/")[2]] == 1}


def _job(where: str, record: Record, number: int, tasks: dict[str, AnyTask]) -> _Job:
    name = record.get("task_id", record.get("id"))
    if not isinstance(name, str) and type(name) is not int:
        raise SamplesError(
            f'{where}: lacks "task_id" (a text or a whole number); "solution" or "completion" goes with it'
        )
    task = tasks.get(str(name))
    if task is None:
        known = len(set(map(id, tasks.values())))
        raise SamplesError(f"{where}: task_id is {name!r}, which is not among the {known} tasks given")
    text = record.get("solution", record.get("completion"))
    if not isinstance(text, str):
        raise SamplesError(f'{where}: {name!r} has neither "solution" nor "completion" with a text')
    if "solution" not in record and not isinstance(task, ProgramTask) and not defines(text, task.entry_point):
        text = continuation(task.prompt, text)
    return _Job(task, text, number)


def _read_verdicts(path: Path) -> dict[str, str]:
    """The outcomes that the file holds, by key; an incomplete last line is cut off.

    SamplesError, and the file stays as it is, if it is a link or holds anything else.
    """
    if path.is_symlink():
        raise SamplesError(f"{path}: is a link, and verdicts would go where it leads; remove it or name another file")
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    torn = content[len(whole) :]
    found = {}
    for number, line in enumerate(whole.split(b"\n")[:-1], 1):
        record = _parse(line)
        if not isinstance(record, dict) or not all(isinstance(record.get(name), str) for name in ("key", "outcome")):
            raise SamplesError(f"{path}, line {number}: not a verdict; move the file away or name another one")
        found[record["key"]] = record["outcome"]
    if not torn.startswith(_LINE_START[: len(torn)]):
        raise SamplesError(f"{path}: the last line is not a verdict; move the file away or name another one")
    if torn:
        path.write_bytes(whole)
    return found


def _parse(line: str | bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _line(job: _Job, verdict: Verdict) -> str:
    record = {
        "key": job.key,
        "line": job.line,
        "task_id": job.task.id,
        "outcome": verdict.outcome,
        "passed": verdict.passed,
        "detail": verdict.detail,
        "seconds": round(verdict.seconds, 4),
    }
    return json.dumps(record) + "\n"
