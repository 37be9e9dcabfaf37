"""Shapes of logs that no single host writes, and which of several logs in one place is read."""

from __future__ import annotations

import json
import os
import sqlite3
import sys

import pytest

from entrostat.diagnosis import LogError, read_log

STEPS = range(1, 7)


def reward(step):
    return step / 10


def lines(form):
    return "".join(form.format(i=i, r=reward(i)) + "\n" for i in STEPS)


SHAPES = {
    "series of pairs": json.dumps({"reward": [[i, reward(i)] for i in STEPS], "entropy": [[i, 0.5] for i in STEPS]}),
    "series of points": json.dumps({"m": {"reward": [{"step": i, "value": reward(i)} for i in STEPS]}}),
    "objects by step": json.dumps({str(i): {"reward": reward(i)} for i in STEPS}),
    "columns by row": json.dumps({"step": {str(i): i for i in STEPS}, "reward": {str(i): reward(i) for i in STEPS}}),
    "rows deep inside": json.dumps({"a": {"b": [{"step": i, "reward": reward(i)} for i in STEPS]}, "c": [1]}, indent=2),
    "long table": "step,metric,value\n" + lines("{i},reward,{r}\n{i},loss,1"),
    "nested objects": "".join(
        json.dumps({"step": i, "m": {"reward": reward(i)}, "eval": {"reward": 9}}) + "\n" for i in STEPS
    ),
    "one line per completion": "".join(
        json.dumps({"step": i, "reward": reward(i) + d, "text": "x"}) + "\n" for i in STEPS for d in (-0.05, 0.05)
    ),
    "index and blanks": lines("[{i:3d}/400] loss 0.1 reward {r} len 200"),
    "colons and commas": lines("Step {i}: loss: 0.1, mean reward: {r}, time: 3.2s"),
    "equals": lines("INFO:root:iter={i} reward={r:.2f} kl=0.01"),
    "table per step": lines("-----\n| rollout/ | |\n| mean_reward | {r} |\n| iterations | {i} |\n-----"),
    "box per step": lines("╭── Metrics ──╮\n│ training_step: {i} │\n│ mean_reward: {r} │\n╰──╯"),
    "heading per step": lines("=== [logger_r0] - METRICS STEP {i} ===\n  rollout/reward_mean: {r}\n====="),
    "dictionary on many lines": lines("{{\n    'loss': 0.1,\n    'reward': {r},\n    'step': {i}\n}}"),
    "progress bars": lines("Train epoch [1/1]: 100%|##| 4/4 [00:10<00:00, 2.5s/it, act_loss=0.1, reward={r}, kl=0.1]"),
    "one progress bar": lines("RL: 10%|#  | {i}/400 [00:10<09:00, 2.5s/it, reward={r}, kl=0.1]"),
    "logger's arrows": lines("[INFO|2025-01-02 10:00:00] log.py:157 >> {{'loss': 0.1, 'reward': '{r}', 'step': {i}}}"),
    "in a fence": "My log:\n```\n" + lines("{{'loss': 0.1, 'reward': {r}, 'step': {i}}}") + "```\nWhat is wrong?\n",
    "decimal commas": "Step;Reward\n" + lines("{i};{r}").replace(".", ","),
    "Keras": lines("{i}/400 - 3s - loss: 0.1000 - reward: {r}"),
    "arrows": lines("[Step {i}] loss -> 0.1, reward -> {r}"),
    "a step in brackets": lines("I1130 10:00:00.123456 1401 logging_writer.py:48] [{i}] kl=0.1, reward={r}"),
    "the step last": lines("reward: {r} kl: 0.1 step: {i}"),
    "single blanks": "step reward kl\n" + lines("{i} {r} 0.1"),
    "lists of one": "".join(json.dumps({"step": i, "reward": [reward(i)], "texts": ["a", "b"]}) + "\n" for i in STEPS),
    "headings and lists": json.dumps([["step", "reward"], *([i, reward(i)] for i in STEPS)]),
    "pandas, split": json.dumps({"columns": ["step", "reward"], "data": [[i, reward(i)] for i in STEPS]}),
    "settings first": "Config: {'kl': 0.1, 'max_length': 512}\n" + lines("{{'loss': 0.1, 'reward': {r}, 'step': {i}}}"),
}  # fmt: skip


