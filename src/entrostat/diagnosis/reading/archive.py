"""Archives: what is packed in a ZIP or tar file, unpacked into a folder for as long as it is read."""

from __future__ import annotations

import lzma
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO

from entrostat.diagnosis.reading.errors import LogError
from entrostat.diagnosis.reading.text import LARGEST_UNPACKED

ZIP = b"PK\x03\x04"
PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
USTAR = slice(257, 262)
DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError),
    OSError,  # a name that is too long, or of a file and of a folder
    *(RuntimeError, NotImplementedError),  # encrypted, or packed in a way that Python does not know
)
MOST_FILES = 10_000
WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".npz", ".npy", ".distcp", ".gguf", ".png", ".jpg"})


def is_archive(path: Path) -> bool:
    """Whether a file is a ZIP or a tar archive, the latter packed or not."""
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(ZIP):
        return zipfile.is_zipfile(path)
    if start[USTAR] == b"ustar":
        return True
    with suppress(EOFError, OSError, zlib.error, lzma.LZMAError):  # damaged: what reads texts says so
        return start.startswith(PACKED) and tarfile.is_tarfile(path)
    return False


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A temporary folder with the files of an archive, weights and pictures aside.

    Nothing is written outside of it: absolute names, `..`, links and devices are passed over. LogError: the archive is
    damaged, encrypted, or unpacks to more than a log may.
    """
    with tempfile.TemporaryDirectory(prefix="entrostat-") as folder:
        left = LARGEST_UNPACKED
        try:
            for place, (name, file) in enumerate(_members(path)):
                if place >= MOST_FILES:
                    raise LogError(f"{path}: holds more than {MOST_FILES} files; unpack it and name the log in it")
                with file:
                    left -= _copy(file, Path(folder) / name, left)
                if left <= 0:
                    raise LogError(
                        f"{path}: unpacks to more than {LARGEST_UNPACKED >> 30} GiB; unpack it and name the log in it"
                    )
        except DAMAGED as error:
            raise LogError(
                f"{path}: the archive cannot be unpacked ({error}); unpack it and name the log in it"
            ) from error
        yield Path(folder)


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """(safe relative name, content) of each file that may be of a log."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.is_dir() and _is_wanted(info.filename):
                    yield info.filename, archive.open(info)
        return
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and _is_wanted(member.name) and (file := archive.extractfile(member)):
                yield member.name, file


def _is_wanted(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    inside = bool(parts) and not name.startswith(("/", "\\")) and ".." not in parts and ":" not in parts[0]
    return inside and PurePosixPath(name).suffix not in WEIGHTS


def _copy(file: IO[bytes], target: Path, limit: int) -> int:
    """Write at most `limit` bytes of a file; returns how many there were, or the limit."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as out:
        while (chunk := file.read(min(1 << 20, limit - out.tell()))) and out.tell() < limit:
            out.write(chunk)
        return out.tell()
