"""Every format gives the rows that were logged; every damage is read as far as it goes, and said."""

import json
import math
import multiprocessing
import os
import struct
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from entrostat.diagnosis import LogError, diagnose, read_log
from entrostat.diagnosis.reading.wandb import BLOCK, FILE_HEADER, HEADER, IDENT, MAGIC, Frames
from entrostat.runs import Run

ROWS = [{"step": step, "entropy": 0.5 / step, "reward": 0.1 * step} for step in range(1, 6)]
EXPECTED = [(row["step"], pytest.approx({"entropy": row["entropy"], "reward": row["reward"]})) for row in ROWS]


def trainer_state(rows, max_steps=100):
    return json.dumps({"epoch": 1.0, "log_history": rows, "max_steps": max_steps}, indent=2)


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def verl_line(row, number="{}"):
    rest = f"actor/entropy:{number.format(row['entropy'])} - critic/score/mean:{number.format(row['reward'])}"
    return f"step:{row['step']} - {rest} - timing_s/gen:1.5\n"


def table(rows, mark=","):
    lines = [mark.join(rows[0]), *(mark.join(str(value) for value in row.values()) for row in rows)]
    return "\n".join(lines) + "\n"


TEXTS = {
    "trainer_state.json": trainer_state(ROWS),
    "rows.jsonl": jsonl(ROWS),
    "rows.json": json.dumps(ROWS),
    "verl.log": "INFO start\n" + "".join(verl_line(row) for row in ROWS) + "done\n",
    "verl-ray.log": "".join(f"\x1b[36m(TaskRunner pid=7)\x1b[0m {verl_line(row, 'np.float64({})')}" for row in ROWS),
    "verl-file.jsonl": jsonl(
        {"step": r["step"], "data": {"actor/entropy": r["entropy"], "critic/score/mean": r["reward"]}} for r in ROWS
    ),
    "rows.csv": table(ROWS),
    "rows.tsv": table(ROWS, "\t"),
    "exported.csv": table(
        [
            {
                "Step": r["step"],
                "my - run - train/entropy": r["entropy"],
                "my - run - train/entropy__MIN": 0,
                "a - reward": r["reward"],
            }
            for r in ROWS
        ]
    ),
}


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read_or_refuse(path):
    """The log, or None where it is refused by the one error that may come."""
    try:
        return read_log(path)
    except LogError:
        return None


