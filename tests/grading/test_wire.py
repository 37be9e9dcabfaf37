"""Plain data and its text: nothing is lost, nothing is confused, nothing hostile gets in."""

from __future__ import annotations

import math
import socket
import threading
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrostat.grading import wire

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters(exclude_categories=[]))
    | st.binary()
)
HASHABLE = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3), max_leaves=4
)
PLAIN = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.sets(HASHABLE, max_size=3)
    ),
    max_leaves=8,
)


def without_nan(value: object) -> bool:
    return "nan" not in repr(value)


@given(PLAIN)
def test_text_carries_every_value_exactly(value):
    again = wire.decode(wire.encode(value))
    assert type(again) is type(value)
    assert again == value or not without_nan(value)
    assert wire.encode(again) == wire.encode(value)


@given(PLAIN.filter(without_nan), PLAIN.filter(without_nan))
def test_different_values_do_not_match(left, right):
    if left != right:
        assert not wire.matches(wire.encode(left), wire.encode(right))


@given(PLAIN, st.floats(0, 1))
def test_a_value_matches_itself_under_any_tolerance(value, atol):
    text = wire.encode(value)
    assert wire.matches(text, text, atol)
    assert wire.matches(text, text)


@given(st.floats(-1e6, 1e6), st.floats(-1, 1), st.floats(0, 1))
def test_the_tolerance_is_absolute(value, error, atol):
    answer = value + error
    assert wire.matches(wire.encode([value]), wire.encode([answer]), atol) is (abs(value - answer) <= atol)


@given(st.text(max_size=200))
def test_hostile_text_never_matches_and_never_raises(text):
    expected = wire.encode([1, 2.5, {"a": (None,)}])
    assert wire.matches(expected, text, 1e-6) is False


@pytest.mark.parametrize(
    "text",
    [
        "[" * 10**5,
        '{"dict":' * 10**5,
        '{"tuple":5}',
        '{"a":1,"b":2}',
        '{"float":1}',
        "1" * 5000,
        '{"int":5}',
        '{"complex":[1]}',
    ],
)
def test_malformed_text_is_refused(text):
    with pytest.raises((ValueError, RecursionError)):
        wire.decode(text)
    assert not wire.matches(wire.encode([1.0] * 10**5), text, 0.1)


def test_the_work_of_a_comparison_is_bounded_by_the_expected_value():
    answer = "[" + "[]," * 10**6 + "[]]"
    tracemalloc.start()
    try:
        assert not wire.matches("[1.0]", answer, 1e-6)
        assert tracemalloc.get_traced_memory()[1] < 10**5
    finally:
        tracemalloc.stop()


class Number(int):
    pass


@pytest.mark.parametrize(
    "value", [Number(1), object(), [Number(1)], {"a": {Number(2)}}, range(3), iter([]), len, type, ...]
)
def test_what_is_not_plain_is_refused(value):
    with pytest.raises(wire.NotPlainError, match="not plain data"):
        wire.encode(value)


def test_dictionaries_keep_their_order_on_the_wire_and_match_in_any():
    assert list(wire.decode(wire.encode({"b": 1, "a": 2}))) == ["b", "a"]
    left = {"x": [{"b": 0.1, 12: (), 1: None}]}
    right = {"x": [{1: None, "b": 0.3 - 0.2, 12: ()}]}
    assert wire.matches(wire.encode(left), wire.encode(right), 1e-9)
    assert not wire.matches(wire.encode(left), wire.encode(right))
    assert not wire.matches('{"dict":[[1,2]]}', '{"dict":[[1,2],[1,2]]}')
    assert not wire.matches('{"dict":[[1,2]]}', '{"dict":"[[1,2]]"}')


NUMBERS = (
    st.booleans() | st.integers(-4, 4) | st.integers() | st.floats(allow_nan=False) | st.integers(-4, 4).map(float)
)


@given(st.lists(NUMBERS, max_size=4), st.lists(NUMBERS, max_size=4), st.randoms())
def test_sets_and_keys_are_equal_as_python_says(left, right, rng):
    right = rng.choice([right, [rng.choice([float, int, complex])(x) if abs(x) < 9 else x for x in left[::-1]]])
    for make in (set, frozenset, lambda items: dict.fromkeys(items, "v"), lambda items: {(x, "t") for x in items}):
        one, other = make(left), make(right)
        assert wire.matches(wire.encode(one), wire.encode(other), equality="python") is (one == other)


