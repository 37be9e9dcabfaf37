"""An audit as one HTML page that needs no network and runs no script: completions are hostile and enter it as text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from entrostat.auditing.attempts import Rate
from entrostat.auditing.findings import Audit
from entrostat.runs import atomic_write
from entrostat.runs.html import page_template


def write_page(audit: Audit, path: Path) -> None:
    """Write the page. RunError: the file cannot be written."""
    template = page_template("entrostat.auditing", "audit.html", share=share, interval=interval, visible=visible)
    page = template.render(audit=audit, rates=list(rates(audit)))
    atomic_write(path, page.encode("utf-8", "backslashreplace"))


def rates(audit: Audit) -> Iterator[tuple[str, Rate]]:
    """The two rates, then those of the families in which something was judged wrongly."""
    yield "false positives", audit.false_positive
    yield "false negatives", audit.false_negative
    yield from ((family, rate) for family, rate in audit.families.items() if rate.count)


def share(rate: Rate) -> str:
    """The share in per cent."""
    return "-" if rate.share is None else f"{rate.share:.1%}"


def interval(rate: Rate) -> str:
    """The interval in per cent."""
    return "-" if rate.low is None or rate.high is None else f"[{rate.low:.1%}, {rate.high:.1%}]"


def visible(text: str) -> str:
    """Text whose invisible characters are shown by their number, line feeds and tabs kept."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\u{{{ord(c):x}}}" for c in text)