def test_steps_with_commas_between_thousands_are_read(tmp_path):
    file = tmp_path / "log"
    file.write_text("".join(f"Step {1000 * i:,}/400,000 - reward: {reward(i)}, kl: 0.1\n" for i in STEPS))
    log = read_log(file)
    assert [(step, values["reward"]) for step, values in log.rows] == [(1000 * i, reward(i)) for i in STEPS]
    assert log.end == 400_000


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_gives_the_same_rewards(tmp_path, name):
    file = tmp_path / "log"
    file.write_text(SHAPES[name])
    log = read_log(file)
    assert [(step, values["reward"]) for step, values in log.rows] == [(i, pytest.approx(reward(i))) for i in STEPS]
    assert log.used.get("heldout", ("eval.reward",)) == ("eval.reward",)


def test_a_scalar_that_tensorboard_exported_is_named_by_its_file(tmp_path):
    file = tmp_path / "run-grpo-tag-train_reward.csv"
    file.write_text("Wall time,Step,Value\n" + lines("1700000000.0,{i},{r}"))
    assert read_log(file).used == {"reward": ("train_reward",)}


def state(folder, step, old=False):
    folder.mkdir(parents=True)
    rows = [{"step": i, "reward": reward(i)} for i in range(1, step + 1)]
    file = folder / "trainer_state.json"
    file.write_text(json.dumps({"global_step": step, "log_history": rows, "max_steps": 9}))
    os.utime(file, (1, 1) if old else None)


def test_the_checkpoint_with_the_most_steps_is_read_whatever_its_time(tmp_path):
    for step in (9, 80, 100):
        state(tmp_path / f"checkpoint-{step}", step, old=step == 100)
    log = read_log(tmp_path)
    assert len(log.rows) == 100
    assert log.file == "checkpoint-100/trainer_state.json"
    assert any("checkpoint-100" in note and "most steps" in note for note in log.notes)


def test_of_one_log_in_a_folder_the_name_is_said_without_a_note(tmp_path):
    state(tmp_path / "checkpoint-5", 5)
    assert read_log(tmp_path).file == "checkpoint-5/trainer_state.json"
    assert not any("checkpoint" in note for note in read_log(tmp_path).notes)


def test_a_folder_of_text_logs_is_read_by_the_last_name(tmp_path):
    for number in (2, 10):
        (tmp_path / f"run-{number}.jsonl").write_text(json.dumps({"step": 1, "reward": float(number)}) + "\n")
    log = read_log(tmp_path)
    assert log.rows == [(1, {"reward": 10.0})]
    assert any("run-10.jsonl is read" in note and "run-2.jsonl" in note for note in log.notes)


def events(folder, value, tag="reward"):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for step in STEPS:
            writer.add_scalar(tag, value, step)


def test_of_several_runs_of_tensorboard_the_last_by_name_is_read_and_named(tmp_path):
    pytest.importorskip("tensorboard")
    for number in (2, 10):
        events(tmp_path / f"run-{number}", float(number))
    log = read_log(tmp_path)
    assert {values["reward"] for _, values in log.rows} == {10.0}
    assert log.file == "run-10"
    assert any("run-10 is read" in note and "run-2" in note for note in log.notes)
    assert read_log(tmp_path / "run-2").notes == ()


def test_folders_called_train_and_eval_are_one_run(tmp_path):
    pytest.importorskip("tensorboard")
    events(tmp_path / "train", 1.0)
    events(tmp_path / "eval", 2.0)
    log = read_log(tmp_path)
    assert log.rows[0] == (1, {"reward": 1.0, "heldout": 2.0})
    assert log.notes == ()


def database(path, runs):
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE metrics (id INTEGER PRIMARY KEY, timestamp TEXT, run_name TEXT, step INTEGER, metrics TEXT)"
        )
        for time, (run, value) in enumerate(runs):
            for step in STEPS:
                row = (f"2026-01-0{time + 1}T00:00:{step:02d}", run, step, json.dumps({"train/reward": value}))
                connection.execute("INSERT INTO metrics (timestamp, run_name, step, metrics) VALUES (?, ?, ?, ?)", row)
    connection.close()


def test_of_the_runs_in_trackios_database_the_newest_is_read_and_named(tmp_path):
    database(tmp_path / "project.db", [("zebra", 1.0), ("apple", 2.0)])
    log = read_log(tmp_path / "project.db")
    assert {values["reward"] for _, values in log.rows} == {2.0}
    assert any("apple is read" in note and "zebra" in note for note in log.notes)
    assert read_log(tmp_path).rows == log.rows


def test_a_database_of_something_else_is_refused(tmp_path):
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE pets (name TEXT)")
    connection.close()
    with pytest.raises(LogError, match="none of trackio"):
        read_log(tmp_path / "other.db")
    (tmp_path / "torn.db").write_bytes((tmp_path / "other.db").read_bytes()[:200])
    with pytest.raises(LogError):
        read_log(tmp_path / "torn.db")


