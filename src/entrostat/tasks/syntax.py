"""Python source as a syntax tree, from any thread."""

from __future__ import annotations

import ast
import threading

_PARSING = threading.Lock()
_TRIES = 20


def syntax_tree(source: str) -> ast.Module:
    """The tree of `ast.parse`. SyntaxError, whatever the reason: it is no Python source.

    CPython before 3.13 counts the depth of a tree once per interpreter, so of two threads that parse at the same
    time one can fail with SystemError. Ours take turns; where a thread of another library was in the way, the tree
    is parsed again.
    """
    for _ in range(_TRIES):
        try:
            with _PARSING:
                return ast.parse(source)
        except SystemError:
            continue
        except (ValueError, RecursionError, MemoryError) as error:
            raise SyntaxError(str(error)) from error
    raise SyntaxError("other threads of this program kept the parser busy")
