"""Assertions as hidden calls: `assert f(1, [2]) == 3` is the call f(1, [2]) with the expected value 3."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from entrostat.tasks.task import Call


def calls_from_assertions(statements: Iterable[ast.stmt], name: str) -> tuple[Call, ...] | None:
    """The calls of `name` that these statements assert, or None if one of them says anything else.

    Understood are `assert name(literals) == literal` and assertions of a true constant, which say nothing. Everything
    else (loops, helper functions, tolerances, truth values) is left to a script.
    """
    calls = []
    for statement in statements:
        if not isinstance(statement, ast.Assert):
            return None
        if isinstance(statement.test, ast.Constant) and statement.test.value:
            continue
        call = _call(statement.test, name)
        if call is None:
            return None
        calls.append(call)
    return tuple(calls) or None


def _call(test: ast.expr, name: str) -> Call | None:
    match test:
        case ast.Compare(
            left=ast.Call(func=ast.Name(id=called), args=args, keywords=keywords),
            ops=[ast.Eq()],
            comparators=[expected],
        ) if called == name and all(keyword.arg for keyword in keywords):
            try:
                kwargs = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in keywords}
                return Call(tuple(ast.literal_eval(arg) for arg in args), ast.literal_eval(expected), kwargs)
            except ValueError:
                return None
    return None
