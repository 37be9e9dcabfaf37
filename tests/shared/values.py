"""The dataclasses of a package, for tests of what is common to all of them."""

import dataclasses
import importlib
import inspect
import pkgutil


def dataclasses_of(name: str) -> list[type]:
    """Every dataclass that a module of the package defines."""
    package = importlib.import_module(name)
    modules = [importlib.import_module(f"{name}.{each.name}") for each in pkgutil.iter_modules(package.__path__)]
    classes = [
        kind
        for module in modules
        for kind in vars(module).values()
        if inspect.isclass(kind) and dataclasses.is_dataclass(kind) and kind.__module__ == module.__name__
    ]
    return sorted(classes, key=lambda kind: kind.__qualname__)
