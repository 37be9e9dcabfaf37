"""A command starts itself again with its memory kept, once, and does not overrule its user."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from entrostat.cli.memory import VARIABLE

PROGRAM = """
import os, sys
from entrostat.cli.memory import VARIABLE, start_with_kept_memory
print("started", flush=True)
start_with_kept_memory()
print(os.environ.get(VARIABLE), *sys.argv[1:])
"""
KEPT = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=1073741824"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
@pytest.mark.parametrize(
    ("said", "starts", "then"),
    [
        (None, 2, KEPT),
        ("glibc.elision.enable=0", 2, f"glibc.elision.enable=0:{KEPT}"),
        ("glibc.malloc.hugetlb=0", 1, "glibc.malloc.hugetlb=0"),
    ],
)
def test_a_command_starts_again_once_with_its_arguments(said, starts, then):
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment |= {VARIABLE: said} if said else {}
    command = [sys.executable, "-c", PROGRAM, "an argument", "--flag"]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert out == "started\n" * starts + f"{then} an argument --flag\n"