def test_without_a_library_the_next_log_of_the_folder_is_read_and_it_is_said(tmp_path, monkeypatch):
    state(tmp_path / "checkpoint-5", 5)
    (tmp_path / "events.out.tfevents.1").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "tensorboard.backend.event_processing.event_accumulator", None)
    log = read_log(tmp_path)
    assert len(log.rows) == 5
    assert "pip install entrostat[tensorboard]" in log.notes[0]
    (tmp_path / "checkpoint-5" / "trainer_state.json").unlink()
    with pytest.raises(LogError, match="pip install"):
        read_log(tmp_path)


@pytest.mark.parametrize("first", ["rollout/raw_reward", "reward"])
def test_a_bare_name_under_eval_is_a_score_in_slimes_logs_alone(tmp_path, first):
    rows = [{"step": i, first: reward(i), "eval/aime": 0.5, "eval/temperature": 1.0} for i in STEPS]
    file = tmp_path / "log.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_log(file).used.get("heldout") == (("eval/aime",) if first.startswith("rollout/") else None)


@pytest.mark.parametrize("mark", ["\t", ";", "|"])
def test_commas_part_decimals_where_one_number_of_the_table_shows_it(tmp_path, mark):
    path = tmp_path / "table.csv"
    rows = [("step", "reward", "length"), ("1", "0,5", "1,234"), ("2", "0,75", "1.234,5")]
    path.write_text("\n".join(mark.join(row) for row in rows))
    assert [values for _, values in read_log(path).rows] == [
        {"reward": 0.5, "length": 1.234},
        {"reward": 0.75, "length": 1234.5},
    ]


def test_commas_part_thousands_beside_decimal_points(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text("step\treward\tlength\n1\t0.5\t1,234\n2\t0.75\t12,345\n")
    assert [values["length"] for _, values in read_log(path).rows] == [1234.0, 12345.0]


def test_rows_that_every_rank_prints_are_read_once_and_it_is_said(tmp_path):
    rows = [f"{{'reward': {0.1 * step:.1f}, 'loss': 0.5}}" for step in range(1, 7)]
    path = tmp_path / "train.log"
    path.write_text("\n".join(row for row in rows for _ in range(3)))
    log = read_log(path)
    assert [values["reward"] for _, values in log.rows] == [pytest.approx(0.1 * step) for step in range(1, 7)]
    assert any("printed 3 times" in note for note in log.notes)


def test_rows_that_are_alike_because_nothing_changes_are_all_read(tmp_path):
    path = tmp_path / "train.log"
    path.write_text("\n".join(["{'reward': 0.0, 'loss': 0.0}"] * 12))
    assert len(read_log(path).rows) == 12


def test_settings_before_the_rows_do_not_shift_the_steps_of_the_bar(tmp_path):
    path = tmp_path / "train.log"
    lines = ["{'reward': 1.0, 'beta': 0.1, 'lr': 0.2}"]
    for step in range(1, 6):
        lines += [f"{step * 7}/70 [00:10<00:20, 1.0s/it]", f"{{'reward': {0.1 * step:.1f}, 'loss': 0.5, 'kl': 0.1}}"]
    path.write_text("\n".join(lines))
    assert [step for step, _ in read_log(path).rows] == [7, 14, 21, 28, 35]


def test_names_and_numbers_with_dots_between_them_are_pairs(tmp_path):
    path = tmp_path / "train.log"
    path.write_text(
        "".join(f"--- iteration {step} ---\n  reward/mean ..... {0.1 * step:.1f}\n" for step in range(1, 6))
    )
    assert read_log(path).rows == [(step, {"reward": pytest.approx(0.1 * step)}) for step in range(1, 6)]


@pytest.mark.parametrize("there", [True, False])
def test_with_orjson_and_without_the_same_is_read(tmp_path, monkeypatch, there):
    """orjson refuses NaN, which Python writes: such lines are left to json."""

    def strict(text):
        return json.loads(text, parse_constant=lambda name: int(name))

    monkeypatch.setattr("entrostat.diagnosis.reading.document.fast_loads", strict if there else None)
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "reward": 0.5}\n{"step": 2, "reward": NaN}\n[1]\n{"step": 3, "reward": 0.7}\n{"step": 4'
    )
    log = read_log(path)
    assert [step for step, _ in log.rows] == [1, 2, 3]
    assert repr(log.rows[1][1]["reward"]) == "nan"
