"""What a detector is, and how one gets its name.

A detector of one's own is one class; `pace.py` is a short one to copy. The quantities that it may read, such as
`entropy` or `reward`, are the names in `entrostat.runs.metrics`.

    @detector("entropy-at-zero")
    @dataclass(frozen=True, kw_only=True)
    class EntropyAtZero(Detector):
        columns: ClassVar = ("entropy",)

        def find(self, history, end):
            series = history.series("entropy")
            if not len(series) or series.values[-1] > 0.001:
                return None
            return Finding(kind=self.kind, severity="critical", step=history.step, onset=history.step,
                           summary="The entropy is zero.", evidence={"entropy": series.values[-1]},
                           columns=self.columns)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from entrostat.diagnosis.history import History
from entrostat.registry import Registry
from entrostat.runs.finding import Finding


@dataclass(frozen=True, kw_only=True)
class Detector(ABC):
    """A failure, and how it shows in a run's history.

    A detector is a pure function of the history: it remembers nothing, so that a log read afterwards and a run watched
    live get the same answers. kind: the failure's name. columns: the quantities that it reads; it is asked when one of
    them has a new value.
    confirm: how many times in a row it must find its failure before that is reported, so that one odd value is none.
    release: how many times in a row it must not show before it is over.
    """

    kind: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    confirm: int = 3
    release: int = 3

    @abstractmethod
    def find(self, history: History, end: int) -> Finding | None:
        """The failure, if the history shows it at its last row; end: the last step that the run will take."""

    def believed(self, finding: Finding, since: int, looks: int) -> bool:  # noqa: ARG002
        """Whether a failure that has shown at the last `looks` looks, since the step `since`, is more than a suspicion.

        A suspicion is reported as a note. A detector whose failures often come to nothing overrides it.
        """
        return True

    def persists(self, history: History, finding: Finding) -> bool:  # noqa: ARG002
        """Whether a failure that was reported as `finding` still holds, though `find` would not report it anew.

        A detector whose `find` compares with a reference that moves overrides it.
        """
        return False


registry: Registry[Detector] = Registry("detector", Detector, "entrostat.diagnosis.detectors")

Own = TypeVar("Own", bound=type[Detector])


def detector(kind: str) -> Callable[[Own], Own]:
    """A decorator that gives a detector the name of its failure, and adds it to those that every log goes through."""

    def add(method: Own) -> Own:
        method.kind = kind
        return registry(kind)(method)

    return add
