"""A webhook says one thing to one address, and no failure of it reaches the run."""

import http.server
import json
import socket
import threading
import time
from contextlib import suppress

import pytest

from entrostat.diagnosis import Finding, notify
from entrostat.diagnosis.notify import FindingLog, Webhook, sentence
from entrostat.grading.remote import ExchangeError, post

FINDING = Finding("truncation", "critical", 40, 30, "70% of the completions are cut.", {"now": 0.7}, ("truncated",))


@pytest.fixture
def server():
    """A local server that keeps what it is sent and answers with `status`."""
    heard = []

    class Handler(http.server.BaseHTTPRequestHandler):
        status = 200

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append((self.path, self.headers["Content-Type"], json.loads(body)))
            self.send_response(self.status)
            if self.status == 302:
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.end_headers()

        def log_message(self, *_):
            pass

    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}/hook", heard, Handler
    serving.shutdown()
    serving.server_close()


def test_a_finding_arrives_as_json(server):
    url, heard, _ = server
    assert Webhook(url, "run-7").send(FINDING) is None
    [(path, kind, body)] = heard
    assert (path, kind) == ("/hook", "application/json")
    assert body["text"] == sentence(FINDING, "run-7") == f"run-7: critical truncation at step 40: {FINDING.summary}"
    assert body["finding"]["evidence"] == {"now": 0.7}


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_that_refuses_is_reported_not_raised(server, status):
    url, heard, handler = server
    handler.status = status
    assert str(status) in Webhook(url).send(FINDING)
    assert len(heard) == 1


def test_a_redirection_is_not_followed(server):
    url, heard, handler = server
    handler.status = 302
    assert "302" in Webhook(url).send(FINDING)
    assert len(heard) == 1


def serve(reply):
    """A port on which `reply(connection)` answers every call."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer():
        while True:
            try:
                connection = listening.accept()[0]
            except OSError:
                return
            with connection, suppress(OSError):
                connection.recv(65536)
                reply(connection)

    threading.Thread(target=answer, daemon=True).start()
    return listening


def drip(connection):
    for byte in b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 50:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def flood(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"x" * 65536)


REPLIES = {
    "no HTTP": lambda connection: connection.sendall(b"SSH-2.0-x\r\n"),
    "nothing": lambda _: None,
    "a long head": lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200),
    "a long line": lambda connection: connection.sendall(b"HTTP/1.1 200 " + b"x" * 10**6),
    "a status that is none": lambda connection: connection.sendall(b"HTTP/1.1 999999 x\r\n\r\n"),
    "one byte at a time": drip,
    "silence": lambda _: time.sleep(2),
}


@pytest.mark.parametrize("kind", REPLIES)
def test_no_reply_raises_or_holds_longer_than_the_limit(kind, monkeypatch):
    monkeypatch.setattr(notify, "TIMEOUT", 0.3)
    with serve(REPLIES[kind]) as listening:
        began = time.monotonic()
        failure = Webhook(f"http://127.0.0.1:{listening.getsockname()[1]}/SECRET").send(FINDING)
    assert time.monotonic() - began < 1.5
    assert failure
    assert "SECRET" not in failure


def test_an_endless_body_is_not_read():
    with serve(flood) as listening:
        assert Webhook(f"http://127.0.0.1:{listening.getsockname()[1]}/").send(FINDING) is None


@pytest.mark.parametrize(
    "address",
    [
        "http://user:SECRET@127.0.0.1/",
        "http://127.0.0.1:9/SECRET a",
        "http://127.0.0.1:9/SECRET\u00e9",
        "http://127.0.0.1:SECRET/",
        "http://a..SECRET/",
        "http://127.0.0.1:9/\r\nSECRET",
        "http://127.0.0.1:99999/SECRET",
    ],
)
def test_no_part_of_an_address_is_shown(address):
    failure = Webhook(address).send(FINDING)
    assert failure
    assert "SECRET" not in failure


@pytest.mark.parametrize("name", ["https://host/SECRET", "", "a b", "SECRET/x"])
def test_settings_name_a_variable_and_an_address_there_is_refused_unseen(name):
    with pytest.raises(ValueError, match="environment variable") as refused:
        Webhook.from_environment(name)
    assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize("address", [None, "", "ftp://host/SECRET", "SECRET", "http://[SECRET"])
def test_a_variable_without_an_address_is_refused_by_its_name(address, monkeypatch):
    monkeypatch.delenv("HOOK", raising=False)
    if address is not None:
        monkeypatch.setenv("HOOK", address)
    with pytest.raises(ValueError, match="HOOK") as refused:
        Webhook.from_environment("HOOK")
    assert "SECRET" not in str(refused.value)


def test_the_address_comes_from_the_variable(server, monkeypatch):
    url, heard, _ = server
    monkeypatch.setenv("HOOK", url)
    assert Webhook.from_environment("HOOK").send(FINDING) is None
    assert len(heard) == 1


def test_a_process_that_may_start_no_thread_is_told_so(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert Webhook("http://127.0.0.1:9/hook").send(FINDING) == "webhook: not sent (no further thread can be started)"
    with pytest.raises(ExchangeError, match="can't start new thread"):
        post("http://127.0.0.1:9/run_code", b"{}", 1.0, 100)


def test_a_server_that_is_not_there_is_reported_not_raised():
    assert "webhook" in Webhook("http://127.0.0.1:9/").send(FINDING)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "hook", "http://", ""])
def test_only_http_addresses_are_taken(url):
    with pytest.raises(ValueError, match="http"):
        Webhook(url)


def test_the_log_holds_each_finding(tmp_path):
    log = FindingLog(tmp_path / "findings.jsonl")
    log.send(FINDING)
    log.send(FINDING)
    lines = (tmp_path / "findings.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["truncation", "truncation"]
