"""A run folder that was damaged, cut off or written by somebody else is refused by file, line and field, or read."""

import copy
import json
import random
import shutil
from contextlib import suppress

import matplotlib.pyplot as plt
import pytest
from typer.testing import CliRunner

from entrostat.cli import app
from entrostat.diagnosis import diagnose, read_log
from entrostat.errors import EntrostatError
from entrostat.report import PANELS, NotMeasuredError, build_report, draw_panel, html, read_runs
from entrostat.report.reading import speed, summarise
from entrostat.report.samples import side_by_side
from entrostat.runs import Run, RunError, Trajectory

from .conftest import make_run

FILES = ("run.json", "steps.jsonl", "evals.jsonl", "decisions.jsonl", "samples/000003-train.jsonl")
VALUES = (
    None,
    True,
    -1,
    0,
    1.5,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\ud800",
    [],
    [1],
    [[1, 2]],
    {},
    {"x": []},
)
TRIED, DRAWN = 400, 25  # of the damaged folders, and of those whose page and figures are made as well


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("whole") / "run", steps=4, stop=3, strategy="id", tokens=True).path


def places(value, path=()):
    """The paths of everything inside a JSON value; of a list its first entries alone."""
    inside = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, child in inside:
        yield (*path, key)
        yield from places(child, (*path, key))


def changed(value, path, new):
    """A copy with the value at a path replaced; DELETE takes it out."""
    found = copy.deepcopy(value)
    inner = found
    for key in path[:-1]:
        inner = inner[key]
    if new is DELETE:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return found


DELETE = object()


def damaged(whole):
    """Each file with each place of its last line changed to each value, and as bytes that are no JSON lines."""
    for name in FILES:
        text = (whole / name).read_bytes()
        lines = text.splitlines() if name != "run.json" else [text]
        record = json.loads(lines[-1])
        for path in [*places(record), None]:
            for new in (DELETE, *VALUES):
                if path is None and new is DELETE:
                    continue
                line = json.dumps(new if path is None else changed(record, path, new)).encode()
                yield name, b"\n".join([*lines[:-1], line, b""])
        for junk in (
            b"",
            b"\n",
            b"\xff\xfe\n",
            text[: len(text) // 2],
            b"[" * 100_000 + b"\n",
            b"\0" * 64 + b"\n",
            b"{}\n",
        ):
            yield name, junk
        yield name, text + text.splitlines()[0] + b"\n"
        yield name, None


def read_everything(folder):
    """What reads a run folder, short of drawing it."""
    run = Run.open(folder)
    lines = run.evals()
    for split in {line["split"] for line in lines if line["results"]}:
        Trajectory.from_evals([line for line in lines if line["split"] == split and line["results"]])
    run.samples()
    data = read_runs([folder])[0]
    summarise(data), speed(data), side_by_side(data)
    Run.create(folder, run.recipe, run.seed, run.hashes, run.versions).trace()
    return data


def draw(folder, data):
    build_report([folder], folder.with_suffix(".html"), [diagnose(read_log(folder)).findings])
    for panel in PANELS:
        with suppress(NotMeasuredError):
            draw_panel(panel, data)
        plt.close("all")


def outcome(folder, drawn):
    """None where the folder is read, else what it is refused for; any other error is a fault of ours."""
    with suppress(EntrostatError):
        diagnose(read_log(folder))
    try:
        found = read_everything(folder)
    except RunError as error:
        return str(error)
    if drawn:
        draw(folder, found)
    found.run.rewind(2)
    return None


def test_a_damaged_folder_is_refused_by_file_and_field_or_read(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(html, "PANELS", ())  # each figure is drawn by itself, without its picture
    cases = random.Random(0).sample(list(damaged(whole)), TRIED)
    refused = 0
    for number, (name, data) in enumerate(cases):
        folder = shutil.copytree(whole, tmp_path / f"{number}")
        (folder / name).unlink()
        (folder / name).mkdir() if data is None else (folder / name).write_bytes(data)
        message = outcome(folder, number < DRAWN)
        refused += message is not None
        assert message is None or name.rpartition("/")[2] in message, (name, data, message)
        shutil.rmtree(folder)
    assert 0.3 < refused / len(cases) < 0.9


@pytest.mark.parametrize("value", ["\ud800", "", {"text": []}, [1], None])
def test_tokens_of_a_damaged_sample_are_refused_in_a_line_or_shown(whole, tmp_path, value):
    folder = shutil.copytree(whole, tmp_path / "run")
    file = max((folder / "samples").glob("*-train.jsonl"))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for field in ("tokens", "completion", "task", "advantage"):
        file.write_text("".join(json.dumps({**line, field: value}) + "\n" for line in lines))
        result = CliRunner().invoke(app, ["tokens", str(folder)])
        assert result.exit_code in (0, 1)
        assert isinstance(result.exception, SystemExit | None), result.exception
