"""Reading logs, a file a format. `read_log` finds out which it is."""

from __future__ import annotations

from pathlib import Path

from entrostat.diagnose.reading import folder, jsonl, table, tensorboard, trl, verl, wandb
from entrostat.diagnose.reading.log import Log, LogError, RawLog, Row, assemble
from entrostat.diagnose.reading.text import read_text

__all__ = ["Log", "LogError", "RawLog", "Row", "read_log"]


def read_log(path: Path) -> Log:
    """The log at `path`, whatever wrote it, read as far as it goes.

    A folder: one of our runs, TensorBoard's events, an offline run of Weights & Biases, or a checkpoint folder of
    Trainer. A file: any of these, JSON lines, verl's console, a table. LogError: it is none, or cannot be read.
    """
    try:
        raw = _read_folder(path) if path.is_dir() else _read_file(path)
    except PermissionError as error:
        raise LogError(f"{path}: {error.strerror}; mend its permissions, or give the path of another log") from error
    except OSError as error:
        raise LogError(f"{path}: {error.strerror or error}; give the path of a log") from error
    return assemble(path.name or str(path), raw)


def _read_folder(path: Path) -> RawLog:
    next(path.iterdir(), None)  # what may not be listed is refused for that, not taken for an empty folder
    if (path / "run.json").exists():
        return folder.read(path)
    if any(path.rglob(tensorboard.PATTERN)):
        return tensorboard.read(path)
    if run := wandb.find(path):
        return wandb.read(run)
    states = sorted(path.rglob("trainer_state.json"), key=lambda file: file.stat().st_mtime)
    if states:
        return _read_file(states[-1])
    raise LogError(
        f"{path}: holds no run.json, no event files, no run-*.wandb and no trainer_state.json; name the log file itself"
    )


def _read_file(path: Path) -> RawLog:
    if path.suffix == ".wandb":
        return wandb.read(path)
    if "tfevents" in path.name:
        return tensorboard.read(path)
    text, notes = read_text(path)
    start = text.lstrip()[:1]
    if not start:
        return RawLog("empty file", [], notes=notes)
    if trl.looks_like(text):
        return trl.parse(text, notes)
    if start == "{":
        return jsonl.parse(text, notes)
    if start == "[":
        return trl.parse_list(text, notes)
    if verl.looks_like(text):
        return verl.parse(text, notes)
    if table.looks_like(text):
        return table.parse(text, notes)
    raise LogError(
        f"{path}: no format that is known: it is no JSON, none of verl's lines and no table; "
        "write a row a step as JSON lines or CSV"
    )
