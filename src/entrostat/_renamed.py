"""Old import paths, for one release: each gives the module of its new path, with a DeprecationWarning."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import CodeType, ModuleType
from typing import Any

_HOSTS = {
    "losses": "areal miles nemo_rl openrlhf prime_rl roll skyrl slime steering",
    "trl": "trl_engine trl_recipe trl_tasks trl_trainer trl_watchdog",
    "verl": "verl_campaign verl_engine verl_loss verl_plugin verl_trainer verl_watchdog verl_worker",
}
NEW_PATHS = {
    "entrostat.strategies": "entrostat.control",
    "entrostat.advantages": "entrostat.objective.advantages",
    "entrostat.diagnose.finding": "entrostat.runs.finding",
    "entrostat.diagnose": "entrostat.diagnosis",
    **{
        f"entrostat.integrations.{old}": f"entrostat.integrations.{folder}.{old.removeprefix(f'{folder}_')}"
        for folder, names in _HOSTS.items()
        for old in names.split()
    },
}


def current_name(path: str) -> str:
    """The dotted path of a module, or of something in it, as it is written now."""
    old = next((old for old in NEW_PATHS if path == old or path.startswith(f"{old}.")), None)
    return path if old is None else NEW_PATHS[old] + path.removeprefix(old)


class _Finder:
    """Finds a module by its old path and gives the one of the new path.

    A finder and a loader of `importlib.abc`, whose import would take a tenth of the time of a command's error.
    """

    def create_module(self, _: ModuleSpec) -> None:
        """The usual kind of module."""

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        return None if current_name(fullname) == fullname else ModuleSpec(fullname, self)  # type: ignore[arg-type]

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__
        new = import_module(_warned(old))
        sys.modules[old] = _Function(old, new) if old == "entrostat.diagnose" else new

    def get_code(self, fullname: str) -> CodeType | None:
        """For `python -m`."""
        spec = find_spec(name := _warned(fullname))
        code = getattr(spec.loader, "get_code", None) if spec else None
        return code(name) if code else None

    def get_source(self, fullname: str) -> None:
        """Tracebacks show the lines of the new path."""


class _Function(ModuleType):
    """The package `entrostat.diagnosis` under the name of the function `entrostat.diagnose`, whose place it takes."""

    def __init__(self, name: str, package: ModuleType) -> None:
        super().__init__(name, package.__doc__)
        self._package = package
        self.__path__: list[str] = []  # makes Python ask _Finder for the modules below this name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._package, name)

    def __call__(self, *args: Any, **settings: Any) -> Any:
        return self._package.diagnose(*args, **settings)


def _warned(old: str) -> str:
    new = current_name(old)
    warnings.warn(f"{old} is now {new}; the old path goes in 0.2", DeprecationWarning, stacklevel=3)
    return new


def install() -> None:
    """Let Python find the old paths, before it looks for files: a file would be loaded a second time."""
    sys.meta_path.insert(0, _Finder())
