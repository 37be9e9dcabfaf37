"""A diagnosis as one HTML page: no scripts, no network, light and dark."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from entrostat.diagnosis.columns import QUANTITIES
from entrostat.diagnosis.diagnosis import Diagnosis
from entrostat.diagnosis.figures import draw_finding
from entrostat.diagnosis.hosts import HOSTS, as_text, host_of, shown_hosts
from entrostat.report.style import PALETTE, svg
from entrostat.runs import atomic_write


def write_page(diagnosis: Diagnosis, out: str | Path) -> Path:
    """Write the page about a diagnosis to the file `out`, and return it. RunError: it cannot be written.

    Text from logs is escaped, and the page allows neither scripts nor connections.
    """
    environment = Environment(
        loader=PackageLoader("entrostat.diagnosis", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["settings"] = as_text
    environment.filters["sentence"] = lambda text: text[:1].upper() + text[1:]
    environment.filters["figure"] = lambda value: f"{value:.4g}"
    page = environment.get_template("diagnosis.html").render(
        diagnosis=diagnosis,
        palette=PALETTE,
        quantities=QUANTITIES,
        hosts=HOSTS,
        shown_hosts=shown_hosts(host_of(name for own in diagnosis.log.used.values() for name in own)),
        drawings={
            finding.kind: svg(draw_finding(finding, diagnosis.watchdog.history), finding.kind)
            for finding in diagnosis.findings
        },
    )
    place = Path(out)
    atomic_write(place, page.encode("utf-8", "backslashreplace"))
    return place
