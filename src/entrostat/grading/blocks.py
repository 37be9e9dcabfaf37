"""The blocks of code in a chat answer: by CommonMark's rules, and by what models write instead."""

from __future__ import annotations

import functools
import json
import re
import textwrap
from dataclasses import dataclass

from markdown_it import MarkdownIt

from entrostat.grading import lexing

_PYTHON = ("python", "python2", "python3", "py", "py3", "pycon", "ipython", "ipython3", "sage", "cython")
_TEXT = ("markdown", "md", "text", "txt", "plaintext")
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})[ \t]*([^`\n]*)")
_CLOSED_ON_CODE = re.compile(r"(.*[^`~\s][ \t]*)(`{3,}|~{3,})[ \t]*")
_INFO = re.compile(r"\{?\.?([A-Za-z][\w+#.-]*)?\}?(.*)", re.DOTALL)
_CODE_ON_FENCE = re.compile(
    rf"(?:async|def|class|import|from|for|while|if|try|with|print|@|#)(?!\w)|{lexing.NAME}[ \t]*=[ \t]|{lexing.NAME}\("
)
_SPAN = re.compile(r"(?<!`)(`{1,3})(?!`)([^`\n]+)\1(?!`)")
_PROMPT = re.compile(r"[ \t]*(?:>>> ?|In \[\d+\]: ?)")
_CONTINUED = re.compile(r"[ \t]*(?:\.\.\.(?: |$)|\.{3,}: ?)")
_QUOTED = re.compile(r"^[ \t]*>[ \t]?", re.MULTILINE)
_LINE_NUMBER = re.compile(r"[ \t]*\d+(?:[ \t]*[|:])?")
_QUOTE_FENCE = re.compile(r"^(\'\'\'|\"\"\")(?=(?:python|py)\n)", re.MULTILINE)
_DEEPEST_JSON = 3
INDENTED = "indented"
_DEEPEST = 3
# After so many strings that never end, fences count everywhere: each such string is read to the text's end.
_MOST_ENDLESS = 4


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of text that is set apart as code. language: in lower case, "" where none is named."""

    text: str
    language: str = ""

    @property
    def may_be_python(self) -> bool:
        """Whether it is called Python, or nothing."""
        return self.language in ("", *_PYTHON)


def markdown_blocks(text: str, depth: int = _DEEPEST) -> list[Block]:
    """What CommonMark takes for code, fenced or indented; of a fence around Markdown, what that holds."""
    found: list[Block] = []
    for token in _parser().parse(text):
        if token.type not in ("fence", "code_block"):
            continue
        outer = _block(token.content, token.info)
        if depth and (token.type == "code_block" or outer.language in ("", *_TEXT)) and has_fence(outer.text):
            found += markdown_blocks(outer.text, depth - 1) or [outer]
        elif outer.text.strip():
            found.append(outer if token.type == "fence" else Block(outer.text, INDENTED))
    return found


def repaired_blocks(text: str) -> list[Block]:
    """Blocks between fences where CommonMark sees others: line by line, each with its indentation.

    A closing fence may be shorter than the opening one or be at the end of the last line of code; none counts
    inside a string, unless the string never ends.
    """
    blocks: list[Block] = []
    lines = text.split("\n")
    number = 0
    endless = 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        number += 1
        if fence:
            number, body, strings_end = _body(lines, number, fence[1][0], endless < _MOST_ENDLESS)
            endless += not strings_end
            blocks.append(_block("\n".join(body) + "\n", fence[2]))
    return [block for block in blocks if block.text.strip()]


def inline_blocks(text: str) -> list[Block]:
    """Code within a line: `solve = lambda x: x`, or a fence that opens and closes in one line."""
    return [_block("", match[2]) for match in _SPAN.finditer(text)]


def without_prompts(text: str) -> str:
    """What was typed in a transcript of an interactive session, without what failed; "" if it is none."""
    typed: list[list[str]] = []
    open_ = False
    for line in text.split("\n"):
        if prompt := _PROMPT.match(line):
            typed.append([line[prompt.end() :]])
            open_ = True
        elif open_ and (prompt := _CONTINUED.match(line)):
            typed[-1].append(line[prompt.end() :])
        else:
            open_ = False
            if typed and line.lstrip().startswith("Traceback"):
                typed.pop()
    return "".join("\n".join(statement) + "\n" for statement in typed)


def without_quoting(text: str) -> str:
    """The text without the mark of a block quote at the beginning of its lines."""
    return _QUOTED.sub("", text)


def without_margin(text: str) -> str:
    """Code without line numbers, or a diff as it is after the change; "" where not every line has such a mark."""
    lines = [line for line in text.split("\n") if line.strip()]
    if all(_LINE_NUMBER.match(line) for line in lines):
        return textwrap.dedent("\n".join(_LINE_NUMBER.sub("", line, count=1) for line in lines)) + "\n"
    if all(line[0] in "+- @" for line in lines):
        kept = [line[1:] for line in lines if line[0] in "+ " and not line.startswith("+++ ")]
        return "\n".join(kept) + "\n" if any(line[0] == "+" for line in lines) else ""
    return ""


def with_fences_for_quotes(text: str) -> str:
    """The text with fences for triple quotes that are used as fences: a line of them and the name of the language."""
    opening = _QUOTE_FENCE.search(text)
    if not opening or has_fence(text):
        return text
    begun, rest = text[: opening.start()], text[opening.end() :]
    body, _, after = rest.rpartition("\n" + opening[1])
    return f"{begun}```{body}\n```{after}" if body else f"{begun}```{rest}"


def texts_in_json(text: str, depth: int = _DEEPEST_JSON) -> list[str]:
    """The texts of several lines in an object of JSON that a text holds, and in objects that are texts in it."""
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start or not depth:
        return []
    try:
        waiting = [json.loads(text[start : end + 1], strict=False)]
    except (ValueError, RecursionError):
        return []
    found: list[str] = []
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and "\n" in value:
            found.append(value)
        if isinstance(value, str) and value.startswith("{"):
            found += texts_in_json(value, depth - 1)
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
    return found


@functools.cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("zero").enable(["blockquote", "code", "fence", "heading", "hr", "list"])
    parser.core.ruler.enableOnly(["normalize", "block"])
    return parser


def has_fence(text: str) -> bool:
    """Whether a line begins with a fence."""
    return any(_FENCE.match(line) for line in text.split("\n"))


def _block(content: str, info: str) -> Block:
    """A block with its language; code on the fence's own line belongs to it."""
    language, code = "", info.strip()
    if not _CODE_ON_FENCE.match(code):
        named = _INFO.match(code)
        language, rest = (named[1] or "", named[2].strip()) if named else ("", "")
        code = rest if language.lower() in ("", *_PYTHON) and _CODE_ON_FENCE.match(rest) else ""
    dedented = textwrap.dedent(content)
    return Block(f"{code}\n{content}" if code else dedented, language.lower())


def _body(lines: list[str], start: int, mark: str, mind_strings: bool) -> tuple[int, list[str], bool]:
    """The lines of a block that begins at `start`, the number of the line after it, and whether its strings end."""
    first: int | None = None
    quote = ""
    for number in range(start, len(lines)):
        line = lines[number]
        kept = _before_closing(line, mark)
        if kept is not None:
            if not mind_strings or not (lexing.open_quote(kept, quote) if kept else quote):
                return number + 1, [*lines[start:number], kept], True
            first = number if first is None else first
        if mind_strings:
            quote = lexing.open_quote(line + "\n", quote)
    if first is None:
        return len(lines), lines[start:], True
    return first + 1, [*lines[start:first], _before_closing(lines[first], mark) or ""], False


def _before_closing(line: str, mark: str) -> str | None:
    """What a line that closes a block holds before its fence; None for a line that does not close one."""
    fence = _FENCE.match(line)
    if fence and fence[1][0] == mark and not fence[2].strip():
        return ""
    code = None if fence else _CLOSED_ON_CODE.fullmatch(line)
    return code[1] if code and code[2][0] == mark else None