@pytest.mark.parametrize("name", TEXTS)
def test_every_format_gives_the_same_rows(tmp_path, name):
    log = read_log(written(tmp_path, name, TEXTS[name]))
    assert log.rows == EXPECTED
    assert log.notes == ()
    assert "kl" in log.lacking
    assert set(log.used) == {"entropy", "reward"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marked_encodings_are_read(tmp_path, encoding):
    assert read_log(written(tmp_path, "rows.csv", table(ROWS).encode(encoding))).rows == EXPECTED


def test_trl_says_where_the_run_ends_and_where_its_own_evaluation_is(tmp_path):
    rows = [{"step": 5, "entropy": 0.5, "reward": 0.2}, {"step": 5, "eval_reward": 0.4, "eval_entropy": 9.0}]
    log = read_log(written(tmp_path, "trainer_state.json", trainer_state(rows)))
    assert log.end == 100
    assert log.rows == [(5, {"entropy": 0.5, "reward": 0.2, "heldout": 0.4})]


def test_several_validation_sets_of_verl_are_averaged(tmp_path):
    line = "step:3 - val-core/gsm8k/acc/mean@4:0.2 - val-core/math/acc/mean@4:0.6 - val-aux/gsm8k/acc/std@4:0.1\n"
    assert read_log(written(tmp_path, "verl.log", line)).rows == [(3, {"heldout": pytest.approx(0.4)})]


def test_a_resumed_run_keeps_its_later_rows(tmp_path):
    rows = [*ROWS, {"step": 4, "entropy": 9.0, "reward": 9.0}]
    log = read_log(written(tmp_path, "rows.jsonl", jsonl(rows)))
    assert [step for step, _ in log.rows] == [1, 2, 3, 4, 5]
    assert log.rows[3][1]["entropy"] == 9.0
    assert any("had come before" in note for note in log.notes)


def test_text_where_a_number_belongs_is_left_out_and_said(tmp_path):
    rows = [*ROWS[:2], {"step": 3, "entropy": "broken", "reward": 0.3}, {"step": 4, "entropy": "nan", "reward": None}]
    log = read_log(written(tmp_path, "rows.jsonl", jsonl(rows)))
    assert log.rows[2] == (3, {"reward": 0.3})
    assert math.isnan(log.rows[3][1]["entropy"])
    assert any("column entropy: 1 value of text" in note for note in log.notes)
    assert {finding.kind for finding in diagnose(log).findings} == {"not-finite"}


def test_rows_without_steps_are_numbered(tmp_path):
    log = read_log(written(tmp_path, "rows.jsonl", jsonl([{"entropy": 0.5}, {"entropy": 0.4}])))
    assert [step for step, _ in log.rows] == [1, 2]
    assert any("numbered" in note for note in log.notes)


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff", "{", "[", '{"log_history": [', "\x00\x00", "step\n"])
def test_an_empty_or_cut_off_file_is_said_to_hold_nothing(tmp_path, content):
    log = read_or_refuse(written(tmp_path, "log", content))
    assert log is None or (log.rows == [] and log.notes)


@pytest.mark.parametrize("path", ["absent.jsonl", ".", "a/b/c"])
def test_what_is_no_log_is_refused_with_a_remedy(tmp_path, path):
    with pytest.raises(LogError, match=r"name the log|give the path"):
        read_log(tmp_path / path)


def test_mixed_encodings_are_read_line_by_line(tmp_path):
    lines = [json.dumps({**row, "note": "schön"}, ensure_ascii=False) for row in ROWS]
    content = b"\n".join(line.encode("cp1252" if i % 2 else "utf-8") for i, line in enumerate(lines))
    log = read_log(written(tmp_path, "rows.jsonl", content))
    assert log.rows == EXPECTED
    assert log.notes == ("2 lines not in UTF-8, read as Windows-1252",)


@settings(max_examples=120, deadline=None)
@given(name=st.sampled_from(sorted(TEXTS)), cut=st.integers(0, 2000))
def test_a_truncated_log_gives_a_beginning_of_its_rows(tmp_path_factory, name, cut):
    path = written(tmp_path_factory.mktemp("log"), name, TEXTS[name][:cut])
    log = read_or_refuse(path)
    steps = [step for step, _ in log.rows] if log else []
    assert steps == list(range(1, len(steps) + 1)) or len(steps) <= 1  # a cut step, as in 1|2, is a step of its own


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from([*TEXTS, "events.out.tfevents.1", "run-1.wandb"]),
    place=st.integers(0, 2000),
    junk=st.binary(max_size=40),
    drop=st.integers(0, 60),
)
@example(name="rows.jsonl", place=0, junk=b"[" * 40, drop=0)
@example(name="rows.csv", place=3, junk=b'"', drop=0)
@example(name="rows.json", place=1, junk=b"1e999,", drop=0)
def test_no_damage_ends_in_a_traceback(tmp_path_factory, name, place, junk, drop):
    content = TEXTS.get(name, jsonl(ROWS)).encode()
    path = written(tmp_path_factory.mktemp("log"), name, content[:place] + junk + content[place + drop :])
    log = read_or_refuse(path)
    if log:
        diagnose(log).as_dict()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["step", "global_step", "entropy", "reward", "eval_reward", "kl", "data", "x"]),
            st.recursive(
                st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
                lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
                max_leaves=4,
            ),
        ),
        max_size=30,
    )
)
def test_any_json_is_read(tmp_path_factory, rows):
    path = written(tmp_path_factory.mktemp("log"), "rows.jsonl", jsonl(rows) or "\n")
    log = read_log(path)
    assert [step for step, _ in log.rows] == sorted({step for step, _ in log.rows})
    diagnose(log)


