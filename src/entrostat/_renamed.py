"""Old import paths, for one release: each gives the module of its new path, with a DeprecationWarning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
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
_MERGED = {  # package: modules that went into others, each with the one that has its contents now
    "auditing": "answers>answer_attacks audit>findings forms>attempts mutants>code_attacks page>findings "
    "rates>attempts",
    "campaign": "continued>single kept>checkpoints",
    "cli": "exporting>reporting",
    "control": "piecewise>strategies",
    "engine": "checkpoint>..campaign.checkpoints estimate>study extension>train generate>completions graded>rollout "
    "keeper>..campaign.checkpoints quiet>train rewards>local rounding>change samples>evaluate "
    "score_fields>sampler_logprobs score_file>scoring score_summary>scoring seeds>rollout token_record>evaluate "
    "watch>watchdog",
    "entropy": "regions>polarity rules>flow",
    "grading": "maths>answers outputs>judging post>remote puzzles>answers secret>worker slot>code",
    "integrations": "trl_checks>trl.checks trl_sampler>trl.resuming verl.beside_trl>verl",
    "recipe": "building>recipe combinations>recipe purposes>reference study>loading",
    "report": "browser>samples comparison>html drawing>panel overview>figures speed>reading study_figures>study "
    "thinning>panel tokens>samples",
    "runs": "export>..report.card notebook>html trajectory>collapse",
    "tasks": "assertions>sources evalplus>contests formats>task syntax>task",
    "tokens": "entropy_bounds>topk head>chunks shard>partial",
}


def _paths(package: str, modules: str) -> dict[str, str]:
    """Old path -> new path; a name that begins with `..` is of another package."""
    pairs = (pair.split(">") for pair in modules.split())
    return {
        f"entrostat.{package}.{old}": f"entrostat.{new[2:]}" if new.startswith("..") else f"entrostat.{package}.{new}"
        for old, new in pairs
    }


NEW_PATHS = {
    "entrostat.control.masking": "entrostat.control",
    "entrostat.control.rivals": "entrostat.control",
    "entrostat.diagnose.acting": "entrostat.diagnosis.watchdog",
    "entrostat.diagnose.detectors.finite": "entrostat.diagnosis.detectors.gradient",
    "entrostat.diagnose.figures": "entrostat.diagnosis.page",
    **{old: new for package, modules in _MERGED.items() for old, new in _paths(package, modules).items()},
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
        if not fullname.startswith("entrostat."):
            return None
        return None if current_name(fullname) == fullname else ModuleSpec(fullname, self)  # type: ignore[arg-type]

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__
        new = import_module(_warned(old))
        parent, _, name = old.rpartition(".")
        function = getattr(sys.modules[parent], name, None)
        sys.modules[old] = _Function(old, new, function) if callable(function) else new

    def get_code(self, fullname: str) -> CodeType | None:
        """For `python -m`."""
        spec = find_spec(name := _warned(fullname))
        code = getattr(spec.loader, "get_code", None) if spec else None
        return code(name) if code else None

    def get_source(self, fullname: str) -> None:
        """Tracebacks show the lines of the new path."""


class _Function(ModuleType):
    """A module whose old path is the name of a function, as `entrostat.diagnose` is; it takes the function's place."""

    def __init__(self, name: str, module: ModuleType, function: Callable[..., Any]) -> None:
        super().__init__(name, module.__doc__)
        self._module, self._function = module, function
        self.__path__: list[str] = []  # makes Python ask _Finder for the modules below this name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def __call__(self, *args: Any, **settings: Any) -> Any:
        return self._function(*args, **settings)


def moved_names(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` for a module some of whose names are elsewhere now: name -> its module."""

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        _warn(f"{module}.{name}", f"{homes[name]}.{name}", 3)
        return getattr(import_module(homes[name]), name)

    return find


def _warned(old: str) -> str:
    new = current_name(old)
    _warn(old, new, 4)
    return new


def _warn(old: str, new: str, level: int) -> None:
    warnings.warn(f"{old} is now {new}; the old path goes in 0.2", DeprecationWarning, stacklevel=level)


def install() -> None:
    """Let Python find the old paths, before it looks for files: a file would be loaded a second time."""
    sys.meta_path.insert(0, _Finder())
