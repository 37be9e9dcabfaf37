"""Finding the code in what a model wrote."""

from __future__ import annotations

import keyword
import re
import textwrap

_FENCE = re.compile(r"\s*(`{3,}|~{3,})([^`\n]*)")
_NAME = r"[A-Za-z_]\w*"
_STATEMENT = re.compile(
    rf"(import|def|class|async\s+def|global|del)\s+{_NAME}|from\s+[\w.]+\s+import\b|assert\b|pass\b"
    r"|(with|for|while|if|elif|else|try|except|finally|match)\b.*:\s*(#.*)?$"
    rf"|[@#)\]}}'\"]|[A-Za-z_][\w.]*(\[[^\]]*\][\w.]*)*\s*(\(|[-+*/|&^%@<>]*=|:[^=]+=)|{_NAME}(\s*,\s*{_NAME})+\s*="
)
_TRIPLE_QUOTES = re.compile(r"\"\"\"|'''")
_ONE_LINE_COMPOUND = re.compile(r"(with|for|while|if|elif|else|try|except|finally|match|case)\b.*:\s*\S")
_STRING_OR_COMMENT = re.compile(r"'[^']*'|\"[^\"]*\"|#.*")
_WORD = re.compile(r"[A-Za-z_]\w*")


def extract_code(completion: str, entry_point: str | None) -> str | None:
    """The Python source in a completion that defines `entry_point` (None: a whole program), or None if there is no
    code.

    Of several fenced blocks the last one that defines the entry point is taken (models correct themselves), or the
    last one if none does; a fence that is never closed runs to the end. Without a fence, prose before the first
    statement and after the last one is left out; what is a statement is judged line by line. Nothing is parsed, so
    hostile text cannot exhaust the caller's stack; whether the code compiles is for the sandbox to find out.
    """
    blocks = _fenced_blocks(completion)
    if entry_point is None:
        in_prose = any(_is_statement(line) for line in completion.splitlines())
        return blocks[-1] if blocks else _without_prose(completion) if in_prose else None
    name = re.escape(entry_point)
    defines = re.compile(
        rf"^[ \t]*(async[ \t]+def|def|class)[ \t]+{name}\b|^{name}\s*[:=]|^from\b.*\b{name}\b", re.MULTILINE
    )
    for block in reversed(blocks):
        if defines.search(block):
            return block
    if defines.search(completion):
        return _without_prose(completion)
    return blocks[-1] if blocks else None


def _fenced_blocks(text: str) -> list[str]:
    """What stands between fences: each runs to a fence of its own kind, as long or longer, with nothing after it."""
    blocks: list[list[str]] = []
    opening = ""
    for line in text.splitlines(keepends=True):
        fence = _FENCE.match(line)
        if not opening and fence:
            opening = fence[1]
            blocks.append([])
        elif fence and fence[1].startswith(opening) and not fence[2].strip():
            opening = ""
        elif opening:
            blocks[-1].append(line)
    return [textwrap.dedent("".join(block)) for block in blocks]


def _without_prose(text: str) -> str:
    lines = text.splitlines(keepends=True)
    first = next((i for i, line in enumerate(lines) if _is_statement(line)), 0)
    end = len(lines)
    in_string = False
    for i, line in enumerate(lines[first:], first):
        unindented = line.strip() and not line[0].isspace()
        if unindented and not in_string:
            if _is_statement(line):
                end = len(lines)
            elif end == len(lines):
                end = i
        in_string ^= len(_TRIPLE_QUOTES.findall(line)) % 2 == 1
    return "".join(lines[first:end])


def _is_statement(line: str) -> bool:
    """Whether a line at the margin begins or goes on with a statement, rather than with prose."""
    if _STATEMENT.match(line):
        return True
    return bool(_ONE_LINE_COMPOUND.match(line)) and not _has_neighbours(line)


def _has_neighbours(line: str) -> bool:
    """Whether two words that are no keywords stand side by side, as they do in prose and never in Python."""
    previous_end = -1
    code = _STRING_OR_COMMENT.sub("''", line)
    for word in _WORD.finditer(code):
        if keyword.iskeyword(word[0]) or word[0] in ("match", "case"):
            continue
        if previous_end >= 0 and code[previous_end : word.start()].isspace():
            return True
        previous_end = word.end()
    return False
