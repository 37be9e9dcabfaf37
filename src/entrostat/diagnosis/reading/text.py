"""The text of a file or of standard input, whatever its encoding, and what a console adds to its lines."""

from __future__ import annotations

import bz2
import codecs
import importlib
import lzma
import re
import sys
import zlib
from pathlib import Path
from typing import Any

from entrostat.diagnosis.reading.errors import FORMATS, LogError

WIDE = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd"}
FOREIGN = {  # first bytes -> what such a file is, and what to do
    b"PK\x03\x04": "a ZIP archive; unpack it and name the log in it",
    b"7z\xbc\xaf": "a 7z archive; unpack it and name the log in it",
    b"%PDF": "a PDF",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"\x7fELF": "a program",
    b"\x80\x04\x95": "a pickle, which is not opened because that would run what is in it; write it as JSON lines",
    b"\x93NUMPY": "a NumPy array; write it as CSV with headings",
}
PLAIN = str.maketrans({"\u2212": "-", "\u00a0": " ", "\u202f": " "})  # typographers' minus and blanks
LARGEST_UNPACKED = 2**30
CONTROLS = re.compile(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f]")
BINARY = 0.05  # share of control bytes from which on a file is no text

COLOUR = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07?|.)")
SOURCE = re.compile(  # Ray's and torchrun's mark of the process at the start of a line
    r"^\s*(?:\([\w.:+-]+ (?:pid|ip|rank)=[^)]*\)|\[(?:rank|default|worker|gpu)\s?\d+\]:?|\d{1,4}:(?= ))\s?",
    re.IGNORECASE,
)
REPEATED = re.compile(r"\s*\[repeated \d+x across cluster\].*$")
LONGEST = 200_000  # characters of a console line that are looked at


def read_text(path: Path) -> tuple[str, tuple[str, ...]]:
    """The text of a file, packed (.gz, .bz2, .xz, .zst) or not, or for `-` of standard input; notes on its decoding.

    OSError: the file cannot be read. LogError: it is an archive or holds no text.
    """
    data, notes = _bytes(path)
    for mark, what in FOREIGN.items():
        if data.startswith(mark):
            raise LogError(f"{path}: is {what}. {FORMATS}")
    text, said = decoded(data)
    text = text if text.isascii() else text.translate(PLAIN)
    start = data[:65536].replace(b"\0", b"")
    if not data.startswith(tuple(WIDE)) and len(CONTROLS.findall(start)) > BINARY * len(start):
        raise LogError(f"{path}: holds no text. {FORMATS}")
    return text, (*notes, *said)


def decoded(data: bytes) -> tuple[str, tuple[str, ...]]:
    """Bytes as text, and notes on what was no UTF-8.

    UTF-16 and UTF-32 are told by their marks. Otherwise each line is UTF-8, or Windows-1252 where it is not; NUL bytes,
    as left by a crashed file system, are dropped.
    """
    notes: tuple[str, ...] = ()
    for mark, encoding in WIDE.items():
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace"), notes
    if b"\0" in data:
        data = data.replace(b"\0", b"")
        notes = (*notes, "NUL bytes dropped")
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode(), notes
    except UnicodeDecodeError:
        lines = data.split(b"\n")
    pairs = [_line(line) for line in lines]
    odd = sum(not utf8 for _, utf8 in pairs)
    said = f"{odd} line{'' if odd == 1 else 's'} not in UTF-8, read as Windows-1252"
    return "\n".join(text for text, _ in pairs), (*notes, said)


def console_lines(text: str) -> list[str]:
    """The lines as a program wrote them: without colours, marks of processes and ends of over-long lines.

    A progress bar goes back to the start of its line; each of its states is a line of its own.
    """
    if "\x1b" in text:
        text = COLOUR.sub("", text)
    lines = [SOURCE.sub("", line[:LONGEST]) for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    return [REPEATED.sub("", line) if "[repeated" in line else line for line in lines]


def _bytes(path: Path) -> tuple[bytes, tuple[str, ...]]:
    data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    name = next((name for mark, name in COMPRESSED.items() if data.startswith(mark)), None)
    if name is None:
        return data, ()
    unpacker = _unpacker(name, path)
    try:
        unpacked = unpacker.decompress(data, LARGEST_UNPACKED)
    except _errors_of(unpacker) as error:
        raise LogError(
            f"{path}: is a damaged {name} file ({error}); unpack it as far as it goes, with {name} -dc"
        ) from error
    if not unpacker.eof and len(unpacked) >= LARGEST_UNPACKED:
        raise LogError(
            f"{path}: unpacks to more than {LARGEST_UNPACKED >> 30} GiB; give the part of it that is the log"
        )
    if unpacker.eof:
        return unpacked, ()
    whole_lines = unpacked.rpartition(b"\n")[0] or unpacked  # half of the last number is another number
    return whole_lines, (f"the {name} file is cut off, read as far as it goes",)


def _unpacker(name: str, path: Path) -> Any:
    if name == "gzip":
        return zlib.decompressobj(16 + zlib.MAX_WBITS)
    if name == "zstd":
        return _zstd(path).ZstdDecompressor()
    return bz2.BZ2Decompressor() if name == "bzip2" else lzma.LZMADecompressor()


def _zstd(path: Path) -> Any:
    for module in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(module)
        except ImportError:
            continue
    raise LogError(
        f"{path}: reading zstd needs Python 3.14 or `pip install backports.zstd`; or unpack it, with zstd -d"
    )


def _errors_of(unpacker: Any) -> tuple[type[Exception], ...]:
    module = sys.modules[type(unpacker).__module__]
    foreign = (module.ZstdError,) if hasattr(module, "ZstdError") else ()
    return (zlib.error, lzma.LZMAError, OSError, *foreign)


def _line(line: bytes) -> tuple[str, bool]:
    try:
        return line.decode(), True
    except UnicodeDecodeError:
        return line.decode("cp1252", "replace"), False
