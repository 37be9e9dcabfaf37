"""Names within names, as YAML indents them: each line with its full name, `mean: 0.5` as `critic/score/mean: 0.5`."""

from __future__ import annotations

import binascii
import re
import struct
from collections.abc import Iterable, Iterator

LINE = re.compile(r"^(?P<indent> *)(?P<name>[A-Za-z_][\w.@-]*):(?: +(?P<cell>\S.*))?$")
TAGGED = "!!python/object/apply:numpy"  # how YAML writes a number of NumPy's: its type, then its bytes
BYTES = "!!binary |"


def with_full_names(lines: Iterable[str]) -> Iterator[str]:
    """The lines, those below a name without a value by their full names, and NumPy's tagged numbers as numbers."""
    parents: list[tuple[int, str]] = []
    tagged: str | None = None
    bytes_follow = False
    for line in lines:
        if tagged is not None:
            if bytes_follow:
                yield f"{tagged}: {_float(line)}"
                tagged, bytes_follow = None, False
                continue
            bytes_follow = line.rstrip().endswith(BYTES)
            if bytes_follow or line.lstrip().startswith(("-", "args:", "state:")) or line.startswith("   "):
                continue
            tagged = None
        found = LINE.match(line)
        if found is None:
            if line.strip():
                parents.clear()
            yield line
            continue
        indent = len(found["indent"])
        while parents and parents[-1][0] >= indent:
            parents.pop()
        if found["cell"] is None:
            parents.append((indent, found["name"]))
        name = "/".join([*(name for _, name in parents), found["name"]])
        if (found["cell"] or "").startswith(TAGGED):
            tagged = name
        else:
            yield f"{name}: {found['cell']}" if found["cell"] and parents else line


def _float(text: str) -> float | str:
    """The number in eight bytes written in base 64; empty for anything else."""
    try:
        return float(struct.unpack("<d", binascii.a2b_base64(text.strip()))[0])
    except (binascii.Error, struct.error, ValueError):
        return ""
