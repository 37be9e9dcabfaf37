"""Other trainers under an entropy controller, in folders by kind; a host is imported by name, so none needs another.

    trl/, verl/   the controller, campaigns and the watchdog in TRL and verl
    losses/       the losses of further trainers, steered
    trackers      TensorBoard, Weights & Biases, MLflow, Comet, Aim, SwanLab, trackio

A module's path from before there were folders is the same module, with a DeprecationWarning, for one release.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import CodeType, ModuleType

_MOVED = {
    "losses": "areal miles nemo_rl openrlhf prime_rl roll skyrl slime steering",
    "trl": "trl_engine trl_recipe trl_tasks trl_trainer trl_watchdog",
    "verl": "verl_campaign verl_engine verl_loss verl_plugin verl_trainer verl_watchdog verl_worker",
}
_NEW_NAMES = {
    f"{__name__}.{old}": f"{__name__}.{folder}.{old.removeprefix(f'{folder}_')}"
    for folder, names in _MOVED.items()
    for old in names.split()
}


def current_name(path: str) -> str:
    """The dotted path of a module here, or of something in it, as it is written now."""
    old = next((old for old in _NEW_NAMES if path == old or path.startswith(f"{old}.")), None)
    return path if old is None else _NEW_NAMES[old] + path.removeprefix(old)


class _OldNames(MetaPathFinder, InspectLoader):
    """Finds a module by its old path and gives the one of the new path."""

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in _NEW_NAMES else None

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = import_module(_warned(module.__name__))

    def get_code(self, fullname: str) -> CodeType | None:
        """For `python -m`."""
        spec = find_spec(name := _warned(fullname))
        return spec.loader.get_code(name) if spec and isinstance(spec.loader, InspectLoader) else None

    def get_source(self, fullname: str) -> None:
        """Tracebacks show the lines of the new path."""


def _warned(old: str) -> str:
    warnings.warn(f"{old} is now {_NEW_NAMES[old]}; the old path goes in 0.2", DeprecationWarning, stacklevel=4)
    return _NEW_NAMES[old]


sys.meta_path.append(_OldNames())
