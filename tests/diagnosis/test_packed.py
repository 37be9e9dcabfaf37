"""Archives, packed files, Parquet, and which file of a folder is its log."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
import zipfile

import pytest

from entrostat.diagnosis import LogError, read_log

ROWS = [{"step": step, "reward": 0.1 * step, "entropy": 1 / step} for step in range(1, 9)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
CONTENT = {
    "run/config.json": b'{"learning_rate": 1e-6, "reward": "exact"}',
    "run/samples/notes.txt": b"Dear all,\nthe run went well.\n",
    "run/metrics.jsonl": LINES,
    "run/model.safetensors": bytes(4000),
}


def rewards(log):
    return {step: values["reward"] for step, values in log.rows}


EXPECTED = {row["step"]: pytest.approx(row["reward"]) for row in ROWS}


def as_zip(content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def as_tar(content, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


PACKINGS = {
    "zip": as_zip,
    "tar": as_tar,
    "tar.gz": lambda content: as_tar(content, "w:gz"),
    "tar.bz2": lambda content: as_tar(content, "w:bz2"),
    "tar.xz": lambda content: as_tar(content, "w:xz"),
}


@pytest.mark.parametrize("kind", PACKINGS)
def test_the_log_in_an_archive_is_read_and_named(tmp_path, kind):
    path = tmp_path / f"run.{kind}"
    path.write_bytes(PACKINGS[kind](CONTENT))
    log = read_log(path)
    assert rewards(log) == EXPECTED
    assert log.file == "run/metrics.jsonl"


@pytest.mark.parametrize("kind", PACKINGS)
def test_nothing_is_written_outside_of_the_folder_that_an_archive_is_unpacked_in(tmp_path, kind):
    outside = tmp_path / "outside.jsonl"
    path = tmp_path / f"run.{kind}"
    names = (str(outside), "../../outside.jsonl", "a/../../b")
    path.write_bytes(PACKINGS[kind]({**dict.fromkeys(names, b"{}"), "x.log": LINES}))
    assert rewards(read_log(path)) == EXPECTED
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_link_in_an_archive_is_not_followed(tmp_path):
    secret = tmp_path / "secret.jsonl"
    secret.write_bytes(LINES)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("metrics.jsonl")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
    path = tmp_path / "run.tar"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(LogError, match="name the log file"):
        read_log(path)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("entrostat.diagnosis.reading.archive.LARGEST_UNPACKED", 1 << 20)
    path = tmp_path / "bomb.zip"
    path.write_bytes(as_zip({"a.jsonl": bytes(10 << 20)}))
    with pytest.raises(LogError, match="unpacks to more than"):
        read_log(path)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz"])
def test_a_damaged_archive_is_refused_with_a_remedy(tmp_path, kind):
    data = bytearray(PACKINGS[kind]({"metrics.jsonl": LINES * 200}))
    data[60:90] = bytes(30)
    path = tmp_path / f"run.{kind}"
    path.write_bytes(bytes(data))
    with pytest.raises(LogError, match=r"unpack it|name the log"):
        read_log(path)


@pytest.mark.parametrize("names", [("run", "run/metrics.jsonl"), ("run/metrics.jsonl", "run"), ("x" * 300,)])
def test_names_that_cannot_be_files_beside_each_other_are_refused_with_a_remedy(tmp_path, names):
    path = tmp_path / "run.zip"
    path.write_bytes(as_zip(dict.fromkeys(names, LINES)))
    with pytest.raises(LogError, match=r"run\.zip: the archive cannot be unpacked .*; unpack it and name the log"):
        read_log(path)


def test_an_archive_without_a_log_says_so_under_its_own_name(tmp_path):
    path = tmp_path / "run.zip"
    path.write_bytes(as_zip({"readme": b"hello"}))
    with pytest.raises(LogError, match=r"run\.zip: holds no"):
        read_log(path)


def test_zstd_is_read_where_python_can(tmp_path):
    zstd = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    path = tmp_path / "metrics.jsonl.zst"
    path.write_bytes(zstd.compress(LINES))
    assert rewards(read_log(path)) == EXPECTED
    path.write_bytes(zstd.compress(LINES * 50)[:-40])
    assert len(read_log(path).rows) <= len(ROWS)
    path.write_bytes(zstd.compress(LINES)[:8] + b"junk" * 30)
    with pytest.raises(LogError, match="damaged zstd"):
        read_log(path)


def test_without_zstd_the_remedy_is_said(tmp_path, monkeypatch):
    for name in ("compression", "compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    path = tmp_path / "metrics.jsonl.zst"
    path.write_bytes(b"(\xb5/\xfd" + bytes(40))
    with pytest.raises(LogError, match=r"pip install backports\.zstd"):
        read_log(path)


def test_parquet_is_read(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "history.parquet"
    rows = [row if row["step"] % 2 else {"step": row["step"], "reward": row["reward"]} for row in ROWS]
    kinds = pyarrow.schema([("step", "int64"), ("reward", "double"), ("entropy", "double")])
    parquet.write_table(pyarrow.Table.from_pylist(rows, kinds), path)
    log = read_log(path)
    assert rewards(log) == EXPECTED
    assert [step for step, values in log.rows if "entropy" in values] == [1, 3, 5, 7]
    assert read_log(tmp_path).rows == log.rows
    path.write_bytes(path.read_bytes()[:-30] + b"PAR1")
    with pytest.raises(LogError, match="no whole Parquet table"):
        read_log(path)


def test_without_pyarrow_the_remedy_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "history.parquet"
    path.write_bytes(b"PAR1" + bytes(40) + b"PAR1")
    with pytest.raises(LogError, match=r"entrostat\[parquet\]"):
        read_log(path)


FILES = {
    "run.txt": "".join(f"step {row['step']} | reward {row['reward']:.3f}\n" for row in ROWS).encode(),
    "history.json": json.dumps(ROWS).encode(),
    "metrics.jsonl.gz": gzip.compress(LINES),
    "notes.md": (
        "| step | reward |\n|---|---|\n" + "".join(f"| {r['step']} | {r['reward']} |\n" for r in ROWS)
    ).encode(),
    "table.tsv": ("step\treward\n" + "".join(f"{r['step']}\t{r['reward']}\n" for r in ROWS)).encode(),
}


@pytest.mark.parametrize("name", FILES)
def test_the_log_of_a_folder_is_found_among_other_files(tmp_path, name):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / name).write_bytes(FILES[name])
    (tmp_path / "requirements.txt").write_text("torch==2.9\nnumpy\n")
    (tmp_path / "zz-debug.log").write_text("INFO started\nINFO done\n")
    (tmp_path / "args.json").write_text('{"learning_rate": 1e-06, "beta": 0.1}')
    log = read_log(tmp_path)
    assert rewards(log) == EXPECTED
    assert log.file == f"logs/{name}"


def test_a_folder_with_unknown_columns_alone_is_read_as_such(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "foo": 2}\n{"step": 2, "foo": 3}\n')
    log = read_log(tmp_path)
    assert (log.rows, log.unread) == ([], ("foo",))
    assert read_log(tmp_path, {"reward": ["foo"]}).rows == [(1, {"reward": 2.0}), (2, {"reward": 3.0})]
