"""Equations written as plain text, set as mathematics: slanted quantities, real subscripts and exponents.

    dH = η r A T        T = C - p_a (ln p_a + H)        C = Σ_x p_x² (ln p_x + H)

An underscore begins a subscript, `^` or a raised digit a superscript; several blanks part one equation from the next.
"""

from __future__ import annotations

import html
import re

MINUS = "\u2212"
RAISED = {"²": "2", "³": "3", "⁻": MINUS}
FUNCTIONS = frozenset({"ln"})  # a word of two letters that is no product
TOKEN = re.compile(
    r"(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<word>[^\W\d_²³⁻]+'?)|(?P<script>[_^])|(?P<raised>[²³⁻]+)|(?P<space> +)"
    r"|(?P<symbol><=|>=|\+=|-=|\|\||.)"
)
SYMBOLS = {"-": MINUS, "*": "·", "<=": "≤", ">=": "≥", "~": "\u223c"}
SIGN = re.compile(r"[=≤≥⇔≈∝~]|[<>+-]=")
NOT_AN_EQUATION = re.compile(
    r"^\s*(?:\$ |entrostat |pip |python3? |make |git |from |import |def |class |with |#|- )|[`\"@\\]|(?<![_^]){|://|--\w|\w/\w+/|\.\w+\("
)


def is_equation(text: str) -> bool:
    """Whether a block of plain text consists of equations, and not of code, commands or names of files."""
    lines = [line for line in text.splitlines() if line.strip()]
    return bool(lines) and all(not NOT_AN_EQUATION.search(line) for line in lines) and bool(SIGN.search(text))


def set_in_markdown(text: str) -> str:
    """A page whose indented blocks of equations are set as mathematics; fenced code stays."""
    parts = re.split(r"(^```.*?^```[^\S\n]*$)", text, flags=re.M | re.S)
    return "".join(part if part.startswith("```") else BLOCK.sub(_as_div, part) for part in parts)


def set_in_html(text: str) -> str:
    """A page of the API, whose docstrings are HTML already."""

    def found(block: re.Match[str]) -> str:
        content = html.unescape(re.sub(r"<[^>]+>", "", block[1]))
        return typeset(content) if is_equation(content) else block[0]

    return re.sub(
        r'<div class="[^"]*highlight">\s*<pre>(?:<span></span>)?<code>(.*?)</code></pre>\s*</div>',
        found,
        text,
        flags=re.S,
    )


BLOCK = re.compile(r"(?<=\n\n) {4}\S.*(?:\n {4}.*)*")


def _as_div(block: re.Match[str]) -> str:
    return typeset(block[0]) if is_equation(block[0]) else block[0]


def typeset(text: str) -> str:
    """A block of equations as HTML: one row for each line, that breaks between equations on a narrow screen."""
    rows = []
    for line in text.splitlines():
        if line.strip():
            equations = re.split(r" {2,}", line.strip())
            rows.append(" ".join(f"<span>{_set(each)}</span>" for each in equations))
    return f'<div class="equation" role="math" aria-label="{html.escape(text.strip())}">{"<br>".join(rows)}</div>'


def _set(equation: str) -> str:
    tokens = [(found.lastgroup or "", found[0]) for found in TOKEN.finditer(equation)]
    parts, place = [], 0
    while place < len(tokens):
        part, place = _next(tokens, place)
        parts.append(part)
    return "".join(parts)


def _next(tokens: list[tuple[str, str]], place: int) -> tuple[str, int]:
    """What begins at `place`, as HTML, and where the next begins."""
    kind, text = tokens[place]
    place += 1
    if kind == "script" and place < len(tokens):
        script, place = _script(tokens, place)
        return f"<sub>{script}</sub>" if text == "_" else f"<sup>{script}</sup>", place
    if kind == "raised":
        return f"<sup>{''.join(RAISED[each] for each in text)}</sup>", place
    if kind == "word":
        upright = text in FUNCTIONS or len(text) > 2
        return (html.escape(text) if upright else f"<i>{html.escape(text)}</i>"), place
    return html.escape(SYMBOLS.get(text, text)), place


def _script(tokens: list[tuple[str, str]], place: int) -> tuple[str, int]:
    """A subscript or an exponent, which may have a sign, brackets, and a subscript of its own: e^-2d_i."""
    parts = []
    if tokens[place][1] == "-" and place + 1 < len(tokens):
        parts.append(MINUS)
        place += 1
    if tokens[place][1] in "{(":
        depth, first = 0, place
        while place < len(tokens):
            depth += {"{": 1, "(": 1, "}": -1, ")": -1}.get(tokens[place][1], 0)
            place += 1
            if depth == 0:
                break
        inner = "".join(text for _, text in tokens[first:place])
        return "".join(parts) + _set(inner[1:-1] if inner[0] == "{" else inner), place
    while True:
        kind = tokens[place][0]
        part, place = _next(tokens, place)
        parts.append(part)
        more = place < len(tokens) and (
            tokens[place][0] == "word" if kind == "number" else parts[0] == MINUS and tokens[place][1] == "_"
        )
        if not more:
            return "".join(parts), place
