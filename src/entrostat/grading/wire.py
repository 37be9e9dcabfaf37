"""Plain data as text, and the frames that carry it between the grader and a sandboxed interpreter.

Plain data is None, bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, and of the module
collections Counter, defaultdict (whose default is not kept) and OrderedDict, of exactly these types: an instance of
any other subclass is refused, so no method of the code under test can run while values are compared. numpy's
numbers and arrays are written as Python's numbers and lists, where the code may import it.
The text of equal values is equal except for the order of dictionaries and the sign of zero, so most comparisons are
comparisons of strings, and nothing that untrusted code sent is ever turned into a hash table on the grader's side.

A frame is a 4-byte big-endian length, a 16-byte nonce and a body.
"""

from __future__ import annotations

import functools
import json
import math
import socket
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any, Literal

Equality = Literal["exact", "python", "json"]
Tolerance = tuple[float, float]

MAX_DEPTH = 100
NONCE_BYTES = 16
_LENGTH_BYTES = 4
_HEADER_BYTES = _LENGTH_BYTES + NONCE_BYTES
_SMALL_FRAME = 4096
# Sets and dictionaries of up to so many items are matched in every way where floats may differ; larger ones in order.
_MOST_MATCHED = 64
_JSON_INTS = range(-(2**63), 2**63)
_MAPPINGS: dict[str, Callable[[Any], Any]] = {
    "dict": dict,
    "Counter": Counter,
    "defaultdict": lambda pairs: defaultdict(None, pairs),
    "OrderedDict": OrderedDict,
}


_UNORDERED = {"set", "frozenset", *_MAPPINGS}


class NotPlainError(ValueError):
    """A value that is not plain data."""


class TooDeepError(NotPlainError):
    """A value nested too deeply."""


class FrameTooLargeError(ValueError):
    """The other side announced a frame above the limit."""


def encode(value: object) -> str:
    """The text of plain data, dictionaries in their order, sets sorted; NotPlainError for anything else."""
    return _dumps(_to_json(value, MAX_DEPTH))


def decode(text: str) -> Any:
    """The value whose text this is; ValueError if it is none."""
    return _from_json(json.loads(text))


def matches(
    expected: str, answer: str, atol: float | None = None, equality: Equality = "exact", rtol: float | None = None
) -> bool:
    """Whether two texts stand for the same value.

    equality "exact": the same types throughout. "python": what == accepts, so 1, 1.0 and True are the same, sets and
    frozensets, dictionaries of every kind. "json": in addition tuples and lists are the same. Items of sets and keys of
    dictionaries are equal as other values are. Floats may differ by atol + rtol * |expected|, or must be equal without
    these; 0.0 equals -0.0 and NaN equals NaN. The answer is untrusted text: the work is bounded by the expected one's
    size.
    """
    if expected == answer:
        return True
    if len(answer) > longest_match(expected):
        return False
    try:
        return _same(json.loads(expected), json.loads(answer), (atol or 0.0, rtol or 0.0), equality)
    except (ValueError, RecursionError, OverflowError):
        return False


def longest_match(expected: str) -> int:
    """The length above which no text matches this one."""
    return 8 * len(expected) + 64


def send(channel: socket.socket, nonce: bytes, body: bytes) -> None:
    """Send one frame."""
    channel.sendall((len(body) + NONCE_BYTES).to_bytes(_LENGTH_BYTES, "big") + nonce + body)


def receive(channel: socket.socket, limit: int, deadline: float | None = None) -> tuple[bytes, bytes]:
    """The next frame's nonce and body; the other side sends nothing more before it is answered.

    limit: largest body, in bytes. deadline: on time.monotonic(). Raises FrameTooLargeError for a larger frame or more
    than one, TimeoutError, EOFError.
    """
    data = bytearray()
    missing = _HEADER_BYTES
    while missing:
        data += _receive_some(channel, max(_SMALL_FRAME, min(missing, 1 << 16)), deadline)
        if len(data) >= _LENGTH_BYTES:
            length = int.from_bytes(data[:_LENGTH_BYTES], "big") - NONCE_BYTES
            if not 0 <= length <= limit:
                raise FrameTooLargeError(f"a frame of {length} bytes, where 0 to {limit} are allowed")
            missing = _HEADER_BYTES + length - len(data)
            if missing < 0:
                raise FrameTooLargeError(f"{-missing} bytes more than one frame")
    return bytes(data[_LENGTH_BYTES:_HEADER_BYTES]), bytes(data[_HEADER_BYTES:])


