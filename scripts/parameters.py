"""Tables of parameters in the pages of the API: name, type and default from the signature, meaning from the docstring.

A docstring says what a parameter is by its name and a colon: `mask: (...), true where a token counts. logp: ...`.
"""

from __future__ import annotations

import html
import inspect
import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any

HEADING = re.compile(
    r'<h\d id="(entrostat[\w.]*)" class="doc doc-heading">.*?<div class="doc doc-contents[^"]*">', re.S
)
ENDS = re.compile(r"\n\s*\n|(?:^|[.;]\s+)(?:Raises?\b|Returns?\b|[A-Z]\w*Error\b)")


def add_tables(page: str) -> str:
    """The page with a table before the description of whatever takes two parameters or more."""
    return HEADING.sub(lambda found: found[0] + _table(_object(found[1])), page)


def meanings(docstring: str, names: Sequence[str]) -> dict[str, str]:
    """What a docstring says of each parameter, as one line of plain text."""
    listed = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    starts = [*re.finditer(rf"(?:^|(?<=[.;])\s+|\n)((?:{listed})(?:, (?:{listed}))*): ", docstring)] if names else []
    found: dict[str, str] = {}
    for place, start in enumerate(starts):
        end = starts[place + 1].start() if place + 1 < len(starts) else len(docstring)
        text = ENDS.split(docstring[start.end() : end], maxsplit=1)[0]
        for name in start[1].split(", "):
            found[name] = " ".join(text.split()).rstrip(".;")
    return found


def _object(path: str) -> Any:
    parts = path.split(".")
    for size in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:size]))
        except ImportError:
            continue
        for name in parts[size:]:
            found = getattr(found, name, None)
        return found
    return None


def _table(source: Any) -> str:
    try:
        signature = inspect.signature(source)
    except (TypeError, ValueError):
        return ""
    taken = [each for each in signature.parameters.values() if each.name not in ("self", "cls")]
    if len(taken) < 2:
        return ""
    said = meanings(inspect.getdoc(source) or "", [each.name for each in taken])
    rows = [
        f"<tr><td><code>{html.escape(str(each).split(':')[0].split('=')[0].strip())}</code></td>"
        f"<td>{_type(each)}</td><td>{_default(each)}</td><td>{_marked(said.get(each.name, ''))}</td></tr>"
        for each in taken
    ]
    head = "<tr><th>parameter</th><th>type</th><th>default</th><th>meaning</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def _marked(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))


def _type(parameter: inspect.Parameter) -> str:
    if parameter.annotation is parameter.empty:
        return ""
    kind = parameter.annotation
    return f"<code>{html.escape(kind if isinstance(kind, str) else inspect.formatannotation(kind))}</code>"


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return "" if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) else "required"
    shown = re.sub(r" at 0x[0-9a-f]+", "", repr(parameter.default))
    return f"<code>{html.escape(shown)}</code>" if len(shown) < 60 else ""
