from __future__ import annotations

import ast
import gc
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from entrostat.tasks.task import syntax_tree

NESTED = ("x = " + "(" * 30 + "1" + " + 1)" * 30 + "\n") * 3


@pytest.fixture
def eager_switches():
    """Threads take turns in the middle of a parse: the collector runs often, and runs Python."""
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()

    def busy(*_):
        for _ in range(200):
            pass

    sys.setswitchinterval(1e-6)
    gc.set_threshold(50)
    gc.callbacks.append(busy)
    yield
    gc.callbacks.remove(busy)
    gc.set_threshold(*threshold)
    sys.setswitchinterval(interval)


def test_threads_may_parse_at_the_same_time(eager_switches):
    with ThreadPoolExecutor(4) as pool:
        trees = list(pool.map(syntax_tree, [NESTED] * 60))
    assert {ast.dump(tree) for tree in trees} == {ast.dump(ast.parse(NESTED))}


def test_a_parse_that_another_library_disturbed_is_tried_again(monkeypatch):
    parse, calls = ast.parse, []

    def disturbed(source):
        calls.append(source)
        if len(calls) < 3:
            raise SystemError("AST constructor recursion depth mismatch (before=42, after=36)")
        return parse(source)

    monkeypatch.setattr(ast, "parse", disturbed)
    assert ast.dump(syntax_tree("x = 1")) == ast.dump(parse("x = 1"))
    assert len(calls) == 3


@pytest.mark.parametrize("source", ["def", "\0", "(" * 5000, "x\ud800"], ids=["syntax", "null", "deep", "surrogate"])
def test_what_is_no_python_source_is_a_syntax_error(source: str):
    with pytest.raises(SyntaxError):
        syntax_tree(source)
