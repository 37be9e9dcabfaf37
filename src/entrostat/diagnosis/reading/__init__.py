"""Reading logs, a file per format. `read_log` finds out which it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from entrostat.diagnosis.columns import recognise
from entrostat.diagnosis.reading import (
    archive,
    console,
    document,
    folder,
    notebook,
    parquet,
    table,
    tensorboard,
    trackio,
    wandb,
)
from entrostat.diagnosis.reading.errors import FORMATS, LogError, MissingLibraryError
from entrostat.diagnosis.reading.log import Log, RawLog, Row, assemble
from entrostat.diagnosis.reading.text import read_text

__all__ = ["Log", "LogError", "RawLog", "Row", "read_log"]

PACKED = ("", ".gz", ".bz2", ".xz", ".zst")
NAMED = ("steps.jsonl", "logging.jsonl", "trainer_log.jsonl", "metrics.jsonl")
KINDS = ("*.jsonl", "*.csv", "*.log", "*.out", "*.parquet", "*.tsv", "*.ipynb", "*.json", "*.txt", "*.md")
MOST_TRIED = 20  # files of one kind in a folder that are looked into for a log
DATABASES = frozenset({".db", ".sqlite", ".sqlite3"})


def read_log(path: Path | str, columns: Mapping[str, Sequence[str]] | None = None) -> Log:
    """The log at `path`, whatever wrote it, read as far as it goes.

    A folder: one of our runs, TensorBoard's events, offline runs of Weights & Biases, a folder of Trainer's
    checkpoints, or one with a log file in it; of several the newest is read and named. A file: any of these, what a
    trainer printed, JSON lines, a table, a notebook, trackio's database; packed or in an archive. `-`: standard input.
    columns: quantity -> columns to read it from, for names that are not known.
    LogError: it is none of these or cannot be read, or `columns` names what is not there.
    """
    path = Path(path)
    wanted = frozenset(name for names in (columns or {}).values() for name in names)
    try:
        raw = _read_folder(path, wanted) if path.is_dir() else _read_file(path, wanted)
    except PermissionError as error:
        raise LogError(f"{path}: {error.strerror}; fix its permissions, or give the path of another log") from error
    except OSError as error:
        raise LogError(f"{path}: {error.strerror or error}; give the path of a log") from error
    name = "standard input" if str(path) == "-" else path.name or str(path)
    return assemble(name, raw, columns)


def _read_folder(path: Path, wanted: frozenset[str]) -> RawLog:
    read_file = partial(_read_file, wanted=wanted)
    next(path.iterdir(), None)  # what may not be listed is refused for that, not taken for an empty folder
    if (path / "run.json").exists():
        return folder.read(path)
    lacking: list[str] = []
    if any(path.rglob(tensorboard.PATTERN)):
        try:
            return tensorboard.read(path)
        except MissingLibraryError as error:
            lacking.append(str(error))
    if runs := folder.mlflow_runs(path):
        return _chosen(path, runs, folder.read_mlflow, "the newest by its last value")
    if runs := wandb.find(path):
        try:
            return _chosen(path, runs, wandb.read, "the newest by the time in its name")
        except MissingLibraryError as error:
            lacking.append(str(error))
    raw = _read_text_log(path, read_file, wanted)
    if raw is not None:
        return replace(raw, notes=(*lacking, *raw.notes))
    if lacking:
        raise LogError(lacking[0])
    raise LogError(
        f"{path}: holds no run.json, no event files, no run-*.wandb, no mlruns, no trainer_state.json and no "
        f"{', '.join(KINDS)} with a known column; name the log file itself. {FORMATS}"
    )


def _read_text_log(path: Path, read_file: Callable[[Path], RawLog], wanted: frozenset[str]) -> RawLog | None:
    """The newest log of a folder that needs no library of its own; None for none."""
    if states := sorted(path.rglob("trainer_state.json")):
        states.sort(key=lambda file: document.global_step(read_text(file)[0]))
        return _chosen(path, states, read_file, "the one with the most steps")
    unknown: RawLog | None = None  # rows without a known column: to say so, if there is nothing better
    for pattern in (*NAMED, *KINDS):
        files = {file for end in PACKED for file in path.rglob(pattern + end) if file.is_file()}
        for raw in _logs(path, sorted(files, key=tensorboard.natural), read_file):
            if _is_known(raw, wanted):
                return raw
            unknown = unknown or (raw if raw.rows or pattern in NAMED else None)
    if databases := sorted(file for file in path.rglob("*") if file.suffix in DATABASES):
        return _chosen(path, databases, read_file, "the last by name")
    return unknown


def _logs(path: Path, files: Sequence[Path], read: Callable[[Path], RawLog]) -> Iterator[RawLog]:
    """The logs among some files, the last by name first; what is none is passed over."""
    for place in range(len(files), max(len(files) - MOST_TRIED, 0), -1):
        with suppress(LogError):
            yield _chosen(path, files[:place], read, "the last by name")


def _is_known(raw: RawLog, wanted: frozenset[str]) -> bool:
    """Whether a log has a quantity, which settings, samples and a program's output have not."""
    names = {name for row in raw.rows[:50] for name in row}
    known = {match.quantity for name in names if (match := recognise(name))}
    return bool(known - console.SETTINGS) or not wanted.isdisjoint(names)


