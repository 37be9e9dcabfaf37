"""Landlock: a second lock on files, on TCP and on signals, where the kernel has it (Linux 5.13 and later)."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from entrostat.grading import kernel

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
# The number of file access rights that each version knows, from version 1 on.
_FILE_RIGHTS = (13, 14, 15, 15, 16)
_NETWORK_RIGHTS, _SCOPES = 0b11, 0b11


def restrict(readable: Sequence[str], writable: Sequence[str]) -> None:
    """Reading below `readable`, everything but devices below `writable`, nothing else; no TCP; OSError without
    Landlock.
    """
    version = kernel.landlock_version()
    everything = (1 << _FILE_RIGHTS[min(version, len(_FILE_RIGHTS)) - 1]) - 1
    attributes = struct.pack("=3Q", everything, _NETWORK_RIGHTS if version >= 4 else 0, _SCOPES if version >= 6 else 0)[
        : 8 if version < 4 else 16 if version < 6 else 24
    ]
    ruleset = kernel.landlock_ruleset(attributes)
    try:
        for path in readable:
            kernel.landlock_allow(ruleset, path, _READ_FILE | _READ_DIR)
        for path in writable:
            kernel.landlock_allow(ruleset, path, everything & ~(_MAKE_CHAR | _MAKE_BLOCK))
        kernel.landlock_allow(ruleset, os.devnull, _READ_FILE | _WRITE_FILE)
        kernel.landlock_restrict(ruleset)
    finally:
        os.close(ruleset)