@pytest.mark.parametrize("mark", [",", "\t"])
def test_of_columns_of_one_name_the_first_is_read_and_it_is_said(tmp_path, mark):
    lines = [mark.join(["step", "entropy", "a - entropy", "reward", "entropy"])]
    lines += [mark.join(map(str, [row["step"], row["entropy"], 9.0, row["reward"], 7.0])) for row in ROWS]
    log = read_log(written(tmp_path, "rows.csv", "\n".join(lines)))
    assert log.rows == EXPECTED
    assert log.notes == ("column entropy comes 3 times: the first is read",)


def test_a_log_of_one_row_is_read(tmp_path):
    log = read_log(written(tmp_path, "rows.jsonl", jsonl(ROWS[:1])))
    assert log.rows == EXPECTED[:1]
    assert not diagnose(log).findings


def test_negative_zero_and_the_largest_numbers_are_survived(tmp_path):
    numbers = ["-0.0", "1e308", "-1e308", "0.5", "5e-324"]
    names = ["entropy", "reward", "eval_reward", "kl", "grad_norm", "completions/mean_length", "clip_ratio/low_mean"]
    rows = [
        {"step": i, **{name: float(numbers[(i + j) % len(numbers)]) for j, name in enumerate(names)}}
        for i in range(1, 60)
    ]
    found = diagnose(read_log(written(tmp_path, "rows.jsonl", jsonl(rows))))
    assert "not-finite" in {finding.kind for finding in found.findings}
    json.dumps(found.as_dict(), allow_nan=False)


def refusal(kind: str) -> str:
    """What is said of a log that its reader made and may not read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        path.mkdir() if kind == "folder" else path.write_text(jsonl(ROWS))
        path.chmod(0)
        try:
            read_log(path)
        except LogError as error:
            return str(error)
        finally:
            path.chmod(0o700)
    return ""


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_may_not_be_read_is_refused_for_that(kind):
    # root may read everything, and a process that was someone else for a while is marked by the kernel for good
    start = {"initializer": os.seteuid, "initargs": (65534,)} if os.geteuid() == 0 else {}
    with multiprocessing.get_context("fork").Pool(1, **start) as nobody:
        assert "Permission denied; fix its permissions" in nobody.apply(refusal, (kind,))


def test_an_event_file_without_a_byte_or_of_junk_holds_nothing(tmp_path):
    pytest.importorskip("tensorboard")
    for content in (b"", b"\x00" * 5, b"junk" * 40):
        log = read_log(written(tmp_path, "events.out.tfevents.1.host", content).parent)
        assert log.rows == []
        assert log.notes


def test_deep_nesting_and_huge_numbers_are_survived(tmp_path):
    deep = '{"step": 1, "entropy": ' + "[" * 100_000 + "}\n"
    log = read_log(
        written(tmp_path, "rows.jsonl", deep + '{"step": 2, "entropy": 1' + "0" * 400 + "}\n" + jsonl(ROWS[2:]))
    )
    assert [step for step, _ in log.rows] == [2, 3, 4, 5]


def test_a_run_folder_gives_select_and_never_report(tmp_path):
    run = Run.create(tmp_path / "run", {"campaign": {"steps": 40}}, 0, {}, {})
    for step in range(1, 9):
        tokens = {"rollout": 100 if step % 4 == 1 else 0, "update": 100}
        run.log_step({"step": step, "entropy": 0.5, "reward": 0.1 * step, "tokens": tokens, "clip_fraction_low": 0.1})
        run.log_eval({"step": step, "split": "select", "results": [["a", 4, 2], ["b", 4, 4]]})
        run.log_eval({"step": step, "split": "report", "results": [["c", 4, 0]]})
    log = read_log(tmp_path / "run")
    assert log.end == 40
    assert all(values["heldout"] == 0.75 for _, values in log.rows)
    assert [step for step, values in log.rows if "reward" in values] == [1, 5]


def test_a_torn_run_folder_is_read_as_far_as_it_goes(tmp_path):
    run = Run.create(tmp_path / "run", {}, 0, {}, {})
    for step in range(1, 4):
        run.log_step({"step": step, "entropy": 0.5})
    with (run.path / "steps.jsonl").open("a") as file:
        file.write('{"step": 4, "entr')
    assert len(read_log(run.path).rows) == 3
    (run.path / "run.json").write_text("{")
    log = read_log(run.path)
    assert len(log.rows) == 3
    assert log.end is None
    assert any("run.json" in note for note in log.notes)


@settings(max_examples=60, deadline=None)
@given(
    file=st.sampled_from(["run.json", "steps.jsonl", "evals.jsonl"]),
    place=st.integers(0, 400),
    junk=st.binary(max_size=30),
    drop=st.integers(0, 80),
)
def test_no_damage_to_a_run_folder_ends_in_a_traceback(tmp_path_factory, file, place, junk, drop):
    run = Run.create(tmp_path_factory.mktemp("run") / "run", {"campaign": {"steps": 9}}, 0, {}, {})
    for step in range(1, 4):
        run.log_step({"step": step, "entropy": 0.5, "tokens": {"rollout": 1}})
        run.log_eval({"step": step, "split": "select", "results": [["a", 4, 2]]})
    content = (run.path / file).read_bytes()
    (run.path / file).write_bytes(content[:place] + junk + content[place + drop :])
    diagnose(read_log(run.path)).as_dict()


def framed(records):
    """Records in LevelDB's framing, as `wandb` writes them."""
    out = bytearray(FILE_HEADER.pack(IDENT, MAGIC, 0))
    for record in records:
        first = True
        while first or record:
            left = BLOCK - len(out) % BLOCK
            if left < HEADER.size:
                out += b"\0" * left
                left = BLOCK
            part, record = record[: left - HEADER.size], record[left - HEADER.size :]
            kind = (1 if first else 4) if not record else (2 if first else 3)
            out += HEADER.pack(zlib.crc32(bytes([kind]) + part), len(part), kind) + part
            first = False
    return bytes(out)


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 80_000), max_size=6), cut=st.integers(0, 200_000))
def test_frames_give_back_the_records_up_to_the_cut(sizes, cut):
    records = [bytes([i]) * size for i, size in enumerate(sizes)]
    whole = framed(records)
    frames = Frames(whole)
    assert list(frames) == records
    assert not frames.torn
    short = Frames(whole[:cut])
    got = list(short)
    assert got == records[: len(got)]
    assert short.torn or got == records or cut <= len(framed(records[: len(got)]))


