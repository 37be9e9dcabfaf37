"""Text of unknown and perhaps mixed encoding."""

from __future__ import annotations

import codecs
from pathlib import Path

WIDE = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


def read_text(path: Path) -> tuple[str, tuple[str, ...]]:
    """The text of a file, and notes on what was no UTF-8.

    UTF-16 is told by its mark. Otherwise each line is UTF-8, or Windows-1252 where it is not; NUL bytes, as left by a
    crashed file system, are dropped. OSError: the file cannot be read.
    """
    data = path.read_bytes()
    for mark, encoding in WIDE.items():
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace"), ()
    notes = []
    if b"\0" in data:
        data = data.replace(b"\0", b"")
        notes.append("NUL bytes dropped")
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode(), tuple(notes)
    except UnicodeDecodeError:
        lines = data.split(b"\n")
    decoded = [_line(line) for line in lines]
    odd = sum(not utf8 for _, utf8 in decoded)
    notes.append(f"{odd} line{'' if odd == 1 else 's'} not in UTF-8, read as Windows-1252")
    return "\n".join(text for text, _ in decoded), tuple(notes)


def _line(line: bytes) -> tuple[str, bool]:
    try:
        return line.decode(), True
    except UnicodeDecodeError:
        return line.decode("cp1252", "replace"), False
