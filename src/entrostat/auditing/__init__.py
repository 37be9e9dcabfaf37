"""A reward function under attack: what it rewards that is wrong, what it refuses that is right, and how it behaves.

Its modules are imported when they are used, so that the process of the function does not wait for those of the report.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from entrostat.auditing.attempts import Rate
    from entrostat.auditing.examples import BUILT_IN, AuditError, Example, read_completions, read_examples
    from entrostat.auditing.findings import Audit, Evidence, Finding, audit, write_page

_HOMES = {
    "attempts": "Rate",
    "findings": "Audit Evidence Finding audit write_page",
    "examples": "BUILT_IN AuditError Example read_completions read_examples",
}

__all__ = [
    "BUILT_IN",
    "Audit",
    "AuditError",
    "Evidence",
    "Example",
    "Finding",
    "Rate",
    "audit",
    "read_completions",
    "read_examples",
    "write_page",
]


def __getattr__(name: str) -> Any:
    """One of the names above, from its module (PEP 562)."""
    for module, names in _HOMES.items():
        if name in names.split():
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
