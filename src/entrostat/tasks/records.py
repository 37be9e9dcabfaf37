"""Reading task sets: the records of a file, their fields, and the JSON that some fields hold."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from entrostat.tasks.task import TaskError

Record = dict[str, Any]


def records(path: str | Path) -> Iterator[Record]:
    """The records of a JSON list or of JSON lines."""
    path = Path(path)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = content.decode("utf-8")
        if text.lstrip().startswith("["):
            yield from json.loads(text)
        else:
            yield from (json.loads(line) for line in text.split("\n") if line.strip())
    except (OSError, ValueError, EOFError, zlib.error, RecursionError) as error:
        raise TaskError(f"{path}: not a readable file of JSON records: {error}") from error


def field(record: Record, *names: str) -> Any:
    """The first of these fields that the record has."""
    for name in names:
        if name in record:
            return record[name]
    identity = next((record[key] for key in ("task_id", "problem_id", "question_id", "id") if key in record), record)
    raise TaskError(f"record {str(identity)[:60]!r}: lacks the field {' or '.join(names)}")


def parsed(text: str, identity: str, name: str) -> Any:
    """The JSON in a record's field, with whole numbers of any length; TaskError naming the record and the field."""
    try:
        return json.loads(text, parse_int=_parse_int)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"record {identity!r}: {name} is not JSON: {error}") from error


def _parse_int(digits: str) -> int:
    """Whole numbers of any length: some tests have more digits than Python converts at once."""
    return int(digits) if len(digits) < 4000 else int(Decimal(digits))
