"""Import paths of the package `entrostat.diagnosis` under its old name, for one release.

`entrostat.diagnose` is the function. What was imported from below that name is the same module as before, with a
DeprecationWarning; the module here stands in the function's place once somebody does so, and can be called like it.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import entrostat.diagnosis

_OLD, _NEW = "entrostat.diagnose", "entrostat.diagnosis"
_MOVED = {".finding": "entrostat.runs.finding"}
__path__: list[str] = []  # makes Python look for modules below this name, which _OldNames answers


def _warn(name: str) -> None:
    warnings.warn(f"{_OLD}{name} is now {_NEW}{name}; the old name goes in 0.2", DeprecationWarning, stacklevel=3)


class _OldNames(MetaPathFinder, Loader):
    """Finds entrostat.diagnose.X and gives the module entrostat.diagnosis.X."""

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname.startswith(f"{_OLD}.") else None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__.removeprefix(_OLD)
        _warn(name)
        sys.modules[module.__name__] = import_module(_MOVED.get(name, f"{_NEW}{name}"))


class _Callable(ModuleType):
    def __call__(self, *args: Any, **settings: Any) -> Any:
        return entrostat.diagnosis.diagnose(*args, **settings)


def __getattr__(name: str) -> Any:
    if name in entrostat.diagnosis.__all__:
        return getattr(entrostat.diagnosis, name)
    raise AttributeError(f"module {_OLD!r} has no attribute {name!r}")


_warn("")
sys.meta_path.insert(0, _OldNames())  # before the finder of files, which would load a second copy
sys.modules[__name__].__class__ = _Callable
