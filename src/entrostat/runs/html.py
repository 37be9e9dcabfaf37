"""HTML: pages, and the tables that objects show in notebooks; and the lines of a run for pandas or polars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from entrostat.errors import EntrostatError

if TYPE_CHECKING:
    from jinja2 import Template

Library = Literal["pandas", "polars"]


def page_template(package: str, name: str, **filters: Callable[..., Any]) -> Template:
    """A template in the folder `templates` of a package, which escapes whatever enters it.

    filters: its own; each page has `sentence`, which begins text with a capital, and `figure`, a number in short.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sentence"] = lambda text: text[:1].upper() + text[1:]
    environment.filters["figure"] = figure
    environment.filters |= filters
    return environment.get_template(name)


def figure(value: float | None) -> str:
    """A number in short, - for none."""
    return "-" if value is None else f"{value:.4g}"


def table(caption: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as an HTML table under a caption; the caption alone where there are none."""
    if not rows:
        return f"<p>{_cell(caption)}</p>"
    head = "".join(f"<th>{_cell(name)}</th>" for name in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row.values()) + "</tr>" for row in rows)
    return f"<table><caption>{_cell(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    text = figure(value) if isinstance(value, float) else str(value)
    return escape(text.encode("utf-8", "backslashreplace").decode())


class FrameError(EntrostatError, ImportError):
    """The library of a table is not installed; the message names it."""


def frame(lines: Iterable[Mapping[str, Any]], library: Library = "pandas") -> Any:
    """A DataFrame with one row per line; a nested value has a column of its own, as `regions.E1.flow`.

    Raises ValueError for another library, FrameError if it is not installed.
    """
    if library not in ("pandas", "polars"):
        raise ValueError(f"library: got {library!r}; choose pandas or polars")
    try:
        made = import_module(library)
    except ImportError as error:
        raise FrameError(f"{library} is not installed; pip install {library}") from error
    rows = [dict(_flat(line)) for line in lines]
    return made.DataFrame(rows, infer_schema_length=None) if library == "polars" else made.DataFrame(rows)


def _flat(line: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in line.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif not isinstance(value, list | tuple):  # the verdicts of each task get no columns
            yield prefix + name, value
