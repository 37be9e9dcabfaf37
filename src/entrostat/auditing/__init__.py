"""A reward function under attack: what it rewards that is wrong, what it refuses that is right, and how it behaves."""

from entrostat.auditing.attempts import Rate
from entrostat.auditing.audit import Audit, Evidence, Finding, audit
from entrostat.auditing.examples import BUILT_IN, AuditError, Example, read_completions, read_examples
from entrostat.auditing.page import write_page

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
