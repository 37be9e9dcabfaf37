"""Reading files of JSON records: the place of each, its fields, and the JSON that some fields hold."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo

from entrostat.tasks.task import TaskError

Record = dict[str, Any]
Model = TypeVar("Model", bound=BaseModel)
_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_IDENTITIES = ("task_id", "problem_id", "question_id", "id")


class Published(BaseModel):
    """A record of a published set: the fields that are read, and any others beside them.

    null for a field that a record need not have is as if it had none: exports of tables write it so.
    """

    model_config = ConfigDict(extra="ignore", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, given: Any) -> Any:
        required = {name for name, field in cls.model_fields.items() if field.is_required()}
        aliases = {str(alias) for name in required for alias in _spellings(cls.model_fields[name])}
        return {name: value for name, value in given.items() if value is not None or name in required | aliases}


def _spellings(field: FieldInfo) -> list[Any]:
    return field.validation_alias.choices if isinstance(field.validation_alias, AliasChoices) else []


def records(path: str | Path) -> Iterator[tuple[str, Record]]:
    """The records of a JSON list or of JSON lines, plain or gzipped, in UTF-8, or in UTF-16 with a byte order mark.

    Each comes with its place ("tasks.jsonl, line 3"). TaskError names the file, and the line that is no JSON record.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        if content.startswith(_PARQUET):
            raise TaskError(
                f"{path}: is a Parquet table, where JSON records are read; write it as JSON lines, for example by "
                f"datasets.load_dataset('parquet', data_files={str(path)!r}, split='train').to_json('tasks.jsonl')"
            )
        content = gzip.decompress(content) if content.startswith(_GZIP) else content
        text = content.decode("utf-16" if content.startswith(_UTF_16) else "utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise TaskError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    if text.lstrip().startswith("["):
        found = _loaded(text, f"{path}, a list")
        placed = ((f"{path}, record {number}", record) for number, record in enumerate(found, 1))
    else:
        # Not splitlines: JSON may hold characters that only Python takes for the end of a line.
        lines = ((f"{path}, line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
        placed = ((where, _loaded(line, where)) for where, line in lines)
    for where, record in placed:
        if not isinstance(record, dict):
            raise TaskError(f"{where}: is {str(record)[:60]!r}, where a JSON record {{...}} is read")
        yield where, record


def checked(model: type[Model], record: Mapping[str, Any], where: str) -> Model:
    """The record as the model reads it; TaskError names the place, the record, the field and what is wrong."""
    try:
        return model.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        said = {
            "missing": f"lacks the field {name}",
            "too_short": f"{name} is empty; give at least one",
            "extra_forbidden": f"{name} is not a field of such a task; the fields are {', '.join(_fields(model))}",
        }.get(first["type"], f"{name}: {first['msg']}, got {str(first['input'])[:60]!r}")
        raise TaskError(f"{where}: record {identity_of(record)!r}: {said}") from None


def identity_of(record: Mapping[str, Any]) -> str:
    """What a record calls itself, or its first characters."""
    return str(next((record[name] for name in _IDENTITIES if name in record), record))[:60]


def field(record: Record, *names: str) -> Any:
    """The first of these fields that the record has."""
    for name in names:
        if name in record:
            return record[name]
    raise TaskError(f"record {identity_of(record)!r}: lacks the field {' or '.join(names)}")


def parsed(text: str, identity: str, name: str) -> Any:
    """The JSON in a record's field, with whole numbers of any length; TaskError naming the record and the field."""
    try:
        return json.loads(text, parse_int=_parse_int)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"record {identity!r}: {name} is not JSON: {error}") from error


def _loaded(text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_int=_parse_int)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{where}: is not JSON: {error}") from error


def _fields(model: type[BaseModel]) -> list[str]:
    return [name for name in model.model_fields if name != "schema"]


def _parse_int(digits: str) -> int:
    """Whole numbers of any length: some tests have more digits than Python converts at once."""
    return int(digits) if len(digits) < 4000 else int(Decimal(digits))
