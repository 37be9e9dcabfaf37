"""A command starts itself again in huge pages, once, and does not overrule its user."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from entrostat.cli.huge_pages import TUNABLE, VARIABLE

PROGRAM = """
import os, sys
from entrostat.cli.huge_pages import VARIABLE, start_in_huge_pages
print("started", flush=True)
start_in_huge_pages()
print(os.environ.get(VARIABLE), *sys.argv[1:])
"""


@pytest.mark.skipif(os.confstr_names.get("CS_GNU_LIBC_VERSION") is None, reason="the C library is not glibc")
@pytest.mark.parametrize(
    ("said", "starts", "kept"),
    [
        (None, 2, f"{TUNABLE}=1"),
        ("glibc.malloc.tcache_count=7", 2, f"glibc.malloc.tcache_count=7:{TUNABLE}=1"),
        (f"{TUNABLE}=0", 1, f"{TUNABLE}=0"),
    ],
)
def test_a_command_starts_again_once_with_its_arguments(said, starts, kept):
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment |= {VARIABLE: said} if said else {}
    command = [sys.executable, "-c", PROGRAM, "an argument", "--flag"]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert out == "started\n" * starts + f"{kept} an argument --flag\n"
