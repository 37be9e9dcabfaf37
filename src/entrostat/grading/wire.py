"""Plain data as text, and the frames that carry it between the grader and a sandboxed interpreter.

Plain data is None, bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, and of the module
collections Counter, defaultdict (whose default is not kept) and OrderedDict, of exactly these types: an instance of
any other subclass is refused, so no method of the code under test can run while values are compared.
The text of equal values is equal except for the order of dictionaries and the sign of zero, so most comparisons are
comparisons of strings, and nothing that untrusted code sent is ever turned into a hash table on the grader's side.

A frame is a 4-byte big-endian length, a 16-byte nonce and a body.
"""

from __future__ import annotations

import json
import socket
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any, Literal

Equality = Literal["exact", "python", "json"]

MAX_DEPTH = 100
NONCE_BYTES = 16
_NUMBERS = (int, float, complex)
_JSON_INTS = range(-(2**63), 2**63)
_MAPPINGS: dict[str, Callable[[Any], Any]] = {
    "dict": dict,
    "Counter": Counter,
    "defaultdict": lambda pairs: defaultdict(None, pairs),
    "OrderedDict": OrderedDict,
}


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


def matches(expected: str, answer: str, atol: float | None = None, equality: Equality = "exact") -> bool:
    """Whether two texts stand for the same value.

    equality "exact": the same types throughout. "python": what == accepts, so 1, 1.0 and True are the same, sets and
    frozensets, dictionaries of every kind. "json": in addition tuples and lists are the same. Floats may differ by
    atol, or must be equal without it; 0.0 equals -0.0 and NaN equals NaN. The answer is untrusted text: the work is
    bounded by the expected one's size.
    """
    if expected == answer:
        return True
    if len(answer) > longest_match(expected):
        return False
    try:
        return _same(json.loads(expected), json.loads(answer), atol or 0.0, equality)
    except (ValueError, RecursionError, OverflowError):
        return False


def longest_match(expected: str) -> int:
    """The length above which no text matches this one."""
    return 8 * len(expected) + 64


def send(channel: socket.socket, nonce: bytes, body: bytes) -> None:
    """Send one frame."""
    channel.sendall((len(body) + NONCE_BYTES).to_bytes(4, "big") + nonce + body)


def receive(channel: socket.socket, limit: int, deadline: float | None = None) -> tuple[bytes, bytes]:
    """The next frame's nonce and body.

    limit: largest body, in bytes. deadline: on time.monotonic(). Raises FrameTooLargeError, TimeoutError, EOFError.
    """
    length = int.from_bytes(_receive_exactly(channel, 4, deadline), "big") - NONCE_BYTES
    if not 0 <= length <= limit:
        raise FrameTooLargeError(f"a frame of {length} bytes, where 0 to {limit} are allowed")
    return _receive_exactly(channel, NONCE_BYTES, deadline), _receive_exactly(channel, length, deadline)


def _receive_exactly(channel: socket.socket, size: int, deadline: float | None) -> bytes:
    data = bytearray()
    while len(data) < size:
        if deadline is not None:
            # Past the deadline what has arrived still counts: it is this process that was late.
            channel.settimeout(max(0.0, deadline - time.monotonic()))
        try:
            piece = channel.recv(min(size - len(data), 1 << 16))
        except BlockingIOError:
            raise TimeoutError from None
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


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


def _same(expected: Any, answer: Any, atol: float, equality: Equality) -> bool:
    if equality != "exact":
        expected, answer = _loosen(expected, equality), _loosen(answer, equality)
    if isinstance(expected, _NUMBERS) and isinstance(answer, _NUMBERS):
        return (equality != "exact" or type(expected) is type(answer)) and _near(expected, answer, atol)
    if type(expected) is not type(answer):
        return False
    if isinstance(expected, list):
        pairs = zip(expected, answer, strict=False)
        return len(expected) == len(answer) and all(_same(e, a, atol, equality) for e, a in pairs)
    if isinstance(expected, dict):
        if expected.keys() != answer.keys():
            return False
        ((tag, body),) = expected.items()
        if tag in _MAPPINGS and isinstance(answer[tag], list):
            return _same(sorted(body, key=_dumps), sorted(answer[tag], key=_dumps), atol, equality)
        return _same(body, answer[tag], atol, equality)
    return bool(expected == answer)


def _near(expected: complex, answer: complex, atol: float) -> bool:
    if expected == answer or (expected != expected and answer != answer):
        return True
    return isinstance(expected, float) | isinstance(answer, float) and abs(expected - answer) <= atol


def _loosen(tree: Any, equality: Equality) -> Any:
    match tree:
        case {"int": str(text)}:
            return int(text, 16)
        case {"complex": [float(real), float(imag)]}:
            return complex(real, imag)
        case {"frozenset": list(items)}:
            return {"set": items}
        case {"Counter": items} | {"defaultdict": items} | {"OrderedDict": items}:
            return {"dict": items}
        case {"tuple": list(items)} if equality == "json":
            return items
    return tree
