"""Parquet, as Weights & Biases exports a run's history and datasets their tables, through `pyarrow`."""

from __future__ import annotations

from pathlib import Path

from entrostat.diagnosis.reading.errors import LogError, MissingLibraryError
from entrostat.diagnosis.reading.kinds import kinds_apart
from entrostat.diagnosis.reading.log import RawLog, flatten

MAGIC = b"PAR1"


def is_parquet(path: Path) -> bool:
    """Whether a file is a Parquet table."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read(path: Path) -> RawLog:
    """The rows of a table. MissingLibraryError: no pyarrow. LogError: the file is damaged."""
    try:
        import pyarrow.lib
        import pyarrow.parquet
    except ImportError as error:
        raise MissingLibraryError(f"{path}: reading Parquet needs `pip install entrostat[parquet]`") from error
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.lib.ArrowException, OSError) as error:
        raise LogError(f"{path}: is no whole Parquet table ({error}); write it anew, or as CSV") from error
    return RawLog("Parquet", kinds_apart([flatten(row) for row in rows]))