def _chosen(path: Path, files: Sequence[Path], read: Callable[[Path], RawLog], why: str) -> RawLog:
    """The last of some files, with a note on which that is, if there are several."""
    raw = read(files[-1])
    name = str(files[-1].relative_to(path))
    others = [str(file.relative_to(path)) for file in files[:-1]]
    if not others:
        return replace(raw, file=name)
    shown = ", ".join(others[-5:]) + (", ..." if len(others) > 5 else "")
    note = f"{len(files)} logs: {name} is read, {why}; name another: {shown}"
    return replace(raw, file=name, notes=(note, *raw.notes))


def _read_file(path: Path, wanted: frozenset[str] = frozenset()) -> RawLog:
    if path.suffix == ".wandb":
        return wandb.read(path)
    if "tfevents" in path.name:
        return tensorboard.read(path)
    if str(path) != "-" and path.is_file():
        if trackio.is_database(path):
            return trackio.read(path)
        if parquet.is_parquet(path):
            return parquet.read(path)
        if archive.is_archive(path):
            return _read_archive(path, wanted)
    text, notes = read_text(path)
    if not text.strip():
        return RawLog("empty file", [], notes=notes)
    raw = _parse(text, notes, wanted)
    if raw is None:
        raise LogError(f"{path}: no format that is known. {FORMATS}")
    return table.named_by_file(raw, path.name)


def _read_archive(path: Path, wanted: frozenset[str]) -> RawLog:
    with archive.unpacked(path) as inside:
        try:
            return _read_folder(inside, wanted)
        except LogError as error:
            raise type(error)(str(error).replace(str(inside), str(path))) from error


def _parse(text: str, notes: tuple[str, ...], wanted: frozenset[str]) -> RawLog | None:
    """The log in a text, by what it begins with; None where nothing in it can be told apart.

    wanted: columns that are named for a quantity, whatever they are called.
    """
    start = text.lstrip()[:1]
    if notebook.is_notebook(text):
        return notebook.parse(text, notes)
    if document.is_trainer_state(text):
        return document.parse_trainer_state(text, notes)
    if start == "{" and (raw := document.parse_document(text, notes) or document.parse_lines(text, notes)):
        inner = document.wrapped(raw)
        return (console.parse(inner, notes, wanted) if inner else None) or raw
    if start == "[" and (raw := _list(text, notes)):
        return raw
    if notebook.is_page(text) and (raw := notebook.parse_page(text, notes)):
        return raw
    if table.begins(text) and (raw := table.parse(text, notes)):
        return raw
    if raw := console.parse(text, notes, wanted) or table.parse(text, notes):
        return raw
    return RawLog("JSON", [], notes=(*notes, "torn or damaged")) if start in ("{", "[") else None


def _list(text: str, notes: tuple[str, ...]) -> RawLog | None:
    """A JSON list; None where a console's mark, such as [36m or [rank0], is all that the bracket is."""
    raw = document.parse_list(text, notes)
    return raw if raw.rows or text.strip() in ("[", "[]") else None
