"""Finding the code in what a model wrote."""

from __future__ import annotations

import html
import keyword
import re
import textwrap
from collections.abc import Iterator, Sequence

from entrostat.grading import lexing
from entrostat.grading.blocks import (
    INDENTED,
    Block,
    has_fence,
    inline_blocks,
    markdown_blocks,
    repaired_blocks,
    texts_in_json,
    with_fences_for_quotes,
    without_margin,
    without_prompts,
    without_quoting,
)

_MOST_CANDIDATES = 6
_IN_FULL = 3
_THOUGHT = re.compile(
    r"</(?:\w{1,20}:)?(?:think|thinking|thought|reasoning)>|<\|end_of_thought\|>|\[/THINK\]|\u25c1/think\u25b7"
)
_END_MARK = re.compile(r"(?:<\|[^|<>\s]{1,40}\|>|</s>|<eos>|<end_of_turn>|<\uff5c[^<>\n]{1,40}\uff5c>)\s*\Z")
_LONGEST_MARK = 80
_TAG = re.compile(
    r"</?(?:answer|code|solution|python|pre|final|output|response)(?:\s[^<>\n]*)?>|<!\[CDATA\[|\]\]>", re.IGNORECASE
)
_READS_INPUT = re.compile(r"\binput\s*\(|\bstdin\b|\bopen\s*\(\s*0\b|\bfileinput\b")
_STATEMENT = re.compile(
    rf"(import|def|class|async\s+def|global|del)\s+{lexing.NAME}|from\s+[\w.]+\s+import\b|assert\b|pass\b"
    r"|(with|for|while|if|elif|else|try|except|finally|match)\b.*:\s*(#.*)?$"
    rf"|[@#)\]}}'\"]|{lexing.NAME}(\.{lexing.NAME})*(\[[^\]]*\][\w.]*)*\s*(\(|[-+*/|&^%@<>]*=|:[^=]+=)"
    rf"|{lexing.NAME}(\s*,\s*{lexing.NAME})+\s*="
)
_BEGINS_CODE = re.compile(rf"(import|def|class|async\s+def)\s+{lexing.NAME}|from\s+[\w.]+\s+import\b|@{lexing.NAME}")
_ONE_LINE_COMPOUND = re.compile(r"(with|for|while|if|elif|else|try|except|finally|match|case)\b.*:\s*\S")
_STRING_OR_COMMENT = re.compile(r"'[^']*'|\"[^\"]*\"|#.*")
_WORD = re.compile(lexing.NAME)
_FUTURE = re.compile(r"^from[ \t]+__future__[ \t]+import[ \t]+[\w, \t]+(?:#.*)?\n", re.MULTILINE)


def extract_code(completion: str, entry_point: str | None) -> str | None:
    """The Python source in a completion that defines `entry_point` (None: a whole program), or None if there is no
    code: the first of `code_candidates`.
    """
    return next(iter(code_candidates(completion, entry_point)), None)


