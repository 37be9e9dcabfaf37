"""The detectors, a file a subject."""

from entrostat.diagnose.detectors.clipping import ClipSaturation
from entrostat.diagnose.detectors.detector import Detector
from entrostat.diagnose.detectors.entropy import EntropyCollapse, EntropyExplosion
from entrostat.diagnose.detectors.finite import NotFinite
from entrostat.diagnose.detectors.gradient import GradientFade
from entrostat.diagnose.detectors.groups import DegenerateGroups
from entrostat.diagnose.detectors.kl import KlRunaway
from entrostat.diagnose.detectors.length import LengthDegeneration, Truncation
from entrostat.diagnose.detectors.performance import Divergence, RiseThenFall

DETECTORS: tuple[Detector, ...] = (
    NotFinite(),
    EntropyCollapse(),
    EntropyExplosion(),
    RiseThenFall(),
    Divergence(),
    DegenerateGroups(),
    ClipSaturation(),
    Truncation(),
    LengthDegeneration(),
    KlRunaway(),
    GradientFade(),
)

__all__ = [
    "DETECTORS",
    "ClipSaturation",
    "DegenerateGroups",
    "Detector",
    "Divergence",
    "EntropyCollapse",
    "EntropyExplosion",
    "GradientFade",
    "KlRunaway",
    "LengthDegeneration",
    "NotFinite",
    "RiseThenFall",
    "Truncation",
]
