"""A webhook says one thing to one address, and no failure of it reaches the run."""

import http.server
import json
import threading

import pytest

from entrostat.diagnose import Finding
from entrostat.diagnose.notify import FindingLog, Webhook, sentence

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
