"""EvalPlus's own files (Liu et al., arXiv 2305.01210) and BigCodeBench (Zhuo et al., arXiv 2406.15877) as scripts.

EvalPlus's HumanEvalPlus.jsonl.gz and MbppPlus.jsonl.gz hold inputs and a reference solution, and no answers: the
script computes them by the reference, in the sandbox, and compares as EvalPlus does (equal; floats within atol, 1e-6
where the record says 0, and rtol 1e-7). Departures: EvalPlus's special comparisons of single MBPP tasks, and its
conversion of some of MBPP's inputs to tuples, are not carried; `entrostat tasks check` names tasks whose reference
then fails.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from entrostat.tasks.formats import ScriptTask
from entrostat.tasks.records import Published

_COMPARISON = """
import copy, math

def _floats(value):
    return isinstance(value, float) or (
        isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, float) for item in value))

def _close(given, wanted, atol):
    if isinstance(wanted, (list, tuple)):
        return (type(given) is type(wanted) and len(given) == len(wanted)
                and all(_close(g, w, atol) for g, w in zip(given, wanted)))
    try:
        return given == wanted or abs(given - wanted) <= atol + 1e-7 * abs(wanted)
    except TypeError:
        return False

def _same(given, wanted, atol):
    if atol == 0 and _floats(wanted):
        atol = 1e-6
    return given == wanted or (atol != 0 and _close(given, wanted, atol))
"""


class EvalPlusRecord(Published):
    """A record of HumanEvalPlus.jsonl.gz or MbppPlus.jsonl.gz."""

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    base_input: list[Any]
    plus_input: list[Any] | dict[str, Any] = Field([])
    atol: float | int = 0

    def task(self) -> ScriptTask:
        """The task whose assertions compare with the reference solution."""
        solution = self.prompt + self.canonical_solution
        extra = self.plus_input if isinstance(self.plus_input, list) else []
        script = (
            f"{_COMPARISON}\n_scope = {{}}\nexec({solution!r}, _scope)\n"
            f"for _arguments in {[*self.base_input, *extra]!r}:\n"
            f"    _wanted = _scope[{self.entry_point!r}](*copy.deepcopy(_arguments))\n"
            f"    assert _same(candidate(*_arguments), _wanted, {self.atol!r})\n"
        )
        # MBPP's prompt is a docstring alone, HumanEval's the beginning of the function.
        preamble = self.prompt if f"def {self.entry_point}" in self.prompt else ""
        return ScriptTask(self.task_id, self.prompt, self.entry_point, script, preamble, reference=solution)


class BigCodeBenchRecord(Published):
    """A record of BigCodeBench."""

    task_id: str
    complete_prompt: str
    entry_point: str
    test: str
    canonical_solution: str = ""
    code_prompt: str = ""

    def task(self) -> ScriptTask:
        """The task whose assertions are the record's class of unit tests.

        The tests call the function through the grader, so what it takes and returns must be plain data: `entrostat
        tasks check` names the tasks of which that is not so.
        """
        script = (
            f"import unittest\n{self.test}\n"
            "_tests = unittest.defaultTestLoader.loadTestsFromTestCase(TestCases)\n"
            "_found = unittest.TestResult()\n_tests.run(_found)\n"
            "_faults = _found.failures + _found.errors + [(_, 'expected') for _ in _found.unexpectedSuccesses]\n"
            "if _faults or not _found.testsRun:\n"
            "    raise AssertionError(str(_faults[:1] or 'no test')[-300:])\n"
        )
        head = self.code_prompt or self.complete_prompt
        return ScriptTask(
            self.task_id, self.complete_prompt, self.entry_point, script, reference=head + self.canonical_solution
        )