def test_a_frame_with_a_wrong_checksum_ends_the_reading():
    whole = bytearray(framed([b"one", b"two"]))
    whole[-1] ^= 1
    frames = Frames(bytes(whole))
    assert list(frames) == [b"one"]
    assert frames.torn


def test_struct_sizes_are_those_of_the_format():
    assert HEADER.size == 7
    assert FILE_HEADER.size == struct.calcsize("<4sHB") == 7


def test_tensorboard_events_are_read(tmp_path):
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path))
    for row in ROWS:
        writer.add_scalar("train/entropy", row["entropy"], row["step"])
        writer.add_scalar("train/reward", row["reward"], row["step"])
    writer.close()
    log = read_log(tmp_path)
    assert log.rows == [(step, pytest.approx(values.expected, rel=1e-6)) for step, values in EXPECTED]
    events = next(tmp_path.glob("events*"))
    events.write_bytes(events.read_bytes()[:-20])
    assert 0 < len(read_log(tmp_path).rows) <= len(ROWS)


def test_offline_runs_of_weights_and_biases_are_read(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = wandb.init(project="p", mode="offline", dir=str(tmp_path))
    for row in ROWS:
        run.log({"train/entropy": row["entropy"], "train/reward": row["reward"]}, step=row["step"])
    run.finish()
    wandb.teardown()  # the library's own process writes the file; it is whole when that has ended
    log = read_log(tmp_path)
    assert log.format.startswith("Weights")
    assert log.rows == EXPECTED
    file = next(tmp_path.rglob("run-*.wandb"))
    file.write_bytes(file.read_bytes()[:-300])
    assert "as far as it goes" in " ".join(read_log(file).notes)
