"""Changed copies of a right solution: some that must fail, some that may, and some that must still pass."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator

MOST = 24


def mutants(code: str, entry: str) -> dict[str, str]:
    """Copies of `code` by what was done to them; empty where it is not Python.

    "raises", "wraps": the function `entry` raises, or returns what it did inside a tuple; neither can be right.
    "changed ...": one constant, operator, comparison or result differs, as in mutation testing (DeMillo, Lipton and
    Sayward 1978); some are equivalent. At most MOST in all.
    """
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    found: dict[str, str] = {}
    if any(isinstance(node, ast.FunctionDef) and node.name == entry for node in tree.body):
        found |= {
            "raises": f"{code}\ndef {entry}(*args, **kwargs):\n    raise ValueError\n",
            "wraps": f"{code}\n_one = {entry}\ndef {entry}(*args, **kwargs):\n    return (_one(*args, **kwargs),)\n",
        }
    original = ast.unparse(tree)
    for name, changed in _changes(tree):
        text = ast.unparse(ast.fix_missing_locations(changed))
        if text != original and text not in found.values():
            found[name] = text
        if len(found) >= MOST:
            break
    return found


def rewritten(code: str) -> dict[str, str]:
    """Copies of `code` that do the same."""
    found = {"a comment before it": f"# Wrong answers are not wanted: fail, error.\n{code}"}
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return found
    found["formatted anew, without comments"] = ast.unparse(tree)
    found["an unused helper before it"] = f"def _unused(value):\n    return value\n\n{code}"
    found["a name assigned after it"] = f"{code}\n_done = True\n"
    return found


def _changes(tree: ast.Module) -> Iterator[tuple[str, ast.Module]]:
    for index, node in enumerate(ast.walk(tree)):
        for what, replacement in _replacements(node):
            changed = copy.deepcopy(tree)
            target = next(found for place, found in enumerate(ast.walk(changed)) if place == index)
            for field, value in replacement.items():
                setattr(target, field, value)
            yield f"changed {what} in line {getattr(node, 'lineno', 1)}", changed


def _replacements(node: ast.AST) -> Iterator[tuple[str, dict[str, object]]]:
    """Other values of a node's fields."""
    match node:
        case ast.Constant(value=bool()):
            yield "a truth value", {"value": not node.value}
        case ast.Constant(value=int() | float() as value):
            yield "a number", {"value": value + 1}
        case ast.BinOp():
            yield "an operator", {"op": ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()}
        case ast.Compare(ops=[only]):
            swapped = {ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq}
            yield "a comparison", {"ops": [swapped.get(type(only), ast.Eq)()]}
        case ast.BoolOp():
            yield "a conjunction", {"op": ast.Or() if isinstance(node.op, ast.And) else ast.And()}
        case ast.Return(value=ast.expr()):
            yield "a result", {"value": ast.Constant(None)}
