"""trackio's database: a project's runs in one SQLite file, a JSON object per log call."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from entrostat.diagnosis.reading.document import json_object
from entrostat.diagnosis.reading.log import LogError, RawLog, flatten

MAGIC = b"SQLite format 3\0"


def is_database(path: Path) -> bool:
    """Whether a file is a SQLite database."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read(path: Path) -> RawLog:
    """The rows of the newest run, by the time of its last row. LogError: the file is no database of trackio."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            names = [name for name, *_ in database.execute("SELECT name FROM pragma_table_info('metrics')")]
            if not {"run_name", "step", "metrics"} <= set(names):
                raise LogError(f"{path}: is a SQLite database, but none of trackio; export the metrics as CSV")
            newest = "max(timestamp)" if "timestamp" in names else "max(rowid)"
            runs = [
                run for run, *_ in database.execute(f"SELECT run_name FROM metrics GROUP BY run_name ORDER BY {newest}")
            ]
            found = database.execute(
                "SELECT step, metrics FROM metrics WHERE run_name = ? ORDER BY rowid", runs[-1:] or [""]
            )
            rows = [_row(step, metrics) for step, metrics in found]
    except sqlite3.Error as error:
        raise LogError(f"{path}: the database cannot be read ({error}); export the metrics as CSV") from error
    said = (f"{len(runs)} runs: {runs[-1]} is read, the newest; the others: {', '.join(map(str, runs[:-1][-5:]))}",)
    return RawLog("trackio", rows, notes=said if len(runs) > 1 else (), file=str(runs[-1]) if runs else None)


def _row(step: Any, metrics: Any) -> dict[str, Any]:
    return {"step": step, **flatten(json_object(metrics if isinstance(metrics, str) else "") or {})}
