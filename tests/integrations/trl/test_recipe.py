"""`engine: trl`: a study's chains trained by TRL, on the embedded policy."""

import math
from pathlib import Path

import pytest

pytest.importorskip("trl")

from entrostat.campaign.database import read_results
from entrostat.engine.study import run_one, run_study
from entrostat.engine.train import build_engine, train
from entrostat.integrations.trl.recipe import refuse_what_trl_cannot_do, trl_settings
from entrostat.objective import Cispo, Gspo, Sapo
from entrostat.recipe import RecipeError, StudyRecipe, load_study, parse_recipe
from entrostat.recipe.loading import parse_as
from entrostat.runs import Run

BASE = {
    "engine": "trl",
    "threads": 1,
    "tasks": {"train": 4, "select": 4, "report": 4},
    "rollout": {"prompts": 4, "samples": 4},
    "update": {"epochs": 2, "learning_rate": 1e-3, "warmup_steps": 0},
    "evaluation": {"samples": 2, "pass_at": [1, 2], "report": "peak"},
    "campaign": {"steps": 4, "checkpoint_every": 1},
    "grading": {"workers": 1},
}


def recipe(**changes):
    return parse_recipe({"name": "x", **BASE, **changes})


CREST = {"name": "crest", "signals": True, "votes": 1, "kl": 1e-12, "spacing": 1, "block": 2}
STUDY = parse_as(
    StudyRecipe,
    {
        "name": "trl",
        "seeds": [0],
        "campaigns": 2,
        "base": BASE,
        "methods": {
            "naive": {},
            "crest": {"campaign.controller": CREST, "evaluation.every": None},
            "embedded": {"engine": "embedded"},
        },
    },
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two chains of two campaigns, and of the first a twin on the embedded engine."""
    out = tmp_path_factory.mktemp("trl") / "study"
    run_study(STUDY, out)
    return out


def test_each_campaign_continues_from_the_weights_that_the_last_one_handed_over(finished):
    first, second = (Run.open(finished / "naive/seed-0" / f"campaign-0{i}") for i in (0, 1))
    end, start = first.evals("select")[-1], second.evals("select")[0]
    assert [line["step"] for line in first.steps()] == [1, 2, 3, 4]
    assert (end["step"], start["step"]) == (4, 0)
    assert start["results"] == end["results"]
    assert first.evals("select")[0]["entropy"] != end["entropy"]


@pytest.mark.parametrize("method", ["naive", "crest"])
def test_a_chain_that_was_killed_resumes_to_the_same_trace(finished, tmp_path, method):
    class KilledError(Exception):
        pass

    lines = iter(range(10**6))

    def killed_in_its_second_campaign(line):
        if line["step"] == 3 and "split" not in line and next(lines) == 1:
            raise KilledError

    with pytest.raises(KilledError):
        run_one(STUDY, method, 0, tmp_path, killed_in_its_second_campaign)
    run_one(STUDY, method, 0, tmp_path)
    for number in (0, 1):
        torn, whole = (Run.open(out / method / f"seed-0/campaign-0{number}") for out in (tmp_path, finished))
        for field in ("step", "loss", "entropy", "grad_norm"):
            assert [line[field] for line in torn.steps()] == [line[field] for line in whole.steps()]
        assert [line["results"] for line in torn.evals()] == [line["results"] for line in whole.evals()]


def test_the_start_is_measured_as_by_the_embedded_engine(finished):
    for split in ("select", "report"):
        ours, theirs = (
            Run.open(finished / method / "seed-0/campaign-00").evals(split)[0] for method in ("embedded", "naive")
        )
        for field in ("results", "pass_at", "distinct", "length", "truncated", "verdicts"):
            assert theirs[field] == ours[field]
        assert theirs["entropy"] == pytest.approx(ours["entropy"], rel=1e-5)


def test_crest_reads_its_signals_off_trl_s_steps(finished):
    campaigns = [row for row in read_results(finished, "campaigns") if row["method"] == "crest"]
    assert len(campaigns) == 2
    lines = Run.open(finished / "crest/seed-0/campaign-00").steps()
    assert lines[1]["kl_old"] > 0
    assert lines[1]["lr"] == pytest.approx(1e-3)
    onsets = [row for row in read_results(finished, "decisions") if row["kind"] == "onset"]
    assert len(onsets) == 2


def test_the_information_of_prompts_is_in_the_step_lines_of_every_kth_batch(tmp_path):
    train(recipe(control={"information": {"every": 2, "completions": 8}}), tmp_path / "run")
    lines = Run.open(tmp_path / "run").steps()
    assert ["information" in line for line in lines] == [True, False, False, False]  # two batches of two steps
    assert lines[0]["information"]["most"] == pytest.approx(math.log(4))
    assert 0 < lines[0]["information"]["nats"] <= lines[0]["information"]["most"]


def test_every_split_is_measured_when_the_recipe_says_and_as_by_the_embedded_engine(tmp_path):
    changes = {
        "tasks": {**BASE["tasks"], "ood": 2},
        "evaluation": {**BASE["evaluation"], "report": "every", "every": 2},
        "campaign": {"steps": 2, "checkpoint_every": 1},
    }
    for engine in ("trl", "embedded"):
        train(recipe(engine=engine, **changes), tmp_path / engine)
    ours, theirs = (Run.open(tmp_path / engine) for engine in ("trl", "embedded"))
    order = [(line["step"], line["split"]) for line in ours.evals()]
    assert order == [(step, split) for step in (0, 2) for split in ("select", "report", "ood")]
    assert order == [(line["step"], line["split"]) for line in theirs.evals()]
    for split in ("select", "report", "ood"):
        assert ours.evals(split)[0]["results"] == theirs.evals(split)[0]["results"]


@pytest.mark.parametrize(("minibatches", "at_most"), [(1, 512), (2, 512), (2, 6), (4, 3)])
def test_a_step_takes_the_rows_and_a_batch_serves_the_steps_of_the_recipe(tmp_path, minibatches, at_most):
    wanted = recipe(
        rollout={"prompts": 4, "samples": 6},
        update={"epochs": 3, "minibatches": minibatches, "microbatch_rows": at_most},
    )
    settings = trl_settings(wanted, 8, tmp_path)
    assert settings.per_device_train_batch_size <= at_most
    rows = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    assert rows * minibatches == settings.generation_batch_size == 24
    assert settings.steps_per_generation // settings.gradient_accumulation_steps == minibatches
    assert settings.save_steps == 3 * minibatches * wanted.campaign.checkpoint_every


OBJECTIVES = {
    "gspo": ({"aggregate": "sequence-mean"}, ("grpo", "sequence"), Gspo.rule),
    "cispo": ({"aggregate": "token-mean"}, ("cispo", "token"), Cispo.rule),
    "sapo": ({"aggregate": "sequence-mean"}, ("sapo", "token"), Sapo.rule),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_of_the_recipe_is_trls_loss_under_its_band(tmp_path, name):
    update, (loss_type, level), band = OBJECTIVES[name]
    objective = {"name": "sapo", "tau_punished": 1.4} if name == "sapo" else name
    wanted = recipe(
        update={**BASE["update"], **update, "objective": objective}, campaign={"steps": 2, "checkpoint_every": 1}
    )
    settings = trl_settings(wanted, 2, tmp_path)
    assert (settings.loss_type, settings.importance_sampling_level) == (loss_type, level)
    if name == "sapo":
        assert (settings.sapo_temperature_pos, settings.sapo_temperature_neg) == (1.0, 1.4)
    train(wanted, tmp_path / "run")
    assert Run.open(tmp_path / "run").steps()[-1]["bounds"]["upper_intercept"] == band.upper.intercept


def test_an_aggregation_that_trls_loss_does_not_have_is_refused():
    changed = recipe(update={**BASE["update"], "objective": "cispo", "aggregate": "sequence-mean"})
    with pytest.raises(RecipeError, match=r"update\.aggregate: got 'sequence-mean', .* set it to token-mean"):
        build_engine(changed, None, None)


def test_trl_follows_the_recipe_that_is_shipped():
    study = load_study(Path(__file__).parents[3] / "recipes/chains/trl.yaml")
    for method in study.methods:
        refuse_what_trl_cannot_do(study.recipe(method, 0, 0))


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("update", "advantage", "reinforce"),
        ("update", "objective", "reinforce"),
        ("control", "measure_change", True),
        ("control", "first_order", True),
        ("campaign", "optimizer", "carried"),
    ],
)
def test_what_trl_does_not_do_is_refused_by_name(section, field, value):
    changed = recipe(**{section: {**BASE.get(section, {}), field: value}})
    with pytest.raises(RecipeError, match=f"{section}.{field}: got .* engine trl cannot follow; set it to"):
        build_engine(changed, None, None)


K3 = {"coefficient": 0.3, "estimate": "k3"}


def test_a_penalty_in_k3_is_trls_beta_towards_the_weights_of_the_campaigns_start(tmp_path):
    """The start has moved away from the packaged policy, so a reference of 0 nats at the first step is the start."""
    moved = recipe(update={**BASE["update"], "learning_rate": 1e-2})
    train(moved, tmp_path / "moved")
    wanted = recipe(
        policy={"path": f"{tmp_path}/moved@end"},
        update={**BASE["update"], "learning_rate": 1e-2, "kl": K3},
        campaign={"steps": 3, "checkpoint_every": 1},
    )
    assert trl_settings(wanted, 3, tmp_path).beta == 0.3
    assert trl_settings(moved, 3, tmp_path).beta == 0
    train(wanted, tmp_path / "run")
    penalties = [line["kl_reference"] for line in Run.open(tmp_path / "run").steps()]
    assert penalties[0] == pytest.approx(0, abs=1e-6)
    assert penalties[-1] > 1e-4


@pytest.mark.parametrize(
    ("field", "value"), [("kind", "adaptive"), ("estimate", "exact"), ("estimate", "k1"), ("place", "reward")]
)
def test_another_penalty_than_trls_is_refused_by_its_key(field, value):
    changed = recipe(update={**BASE["update"], "kl": {**K3, field: value}})
    with pytest.raises(RecipeError, match=rf"update\.kl\.{field}: got '{value}', which engine trl cannot follow"):
        build_engine(changed, None, None)


def test_rewards_of_minus_one_are_refused_by_name():
    changed = recipe(update={**BASE["update"], "advantage": "dr-grpo", "failure_reward": -1})
    with pytest.raises(RecipeError, match=r"update\.failure_reward: got -1, which engine trl cannot follow"):
        build_engine(changed, None, None)


@pytest.mark.parametrize("strategy", ["abc", "mai", "dual-clip"])
def test_a_control_that_trls_loss_cannot_follow_is_refused_as_the_recipes(tmp_path, strategy):
    with pytest.raises(RecipeError, match=r"control: engine trl cannot follow this recipe; strategy: .* TRL's losses"):
        train(recipe(control={"strategy": strategy}), tmp_path / "run")
