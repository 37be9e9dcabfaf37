"""Chains: killed anywhere they go on to the same tables; weights are freed; faults are plain and lose nothing."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from functools import partial

import pytest
import yaml
from processes import killed

from entrostat.campaign import Checkpoint
from entrostat.campaign.chain import campaign_folders, read_outcome
from entrostat.campaign.checkpoints import CheckpointError, CheckpointStore, verify
from entrostat.campaign.database import TABLES, chain_folder, read_results, write_results
from entrostat.engine.policy import Policy
from entrostat.engine.study import StudyError, jobs, run_one, run_study, standing
from entrostat.recipe import RecipeError, StudyRecipe
from entrostat.recipe.loading import parse_as
from entrostat.runs import Run, RunError

STUDY = {
    "name": "small",
    "seeds": [0],
    "campaigns": 3,
    "base": {
        "threads": 1,
        "tasks": {"train": 4, "select": 4, "report": 4, "ood": 2},
        "rollout": {"prompts": 2, "samples": 2},
        "update": {"advantage": "reinforce", "objective": "reinforce", "epochs": 2, "learning_rate": 2e-3},
        "evaluation": {"samples": 2, "pass_at": [1, 2], "report": "peak"},
        "campaign": {"steps": 4, "checkpoint_every": 1},
        "grading": {"workers": 1},
    },
    "methods": {
        "es-online": {"campaign.controller": {"name": "es-online", "patience": 1}},
        "crest": {
            "evaluation.every": None,
            "campaign.controller": {"name": "crest", "spacing": 1, "block": 2},
        },
        "care": {"campaign.controller": {"name": "care", "pilot": 2}, "campaign.optimizer": "carried"},
    },
}


def study(**changes):
    return parse_as(StudyRecipe, {**STUDY, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study whose chains ran in this process, one after another."""
    out = tmp_path_factory.mktemp("finished") / "study"
    for method, seed in jobs(study()):
        run_one(study(), method, seed, out)
    write_results(out, jobs(study()))
    return out


def tables(out, methods=tuple(STUDY["methods"])):
    """Everything in the tables but timings and places."""
    return {
        table: [
            {key: value for key, value in row.items() if key not in ("seconds", "path")}
            for row in read_results(out, table)
            if row["method"] in methods
        ]
        for table in TABLES
    }


