"""Methods by name: our own by a decorator, those of other packages by entry point or by `my_package.module:Name`.

    clip_rule = Registry("clip rule", ClipBand, "entrostat.objective")

    @clip_rule("dppo")
    class DppoClip(ClipBand): ...

    clip_rule.find("dppo")                      ours: every module of the package entrostat.objective is read for them
    clip_rule.find("mine")                      an entry point `mine = "my_package.bands:Mine"` of `entrostat.methods`
    clip_rule.find("my_package.bands:Mine")     any importable class or function

A new method is one new file with one decorator: no list of names has to be edited. A name is a reference to code, which
is imported when the name is looked up, so take recipes from people whose code you would run.
"""

from __future__ import annotations

import difflib
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from entrostat.errors import EntrostatError

T = TypeVar("T")
Added = TypeVar("Added", bound=Callable[..., Any])

GROUP = "entrostat.methods"
_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class UnknownMethodError(EntrostatError, ValueError):
    """A name that no method has, or one that names two; the message lists what there is."""


class Registry(Mapping[str, Callable[..., T]], Generic[T]):
    """The methods of one kind, as a mapping from our own names; `find` knows those of other packages too.

    kind: what a message calls them. makes: what each of them returns when it is called. homes: packages whose modules
    are imported before the first look-up, so that their decorators have run. group: the group of entry points.
    """

    def __init__(self, kind: str, makes: type, *homes: str, group: str = GROUP) -> None:
        self.kind, self.makes, self.homes, self.group = kind, makes, homes, group
        self._own: dict[str, Callable[..., T]] = {}
        self._read = False

    def __call__(self, name: str, **preset: Any) -> Callable[[Added], Added]:
        """A decorator that gives a class or function its name; `preset` are arguments that the name fixes.

        Raises ValueError for a name that is taken.
        """

        def add(method: Added) -> Added:
            taken = self._own.get(name)
            if taken is not None and _path(taken) != _path(method):
                raise ValueError(f"{self.kind} {name!r} is both {_path(taken)} and {_path(method)}; rename one")
            self._own[name] = partial(method, **preset) if preset else method
            return method

        return add

    def find(self, name: str) -> Callable[..., T]:
        """The method of a name. Raises UnknownMethodError, and ValueError where its module cannot be imported."""
        if _REFERENCE.fullmatch(name):
            return self._referenced(name)
        others = [point for point in self._points() if point.name == name]
        if name in self and others and others[0].value.replace(":", ".") != _path(self[name]):
            raise UnknownMethodError(
                f"{name!r} is a {self.kind} of entrostat and of {_package(others[0])}; write {others[0].value!r} for "
                "the latter"
            )
        if name in self:
            return self[name]
        if others:
            return self._loaded(others[0])
        raise UnknownMethodError(self._unknown(name))

    def knows(self, name: str) -> bool:
        """Whether `find` has a method of this name, or would import one."""
        named = {*self, *(point.name for point in self._points())}
        return name in named or _REFERENCE.fullmatch(name) is not None

    def made(self, name: str, method: T) -> T:
        """The method as it is if it is of this kind. Raises ValueError otherwise."""
        if not isinstance(method, self.makes):
            raise ValueError(
                f"{name!r} makes a {type(method).__name__}, which is no {self.kind}; give one that makes a "
                f"{self.makes.__name__} ({self.makes.__module__})"
            )
        return method

    def __getitem__(self, name: str) -> Callable[..., T]:
        self._read_homes()
        return self._own[name]

    def __iter__(self) -> Iterator[str]:
        """By module, and as a module defines them: the same order whatever was imported first."""
        self._read_homes()
        return iter(sorted(self._own, key=lambda name: _made_by(self._own[name]).__module__))

    def __len__(self) -> int:
        self._read_homes()
        return len(self._own)

    def _points(self) -> tuple[EntryPoint, ...]:
        return _read_points(entry_points, self.group)

    def _read_homes(self) -> None:
        if self._read:
            return
        self._read = True
        for home in self.homes:
            package = import_module(home)
            for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
                import_module(f"{home}.{module.name}")

    def _referenced(self, reference: str) -> Callable[..., T]:
        module, _, name = reference.partition(":")
        try:
            found: Any = import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except ImportError as error:
            raise UnknownMethodError(
                f"{reference!r} cannot be imported ({error}); install its package, or put its folder on PYTHONPATH"
            ) from error
        except AttributeError as error:
            raise UnknownMethodError(f"{reference!r}: {error}; give MODULE:NAME of a {self.kind}") from error
        if not callable(found):
            raise UnknownMethodError(f"{reference!r} is a {type(found).__name__}; give a class or function")
        method: Callable[..., T] = found
        return method

    def _loaded(self, point: EntryPoint) -> Callable[..., T]:
        try:
            method: Callable[..., T] = point.load()
        except (ImportError, AttributeError) as error:
            extras = point.dist.metadata.get_all("Provides-Extra", []) if point.dist else []
            needed = (
                f"pip install '{_package(point)}[{point.name}]'" if point.name in extras else "install what it needs"
            )
            raise UnknownMethodError(
                f"{point.name!r} of {_package(point)} cannot be imported ({error}); {needed}"
            ) from error
        return method

    def _unknown(self, name: str) -> str:
        names = sorted({*self, *(point.name for point in self._points())})
        close = difflib.get_close_matches(name, names, 1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        return f"{name!r} is no {self.kind}; {meant}choose one of {', '.join(names)}, or give MODULE:NAME of your own"


@cache
def _read_points(read: Callable[..., Iterable[EntryPoint]], group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group, read once per process: reading opens the metadata of every installed package."""
    return tuple(read(group=group))


def _made_by(method: Any) -> Any:
    return method.func if isinstance(method, partial) else method


def _path(method: Any) -> str:
    inner = _made_by(method)
    return f"{inner.__module__}.{inner.__qualname__}"


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value.partition(".")[0]
