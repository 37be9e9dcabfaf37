"""Python source as strings, comments, names and brackets, in linear time and without the compiler.

Model-written text is read in the trainer's process, where the compiler could be made to exhaust the stack. So nothing
here parses: a string that is never closed runs to the end, and any text is answered.
"""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata
from collections.abc import Iterator

# A name in any alphabet: Python allows combining marks, which \w does not match; punctuation and spaces are left out.
_LETTER = (
    r"[^\x00-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\xa9\xab-\xb4\xb6\xb8\xb9\xbb-\xbf"
    r"\u2000-\u206f\u3000-\u3004\u3008-\u3020\ufeff]"
)
NAME = rf"(?![0-9]){_LETTER}+"
_STRING = (
    r'"""(?:[^"\\]+|\\(?:.|\Z)|"(?!""))*(?:"""|\Z)'
    r"|'''(?:[^'\\]+|\\(?:.|\Z)|'(?!''))*(?:'''|\Z)"
    r'|"(?:[^"\\\n]+|\\(?:.|\Z))*(?:"|(?=\n)|\Z)'
    r"|'(?:[^'\\\n]+|\\(?:.|\Z))*(?:'|(?=\n)|\Z)"
)
_TOKEN = re.compile(rf"(?P<string>{_STRING})|(?P<comment>#[^\n]*)|(?P<name>{_LETTER}+)", re.DOTALL)
_ODD_SPACES = str.maketrans(
    {**dict.fromkeys("\u00a0\u1680\u202f\u205f\u3000", " "), **dict.fromkeys("\u200b\u2060\ufeff")}
)
_ODD_SPACES |= dict.fromkeys(range(0x2000, 0x200B), " ")
_STUB = re.compile(
    r"(\.\.\.|pass\b|raise\s+NotImplementedError\b[^\n]*|return\s*\.\.\.)[ \t;]*(#[^\n]*)?$", re.MULTILINE
)
_BLANK = re.compile(rf"(?:\s|#[^\n]*|\\\n)+|[rRuU]?(?:{_STRING})", re.DOTALL)
_LONGEST_HEAD = 4000
# A name that is defined more often is defined: a look at each body would cost more than it says.
_MOST_DEFINITIONS = 64


def same_name(one: str, other: str) -> bool:
    """Whether two spellings are one identifier: Python compares their NFKC forms."""
    return one == other or unicodedata.normalize("NFKC", one) == unicodedata.normalize("NFKC", other)


def strings(source: str) -> list[tuple[int, int]]:
    """Where each string literal begins and ends."""
    return [match.span() for match in _TOKEN.finditer(source) if match.lastgroup == "string"]


def without_strings(source: str) -> str:
    """The source with empty strings for all of its string literals."""
    return _TOKEN.sub(lambda match: "''" if match.lastgroup == "string" else match[0], source)


def open_quote(source: str, quote: str = "") -> str:
    """The quotes of the triple-quoted string that is open at the end, "" for none; `quote`: those open at the start."""
    at = 0
    while at < len(source):
        if quote and source[at] == "\\":
            at += 2
        elif quote and source.startswith(quote, at):
            at, quote = at + len(quote), ""
        elif not quote and source[at] == "#":
            end = source.find("\n", at)
            at = len(source) if end < 0 else end
        elif not quote and source[at] in "'\"":
            quote = source[at] * 3 if source.startswith(source[at] * 3, at) else source[at]
            at += len(quote)
        else:
            quote = "" if len(quote) == 1 and source[at] == "\n" else quote
            at += 1
    return quote if len(quote) == 3 else ""


def plain_spaces(source: str) -> str:
    """The source with ordinary spaces for those of other widths, and without invisible ones, outside its strings."""
    if source.isascii():
        return source
    pieces, end = [], 0
    for start, stop in strings(source):
        pieces += [source[end:start].translate(_ODD_SPACES), source[start:stop]]
        end = stop
    return "".join([*pieces, source[end:].translate(_ODD_SPACES)])