def test_a_study_killed_at_random_moments_ends_with_the_same_tables(finished, tmp_path):
    out, file = tmp_path / "killed", tmp_path / "study.yaml"
    content = {**STUDY, "methods": {name: STUDY["methods"][name] for name in ("crest", "care")}}
    file.write_text(yaml.safe_dump(content))
    moments, own, goals = random.Random(0), study(**content), [1]
    for _ in range(3):
        assert killed(partial(run_study, own, out), lambda: standing(own, out).done >= goals[-1])
        goals.append(standing(own, out).done + moments.randint(1, 6))
    command = [sys.executable, "-m", "entrostat", "chain", str(file), "--out", str(out), "--json"]
    last = subprocess.run(command, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    assert tables(out) == tables(finished, ("crest", "care"))
    assert (out / "report.html").exists()


def test_chains_as_ray_tasks_end_with_the_same_tables(finished, tmp_path):
    ray = pytest.importorskip("ray")
    run_study(study(), tmp_path / "spread", ray=True)
    ray.shutdown()
    assert tables(tmp_path / "spread") == tables(finished)


def test_the_database_is_made_again_from_the_run_folders(finished):
    before = tables(finished)
    (finished / "results.sqlite").unlink()
    write_results(finished, jobs(study()))
    write_results(finished, jobs(study()))
    assert tables(finished) == before
    with sqlite3.connect(finished / "results.sqlite") as base:
        counted = base.execute("SELECT method, COUNT(*) FROM campaigns GROUP BY method").fetchall()
    assert sorted(counted) == [("care", 3), ("crest", 3), ("es-online", 3)]


def test_only_the_newest_hand_over_keeps_its_weights_and_starts_the_next_campaign(finished):
    for method in STUDY["methods"]:
        chain = chain_folder(finished, method, 0)
        outcomes = [read_outcome(place) for place in campaign_folders(chain)]
        kept = [path.name for path in (chain / "checkpoints").iterdir()]
        assert kept == [outcomes[-1].handed_over.path.name]
        assert not list(chain.glob("campaign-*/checkpoints"))
        verify(Checkpoint(chain / "checkpoints" / kept[0], 0))
        begins = [Run.open(place).hashes["policy"] for place in campaign_folders(chain)]
        assert begins[1:] == [outcome.handed_over.path.name for outcome in outcomes[:-1]]


def test_chains_of_one_seed_begin_alike_and_the_report_split_is_read_at_start_peak_and_end_alone(finished):
    starts = {row["start"] for row in read_results(finished, "campaigns") if row["campaign"] == 0}
    assert len(starts) == 1
    for row in read_results(finished, "campaigns"):
        lines = [
            line["step"]
            for line in read_results(finished, "evaluations")
            if line["split"] == "report" and (line["method"], line["campaign"]) == (row["method"], row["campaign"])
        ]
        assert sorted(lines) == sorted({0, row["peak_step"], row["steps"]})


def test_care_remembers_a_row_a_campaign_and_crest_evaluates_parts(finished):
    memory = read_results(finished, "care_memory")
    assert [(row["method"], row["campaign"]) for row in memory] == [("care", 0), ("care", 1), ("care", 2)]
    parts = [row["select_share"] for row in read_results(finished, "evaluations") if row["method"] == "crest"]
    assert {0.5} <= {share for share in parts if share}
    plans = [row for row in read_results(finished, "decisions") if row["method"] == "care" and row["kind"] == "plan"]
    assert "pilot: nothing is remembered" in plans[0]["cause"]
    care = [row["steps"] for row in read_results(finished, "campaigns") if row["method"] == "care"]
    assert care[0] == 2
    assert set(care) <= {0, 2, 4}


def test_a_carried_optimizer_changes_the_second_campaign_and_not_the_first(tmp_path):
    rows = []
    for optimizer in ("reset", "carried"):
        own = study(campaigns=2, methods={"naive": {"campaign.optimizer": optimizer, "campaign.steps": 2}})
        run_one(own, "naive", 0, tmp_path / optimizer)
        places = campaign_folders(chain_folder(tmp_path / optimizer, "naive", 0))
        rows.append([[line["grad_norm"] for line in Run.open(place).steps()] for place in places])
    reset, carried = rows
    assert reset[0] == carried[0]
    assert reset[1][0] == carried[1][0]
    assert reset[1][1:] != carried[1][1:]


def test_resampled_tasks_change_from_campaign_to_campaign_and_held_out_ones_stay(tmp_path):
    own = study(tasks="resampled")
    one, other = (own.recipe("care", 0, number) for number in (0, 1))
    assert one.tasks.train_seed != other.tasks.train_seed
    assert one.tasks.seed == other.tasks.seed
    assert own.recipe("es-online", 0, 0).tasks == one.tasks


def test_a_corrupt_hand_over_is_refused_by_name_and_a_copy_put_back_goes_on(finished, tmp_path):
    out = tmp_path / "longer"
    shutil.copytree(finished, out)
    place = next((chain_folder(out, "care", 0) / "checkpoints").iterdir())
    weights = place / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    longer = study(campaigns=4, methods={"care": STUDY["methods"]["care"]})
    before = tables(out)
    with pytest.raises(CheckpointError, match="is corrupt"):
        run_one(longer, "care", 0, out)
    weights.write_bytes(whole)
    run_one(longer, "care", 0, out)
    write_results(out, [("care", 0)])
    assert [row for row in tables(out)["campaigns"] if row["method"] == "care"][:3] == [
        row for row in before["campaigns"] if row["method"] == "care"
    ]
    assert len(campaign_folders(chain_folder(out, "care", 0))) == 4


def test_a_full_disk_ends_in_a_plain_error_and_the_same_call_goes_on(finished, tmp_path, monkeypatch):
    own = study(methods={"es-online": STUDY["methods"]["es-online"]})
    save, calls = CheckpointStore.save, []

    def full(self, write, step):
        calls.append(step)
        if len(calls) == 5:
            monkeypatch.setattr(Policy, "save", _no_space)
        return save(self, write, step)

    monkeypatch.setattr(CheckpointStore, "save", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        run_one(own, "es-online", 0, tmp_path)
    monkeypatch.undo()
    run_one(own, "es-online", 0, tmp_path)
    write_results(tmp_path, [("es-online", 0)])
    mine = [row for row in tables(finished)["campaigns"] if row["method"] == "es-online"]
    assert tables(tmp_path)["campaigns"] == mine


def _no_space(self, folder):
    raise OSError(28, os.strerror(28))


def test_a_chain_that_fails_is_named_and_the_others_end(tmp_path):
    methods = {"naive": {"campaign.steps": 1}, "broken": {"policy.path": str(tmp_path / "nowhere")}}
    own = study(campaigns=1, methods=methods)
    with pytest.raises(StudyError, match=r"broken, seed 0: .*does not exist"):
        run_study(own, tmp_path / "out", workers=2)
    assert [row["method"] for row in read_results(tmp_path / "out", "campaigns")] == ["naive"]


def test_a_folder_that_is_no_study_is_refused_and_stays(tmp_path):
    (tmp_path / "notes.txt").write_text("keep me")
    with pytest.raises(RunError, match="not a study"):
        run_study(study(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("content", ["", "[]", '{"name": "a study of another program"}', "{"])
def test_a_study_json_of_another_program_stays(tmp_path, content):
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(RunError, match="not a study"):
        run_study(study(), tmp_path)
    assert (tmp_path / "study.json").read_text() == content


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {"naive": {"update.epocs": 2}}}, "update.epocs: unknown key"),
        ({"methods": {}}, "methods: got {}"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"campaigns": 0}, "campaigns: got 0"),
        ({"methods": {"../x": {}}}, "methods"),
        ({"methods": {"x": {"update.kl": {"kind": "fixed", "coefficient": 0}}}}, "update.kl.coefficient"),
    ],
)
def test_a_faulty_study_is_refused_by_field(changes, message):
    with pytest.raises(RecipeError) as caught:
        study(**changes)
    assert message in str(caught.value)
