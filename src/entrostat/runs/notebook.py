"""What a notebook shows of an object: one small table, every text escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any


def table(caption: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as an HTML table under a caption; the caption alone where there are none."""
    if not rows:
        return f"<p>{_cell(caption)}</p>"
    head = "".join(f"<th>{_cell(name)}</th>" for name in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row.values()) + "</tr>" for row in rows)
    return f"<table><caption>{_cell(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return escape(text.encode("utf-8", "backslashreplace").decode())
