"""Telling somebody of a finding: a log file, a webhook."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any, Protocol
from urllib.error import URLError
from urllib.parse import urlsplit

from entrostat.diagnose.finding import Finding
from entrostat.runs.files import append_line

TIMEOUT = 5.0  # seconds: a server that is slow must not hold up training


class Sender(Protocol):
    """Passes findings on."""

    def send(self, finding: Finding) -> str | None:
        """Pass a finding on; returns what went wrong, or None."""


class Webhook:
    """Sends each finding to one URL as JSON: {"text": a sentence, "run": the run's name, "finding": ...}.

    `text` is what Slack, Mattermost and Discord-compatible receivers show. Nothing is sent anywhere else, and no
    redirection is followed. ValueError: the URL is not http or https.
    """

    def __init__(self, url: str, run: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"webhook: got {url!r}; give an http:// or https:// address")
        self.url, self.run = url, run
        self._opener = urllib.request.build_opener(_NoRedirect)

    def send(self, finding: Finding) -> str | None:
        """Send the finding; returns what went wrong, or None. Never raises: a run must not end for a message."""
        body = {"text": sentence(finding, self.run), "run": self.run, "finding": finding.as_dict()}
        request = urllib.request.Request(
            self.url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        try:
            with self._opener.open(request, timeout=TIMEOUT):
                return None
        except (URLError, OSError, ValueError) as error:
            return f"webhook: {error}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class FindingLog:
    """Appends each finding to a file, a JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def send(self, finding: Finding) -> str | None:
        """Append the finding. RunError: the file cannot be written."""
        append_line(self.path, finding.as_dict())
        return None


def sentence(finding: Finding, run: str = "") -> str:
    """A finding in one sentence."""
    return f"{run + ': ' if run else ''}{finding.severity} {finding.kind} at step {finding.step}: {finding.summary}"
