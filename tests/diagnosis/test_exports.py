"""What trackers, spreadsheets, containers and other countries make of a log: the same rows, whatever it looks like."""

import json

import pytest

from entrostat.diagnosis import read_log

STEPS = range(1, 31)
ROWS = [(step, round(0.9 - 0.02 * step, 4), round(0.1 + 0.013 * step, 4)) for step in STEPS]


def comma(value):
    return f"{value:.4f}".replace(".", ",")


def table(head, form, rows=ROWS):
    return head + "\n" + "".join(form(*row) + "\n" for row in rows)


FORMS = {
    "comet.csv": table(
        "metricName,step,metricValue",
        lambda s, e, r: f"train/entropy,{s},{e}\ntrain/reward,{s},{r}",
    ),
    "mlflow.csv": table("run_id,key,value,step", lambda s, e, r: f"a,train/entropy,{e},{s}\na,train/reward,{r},{s}"),
    "container.log": table(
        "", lambda s, e, r: json.dumps({"log": f"{{'step': {s}, 'entropy': {e}, 'reward': {r}}}\n", "stream": "stdout"})
    ).lstrip(),
    "pandas.txt": table("   step   entropy   reward", lambda s, e, r: f"{s - 1:<4} {s:>4}  {e:>8}  {r:>8}"),
    "bars.log": table("", lambda s, e, r: f"{s * 3}%|##| {s}/30 [00:03<01:00, entropy={comma(e)}, reward={comma(r)}]"),
    "text.jsonl": table(
        "", lambda s, e, r: json.dumps({"step": str(s), "entropy": comma(e), "reward": comma(r)})
    ).lstrip(),
    "excel.csv": table("Step;entropy;reward", lambda s, e, r: f"{s};{comma(e)};{comma(r)}").replace("\n", "\r\n"),
    "mac.csv": table("step,entropy,reward", lambda s, e, r: f"{s},{e},{r}").replace("\n", "\r"),
    "yaml.log": table("", lambda s, e, r: f"step: {s}\nentropy: {e}\nreward: {r}\n---"),
    "page.html": "<table><tr><th>step<th>entropy<th>reward</tr>"
    + "".join(f"<tr><td>{s}</td><td>{e}</td><td>{r}</td></tr>" for s, e, r in ROWS)
    + "</table>",
    "resumed.csv": table("step,entropy,reward", lambda s, e, r: f"{s},{e},{r}", ROWS[:20])
    + table("step,entropy,reward", lambda s, e, r: f"{s},{e},{r}", ROWS[12:]),
    "doubled.jsonl": "".join(2 * (json.dumps({"step": s, "entropy": e, "reward": r}) + "\n") for s, e, r in ROWS),
}


def same(log, columns=("entropy", "reward")):
    assert [step for step, _ in log.rows] == list(STEPS)
    for place, name in ((1, "entropy"), (2, "reward")):
        if name in columns:
            assert [values[name] for _, values in log.rows] == pytest.approx([row[place] for row in ROWS])


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_rows(tmp_path, name):
    (tmp_path / name).write_bytes(FORMS[name].encode())
    same(read_log(tmp_path / name))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le", "utf-8-sig", "cp1252"])
def test_every_encoding_gives_the_same_rows(tmp_path, encoding):
    (tmp_path / "log.csv").write_bytes(FORMS["mac.csv"].replace("\r", "\n").encode(encoding))
    same(read_log(tmp_path / "log.csv"))


def test_a_table_of_one_metric_is_named_by_its_file(tmp_path):
    (tmp_path / "entropy.csv").write_text(table("step,value,timestamp", lambda s, e, r: f"{s},{e},17"))
    same(read_log(tmp_path / "entropy.csv"), ["entropy"])


def test_of_mlflows_runs_the_newest_is_read_and_named(tmp_path):
    for run, started in (("b", 1_700_000_000_000), ("a", 1_800_000_000_000)):
        folder = tmp_path / "mlruns" / "0" / run / "metrics" / "train"
        folder.mkdir(parents=True)
        for place, name in ((1, "entropy"), (2, "reward")):
            lines = [f"{started + row[0]} {row[place] if run == 'a' else 7.0} {row[0]}\n" for row in ROWS]
            (folder / name).write_text("".join(lines))
    log = read_log(tmp_path)
    same(log)
    assert "mlruns/0/a" in log.file
    assert any("mlruns/0/b" in note for note in log.notes)


def test_a_minus_as_printers_set_it_is_one(tmp_path):
    text = table("step,reward", lambda s, e, r: f"{s},\u2212{r}")
    (tmp_path / "log.csv").write_text(text, encoding="utf-8")
    assert [values["reward"] for _, values in read_log(tmp_path / "log.csv").rows] == [-row[2] for row in ROWS]