def definition(source: str, name: str) -> int:
    """How a source defines a name: 2 in full, 1 as a stub or an import, 0 not at all."""
    best = found = 0
    for match in _DEFINITION.finditer(source):
        if match["name"] and same_name(match["name"], name):
            found += 1
            stub = match["kind"] == "def" and found < _MOST_DEFINITIONS and _is_stub(source, match.end())
            best = max(best, 1 if stub else 2)
        elif match["assigned"] and any(same_name(each.strip(), name) for each in match["assigned"].split("=")):
            best = max(best, 1 if _STUB.match(source, match.end()) else 2)
        elif match["imported"] and any(same_name(each, name) for each in re.findall(NAME, match["imported"])):
            best = max(best, 1)
        if best == 2:
            break
    return best


_DEFINITION = re.compile(
    rf"^[ \t]*(?:async[ \t]+)?(?P<kind>def|class)[ \t]+(?P<name>{NAME})"
    rf"|^(?P<assigned>{NAME}[ \t]*(?:=[ \t]*{NAME}[ \t]*)*)(?:=(?!=)|:[^=\n]*=(?!=))[ \t]*"
    r"|^(?P<imported>(?:from|import)\b[^\n]*)",
    re.MULTILINE,
)


def _is_stub(source: str, position: int) -> bool:
    """Whether the function whose name ends at `position` has a body of comments, a docstring and `...` at most."""
    depth, end = 0, position
    head = source[position : position + _LONGEST_HEAD]
    for match in _HEAD.finditer(head):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(match[0], 0)
        if match[0] == ":" and depth <= 0:
            end = position + match.end()
            break
    else:
        return True
    indent = len(source[source.rfind("\n", 0, position) + 1 : position]) - len(
        source[source.rfind("\n", 0, position) + 1 : position].lstrip()
    )
    while blank := _BLANK.match(source, end):
        end = blank.end()
    line = source[source.rfind("\n", 0, end) + 1 : end]
    if end == len(source) or (not line.strip() and len(line) <= indent):
        return True
    return bool(_STUB.match(source, end))


_HEAD = re.compile(rf"(?:{_STRING})|#[^\n]*|[()\[\]{{}}:]", re.DOTALL)


def top_level_names(source: str) -> tuple[set[str], set[str]]:
    """The names that lines at the margin define or import, and those that they assign."""
    defined: set[str] = set()
    assigned: set[str] = set()
    for match in _DEFINITION.finditer(source):
        if source[match.start()] in " \t":
            continue
        if match["name"]:
            defined.add(match["name"])
        elif match["assigned"]:
            assigned |= {each.strip() for each in match["assigned"].split("=")}
        else:
            defined |= set(_imported(match["imported"]))
    return defined, assigned


def _imported(line: str) -> Iterator[str]:
    names = line.partition("import")[2] if line.startswith("from") else line[len("import") :]
    for each in names.strip(" ()").split(","):
        words = each.split()
        if words:
            yield words[-1].partition(".")[0]


def free_names(source: str) -> set[str]:
    """The names that a source reads and does not seem to bind anywhere: not exact, as nothing is parsed."""
    read: set[str] = set()
    bound: set[str] = set()
    binding = False
    end = 0
    for match in _TOKEN.finditer(source):
        between = source[end : match.start()]
        end = match.end()
        if "\n" in between or ":" in between:
            binding = False
        if match.lastgroup != "name" or match[0][0].isdigit():
            continue
        word = match[0]
        if keyword.iskeyword(word):
            binding = word in ("for", "def", "class", "import", "as", "lambda", "global", "except", "with")
            continue
        if between.endswith("."):
            continue
        after = source[end : end + 3].lstrip(" ")
        if binding or (after[:1] == "=" and after[:2] != "==") or after[:2] == ":=":
            bound.add(word)
        else:
            read.add(word)
    return read - bound - set(dir(builtins))
