"""The program of a GPU day: a part that fails or hangs does not stop the others, and what was measured is kept."""

import importlib
import json
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)


@pytest.fixture
def program(tmp_path):
    """Makes a part of the given Python source."""
    part = importlib.import_module("gpu_day").Part

    def make(name, source):
        (tmp_path / f"{name}.py").write_text(source)
        return part(name, name, 1, str(tmp_path / f"{name}.py"))

    return make


def run(part, out, limit=20.0):
    out.mkdir(exist_ok=True)
    return importlib.import_module("gpu_day").perform(part, part.command(True, limit, None), limit, out)


def test_results_are_kept_and_other_lines_go_to_the_log(program, tmp_path):
    part = program("one", "print('{\"case\": 1, \"ok\": true}')\nprint('a warning')\n")
    outcome = run(part, tmp_path / "out")
    assert (outcome.status, outcome.results) == ("ended", [{"case": 1, "ok": True}])
    assert json.loads((tmp_path / "out/one.jsonl").read_text()) == {"case": 1, "ok": True}
    assert "a warning" in (tmp_path / "out/one.log").read_text()


def test_a_part_is_cut_at_its_limit_with_its_children_and_keeps_its_results(program, tmp_path):
    source = (
        "import subprocess, sys\nprint('{\"case\": 1}', flush=True)\n"
        "subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    )
    outcome = run(program("long", source), tmp_path / "out", limit=3.0)
    assert (outcome.status, outcome.results) == ("cut at its time limit", [{"case": 1}])
    assert outcome.seconds < 60


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("raise ValueError('no kernel')", "failed: ValueError: no kernel"),
        (
            "import package_that_is_not_there",
            "left out: ModuleNotFoundError: No module named 'package_that_is_not_there'",
        ),
        ("print('{\"ok\": false}')", "failed: a result is not right"),
    ],
)
def test_a_failure_is_named(program, tmp_path, source, status):
    assert run(program("bad", source), tmp_path / "out").status == status


def test_the_table_has_every_part_with_how_it_ended(program, tmp_path):
    gpu_day = importlib.import_module("gpu_day")
    outcomes = [
        run(program("bad", "raise ValueError"), tmp_path / "out"),
        run(program("one", "print('{\"x\": .5}')"), tmp_path / "out"),
    ]
    text = gpu_day.table({"device": "D", "trl": None}, outcomes)
    assert "device D" in text
    assert "trl" not in text
    assert "## bad\n\nfailed: ValueError" in text
    assert text.endswith("## one\n\nended; " + text.split("ended; ")[1])


def test_without_a_gpu_only_a_rehearsal_runs(tmp_path, monkeypatch):
    gpu_day = importlib.import_module("gpu_day")
    monkeypatch.setattr(gpu_day, "machine", lambda: {"device": "cpu"})
    monkeypatch.setattr(sys, "argv", ["gpu_day.py", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="no GPU"):
        gpu_day.main()


@pytest.mark.parametrize("size", [7, 10, 1000])
def test_a_bundle_is_cut_into_pieces_of_at_most_the_size_and_joined_again(tmp_path, size):
    bundle = importlib.import_module("bundle")
    contents = {"a.whl": b"", "b.whl": bytes(range(25)), "c.whl": b"12345"}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    pieces = bundle.cut(sorted(tmp_path.iterdir()), tmp_path / "out", size)
    held = [
        sum(file.stat().st_size for file in piece.iterdir()) for piece in sorted((tmp_path / "out").glob("piece-*"))
    ]
    assert len(held) == pieces
    assert max(held) <= size
    (tmp_path / "joined").mkdir()
    joined = bundle.join(tmp_path / "out", tmp_path / "joined")
    assert {file.name: file.read_bytes() for file in joined} == contents


@pytest.mark.parametrize(("harm", "message"), [("remove", "missing"), ("change", "damaged")])
def test_a_missing_or_damaged_piece_is_refused_by_name(tmp_path, harm, message):
    bundle = importlib.import_module("bundle")
    (tmp_path / "a.whl").write_bytes(b"abcdef")
    bundle.cut([tmp_path / "a.whl"], tmp_path / "out", 4)
    part = tmp_path / "out/piece-02/a.whl.001"
    part.unlink() if harm == "remove" else part.write_bytes(b"xx")
    with pytest.raises(SystemExit, match=message) as error:
        bundle.join(tmp_path / "out", tmp_path)
    assert "piece-02/a.whl.001" in str(error.value)


def test_a_size_is_in_mebibytes():
    gpu_day = importlib.import_module("gpu_day")
    assert [gpu_day.mebibytes(text) for text in ("64MiB", "64", "0.5MiB")] == [64 << 20, 64 << 20, 1 << 19]
    for text in ("0", "-1MiB", "64GB", "nan"):
        with pytest.raises(ValueError, match=r".+"):
            gpu_day.mebibytes(text)
