"""What is wrong with a run, and what to change: readers of logs, detectors, the watchdog."""

from entrostat.diagnosis.columns import QUANTITIES, Quantity, recognise_row
from entrostat.diagnosis.detectors import DETECTORS, Detector
from entrostat.diagnosis.diagnosis import Diagnosis, diagnose
from entrostat.diagnosis.history import History, Series
from entrostat.diagnosis.reading import Log, LogError, read_log
from entrostat.diagnosis.watchdog import KINDS, Acting, Action, Watchdog
from entrostat.runs.finding import SEVERITIES, Finding, Remedy, Severity

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
