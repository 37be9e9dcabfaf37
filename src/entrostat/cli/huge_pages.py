"""A command's memory in huge pages.

Training allocates and frees tensors of megabytes at every step, and handing them out in pages of 4 KB takes the kernel
a good part of a run on a CPU (benchmarks/huge_pages). glibc asks for pages of 2 MB when an environment variable says so
before the process starts.
"""

from __future__ import annotations

import os
import platform
import sys

VARIABLE = "GLIBC_TUNABLES"
TUNABLE = "glibc.malloc.hugetlb"


def start_in_huge_pages() -> None:
    """Start this command again with its memory in huge pages, which its children inherit.

    Does nothing where the variable speaks of huge pages already, and where the C library is another.
    """
    said = os.environ.get(VARIABLE, "")
    if TUNABLE in said or platform.libc_ver()[0] != "glibc":
        return
    os.environ[VARIABLE] = ":".join(filter(None, [said, f"{TUNABLE}=1"]))
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
