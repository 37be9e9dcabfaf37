"""Assertion scripts, made so that they tell the code under test as little as they can."""

from __future__ import annotations

import ast
import functools

from entrostat.grading.interpreter import NOTE_FAILURE

_MAY_HANDLE = ("Try", "TryStar", "With", "AsyncWith")


@functools.lru_cache(maxsize=4096)
def to_its_end(script: str) -> str:
    """The script, with each assertion that does not hold noted instead of raised, so that the calls after it come.

    A script that may handle exceptions itself (it has a `try` or a `with`), or that does not parse, stays as it is.
    """
    try:
        tree = ast.parse(script)
        if any(type(node).__name__ in _MAY_HANDLE for node in ast.walk(tree)):
            return script
        return ast.unparse(_NoteFailures().visit(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return script


class _NoteFailures(ast.NodeTransformer):
    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        note = ast.Call(ast.Name(NOTE_FAILURE, ast.Load()), [ast.Constant(node.lineno)], [])
        return ast.fix_missing_locations(
            ast.copy_location(ast.If(ast.UnaryOp(ast.Not(), node.test), [ast.Expr(note)], []), node)
        )
