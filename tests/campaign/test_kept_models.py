"""`RUN@peak` is a model wherever a model is asked for, and `export` makes a plain folder of it."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from entrostat.campaign.checkpoints import CheckpointError, CheckpointStore, kept_checkpoint, model_source
from entrostat.cli.app import app
from entrostat.engine.policy import load_policy
from entrostat.recipe import parse_recipe

SMALL = {
    "tasks": {"train": 4, "select": 2, "report": 2},
    "rollout": {"prompts": 2, "samples": 2},
    "evaluation": {"samples": 1, "pass_at": [1]},
    "campaign": {"steps": 2},
}


def entrostat(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    (folder / "small.yaml").write_text(yaml.safe_dump({"name": "small", **SMALL}))
    done = entrostat("train", folder / "small.yaml", "--out", folder / "run")
    assert done.exit_code == 0, done.output
    assert f"{folder / 'run'}@peak" in done.output.replace("\n", "")
    return folder / "run"


def test_a_kept_model_is_loaded_by_its_name(run):
    tags = CheckpointStore(run / "checkpoints").tags()
    for kept in ("start", "peak", "end"):
        assert model_source(f"{run}@{kept}") == tags[kept].path
    policy = load_policy(f"{run}@end")
    assert policy.source == str(tags["end"].path)


def test_links_lead_people_to_the_weights(run):
    for kept in ("peak", "end"):
        assert (run / kept).resolve() == kept_checkpoint(f"{run}@{kept}").path.resolve()
        assert (run / kept / "config.json").is_file()


def test_a_run_can_begin_with_what_another_kept(run, tmp_path):
    recipe = {"name": "next", **SMALL, "policy": {"path": f"{run}@peak"}, "campaign": {"steps": 1}}
    assert parse_recipe(recipe).policy.path == f"{run}@peak"
    (tmp_path / "next.yaml").write_text(yaml.safe_dump(recipe))
    done = entrostat("train", tmp_path / "next.yaml", "--out", tmp_path / "next")
    assert done.exit_code == 0, done.output
    assert kept_checkpoint(f"{tmp_path / 'next'}@start").path.name == kept_checkpoint(f"{run}@peak").path.name


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere@peak", "not a run folder"), ("{run}/checkpoints@peak", "not a run folder")],
)
def test_a_name_that_leads_nowhere_is_refused(run, name, message):
    with pytest.raises(CheckpointError, match=message):
        kept_checkpoint(name.format(run=run))


def test_what_an_unfinished_run_does_not_keep_is_refused_with_what_it_keeps(run, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    tags = json.loads((run / "checkpoints/tags.json").read_text())
    (tmp_path / "checkpoints/tags.json").write_text(json.dumps({"start": tags["start"]}))
    with pytest.raises(CheckpointError, match=r"keeps no end; there is .*@start$"):
        kept_checkpoint(f"{tmp_path}@end")


def test_damaged_weights_are_refused(run, tmp_path):
    place = kept_checkpoint(f"{run}@peak").path
    copy = tmp_path / "checkpoints" / place.name
    copy.mkdir(parents=True)
    (copy / "config.json").write_text("{}")
    (tmp_path / "checkpoints/tags.json").write_text((run / "checkpoints/tags.json").read_text())
    with pytest.raises(CheckpointError, match="corrupt"):
        kept_checkpoint(f"{tmp_path}@peak")


def test_export_makes_a_model_folder_with_a_card(run, tmp_path):
    done = entrostat("export", f"{run}@peak", tmp_path / "model")
    assert done.exit_code == 0, done.output
    assert load_policy(tmp_path / "model").source == str(tmp_path / "model")
    card = (tmp_path / "model/README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "transformers"
    assert "## Recipe" in card
    assert "pass@1 on the report split" in card
    assert not [path for path in (tmp_path / "model").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("made", ["folder", "file", "link"])
def test_export_leaves_what_is_there(run, tmp_path, made):
    out = tmp_path / "model"
    {"folder": out.mkdir, "file": out.touch, "link": lambda: out.symlink_to("nowhere")}[made]()
    done = entrostat("export", f"{run}@peak", out)
    assert done.exit_code == 1
    assert "exists already" in done.output
    assert out.is_symlink() or not out.is_dir() or not any(out.iterdir())


def test_export_uploads_what_it_made(run, tmp_path, monkeypatch):
    import huggingface_hub

    calls = []

    class Hub:
        def create_repo(self, name, exist_ok):
            calls.append((name, exist_ok))

        def upload_folder(self, folder_path, repo_id):
            calls.append((repo_id, sorted(path.name for path in folder_path.iterdir())))

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    done = entrostat("export", f"{run}@end", tmp_path / "model", "--push-to-hub", "me/model")
    assert done.exit_code == 0, done.output
    assert calls[0] == ("me/model", True)
    assert "README.md" in calls[1][1]


def test_a_failed_upload_keeps_the_folder(run, tmp_path, monkeypatch):
    import huggingface_hub

    class Hub:
        def create_repo(self, *_, **__):
            raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    done = entrostat("export", f"{run}@end", tmp_path / "model", "--push-to-hub", "me/model")
    assert done.exit_code == 1
    assert "not uploaded" in done.output
    assert (tmp_path / "model/config.json").is_file()
