"""A command's memory, kept and in huge pages.

Training allocates and frees tensors of megabytes at every step. By default glibc gives them back to the kernel, which
clears each page of 4 KB again when it is next asked for: about 90 000 times an optimizer step of the embedded policy
(benchmarks/memory). Environment variables tell glibc otherwise, before a process starts.
"""

from __future__ import annotations

import os
import platform
import sys

VARIABLE = "GLIBC_TUNABLES"
ROOM = "glibc.malloc."
KEPT = {"hugetlb": 1, "mmap_threshold": 1 << 30, "trim_threshold": 1 << 30}


def start_with_kept_memory() -> None:
    """Start this command again with glibc told to keep freed memory; its children inherit that.

    Does nothing where the variable speaks of malloc already, and where the C library is another.
    """
    said = os.environ.get(VARIABLE, "")
    if ROOM in said or platform.libc_ver()[0] != "glibc":
        return
    os.environ[VARIABLE] = ":".join(filter(None, [said, *(f"{ROOM}{name}={value}" for name, value in KEPT.items())]))
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
