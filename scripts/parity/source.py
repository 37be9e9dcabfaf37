"""A host's own functions, pulled out of its checkout by `ast`, without installing or importing the host."""

from __future__ import annotations
import __future__

import ast
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

GIVEN = {"torch": torch, "nn": torch.nn, "F": torch.nn.functional, "dist": torch.distributed}


def pull(file: Path, names: str, into: str, **given: Any) -> ModuleType:
    """The module `into`, installed with its parents, that holds the definitions `names` (blank-separated) of a file.

    Decorators are dropped, except those of dataclasses; imports are replaced by `given`. Raises KeyError for a name
    that the file does not define, so that a host's rename is seen.
    """
    wanted, kept, found = set(names.split()), [], set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        defined = wanted & _names(node)
        if defined:
            decorators = getattr(node, "decorator_list", [])
            node.decorator_list = [one for one in decorators if "dataclass" in ast.unparse(one)]  # type: ignore[attr-defined]
            kept.append(node)
            found |= defined
    if missing := wanted - found:
        raise KeyError(f"{file} does not define {', '.join(sorted(missing))}")
    module = install(into, **{**GIVEN, **given})
    code = compile(
        ast.Module(kept, []), str(file), "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True
    )
    exec(code, vars(module))
    return module


def _names(node: ast.stmt) -> set[str]:
    """What a statement at the top of a file defines."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    named = [getattr(node, "name", None), *(getattr(target, "id", None) for target in targets)]
    return {name for name in named if name}


def install(name: str, **attributes: Any) -> ModuleType:
    """A module of that name in sys.modules, with its parents."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        path = ".".join(parts[:end])
        if path not in sys.modules:
            sys.modules[path] = ModuleType(path)
            if end > 1:
                setattr(sys.modules[".".join(parts[: end - 1])], parts[end - 1], sys.modules[path])
    vars(sys.modules[name]).update(attributes)
    return sys.modules[name]


def absent(source: Path, touched: dict[str, tuple[str, ...]]) -> list[str]:
    """What an adapter touches of a host besides its loss, and the checkout does not have.

    touched: file of the checkout -> pieces of its code, as `ast.unparse` writes them.
    """
    found = []
    for name, pieces in touched.items():
        file = source / name
        code = ast.unparse(ast.parse(file.read_text(encoding="utf-8"))) if file.exists() else ""
        found += [f"{name}: {piece}" for piece in pieces if piece not in code]
    return found