def code_candidates(completion: str, entry_point: str | None) -> tuple[str, ...]:
    """The Python sources that a completion may mean, likeliest first; the first one that compiles is meant.

    What follows a model's thoughts comes before the thoughts. Of several blocks of code the last one that defines the
    entry point in full is taken (models correct themselves), before stubs and imports of it; names that it lacks
    and other blocks define bring those blocks with it. Blocks are CommonMark's, then those that a reader would see (a
    closing fence on the last line of code, a fence within a docstring). Without a block, prose before the first
    statement and after the last one is left out; what is a statement is judged line by line. Nothing is compiled, so
    hostile text cannot exhaust the caller's stack, and the time is linear: whether code compiles is for the sandbox
    to find out.
    """
    text = _without_end_marks(completion.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff"))
    text = with_fences_for_quotes(text)
    best: list[str] = []
    best_rank = 0
    for part in _answers(text):
        rank, found = _in_answer(part, entry_point)
        if rank > best_rank:
            best_rank, best = rank, found
        if rank == _IN_FULL:
            break
    sources = [lexing.plain_spaces(source) for source in best]
    # Where none of them compiles, text of a web page or of a document in XML may have been given as it is.
    sources += [html.unescape(_TAG.sub("\n", source)) for source in sources[:2]]
    return tuple(dict.fromkeys(source for source in sources if source.strip()))[:_MOST_CANDIDATES]


def defines(completion: str, entry_point: str) -> bool:
    """Whether the code in a completion defines the entry point, so that it does not just continue a prompt."""
    return any(lexing.definition(source, entry_point) for source in code_candidates(completion, entry_point))


def continuation(prompt: str, completion: str) -> str:
    """A prompt that ends within a function, and the completion that continues it, as one source."""
    text = _without_end_marks(completion)
    blocks = [block for block in markdown_blocks(text) if block.language != INDENTED]
    body = textwrap.indent(blocks[-1].text, "    ") if blocks else text
    first = next((line for line in body.split("\n") if line.strip()), "")
    if first and not first[0].isspace() and prompt.rstrip(" \t").endswith("\n"):
        body = textwrap.indent(body, "    ")
    return prompt + body


def _answers(text: str) -> Iterator[str]:
    """The text after a model's thoughts, then the whole text."""
    ends = [match.end() for match in _THOUGHT.finditer(text)]
    for end in dict.fromkeys((ends[-1], ends[0])) if ends else ():
        yield text[end:]
    yield text


def _in_answer(text: str, entry_point: str | None) -> tuple[int, list[str]]:
    """The candidates of one answer, and the rank of the first: 3 defined in full, 2 a stub or an import, 1 any code."""
    fenced = [_fenced(markdown_blocks(text)), repaired_blocks(text)]
    found = [source for blocks in fenced for source in _chosen(blocks, entry_point)]
    if entry_point is None or lexing.definition(text, entry_point):
        bare = _bare(text) if any(map(_is_statement, text.split("\n"))) else []
        found = bare + found if _is_bare(text) else found + bare
    if entry_point is None:
        return (_IN_FULL, found) if found else _any_code(fenced)
    ranked = [(lexing.definition(source, entry_point), source) for source in found]
    if not any(rank == 2 for rank, _ in ranked):
        ranked += [(lexing.definition(source, entry_point), source) for source in _in_odd_places(text, entry_point)]
    ranked = sorted((each for each in ranked if each[0]), key=lambda each: -each[0])
    if ranked:
        return 1 + ranked[0][0], [source for _, source in ranked]
    if _is_bare(text) and any(lexing.same_name(word, entry_point) for word in _WORD.findall(text)):
        return 1, _bare(text)  # it may define the name by other means, such as exec
    return _any_code(fenced)


def _any_code(fenced: Sequence[Sequence[Block]]) -> tuple[int, list[str]]:
    found = [block.text for blocks in fenced for block in reversed(blocks)][:1]
    return len(found), found


def _in_odd_places(text: str, entry_point: str) -> Iterator[str]:
    """What is set apart by indentation, in a line of prose, behind prompts or marks of quoting, or by tags."""
    yield from _chosen([block for block in markdown_blocks(text) if block.language == INDENTED], entry_point)
    yield from _chosen(inline_blocks(text), entry_point)
    margins = (without_margin(block.text) for block in (*repaired_blocks(text), Block(text)))
    for other in (without_prompts(text), without_quoting(text), _TAG.sub("\n", text), *margins, *texts_in_json(text)):
        if other != text and lexing.definition(other, entry_point):
            yield from _chosen(repaired_blocks(other), entry_point)
            yield from _bare(other)


def _fenced(blocks: Sequence[Block]) -> list[Block]:
    return [block for block in blocks if block.language != INDENTED]


def _chosen(blocks: Sequence[Block], entry_point: str | None) -> list[str]:
    """The last block that is worth most, with the blocks that it needs and without them."""
    blocks = [Block(without_prompts(block.text) or block.text, block.language) for block in blocks]
    worth = [_worth(block, entry_point) for block in blocks]
    if not any(worth):
        return []
    index = max(range(len(blocks)), key=lambda index: (worth[index], index))
    return [_with_helpers(blocks, index), blocks[index].text]


def _worth(block: Block, entry_point: str | None) -> int:
    if entry_point is not None:
        return lexing.definition(block.text, entry_point)
    return 0 if not block.may_be_python else 2 if _READS_INPUT.search(block.text) else 1


def _with_helpers(blocks: Sequence[Block], index: int) -> str:
    """A block after those that define names which it lacks: earlier ones, the nearest first, then later ones."""
    lacking = lexing.free_names(blocks[index].text)
    helpers: list[int] = []
    for other in (*range(index - 1, -1, -1), *range(index + 1, len(blocks))):
        if not blocks[other].may_be_python:
            continue
        defined, assigned = lexing.top_level_names(blocks[other].text)
        if lacking & (defined if other > index else defined | assigned):
            helpers.append(other)
            lacking = (lacking | lexing.free_names(blocks[other].text)) - defined - assigned
    joined = "\n".join(blocks[each].text for each in (*sorted(helpers), index))
    # Python takes imports from __future__ before all else only.
    return "".join(_FUTURE.findall(joined)) + _FUTURE.sub("", joined) if helpers else joined


def _is_bare(text: str) -> bool:
    """Whether a text begins with a statement and has no fence but in strings."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    return _is_statement(first) and not has_fence(lexing.without_strings(text))


def _bare(text: str) -> list[str]:
    """A text without the prose around its code; from the first sure statement to any prose; to the end."""
    lines = text.split("\n")
    first = next((number for number, line in enumerate(lines) if _is_statement(line)), 0)
    sure = next((number for number, line in enumerate(lines) if _BEGINS_CODE.match(line)), first)
    return [_until_prose(lines[first:], last=True), _until_prose(lines[sure:], last=False), "\n".join(lines[first:])]


def _until_prose(lines: Sequence[str], last: bool) -> str:
    """The lines until prose begins: the first that does, or the last, behind which no statement comes."""
    end = len(lines)
    quote = ""
    for number, line in enumerate(lines):
        if line.strip() and not line[0].isspace() and not quote:
            if _is_statement(line):
                end = len(lines)
            elif end == len(lines):
                end = number
                if not last:
                    break
        quote = lexing.open_quote(line + "\n", quote)
    return "\n".join(lines[:end]) + "\n"


def _without_end_marks(text: str) -> str:
    """The text without a chat template's marks at its end."""
    text = text.rstrip()
    while mark := _END_MARK.search(text, max(0, len(text) - _LONGEST_MARK)):
        text = text[: mark.start()].rstrip()
    return text + "\n"


def _is_statement(line: str) -> bool:
    """Whether a line at the margin begins or continues a statement, rather than with prose."""
    if _STATEMENT.match(line):
        return True
    return bool(_ONE_LINE_COMPOUND.match(line)) and not _has_neighbours(line)


def _has_neighbours(line: str) -> bool:
    """Whether two words that are not keywords are side by side, as they do in prose and never in Python."""
    previous_end = -1
    code = _STRING_OR_COMMENT.sub("''", line)
    for word in _WORD.finditer(code):
        if keyword.iskeyword(word[0]) or word[0] in ("match", "case"):
            continue
        if previous_end >= 0 and code[previous_end : word.start()].isspace():
            return True
        previous_end = word.end()
    return False
