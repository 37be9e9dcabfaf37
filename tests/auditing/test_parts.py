"""What the attacks are made of: wrong values are wrong, mutants differ, hosts' calls have what they document."""

from __future__ import annotations

import ast
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as some

from entrostat.auditing.answer_attacks import equal_values, is_number, neighbours, wrong_values
from entrostat.auditing.attempts import rate
from entrostat.auditing.code_attacks import ATTACKS, mutants, rewritten
from entrostat.auditing.examples import BUILT_IN
from entrostat.auditing.signatures import SignatureError, call, detect, faults, number

DOUBLE = "def double(x):\n    if x < 0 and x != -7:\n        return 2 * x\n    return x + x\n"


@given(some.decimals(-(10**6), 10**6, places=2) | some.integers(-(10**9), 10**9))
def test_no_wrong_number_equals_the_answer_and_every_other_notation_does(value):
    answer = format(Decimal(value), "f")
    for wrong in [*wrong_values(answer, ["zebra"]).values(), *neighbours(answer, [])]:
        if is_number(wrong):
            assert Decimal(wrong) != Decimal(answer)
        else:
            assert wrong == "zebra" or eval(wrong) != pytest.approx(float(answer), rel=1e-12, abs=0)
    for same in equal_values(answer).values():
        assert Decimal(same.strip(" *$").replace(",", "").replace("$", "")) == Decimal(answer)


@given(some.text(min_size=1, max_size=20))
def test_no_wrong_text_equals_the_answer(answer):
    assert all(wrong.strip().lower() != answer.strip().lower() for wrong in wrong_values(answer, ["b", "a"]).values())


def test_mutants_are_python_and_differ_and_rewritten_code_does_the_same():
    def answers(code):
        space = {}
        exec(code, space)
        return [space["double"](x) for x in (-7, -1, 0, 3)]

    found = mutants(DOUBLE, "double")
    assert (
        len({ast.unparse(ast.parse(code)) for code in found.values()} | {ast.unparse(ast.parse(DOUBLE))})
        == len(found) + 1
    )
    assert answers(found["wraps"]) == [(-14,), (-2,), (0,), (6,)]
    assert all(answers(code) == answers(DOUBLE) for code in rewritten(DOUBLE).values())
    assert mutants("no python (", "f") == {}


def test_attacks_are_of_families_and_harm_nothing():
    assert len(ATTACKS) > 40
    for code in ATTACKS.values():
        assert not any(word in code for word in ("kill", "fork", "remove", "rmtree", "socket", '"w"'))


@pytest.mark.parametrize(
    ("function", "host"),
    [
        (lambda completions, **kwargs: 0, "trl"),
        (lambda data_source, solution_str, ground_truth, extra_info=None: 0, "verl"),
        (lambda data_sources, solution_strs, ground_truths, extra_infos: 0, "verl-batch"),
        (lambda completion, state: 0, "verifiers"),
        (lambda completions, states: 0, "verifiers-group"),
        (lambda action, observation: 0, "openenv"),
        (lambda response, label: 0, "plain"),
    ],
)
def test_the_host_is_told_from_the_parameters(function, host):
    assert detect(function) == host
    assert not faults(function, host)


def test_a_call_has_what_the_host_documents():
    seen = {}

    def f(**kwargs):
        seen.update(kwargs)
        return [None, True]

    batch = [(example.fields, "text") for example in BUILT_IN[:2]]
    assert call(f, "trl", "chat", batch) == [None, True]
    assert {"prompts", "completions", "completion_ids", "trainer_state", "answer"} <= set(seen)
    assert seen["completions"][1] == [{"role": "assistant", "content": "text"}]
    assert seen["answer"] == [example.answer for example in BUILT_IN[:2]]
    assert [number(value) for value in (None, True)] == [None, 1.0]


@pytest.mark.parametrize("result", [1.0, [1.0], {"score": 1}, "12"])
def test_a_batch_whose_result_is_no_list_of_its_length_is_refused(result):
    with pytest.raises(SignatureError, match="give"):
        call(lambda completions: result, "trl", "plain", [(BUILT_IN[0].fields, "a"), (BUILT_IN[1].fields, "b")])


@pytest.mark.parametrize(
    ("count", "n", "low", "high"), [(0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0), (1, 2, 0.0126, 0.9874)]
)
def test_intervals_are_clopper_and_pearsons(count, n, low, high):
    found = rate(count, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    assert rate(0, 0).low is None