def _receive_some(channel: socket.socket, size: int, deadline: float | None) -> bytes:
    if deadline is not None:
        # Past the deadline what has arrived still counts: it is this process that was late.
        channel.settimeout(max(0.0, deadline - time.monotonic()))
    try:
        piece = channel.recv(size)
    except BlockingIOError:
        raise TimeoutError from None
    if not piece:
        raise EOFError
    return piece


def _dumps(tree: object) -> str:
    return json.dumps(tree, separators=(",", ":"))


def _to_json(value: Any, depth: int) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is str or kind is float:
        return value
    if kind is int:
        return value if value in _JSON_INTS else {"int": hex(value)}
    if kind is bytes:
        return {"bytes": value.hex()}
    if kind is complex:
        return {"complex": [value.real, value.imag]}
    if depth == 0:
        raise TooDeepError(f"a value nested deeper than {MAX_DEPTH} levels")
    if kind is list:
        return [_to_json(item, depth - 1) for item in value]
    if kind is tuple:
        return {"tuple": [_to_json(item, depth - 1) for item in value]}
    if kind is dict or kind is Counter or kind is defaultdict or kind is OrderedDict:
        return {kind.__name__: [[_to_json(key, depth - 1), _to_json(item, depth - 1)] for key, item in value.items()]}
    if kind is set or kind is frozenset:
        return {kind.__name__: sorted((_to_json(item, depth - 1) for item in value), key=_dumps)}
    if kind.__module__ == "numpy" and hasattr(value, "tolist"):
        return _to_json(value.tolist(), depth - 1)
    raise NotPlainError(f"a value of type {kind.__name__}, which is not plain data")


