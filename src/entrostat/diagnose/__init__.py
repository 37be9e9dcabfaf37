"""What is wrong with a run, and what to change: readers of logs, detectors, the watchdog."""

from entrostat.diagnose.acting import KINDS, Acting, Action
from entrostat.diagnose.columns import QUANTITIES, Quantity, recognise_row
from entrostat.diagnose.detectors import DETECTORS, Detector
from entrostat.diagnose.diagnosis import Diagnosis, diagnose
from entrostat.diagnose.finding import SEVERITIES, Finding, Remedy, Severity
from entrostat.diagnose.history import History, Series
from entrostat.diagnose.reading import Log, LogError, read_log
from entrostat.diagnose.watchdog import Watchdog

__all__ = [
    "DETECTORS",
    "KINDS",
    "QUANTITIES",
    "SEVERITIES",
    "Acting",
    "Action",
    "Detector",
    "Diagnosis",
    "Finding",
    "History",
    "Log",
    "LogError",
    "Quantity",
    "Remedy",
    "Series",
    "Severity",
    "Watchdog",
    "diagnose",
    "read_log",
    "recognise_row",
]
