"""Offline runs of Weights & Biases: `run-*.wandb`.

The file is a log of records in LevelDB's framing (blocks of 32 KiB, fragments of a record with a checksum), each record
a protocol buffer. The library has no reader in Python: the frames are taken apart here, the records by its message
classes.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from entrostat.diagnosis.reading.errors import LogError, MissingLibraryError
from entrostat.diagnosis.reading.log import RawLog, flatten

BLOCK = 32 * 1024
HEADER = struct.Struct("<IHB")  # checksum, length, type
FILE_HEADER = struct.Struct("<4sHB")
TIME = re.compile(r"\d{8}_\d{6}")
IDENT, MAGIC = b":W&B", 0xBEE1
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def find(folder: Path) -> list[Path]:
    """The runs in a folder, by the time that is in the name of each one's folder, the newest last."""
    files = {file.resolve(): file for file in sorted(folder.rglob("run-*.wandb"))}
    return sorted(files.values(), key=lambda file: (TIME.findall(file.parent.name)[-1:], file.name))


def read(path: Path) -> RawLog:
    """The history of an offline run. MissingLibraryError: it is not installed. LogError: the
    file is no such run."""
    try:
        from google.protobuf.message import DecodeError
        from wandb.proto.wandb_internal_pb2 import Record
    except ImportError as error:
        raise MissingLibraryError(
            f"{path}: reading Weights & Biases' runs needs `pip install entrostat[wandb]`"
        ) from error
    data = path.read_bytes()
    if data and data[:4] != IDENT[: len(data)]:
        raise LogError(f"{path}: does not begin as a Weights & Biases run does; export the run as CSV instead")
    rows, notes, damaged = [], [], 0
    frames = Frames(data)
    for frame in frames:
        record = Record()
        try:
            record.ParseFromString(frame)
        except DecodeError:
            damaged += 1
            continue
        if record.WhichOneof("record_type") == "history":
            rows.append(_row(record.history))
    if frames.torn or damaged:
        notes.append("the file is cut off or damaged, read as far as it goes")
    return RawLog("Weights & Biases offline run", rows, notes=tuple(notes))


class Frames:
    """The records of LevelDB's log format, up to the first damage; `torn` says whether there was any."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.torn = False

    def __iter__(self) -> Iterator[bytes]:
        place, parts = FILE_HEADER.size, list[bytes]()
        self.torn = len(self.data) < FILE_HEADER.size
        while place < len(self.data):
            left = BLOCK - place % BLOCK
            if left < HEADER.size:
                place += left
                continue
            fragment = self._fragment(place)
            if fragment is None:
                self.torn = True
                return
            kind, body = fragment
            place += HEADER.size + len(body)
            parts = [body] if kind in (FULL, FIRST) else [*parts, body]
            if kind in (FULL, LAST):
                yield b"".join(parts)
                parts = []
        self.torn = self.torn or bool(parts)

    def _fragment(self, place: int) -> tuple[int, bytes] | None:
        """Type and content of the fragment at `place`; None where it is cut off or its checksum is wrong."""
        if place + HEADER.size > len(self.data):
            return None
        checksum, length, kind = HEADER.unpack_from(self.data, place)
        body = self.data[place + HEADER.size : place + HEADER.size + length]
        if len(body) < length or not FULL <= kind <= LAST:
            return None
        return (kind, body) if checksum == zlib.crc32(bytes([kind]) + body) else None


def _row(history: Any) -> dict[str, Any]:
    row: dict[str, Any] = {}
    if history.HasField("step"):
        row["_step"] = history.step.num
    for item in history.item:
        name = item.key or "/".join(item.nested_key)
        try:
            row[name] = json.loads(item.value_json)
        except (ValueError, RecursionError):
            row[name] = item.value_json
    return flatten(row)
