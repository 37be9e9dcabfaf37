"""A run given more steps is the run that had them from the start; what cannot be is refused, and stays whole."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from entrostat.campaign.checkpoints import read_tags
from entrostat.engine.train import extension_note, train
from entrostat.recipe import parse_recipe
from entrostat.runs import Run, RunError

RECIPE = {
    "name": "small",
    "engine": "tabular",
    "threads": 1,
    "tasks": {"train": 6, "select": 4, "report": 4},
    "rollout": {"prompts": 4, "samples": 4},
    "update": {"epochs": 2, "learning_rate": 0.03},
    "evaluation": {"samples": 2, "pass_at": [1, 2], "every": 3},
}

CONTROLS = ({}, {"strategy": "id"}, {"strategy": "od", "bonus": {"name": "adaptive", "target": 0.3}})


def recipe(steps, every=2, **changes):
    content = {**RECIPE, **changes}
    campaign = {"steps": steps, "checkpoint_every": every, **content.pop("campaign", {})}
    return parse_recipe({**content, "campaign": campaign})


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("every", "control"), [(1, CONTROLS[1]), (2, CONTROLS[0]), (2, CONTROLS[2]), (5, CONTROLS[0]), (5, CONTROLS[1])]
)
def test_an_extended_run_has_the_trace_and_weights_of_one_that_had_the_steps_from_the_start(tmp_path, every, control):
    train(recipe(6, every, control=control), tmp_path / "run")
    train(recipe(8, every, control=control), tmp_path / "run")
    train(recipe(11, every, control=control), tmp_path / "run")
    whole = recipe(11, every, control=control, campaign={"schedule_steps": 6})
    train(whole, tmp_path / "whole")
    assert Run.open(tmp_path / "run").trace() == Run.open(tmp_path / "whole").trace()
    extended, undisturbed = (read_tags(tmp_path / name / "checkpoints") for name in ("run", "whole"))
    assert {tag: kept.step for tag, kept in extended.items()} == {tag: kept.step for tag, kept in undisturbed.items()}
    for tag, kept in undisturbed.items():
        for file in kept.path.glob("*.safetensors"):
            weights, again = load_file(file), load_file(extended[tag].path / file.name)
            assert weights.keys() == again.keys()
            assert all(torch.equal(weights[name], again[name]) for name in weights)
    if not control:
        train(recipe(11, every), tmp_path / "plain")
        assert Run.open(tmp_path / "plain").trace() == Run.open(tmp_path / "run").trace()


def test_the_note_says_from_where_and_what_schedules_do(tmp_path):
    train(recipe(8, control={"strategy": "id"}), tmp_path / "run")
    assert extension_note(recipe(8, control={"strategy": "id"}), tmp_path / "run") is None
    note = extension_note(recipe(12, control={"strategy": "id"}), tmp_path / "run")
    assert "extended from 8 to 12 steps, from step 4 on" in note
    assert "ended at step 8 and keep their last value" in note
    train(recipe(8), tmp_path / "plain")
    assert "depends on the run's length" in extension_note(recipe(12), tmp_path / "plain")


def test_the_same_command_again_changes_nothing(tmp_path):
    train(recipe(8), tmp_path / "run")
    train(recipe(12), tmp_path / "run")
    before = files(tmp_path / "run")
    train(recipe(12), tmp_path / "run")
    assert files(tmp_path / "run") == before


@pytest.mark.parametrize("moment", ["reopened", "renamed"])
def test_a_kill_while_it_is_extended_leaves_a_run_that_the_same_command_continues(tmp_path, monkeypatch, moment):
    train(recipe(8, control={"strategy": "id"}), tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "undisturbed", symlinks=True)
    train(recipe(12, control={"strategy": "id"}), tmp_path / "undisturbed")

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if moment == "reopened":
            patched.setattr(Run, "change_recipe", killed)
        else:
            patched.setattr("entrostat.engine.train.open_campaign", killed)
        with pytest.raises(KeyboardInterrupt):
            train(recipe(12, control={"strategy": "id"}), tmp_path / "run")
    train(recipe(12, control={"strategy": "id"}), tmp_path / "run")
    assert Run.open(tmp_path / "run").trace() == Run.open(tmp_path / "undisturbed").trace()


def test_fewer_steps_and_another_recipe_are_refused_and_nothing_changes(tmp_path):
    train(recipe(8), tmp_path / "run")
    before = files(tmp_path / "run")
    with pytest.raises(RunError, match=r"has 8 steps, and campaign\.steps is 6; a run cannot be made shorter"):
        train(recipe(6), tmp_path / "run")
    with pytest.raises(RunError, match="seed is 0 there and 1 here"):
        train(recipe(12, seed=1), tmp_path / "run")
    assert files(tmp_path / "run") == before


def without(folder, *keys):
    """The run.json of an earlier version, which did not know these keys."""
    file = folder / "run.json"
    header = json.loads(file.read_text())
    for key in keys:
        section = header["recipe"]
        *outer, name = key.split(".")
        for part in outer:
            section = section[part]
        del section[name]
    file.write_text(json.dumps(header))


NEWER = ("table", "campaign.schedule_steps", "update.old_logp", "watch.restart")
WATCHED = {"watch": {"action": "keep-peak"}}


def test_a_run_of_a_version_that_lacked_some_keys_is_resumed_and_extended(tmp_path, monkeypatch):
    train(recipe(8, **WATCHED), tmp_path / "whole")
    out = tmp_path / "run"
    log_step = Run.log_step

    def killed(run, line):
        if line["step"] == 6:
            raise KeyboardInterrupt
        log_step(run, line)

    with monkeypatch.context() as patched:
        patched.setattr(Run, "log_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train(recipe(8, **WATCHED), out)
    without(out, *NEWER)
    before = (out / "run.json").read_bytes()
    for steps in (8, 12):
        for _ in range(2):  # the second time it has nothing left to do
            train(recipe(steps, **WATCHED), out)
        assert ((out / "run.json").read_bytes() == before) == (steps == 8)
        train(recipe(steps, **WATCHED), tmp_path / "whole")
        assert Run.open(out).trace() == Run.open(tmp_path / "whole").trace()


def test_a_key_that_a_run_lacks_has_to_have_its_default(tmp_path):
    train(recipe(8, **WATCHED), tmp_path / "run")
    without(tmp_path / "run", *NEWER)
    before = files(tmp_path / "run")
    for changes, difference in (
        ({"update": {**RECIPE["update"], "old_logp": "recomputed"}}, r'update\.old_logp is "sampler" there'),
        ({"rollout": {"prompts": 4, "samples": 3}}, r"rollout\.samples is 4 there and 3 here"),
    ):
        with pytest.raises(RunError, match=difference):
            train(recipe(8, **{**WATCHED, **changes}), tmp_path / "run")
    assert files(tmp_path / "run") == before


def test_a_run_that_its_rule_stopped_is_refused_with_the_way_to_go_on(tmp_path):
    stops = {"controller": {"name": "es-online", "patience": 1}}
    still = {"epochs": 2, "learning_rate": 1e-9}
    train(recipe(40, campaign=stops, update=still), tmp_path / "run")
    end = read_tags(tmp_path / "run" / "checkpoints")["end"].step
    assert end < 40
    with pytest.raises(RunError, match=rf"stopped it at step {end} of 40.*policy.path=.*@end"):
        train(recipe(60, campaign=stops, update=still), tmp_path / "run")


def test_a_run_without_a_resume_point_is_refused(tmp_path):
    train(recipe(8), tmp_path / "run")
    file = tmp_path / "run" / "checkpoints" / "tags.json"
    tags = {tag: kept for tag, kept in json.loads(file.read_text()).items() if not tag.startswith("extend")}
    file.write_text(json.dumps(tags))
    with pytest.raises(RunError, match="no resume point of it is kept"):
        train(recipe(12), tmp_path / "run")


def test_trl_refuses_the_key_by_name():
    pytest.importorskip("trl")
    from entrostat.integrations.trl.recipe import refuse_what_trl_cannot_do
    from entrostat.recipe import RecipeError

    content = {key: value for key, value in RECIPE.items() if key != "engine"}
    with pytest.raises(RecipeError, match=r"campaign.schedule_steps: got 3"):
        refuse_what_trl_cannot_do(parse_recipe({**content, "campaign": {"steps": 4, "schedule_steps": 3}}))
