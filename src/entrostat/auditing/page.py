"""An audit as one HTML page that needs no network and runs no script: completions are hostile and enter it as text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from entrostat.auditing.attempts import Rate
from entrostat.auditing.findings import Audit
from entrostat.runs import atomic_write


def write_page(audit: Audit, path: Path) -> None:
    """Write the page. RunError: the file cannot be written."""
    environment = Environment(
        loader=PackageLoader("entrostat.auditing", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "share": share, "interval": interval, "visible": visible}
    page = environment.get_template("audit.html").render(audit=audit, rates=list(rates(audit)))
    atomic_write(path, page.encode("utf-8", "backslashreplace"))


def rates(audit: Audit) -> Iterator[tuple[str, Rate]]:
    """The two rates, then those of the families in which something was judged wrongly."""
    yield "false positives", audit.false_positive
    yield "false negatives", audit.false_negative
    yield from ((family, rate) for family, rate in audit.families.items() if rate.count)


def figure(value: float | None) -> str:
    """A number in short, - for none."""
    return "-" if value is None else f"{value:.4g}"


def share(rate: Rate) -> str:
    """The share in per cent."""
    return "-" if rate.share is None else f"{rate.share:.1%}"


def interval(rate: Rate) -> str:
    """The interval in per cent."""
    return "-" if rate.low is None or rate.high is None else f"[{rate.low:.1%}, {rate.high:.1%}]"


def visible(text: str) -> str:
    """Text whose invisible characters are shown by their number, line feeds and tabs kept."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\u{{{ord(c):x}}}" for c in text)