@given(st.lists(NUMBERS, max_size=4))
def test_exact_sets_are_equal_if_their_items_are_of_equal_types(items):
    as_set = set(items)
    floats = {float(x) for x in as_set if abs(x) < 2**53}
    assert wire.matches(wire.encode(as_set), wire.encode({-0.0 if x == 0 and type(x) is float else x for x in as_set}))
    same_types = as_set == floats and all(type(x) is float for x in as_set)
    assert wire.matches(wire.encode(as_set), wire.encode(floats)) is same_types


@given(st.lists(st.floats(-4, 4), min_size=1, max_size=5), st.randoms())
def test_the_tolerance_reaches_into_sets_and_keys(items, rng):
    wanted = {(x, i) for i, x in enumerate(items)}
    near = [(x + rng.uniform(-0.09, 0.09), i) for x, i in wanted]
    rng.shuffle(near)
    assert wire.matches(wire.encode(wanted), wire.encode(set(near)), 0.1)
    assert wire.matches(wire.encode(dict.fromkeys(wanted, 1.0)), wire.encode(dict.fromkeys(near, 1.05)), 0.1)
    far = {(x + 0.2, i) for x, i in wanted}
    assert not wire.matches(wire.encode(wanted), wire.encode(far), 0.1)


def test_items_are_matched_one_to_one():
    assert wire.matches(wire.encode({0.0, 0.6}), wire.encode({0.6, 1.2}), 0.7)
    assert not wire.matches(wire.encode({0.0, 0.1}), wire.encode({0.0, 5.0}), 0.7)
    crossed = {(0.0, 1.0), (0.05, 0.0)}, {(0.06, 1.0), (0.01, 0.0)}
    assert wire.matches(*map(wire.encode, crossed), 0.1)
    assert wire.matches(wire.encode(1 + 2j), wire.encode(1.00001 + 2j), 0.1)


@pytest.mark.parametrize("equality", ["exact", "python"])
def test_hostile_sets_take_no_more_than_their_size(equality):
    """Numbers that share a hash, or that all are near one another, cost no square of their number."""
    modulus = (1 << 61) - 1
    texts = (f'{{"int":"{n * modulus:#x}"}}' for n in range(9, 20_000))  # a set of them would itself take long to make
    colliding = f'{{"set":[{",".join(texts)}]}}'
    close = wire.encode({n * 1e-9 for n in range(20_000)})
    far = wire.encode({n * 1e-9 + 1 for n in range(20_000)})
    calls = 0
    original = wire._same

    def counted(*arguments, **keywords):
        nonlocal calls
        calls += 1
        return original(*arguments, **keywords)

    wire._same = counted
    try:
        assert not wire.matches(colliding.replace("1", "3"), colliding, 1e-6, equality)
        assert not wire.matches(close, far, 1e-6, equality)
    finally:
        wire._same = original
    assert calls < 100_000


def test_depth_is_limited_and_cycles_are_too_deep():
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(wire.NotPlainError, match="deeper than 100"):
        wire.encode(loop)


def test_a_negative_zero_keeps_its_sign_on_the_wire():
    assert math.copysign(1, wire.decode(wire.encode(-0.0))) == -1


@given(st.binary(max_size=300), st.integers(1, 40))
def test_a_frame_arrives_whole_however_it_is_cut(body, cut):
    left, right = socket.socketpair()
    with left, right:
        wire.send(left, b"n" * wire.NONCE_BYTES, body)
        data = right.recv(1 << 16)
        for start in range(0, len(data), cut):
            right.send(data[start : start + cut])
        assert wire.receive(left, 300) == (b"n" * wire.NONCE_BYTES, body)


@pytest.mark.parametrize("length", [0, 1, 15, 16 + 101, 2**32 - 1])
def test_a_frame_of_impossible_length_is_refused_unread(length):
    left, right = socket.socketpair()
    with left, right:
        right.send(length.to_bytes(4, "big"))
        with pytest.raises(wire.FrameTooLargeError):
            wire.receive(left, 100)


def test_a_dripping_sender_does_not_move_the_deadline():
    left, right = socket.socketpair()
    with left, right:
        right.send((16 + 100).to_bytes(4, "big"))
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.02):
                right.send(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        with pytest.raises(TimeoutError):
            wire.receive(left, 100, time.monotonic() + 0.2)
        stop.set()
        thread.join()
