"""One HTTP POST that ends in time, whatever the other side sends or fails to send."""

from __future__ import annotations

import contextlib
import functools
import http.client
import socket
import threading
import urllib.request
from typing import IO, Any

from entrostat.errors import EntrostatError


class ExchangeError(EntrostatError):
    """No whole reply with status 200 came in time; the message says what came instead."""


class ReplyTooLongError(ExchangeError):
    """The reply is longer than allowed."""


def post(url: str, body: bytes, seconds: float, limit: int) -> bytes:
    """The body of the reply to the JSON text `body`.

    ExchangeError after `seconds` in all, ReplyTooLongError above `limit` bytes. No redirection is followed. Runs in a
    thread of its own, because neither a look-up of a name nor a reply of one byte per second has a limit in the
    libraries below; on time-out the connection is shut down, which ends the thread.
    """
    exchange = _Exchange(url, body, seconds, limit)
    try:
        exchange.start()
    except RuntimeError as error:  # no thread is left to this process
        raise ExchangeError(f"{url}: {error}") from error
    exchange.join(seconds)
    if exchange.is_alive():
        exchange.give_up()
        raise ExchangeError(f"{url}: no whole reply within {seconds:.1f} s")
    if exchange.failure is not None:
        raise ExchangeError(f"{url}: {type(exchange.failure).__name__}: {exchange.failure}") from exchange.failure
    if len(exchange.reply) > limit:
        raise ReplyTooLongError(f"{url}: a reply of more than {limit} bytes")
    return exchange.reply


class _Exchange(threading.Thread):
    def __init__(self, url: str, body: bytes, seconds: float, limit: int) -> None:
        super().__init__(daemon=True, name="entrostat-post")
        self._request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
        self._seconds = seconds
        self._limit = limit
        self._connections: list[http.client.HTTPConnection] = []
        self.reply = b""
        self.failure: Exception | None = None

    def run(self) -> None:
        """Exchange; then either `reply` or `failure` is set."""
        try:
            opener = urllib.request.build_opener(_NoRedirect, _Http(self._connections), _Https(self._connections))
            with opener.open(self._request, timeout=self._seconds) as response:
                if response.status != http.HTTPStatus.OK:
                    raise http.client.HTTPException(f"status {response.status}")
                self.reply = response.read(self._limit + 1)
                expected = response.headers.get("Content-Length", "")
                if expected.isdecimal() and len(self.reply) < min(int(expected), self._limit):
                    raise http.client.IncompleteRead(self.reply[:0], int(expected) - len(self.reply))
        except Exception as error:  # http.client and ssl raise more than OSError
            self.failure = error

    def give_up(self) -> None:
        """Shut the connection down, which ends a thread that waits for it."""
        for connection in list(self._connections):
            with contextlib.suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)


class _Http(urllib.request.HTTPHandler):
    """Notes the connections that it makes."""

    def __init__(self, connections: list[http.client.HTTPConnection]) -> None:
        super().__init__()
        self._made = connections

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(functools.partial(_note, self._made, http.client.HTTPConnection), req)


class _Https(urllib.request.HTTPSHandler):
    """Notes the connections that it makes."""

    def __init__(self, connections: list[http.client.HTTPConnection]) -> None:
        super().__init__()
        self._made = connections

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(functools.partial(_note, self._made, http.client.HTTPSConnection), req)


def _note(made: list[http.client.HTTPConnection], kind: type[http.client.HTTPConnection], *args: Any, **kw: Any) -> Any:
    made.append(kind(*args, **kw))
    return made[-1]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        """Follow none: the server was named, not what it names."""
