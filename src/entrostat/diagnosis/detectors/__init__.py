"""The detectors, one file per subject. A new one is one file here with one decorated class.

A detector of your own, in any package: `my_package.module:MyDetector`, wherever a detector's name is accepted.
"""

from __future__ import annotations

from collections.abc import Sequence

from entrostat.diagnosis.detectors.detector import Detector, detector, registry

DETECTORS: tuple[Detector, ...] = tuple(make() for make in registry.values())
"""Those that every log goes through."""


def detectors_named(names: Sequence[str]) -> tuple[Detector, ...]:
    """All of ours, and those of other packages: names of entry points, or `my_package.module:Name`.

    ValueError: a name that no detector has, or that makes something else.
    """
    more = [registry.made(name, registry.find(name)()) for name in names if name not in registry]
    return (*DETECTORS, *more)


__all__ = ["DETECTORS", "Detector", "detector", "detectors_named", "registry"]
