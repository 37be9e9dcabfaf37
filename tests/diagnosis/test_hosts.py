"""Whatever wrote a log, the same run is read from it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.diagnosis import hosts

from entrostat.diagnosis import LogError, diagnose, read_log


def written(folder, name, text):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read_or_refuse(path):
    """The log, or None where it is refused by the one error that may come."""
    try:
        return read_log(path)
    except LogError:
        return None


def series(log, quantity):
    return {step: values[quantity] for step, values in log.rows if quantity in values}


def expected(steps, quantity, first):
    found = {step.step - 1 + first: getattr(step, quantity) for step in steps}
    return {step: pytest.approx(value, abs=6e-4) for step, value in found.items() if value is not None}


@pytest.mark.parametrize("name", hosts.HOSTS)
def test_every_host_gives_the_same_run(tmp_path, name):
    host, steps = hosts.HOSTS[name], hosts.run()
    log = read_log(written(tmp_path, host.name, host.write(steps)))
    for quantity in host.has:
        assert series(log, quantity) == expected(steps, quantity, host.first), quantity
    assert log.end == host.end
    assert not {"heldout", "entropy", "reward"}.intersection(log.used) - set(host.has)


@pytest.mark.parametrize("name", [name for name, host in hosts.HOSTS.items() if "entropy" in host.has])
def test_a_collapse_is_found_under_the_names_of_every_host(tmp_path, name):
    host = hosts.HOSTS[name]
    steps = [replace(step, entropy=max(step.entropy**2, 1e-4)) for step in hosts.run()]
    found = diagnose(read_log(written(tmp_path, host.name, host.write(steps))))
    assert "entropy-collapse" in {finding.kind for finding in found.findings}


def test_that_is_so_for_more_than_ten_trainers():
    trainers = {"trl", "ms-swift", "verl", "openrlhf", "slime", "prime-rl", "skyrl", "areal", "roll", "tinker"}
    assert trainers <= {name for name, host in hosts.HOSTS.items() if "entropy" in host.has}


def noise(text):
    """The text among what a cluster's console shows besides."""
    junk = [
        "INFO 01-02 03:04:05 [engine.py:12] Loading weights: 12%|█  | 1/8 [00:01<00:07]",
        "",
        "{'prompt': 'What is {x}?'",
        "UserWarning: reward: is deprecated, use score=1 {",
        "(raylet) 0.1 GB / 2.0 GB",
        "x" * 300_000,
    ]
    lines = []
    for place, line in enumerate(text.split("\n")):
        lines += [line] if place % 7 else [junk[place // 7 % len(junk)], line]
    return "\n".join(lines)


CONSOLES = ["trl", "verl", "openrlhf", "slime", "prime-rl", "roll"]
CHANGES = {
    "crlf": lambda text: text.replace("\r\n", "\n").replace("\n", "\r\n"),
    "colours": lambda text: "\n".join(f"\x1b[1;32m{line}\x1b[0m" for line in text.split("\n")),
    "ray": lambda text: "\n".join(f"(Worker pid=12, ip=10.0.0.{n % 9}) {x}" for n, x in enumerate(text.split("\n"))),
    "ranks": lambda text: "\n".join(f"[rank0]: {line}" for line in text.split("\n")),
    "times": lambda text: "\n".join(f"2026-01-02T03:04:05.678Z {line}" for line in text.split("\n")),
    "repeated": lambda text: "\n".join(f"{line} [repeated 3x across cluster]" for line in text.split("\n")),
    "noise": noise,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", CONSOLES)
def test_what_a_console_adds_changes_nothing(tmp_path, name, change):
    host, steps = hosts.HOSTS[name], hosts.run()
    text = host.write(steps)
    if change not in ("crlf", "colours"):
        text = text.replace("\r", "\n")
    log = read_log(written(tmp_path, host.name, CHANGES[change](text)))
    for quantity in host.has:
        assert series(log, quantity) == expected(steps, quantity, host.first), quantity


@pytest.mark.parametrize("name", hosts.HOSTS)
def test_compressed_input_and_standard_input_are_the_same_log(tmp_path, monkeypatch, name):
    host = hosts.HOSTS[name]
    text = host.write(hosts.run()).encode()
    plain = read_log(written(tmp_path, host.name, text))
    packed = read_log(written(tmp_path, f"{host.name}.gz", gzip.compress(text)))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text)))
    piped = read_log("-")
    assert plain.rows == packed.rows == piped.rows
    assert piped.name == "standard input"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_what_was_packed_is_read_and_a_cut_is_said(tmp_path, pack):
    text = hosts.verl_console(hosts.run()).encode()
    plain, packed = read_log(written(tmp_path, "train.log", text)), pack(text)
    assert read_log(written(tmp_path, "packed", packed)).rows == plain.rows
    cut = read_log(written(tmp_path, "cut", packed[:-20]))
    assert cut.rows == plain.rows[: len(cut.rows)]
    assert any("cut off" in note for note in cut.notes)


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(sorted(hosts.HOSTS)), share=st.floats(0, 1))
def test_a_log_that_is_cut_off_gives_its_beginning_or_is_refused(tmp_path_factory, name, share):
    host, steps = hosts.HOSTS[name], hosts.run()
    text = host.write(steps)
    path = written(tmp_path_factory.mktemp("log"), host.name, text[: int(share * len(text))])
    log = read_or_refuse(path)
    if log is None:
        return
    whole = {step.step - 1 + host.first: step.reward for step in steps}
    read = series(log, "reward")
    assert all(
        whole[step] == pytest.approx(value, abs=6e-4) for step, value in list(read.items())[:-1] if step in whole
    )


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(hosts.HOSTS)),
    place=st.floats(0, 1),
    junk=st.binary(max_size=40) | st.text("{}'\":,|[]()\\\n=-0123456789.%e", max_size=60).map(str.encode),
    drop=st.integers(0, 200),
)
def test_no_damage_to_a_log_ends_in_a_traceback(tmp_path_factory, name, place, junk, drop):
    host = hosts.HOSTS[name]
    text = host.write(hosts.run()).encode()
    start = int(place * len(text))
    path = written(tmp_path_factory.mktemp("log"), host.name, text[:start] + junk + text[start + drop :])
    log = read_or_refuse(path)
    if log is None:
        return
    assert [step for step, _ in log.rows] == sorted({step for step, _ in log.rows})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("weights.bin", bytes(random.Random(0).randbytes(5000))),
        ("picture.log", b"\x89PNG\r\n\x1a\n" + bytes(200)),
        ("model.pkl", b"\x80\x04\x95" + bytes(200)),
        ("prose.txt", b"Dear all,\n\nthe run went well. Best: 0.5!\n"),
        ("broken.gz", b"\x1f\x8b\x08" + b"\xff" * 90),
        ("broken.bz2", b"BZh9" + b"\xff" * 90),
        ("broken.xz", b"\xfd7zXZ\x00" + b"\xff" * 90),
    ],
)
def test_what_is_no_log_is_refused_by_an_error_that_names_the_formats(tmp_path, name, content):
    with pytest.raises(LogError, match=r"Formats that are read|unpack it"):
        read_log(written(tmp_path, name, content))


