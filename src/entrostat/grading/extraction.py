"""Finding the code in what a model wrote."""

from __future__ import annotations

import re
import textwrap

# An opening fence of three or more backquotes or tildes, and everything up to the closing one or the end of the text.
_FENCED = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n`]*\n(.*?)(?:^[ \t]*\1[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_NAME = r"[A-Za-z_]\w*"
_STATEMENT = re.compile(
    rf"(import|def|class|async\s+def|global|del)\s+{_NAME}|from\s+[\w.]+\s+import\b|assert\b|pass\b"
    r"|(with|for|while|if|elif|else|try|except|finally|match)\b.*:\s*(#.*)?$"
    rf"|[@#)\]}}'\"]|{_NAME}([\w.]|\[[^\]]*\])*\s*(\(|[-+*/|&^%@<>]*=|:[^=]+=)|{_NAME}(\s*,\s*{_NAME})+\s*="
)
_TRIPLE_QUOTES = re.compile(r"\"\"\"|'''")


def extract_code(completion: str, entry_point: str) -> str | None:
    """The Python source in a completion that defines `entry_point`, or None if there is no code.

    Of several fenced blocks the last one that defines the entry point is taken (models correct themselves), or the
    last one if none does; a fence that is never closed runs to the end. Without a fence, prose before the first
    statement and after the last one is left out, and a completion that is bare code comes back as it stands. Nothing
    is parsed, so hostile text cannot exhaust the caller's stack; whether the code compiles is for the sandbox to find
    out.
    """
    name = re.escape(entry_point)
    defines = re.compile(rf"^((async\s+def|def|class)\s+{name}\b|{name}\s*[:=])|^from\b.*\b{name}\b", re.MULTILINE)
    blocks = [textwrap.dedent(match[2]) for match in _FENCED.finditer(completion)]
    if blocks:
        return next((block for block in reversed(blocks) if defines.search(block)), blocks[-1])
    return _without_prose(completion) if defines.search(completion) else None


def _without_prose(text: str) -> str:
    lines = text.splitlines(keepends=True)
    first = next((i for i, line in enumerate(lines) if _STATEMENT.match(line)), 0)
    end = len(lines)
    in_string = False
    for i, line in enumerate(lines[first:], first):
        unindented = line.strip() and not line[0].isspace()
        if unindented and not in_string:
            if _STATEMENT.match(line):
                end = len(lines)
            elif end == len(lines):
                end = i
        in_string ^= len(_TRIPLE_QUOTES.findall(line)) % 2 == 1
    return "".join(lines[first:end])
