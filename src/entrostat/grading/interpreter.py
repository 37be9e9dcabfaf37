"""Inside one grading: the interpreter that runs untrusted code, or a task's assertions, on the grader's requests.

What it knows is the code and one input at a time. It knows no expected value (an interpreter that runs assertions
does, but runs no untrusted code), so nothing that the code does to this module (walking frames, replacing functions,
writing to the socket) can do more than give another answer.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import socket
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from entrostat.grading import wire

# What a script of assertions calls, with the number of the line, where an assertion does not hold. No class mangles it.
NOTE_FAILURE = "__entrostat_note_failure__"
# What a program reads as /dev/stdin and writes as /dev/stdout, in its folder.
STREAM_FILE = ".{}"
_REQUEST_LIMIT = 1 << 30
_PROGRAM = "<solution>"
_TEST_TOOLS = ("unittest.", "pytest.", "_pytest.")


class Conversation:
    """The grader's requests and this interpreter's replies, each with the request's nonce."""

    def __init__(self, channel: socket.socket, output_limit: int) -> None:
        self._channel = channel
        self._output_limit = output_limit
        self._nonce = bytes(wire.NONCE_BYTES)

    def receive(self) -> tuple[str, Any]:
        """The next request: its kind, and what it carries."""
        self._nonce, body = wire.receive(self._channel, _REQUEST_LIMIT)
        kind, _, text = body.decode().partition("\n")
        return kind, wire.decode(text)

    def reply(self, status: str, text: str = "") -> None:
        """Reply with a status word and a text."""
        if len(text) > self._output_limit:
            status, text = "output limit", f"an answer of {len(text)} bytes, where {self._output_limit} are allowed"
        wire.send(self._channel, self._nonce, f"{status}\n{text}".encode(errors="backslashreplace"))


def converse(conversation: Conversation) -> None:
    """Carry out the grader's requests until it ends this process."""
    solution = types.ModuleType("solution")
    sys.modules["solution"] = solution
    work: dict[str, Callable[[Any], tuple[str, str]]] = {
        "load": lambda code: _load(solution, code),
        "call": lambda request: _call(solution, *request),
        "evaluate": lambda source: ("answer", wire.encode(eval(compile(source, "<test>", "eval"), vars(solution)))),
        "run": lambda request: _run_program(*request),
        "judge": lambda request: _judge(conversation, *request),
    }
    while True:
        kind, request = conversation.receive()
        try:
            status, text = work[kind](request)
        except wire.NotPlainError as error:
            status, text = "not plain", str(error)
        except MemoryError:
            status, text = "memory", "MemoryError"
        except BaseException as error:
            status, text = "raised", wire.encode([list(map(_full_name, type(error).__mro__)), str(error)])
        conversation.reply(status, text)


def _load(module: types.ModuleType, code: str) -> tuple[str, str]:
    """Run code as the top level of a module."""
    try:
        program = compile(code, _PROGRAM, "exec")
    except (SyntaxError, ValueError, RecursionError) as error:
        return "syntax error", f"{type(error).__name__}: {error}"
    exec(program, module.__dict__)
    return "loaded", ""


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _call(module: types.ModuleType, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, str]:
    """Call a method of the module's class Solution, or else a function of the module."""
    owner = module.Solution() if hasattr(getattr(module, "Solution", None), name) else module
    if not hasattr(owner, name):
        return "runtime error", f"the code does not define {name}"
    return "answer", wire.encode(getattr(owner, name)(*args, **kwargs))


def _run_program(preamble: str, code: str, stdin: str) -> tuple[str, str]:
    """Run code as a program on a text, to its very end: threads, exit handlers and buffers included."""
    for number, name in ((0, "stdin"), (1, "stdout")):
        descriptor = os.open(STREAM_FILE.format(name), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, number)
    output = descriptor
    os.write(0, stdin.encode())
    os.lseek(0, 0, os.SEEK_SET)
    # Kept by their other names, too, as Python does: a program that wraps or replaces them must not close them.
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    _load(main, preamble)
    try:
        status, text = _load(main, code)
    except SystemExit as exit_:
        status, text = ("loaded", "") if exit_.code in (None, 0) else ("runtime error", f"SystemExit: {exit_.code}")
    if status != "loaded":
        return status, text
    threading._shutdown()  # type: ignore[attr-defined]  # as at the end of a real program
    atexit._run_exitfuncs()
    with contextlib.suppress(ValueError):  # closed, or given to another wrapper
        sys.__stdout__.flush()
    if not getattr(sys.stdout, "closed", False):
        sys.stdout.flush()
    size = os.fstat(output).st_size
    return "answer", os.pread(output, size, 0).decode(errors="replace")


def _judge(conversation: Conversation, script: str, preamble: str, name: str, seed: int) -> tuple[str, str]:
    """Run a task's assertions, asking the grader for each answer of the function under test."""
    asked = False
    failed: list[int] = []
    random.seed(seed)

    def candidate(*args: Any, **kwargs: Any) -> Any:
        nonlocal asked
        asked = True
        conversation.reply("asks", wire.encode((name, args, kwargs)))
        kind, said = conversation.receive()
        if kind == "raise":
            raise _exception(*said)
        return said

    assertions = types.ModuleType("assertions")
    try:
        exec(compile(preamble, "<preamble>", "exec"), assertions.__dict__)
        vars(assertions).update({name: candidate, "candidate": candidate, NOTE_FAILURE: failed.append})
        exec(compile(script, "<assertions>", "exec"), assertions.__dict__)
    except MemoryError:
        raise
    except BaseException as error:
        if failed:
            return "refuted", f"the assertion in line {failed[0]} does not hold"
        # What kind of argument the script gives is its own doing; how deep it is may be the answers'.
        unfit = not asked or (isinstance(error, wire.NotPlainError) and not isinstance(error, wire.TooDeepError))
        return "unfit" if unfit else "refuted", f"{type(error).__name__}: {error}"
    if failed:
        return ("refuted" if asked else "unfit"), f"the assertion in line {failed[0]} does not hold"
    return "upheld" if asked else "unfit", ""


def _exception(names: list[str], text: str) -> BaseException:
    """An exception of the first class among `names`, full names of a class and its bases, that is known here.

    It is none that ends an iteration or skips a test without a word: untrusted code chose it.
    """
    known = {_full_name(kind): kind for kind in _with_subclasses(Exception)} | {"builtins.SystemExit": SystemExit}
    for name in names:
        kind = known.get(name)
        if kind and not issubclass(kind, StopIteration | StopAsyncIteration) and not name.startswith(_TEST_TOOLS):
            with contextlib.suppress(TypeError):
                return kind.__new__(kind, text)
    return RuntimeError(text)


def _with_subclasses(kind: type[BaseException]) -> list[type[BaseException]]:
    return [kind, *(below for subclass in kind.__subclasses__() for below in _with_subclasses(subclass))]