@pytest.mark.parametrize(
    "content",
    ["{" * 200_000, "'a': " * 50_000, "step:1 - " * 50_000, "[" * 200_000, "| a " * 100_000, '{"a":' * 50_000,
     "{'loss': 0.1, " * 20_000, "Step 1 | " * 50_000, "=\n" * 100_000, "<table><tr>" * 20_000,
     "<table reward 1 <td\n" * 100_000],
)  # fmt: skip
def test_hostile_text_costs_no_more_than_its_length(tmp_path, content):
    with suppress(LogError):
        assert read_log(written(tmp_path, "log", content)).rows == []


def test_several_steps_per_rollout_are_counted_in_steps(tmp_path):
    steps = hosts.run()[:28]
    log = read_log(written(tmp_path, "train.log", hosts.slime(steps, per_rollout=4)))
    assert series(log, "entropy") == expected(steps, "entropy", 0)
    assert list(series(log, "reward")) == list(range(0, 28, 4))


def test_two_processes_of_one_run_are_joined_by_the_step(tmp_path):
    steps = hosts.run()
    lines = hosts.prime_rl(steps).split("\n")
    trainer, orchestrator = ([line for line in lines if mark in line] for mark in ("Loss", "Reward"))
    log = read_log(written(tmp_path, "both.log", "\n".join([*trainer, *orchestrator])))
    assert series(log, "entropy") == expected(steps, "entropy", 1)
    assert series(log, "reward") == expected(steps, "reward", 1)
    assert series(log, "heldout") == expected(steps, "heldout", 1)