def _from_json(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_from_json(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if len(tree) != 1:
        raise ValueError("malformed plain data")
    ((tag, body),) = tree.items()
    match tag, body:
        case "int", str():
            return int(body, 16)
        case "bytes", str():
            return bytes.fromhex(body)
        case "complex", [float(real), float(imag)]:
            return complex(real, imag)
        case "tuple", list():
            return tuple(_from_json(item) for item in body)
        case "set", list():
            return {_from_json(item) for item in body}
        case "frozenset", list():
            return frozenset(_from_json(item) for item in body)
        case _, list() if tag in _MAPPINGS:
            return _MAPPINGS[tag]({_from_json(key): _from_json(item) for key, item in body})
    raise ValueError("malformed plain data")


def _canonical(tree: Any, equality: Equality) -> str:
    """A text that equal values share and others do not; ValueError if the tree is not plain data."""
    if tree is None or isinstance(tree, str):
        return _dumps(tree)
    if (number := _number(tree)) is not None:
        return _canonical_number(number, equality)
    kind, items = _container(tree, equality)
    if kind == "bytes":
        return _dumps([kind, *items])
    texts = [_canonical(item, equality) for item in items]
    return f"{kind}({','.join(sorted(texts) if kind in _UNORDERED else texts)})"


def _canonical_number(number: complex, equality: Equality) -> str:
    kind = type(number).__name__ if equality == "exact" else ""
    if isinstance(number, complex):
        real, imaginary = (_canonical_real(part) for part in (number.real, number.imag))
        return real if equality != "exact" and number.imag == 0 else f"{kind}({real},{imaginary})"
    return kind + _canonical_real(number)


def _canonical_real(number: float) -> str:
    """An odd number times a power of two; the same for 1, 1.0 and True, and for 0.0 and -0.0."""
    if number in (math.inf, -math.inf) or number != number:
        return str(number)
    numerator, denominator = number.as_integer_ratio()
    twos = max((numerator & -numerator).bit_length() - 1, 0)
    return f"{numerator >> twos:x}p{twos - denominator.bit_length() + 1}"


def _number(tree: Any) -> complex | None:
    """The number that a tree stands for, or None if it is none."""
    match tree:
        case bool() | int() | float():
            return tree
        case {"int": str(text)}:
            return int(text, 16)
        case {"complex": [float(real), float(imaginary)]}:
            return complex(real, imaginary)
    return None


def _container(tree: Any, equality: Equality) -> tuple[str, list[Any]]:
    """The kind of a container, as far as it counts, and its items: pairs for a dictionary."""
    if isinstance(tree, list):
        return "list", tree
    match tree:
        case {"bytes": str(text)} if len(tree) == 1:
            return "bytes", [bytes.fromhex(text).hex()]
        case {"tuple": list(items)} if len(tree) == 1:
            return "list" if equality == "json" else "tuple", items
        case {"set": list(items)} if len(tree) == 1:
            return "set", items
        case {"frozenset": list(items)} if len(tree) == 1:
            return "set" if equality != "exact" else "frozenset", items
        case dict() if len(tree) == 1:
            ((tag, items),) = tree.items()
            if tag in _MAPPINGS and isinstance(items, list):
                return tag if equality == "exact" else "dict", items
    raise ValueError("malformed plain data")


def _same(expected: Any, answer: Any, tolerance: Tolerance, equality: Equality) -> bool:
    """Whether two trees stand for equal values, where floats may differ."""
    wanted, given = _number(expected), _number(answer)
    if wanted is not None and given is not None:
        return _same_number(wanted, given, tolerance, equality)
    if wanted is not given or any(tree is None or isinstance(tree, str) for tree in (expected, answer)):
        return bool(expected == answer)
    (kind, items), (other, others) = _container(expected, equality), _container(answer, equality)
    if kind != other or len(items) != len(others):
        return False
    if kind == "bytes":
        return items == others
    same = functools.partial(_same, tolerance=tolerance, equality=equality)
    if kind not in _UNORDERED:
        return all(map(same, items, others))
    canonical = functools.partial(_canonical, equality=equality)
    if sorted(map(canonical, items)) == sorted(map(canonical, others)):
        return True
    if not any(tolerance):
        return False
    rank = functools.partial(_rank, equality=equality)
    if all(map(same, sorted(items, key=rank), sorted(others, key=rank))):
        return True
    return len(items) <= _MOST_MATCHED and _can_be_paired(items, others, same)


def _same_number(expected: complex, answer: complex, tolerance: Tolerance, equality: Equality) -> bool:
    if equality == "exact" and type(expected) is not type(answer):
        return False
    if _canonical_number(expected, equality) == _canonical_number(answer, equality):
        return True
    floats = isinstance(expected, float | complex) or isinstance(answer, float | complex)
    if not floats or not any(tolerance):
        return False
    parts = ((expected.real, answer.real), (expected.imag, answer.imag))
    return all(_canonical_real(e) == _canonical_real(a) or _is_close(e, a, tolerance) for e, a in parts)


def _is_close(expected: float, answer: float, tolerance: Tolerance) -> bool:
    atol, rtol = tolerance
    return math.isfinite(expected) and abs(expected - answer) <= atol + rtol * abs(expected)


def _rank(tree: Any, equality: Equality) -> tuple[str, list[float]]:
    """Orders the items of a set or dictionary so that items that differ by little get the same places."""
    numbers: list[float] = []

    def shape(tree: Any) -> str:
        number = _number(tree)
        if isinstance(number, int | float):
            numbers.append(float(number))
            return "number"
        if number is not None or tree is None or isinstance(tree, str):
            return _canonical(tree, equality)
        kind, items = _container(tree, equality)
        return f"{kind}({','.join(map(shape, items)) if kind != 'bytes' else items})"

    return shape(tree), numbers


def _can_be_paired(items: list[Any], others: list[Any], same: Callable[[Any, Any], bool]) -> bool:
    """Whether all items can be given a same one of the others, each its own (Kuhn's augmenting paths)."""
    allowed = [[index for index, other in enumerate(others) if same(item, other)] for item in items]
    owner: dict[int, int] = {}

    def place(item: int, tried: set[int]) -> bool:
        for index in allowed[item]:
            if index not in tried:
                tried.add(index)
                if index not in owner or place(owner[index], tried):
                    owner[index] = item
                    return True
        return False

    return all(place(item, set()) for item in range(len(items)))
