"""Files that survive a kill: whole-file replacement, and logs of one JSON object per line.

A file written here is either the old one or the new one, and a log is a sequence of whole lines: what a killed
process left half-written is dropped by readers and cut off before the next line is added.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from entrostat.errors import EntrostatError

Record = Mapping[str, Any]
SEAL = ".entrostat"  # in a folder: the proof that we made it, and no part of what it holds (see `ownership`)


class RunError(EntrostatError, RuntimeError):
    """A run folder that cannot be used or written; the message names the file, the cause and the remedy."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a scratch path beside `path`; the file written there replaces `path` when the block ends well.

    When the block raises, the scratch file is removed and `path` keeps what it held. RunError: the file cannot be
    written (no space, no permission).
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
        sync(scratch)
        os.replace(scratch, path)
        sync(path.parent)
    except OSError as error:
        raise refusal(path, error) from error
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


def atomic_write(path: Path, data: bytes) -> None:
    """Replace the file `path` by `data`, all or nothing. RunError: it cannot be written."""
    with atomic_path(path) as scratch:
        scratch.write_bytes(data)


def to_line(record: Record, name: str) -> bytes:
    """`record` as one line of JSON, its newline included.

    RunError, naming the field: NaN, an infinity, or a value that JSON has no form for (a tensor, a set).
    """
    try:
        return json.dumps(record, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise RunError(f"{name}: {_first_fault(record) or error}") from error


def write_lines(path: Path, records: Iterable[Record]) -> None:
    """Replace the log `path` by `records`, all or nothing. RunError: as in `to_line` and `atomic_write`."""
    atomic_write(path, b"".join(to_line(record, path.name) for record in records))


def append_line(path: Path, record: Record) -> None:
    """Add `record` as the last line of the log `path`, in the place of a torn one if there is one.

    RunError: as in `to_line`, or the line cannot be written; the log then ends as it ended before.
    """
    line = to_line(record, path.name)
    try:
        whole = _whole_size(path)
        with path.open("ab", buffering=0) as log:
            log.truncate(whole)
            try:
                written = 0
                while written < len(line):
                    written += log.write(line[written:])
            except OSError:
                log.truncate(whole)
                raise
    except OSError as error:
        raise refusal(path, error) from error


def refusal(path: Path, error: OSError) -> RunError:
    """A plain error for what the operating system reported about `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return RunError(f"{path}: no space left; what was written before is whole: free some space and resume")
    return RunError(f"{path}: {error.strerror}; fix its permissions, or choose another folder")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of the log `path`, oldest first; none where there is no file. A torn last line is left out.

    RunError, naming the line: a line in the middle that is not a JSON object.
    """
    return list(iterate_lines(path))


def iterate_lines(path: Path) -> Iterator[dict[str, Any]]:
    """`read_lines`, one record at a time: for logs that memory need not hold."""
    try:
        with path.open("rb") as log:
            for number, line in enumerate(log, start=1):
                if not line.endswith(b"\n"):
                    return  # what a writer adds meanwhile would be read as a line that begins in its middle
                yield _parse(line, path, number)
    except FileNotFoundError:
        return
    except OSError as error:
        raise refusal(path, error) from error


def count_lines(path: Path) -> int:
    """How many whole lines the log `path` has, in little memory. RunError: it cannot be read."""
    try:
        with path.open("rb") as log:
            return sum(block.count(b"\n") for block in iter(lambda: log.read(1 << 20), b""))
    except OSError as error:
        raise refusal(path, error) from error


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}, line {number}: not JSON ({error}); remove the line or restore the file") from error
    if not isinstance(record, dict):
        raise RunError(f"{path}, line {number}: not a JSON object; remove the line or restore the file")
    return record


def _whole_size(path: Path) -> int:
    """Bytes of `path` up to and including its last newline."""
    if not path.exists():
        return 0
    with path.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        if size == 0:
            return 0
        log.seek(size - 1)
        if log.read(1) == b"\n":
            return size
        log.seek(0)
        return log.read().rfind(b"\n") + 1


def _first_fault(value: object, field: str = "") -> str | None:
    """What JSON cannot hold in `value`, with the dotted name of its field; None where there is nothing."""
    if value is None or isinstance(value, (str, bool, int)):
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{field} is {value}; a record holds finite numbers or null"
    if isinstance(value, Mapping):
        children = [(f"{field}.{key}" if field else str(key), child) for key, child in value.items()]
    elif isinstance(value, (list, tuple)):
        children = [(f"{field}[{index}]", child) for index, child in enumerate(value)]
    else:
        return f"{field} is a {type(value).__name__}; a record holds plain numbers, text, lists and dictionaries"
    return next((fault for name, child in children if (fault := _first_fault(child, name))), None)


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of a folder's files but its seal, 64 hex digits."""
    whole = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != SEAL):
        with path.open("rb") as file:
            part = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else _read_digest(file)
        whole.update(f"{path.relative_to(folder).as_posix()}\0{part.hexdigest()}\n".encode())
    return whole.hexdigest()


def _read_digest(file: Any) -> Any:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest


def sync(path: Path) -> None:
    """Return only when what was written to the file or folder `path` is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
