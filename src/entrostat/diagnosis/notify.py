"""Telling somebody of a finding: a log file, a webhook, a command."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from entrostat.runs.files import append_line
from entrostat.runs.finding import Finding

TIMEOUT = 5.0  # seconds for one message, all told: a slow server must not hold up training
COMMAND_TIMEOUT = 60.0  # seconds that `watch --exec` waits for its command
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Sender(Protocol):
    """Passes findings on."""

    def send(self, finding: Finding) -> str | None:
        """Pass a finding on; returns what went wrong, or None."""


class Webhook:
    """Sends each finding to one URL as JSON: {"text": a sentence, "run": the run's name, "finding": ...}.

    `text` is what Slack, Mattermost and Discord-compatible receivers show. Nothing is sent anywhere else, no
    redirection is followed, and of the reply no more than its head is read.
    The address is a secret, for whoever has it can write to the channel: no message of an error holds any part of it.
    ValueError: the address is not http or https.
    """

    def __init__(self, address: str, run: str = "") -> None:
        try:
            parts = urlsplit(address)
            known = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            known = False
        if not known:
            raise ValueError("webhook: the address is no http:// or https:// URL (it is not shown: it is a secret)")
        self._address, self.run = address, run

    @classmethod
    def from_environment(cls, variable: str, run: str = "") -> Webhook:
        """The webhook whose address the environment variable `variable` holds. ValueError: it holds none."""
        require_variable(variable)
        address = os.environ.get(variable)
        if not address:
            raise ValueError(f"webhook: the environment variable {variable} is not set; it has to hold the address")
        try:
            return cls(address, run)
        except ValueError as error:
            raise ValueError(f"{error}; it is in the environment variable {variable}") from None

    def send(self, finding: Finding) -> str | None:
        """Send the finding; returns what went wrong, or None, within `TIMEOUT` seconds.

        Never raises: a run must not end for a message.
        """
        body = {"text": sentence(finding, self.run), "run": self.run, "finding": finding.as_dict()}
        call = _Call(self._address, json.dumps(body).encode())
        try:
            call.start()
        except RuntimeError:  # no thread is left to this process
            return "webhook: not sent (no further thread can be started)"
        call.join(TIMEOUT)
        if call.is_alive():
            call.give_up()
            return f"webhook: no whole reply within {TIMEOUT:g} s"
        return f"webhook: {call.failure}" if call.failure else None


def require_variable(name: str) -> None:
    """ValueError, which does not show what was given, unless `name` can be the name of an environment variable."""
    if not VARIABLE.fullmatch(name):
        raise ValueError(
            "webhook: give the name of the environment variable that holds the address, as in SLACK_WEBHOOK, and not "
            "the address: that is a secret, and settings are written to disk"
        )


class _Call(threading.Thread):
    """One POST, in a thread, for neither a look-up of a name nor a reply of a byte a second has a time limit."""

    def __init__(self, address: str, body: bytes) -> None:
        super().__init__(daemon=True, name="entrostat-webhook")
        self.address, self.body = address, body
        self.failure: str | None = None
        self._connections: list[http.client.HTTPConnection] = []

    def run(self) -> None:
        """POST; `failure` then says what went wrong, without any part of the address."""
        try:
            opener = urllib.request.build_opener(_NoRedirect, *_remembering(self._connections))
            request = urllib.request.Request(
                self.address, self.body, {"Content-Type": "application/json"}, method="POST"
            )
            with opener.open(request, timeout=TIMEOUT):
                pass
        except Exception as error:  # http.client and ssl raise what is no OSError; texts of errors repeat addresses
            self.failure = _reason(error)

    def give_up(self) -> None:
        """Close the connection, which ends a thread that waits for a reply."""
        for connection in list(self._connections):
            with suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)


def _remembering(connections: list[http.client.HTTPConnection]) -> list[urllib.request.BaseHandler]:
    """Handlers of http and https that note the connections they make."""

    def noted(make: Callable[..., http.client.HTTPConnection], *args: Any, **kwargs: Any) -> Any:
        connections.append(make(*args, **kwargs))
        return connections[-1]

    class Http(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(partial(noted, http.client.HTTPConnection), request)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(partial(noted, http.client.HTTPSConnection), request)

    return [Http(), Https()]


def _reason(error: Exception) -> str:
    """What an error says without the address: a status, the system's own text, or the kind of error."""
    if isinstance(error, HTTPError):
        error.close()
        return f"the server answered with status {error.code}"
    inner = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
    if isinstance(inner, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return f"not sent ({type(inner).__name__})"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class FindingLog:
    """Appends each finding to a file, one JSON object per line."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def send(self, finding: Finding) -> str | None:
        """Append the finding. RunError: the file cannot be written."""
        append_line(self.path, finding.as_dict())
        return None


class Command:
    """Runs a command of the user's, by the shell, for each finding that `acts_on` accepts.

    The finding comes in environment variables, never in the text of the command: ENTROSTAT_RUN, ENTROSTAT_KIND,
    ENTROSTAT_SEVERITY, ENTROSTAT_STEP, ENTROSTAT_SUMMARY and ENTROSTAT_FINDING (JSON).
    """

    def __init__(self, command: str, run: str, acts_on: Callable[[Finding], bool]) -> None:
        self.command, self.run, self.acts_on = command, run, acts_on

    def send(self, finding: Finding) -> str | None:
        """Run the command and wait for its end, at most `COMMAND_TIMEOUT` seconds; it is then left running."""
        if not self.acts_on(finding):
            return None
        try:
            process = subprocess.Popen(
                self.command, shell=True, stdin=subprocess.DEVNULL, env={**os.environ, **self._said(finding)}
            )
            status = process.wait(COMMAND_TIMEOUT)
        except subprocess.TimeoutExpired:
            return f"exec: the command still runs after {COMMAND_TIMEOUT:g} s"
        except (OSError, ValueError) as error:
            return f"exec: {error}"
        return f"exec: the command ended with status {status}" if status else None

    def _said(self, finding: Finding) -> Mapping[str, str]:
        """The finding as environment variables, which can hold no NUL."""
        said = {
            "RUN": self.run,
            "KIND": finding.kind,
            "SEVERITY": finding.severity,
            "STEP": str(finding.step),
            "SUMMARY": finding.summary,
            "FINDING": json.dumps(finding.as_dict()),
        }
        return {f"ENTROSTAT_{name}": text.replace("\0", " ") for name, text in said.items()}


def sentence(finding: Finding, run: str = "") -> str:
    """A finding in one sentence."""
    return f"{run + ': ' if run else ''}{finding.severity} {finding.kind} at step {finding.step}: {finding.summary}"
