"""What a detector is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from entrostat.diagnose.finding import Finding
from entrostat.diagnose.history import History


@dataclass(frozen=True, kw_only=True)
class Detector(ABC):
    """A failure, and how it shows in a run's history.

    A detector is a pure function of the history: it remembers nothing, so that a log read afterwards and a run watched
    live get the same answers. kind: the failure's name. columns: the quantities that it reads; it is asked when one of
    them has a new value.
    confirm: how many times in a row it must find its failure before that is reported, so that one odd value is none.
    """

    kind: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    confirm: int = 3

    @abstractmethod
    def find(self, history: History, end: int) -> Finding | None:
        """The failure, if the history shows it at its last row; end: the last step that the run will take."""
