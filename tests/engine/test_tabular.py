"""The tabular engine: campaigns, chains and reports as with the embedded one, and the flow where it is exact."""

from dataclasses import replace

import pytest
import torch

from entrostat.control.part import bonus, strategy, weighting
from entrostat.engine.study import run_one
from entrostat.engine.table import Prompts, TablePolicy
from entrostat.engine.tabular import TabularEngine, TabularTrainer
from entrostat.engine.train import train
from entrostat.engine.update import Experience, Learner
from entrostat.entropy import Region, entropy_flow, regions
from entrostat.objective import policy_loss
from entrostat.objective.clipping import clip_rule
from entrostat.objective.surrogates import objective
from entrostat.recipe import RecipeError, StudyRecipe, build_controller, parse_recipe
from entrostat.recipe.loading import parse_as
from entrostat.recipe.task_sets import TaskSplits
from entrostat.report import build_report
from entrostat.runs import Run
from entrostat.tasks import listcraft
from entrostat.tokens import token_stats

SMALL = {
    "name": "table",
    "engine": "tabular",
    "threads": 1,
    "tasks": {"train": 6, "select": 3, "report": 3, "levels": [1, 2]},
    "rollout": {"prompts": 4, "samples": 4},
    "update": {"learning_rate": 0.1, "warmup_steps": 0, "epochs": 2},
    "evaluation": {"every": 4, "samples": 8, "pass_at": [1, 8]},
    "campaign": {"steps": 8, "checkpoint_every": 1},
    "table": {"choices": 3},
}


def recipe(**sections):
    merged = {
        key: {**SMALL[key], **sections.pop(key, {})} if isinstance(SMALL[key], dict) else SMALL[key] for key in SMALL
    }
    return parse_recipe({**merged, **sections})


def test_learning_raises_exact_success_on_all_splits_and_a_step_line_says_so(tmp_path):
    train(recipe(campaign={"steps": 24, "checkpoint_every": 3}), tmp_path / "run")
    run = Run.open(tmp_path / "run")
    exact = [line["exact"] for line in run.steps()]
    assert exact[-1]["success"] > exact[0]["success"] + 0.1
    assert exact[-1]["entropy"] < exact[0]["entropy"]
    report = run.evals("report")
    assert report[-1]["pass_at"]["1"] > report[0]["pass_at"]["1"]
    for line in report:
        counted = sum(c / n for _, n, c in line["results"]) / len(line["results"])
        assert counted == pytest.approx(line["pass_at"]["1"], abs=1e-5)
        assert line["pass_at"]["8"] >= line["pass_at"]["1"]
        assert 0 <= line["distinct"] <= 8


def test_what_is_learned_by_prefix_stays_with_its_tasks(tmp_path):
    train(recipe(table={"states": "prefix"}), tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert len({line["pass_at"]["1"] for line in run.evals("report")}) == 1
    assert run.steps()[-1]["exact"]["success"] > run.steps()[0]["exact"]["success"]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_killed_run_resumes_to_the_same_trace(tmp_path, monkeypatch, optimizer):
    made = recipe(update={"optimizer": optimizer, "kl": {"kind": "adaptive"}}, control={"strategy": "id"})
    train(made, tmp_path / "whole")
    step = TabularTrainer.step

    def killed(trainer):
        if trainer.done == 5:
            raise KeyboardInterrupt
        return step(trainer)

    monkeypatch.setattr(TabularTrainer, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(made, tmp_path / "killed")
    monkeypatch.setattr(TabularTrainer, "step", step)
    train(made, tmp_path / "killed")
    assert Run.open(tmp_path / "killed").trace() == Run.open(tmp_path / "whole").trace()


def test_chains_and_reports_run_on_it(tmp_path):
    content = {
        "name": "chain",
        "seeds": [0],
        "campaigns": 2,
        "base": {**{key: value for key, value in SMALL.items() if key != "name"}, "campaign": {"steps": 4}},
        "methods": {
            "naive": {},
            "es-online": {"campaign.controller": "es-online", "evaluation.every": 1},
            "crest": {"campaign.controller": {"name": "crest", "block": 2}, "evaluation.every": None},
            "ewc": {"update.kl": {"kind": "fisher", "fisher_samples": 8}},
        },
    }
    study = parse_as(StudyRecipe, content)
    for method in study.methods:
        outcomes = run_one(study, method, 0, tmp_path)
        assert len(outcomes) == 2
        first = outcomes[0]
        handed = Run.open(tmp_path / method / "seed-0" / "campaign-00").evals("report")
        begun = Run.open(tmp_path / method / "seed-0" / "campaign-01").evals("report")[0]
        same = [line for line in handed if line["step"] == first.handed_over.step][-1]
        assert begun["pass_at"] == same["pass_at"]
    page = build_report([tmp_path / "naive" / "seed-0" / "campaign-00"], tmp_path / "page.html")
    assert "pass@1" in page.read_text()


def test_the_same_random_rewards_reward_half_whatever_is_right_and_teach_nothing(tmp_path):
    lines = {}
    for share in (0.0, 1.0):
        made = recipe(table={"random_rewards": share}, campaign={"steps": 24, "checkpoint_every": 100})
        train(made, tmp_path / str(share))
        lines[share] = Run.open(tmp_path / str(share)).steps()
    rewards = [line["reward"] for line in lines[1.0]]
    assert sum(rewards) / len(rewards) == pytest.approx(0.5, abs=0.1)
    gained = {share: course[-1]["exact"]["success"] - course[0]["exact"]["success"] for share, course in lines.items()}
    assert gained[1.0] < 0.5 * gained[0.0]


RULE = {"upper": {"slope": -0.2, "intercept": 0.5}, "lower": {"slope": 0.0, "intercept": 0.4}}
GIVEN = {
    "constant": {"upper": 0.1, "lower": 0.3},
    "linear": RULE,
    "free-region": {"region": "E1"},
    "piecewise": {"stages": [{"until": 1, "start": RULE}]},
    "target-entropy": {"curve": {"points": [[0, 0.3]]}},
    "target-weights": {"curve": {"points": [[0, 0.3]]}},
    "fixed": {"expanding": 1.3, "contracting": 0.7},
    "opefo": {"off_policy": True},
    "gepo": {"group_size": 4},
    "skip-region": {"region": "E1"},
    "stare": {"target": 9.0},
    "entropic": {"target": 9.0},
    "entropic-weights": {"target": 9.0},
    "repo-r": {"target": 9.0},
    "adapo": {"target": 9.0},
    "aepo": {"low": 0.1, "high": 0.2},
    "adaptive": {"target": 0.3},
}
METHODS = [
    *(("control", "strategy", name) for name in (*clip_rule, *strategy)),
    *(("control", "reweighting", name) for name in weighting),
    *(("control", "bonus", name) for name in bonus),
    *(("update", "objective", name) for name in objective),
]


@pytest.mark.parametrize(("section", "key", "name"), METHODS, ids=lambda value: str(value))
def test_every_method_of_a_recipe_trains_a_table(tmp_path, section, key, name):
    given = {"value": 0.01} if (key, name) == ("bonus", "constant") else GIVEN.get(name, {})
    settings = {key: {"name": name, **given}}
    if key == "objective":
        settings["aggregate"] = objective[name]().aggregations[0]
    made = {section: settings, "campaign": {"steps": 2, "checkpoint_every": 1}, "evaluation": {"every": 2}}
    try:
        chosen = recipe(**made)
    except RecipeError:
        chosen = recipe(**made, control={"strategy": "id"})  # an objective that needs a sloped band
    train(chosen, tmp_path / "run")
    assert [line["step"] for line in Run.open(tmp_path / "run").steps()] == [1, 2]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"table": {"choices": 2}, "tasks": {"levels": [3]}}, r"table.choices: got 2, but task .* needs 3; raise it"),
        ({"policy": {"dtype": "bfloat16"}}, "policy: engine tabular computes in float32 on the CPU"),
    ],
)
def test_what_a_table_cannot_follow_is_refused_before_anything_is_written(tmp_path, changed, message):
    made = recipe(**changed)
    with pytest.raises(RecipeError, match=message):
        train(made, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tasks_of_another_family_are_refused():
    tasks = [replace(task, id=f"HumanEval/{i}") for i, task in enumerate(listcraft.tasks("train", 12))]
    with pytest.raises(RecipeError, match=r"tasks.family: .* is not of listcraft"):
        TabularEngine(recipe(), TaskSplits(tasks[:6], tasks[6:9], tasks[9:]))


def test_settings_of_the_table_without_its_engine_are_refused():
    with pytest.raises(RecipeError, match="table: given with engine 'embedded', which has no table; remove it"):
        parse_recipe({"name": "x", "table": {"choices": 3}})
    with pytest.raises(RecipeError, match=r"update.betas: got \[0.5, 0.9\] with optimizer sgd"):
        parse_recipe({"name": "x", "update": {"optimizer": "sgd", "betas": [0.5, 0.9]}})


def one_step(rate, seed, per_prompt=1):
    """A step of plain SGD on completions of a table by prefix: its line, each token's flow, sign and state, and the
    entropy of every state before and after.
    """
    tasks = listcraft.tasks("train", 6, levels=(1, 2, 3))
    policy = TablePolicy(Prompts.of(tasks, 4, 9, seed), "prefix", 1.0, 1.0, seed)
    chosen = parse_recipe(
        {
            "name": "sgd",
            "rollout": {"samples": 4},
            "update": {
                "optimizer": "sgd",
                "objective": "reinforce",
                "learning_rate": rate,
                "warmup_steps": 0,
                "max_grad_norm": None,
            },
            "control": {"regions": "exact"},
        }
    )
    learner = Learner(policy, chosen, build_controller(chosen))
    rollout = policy.sample(torch.arange(6).repeat_interleave(per_prompt), 9, seed)
    advantages = torch.randn(6 * per_prompt, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        before = -(policy.log_probabilities().exp() * policy.log_probabilities()).sum(-1)
        logits = policy.logits(*rollout.tensors(policy.device))
    stats = token_stats(logits, rollout.completions)
    per_token = advantages.unsqueeze(1).expand(rollout.mask.shape)
    loss = policy_loss(stats.logp, rollout.old_logp, per_token, rollout.mask, objective="reinforce")
    flow = entropy_flow(stats, per_token, loss)
    region = regions(stats, per_token, "exact")
    places = policy._places(policy.prompts.tokens[rollout.prompts[:, 0]], rollout.completions, rollout.mask)
    states = rollout.prompts, policy._path(places)
    line = learner.step(1, Experience(rollout, advantages))
    with torch.no_grad():
        after = -(policy.log_probabilities().exp() * policy.log_probabilities()).sum(-1)
    return line, flow, region, states, rollout, before, after


def test_with_one_completion_per_prompt_each_states_entropy_moves_by_its_tokens_flow_and_as_its_region_says():
    rate, seen = 1e-2, set()
    for seed in range(8):
        _, flow, region, states, rollout, before, after = one_step(rate, seed)
        change = (after - before)[states][rollout.mask].double()
        predicted = (rate / rollout.token_count * flow)[rollout.mask].double()
        assert (change - predicted).abs().max() < 0.01 * predicted.abs().max() + 1e-6
        told = region[rollout.mask]
        for kind, sign in ((Region.E1, -1), (Region.E4, -1), (Region.E2, 1), (Region.E3, 1)):
            moved = change[told == kind]
            assert bool((sign * moved > -1e-6).all())
            seen |= {kind} if len(moved) else set()
    assert len(seen) == 4


@pytest.mark.parametrize("per_prompt", [1, 4])
def test_the_total_flow_is_the_first_order_change_of_the_entropies_of_all_states_summed(per_prompt):
    pairs = []
    for seed in range(10):
        rate = 1e-2
        line, _, _, _, _, before, after = one_step(rate, seed, per_prompt)
        pairs.append((rate * (line["flow_up"] + line["flow_down"]), float((after - before).double().sum())))
    predicted, measured = torch.tensor(pairs, dtype=torch.float64).T
    assert float(torch.corrcoef(torch.stack([predicted, measured]))[0, 1]) > 0.999
    assert (predicted - measured).abs().max() < 0.02 * measured.abs().max()


@pytest.mark.parametrize("rollout", [{"staleness": 3}, {"staleness": 1, "dtype": "int8"}])
def test_a_stale_or_rounded_sampler_is_followed_and_resumes_to_the_same_trace(tmp_path, rollout):
    made = recipe(rollout={"prompts": 4, "samples": 4, **rollout}, update={"old_logp": "recomputed"})
    train(made, tmp_path / "whole")

    def cut(line):
        if line["step"] == 5 and "split" not in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(made, tmp_path / "cut", cut)
    train(made, tmp_path / "cut")
    whole = Run.open(tmp_path / "whole")
    assert Run.open(tmp_path / "cut").trace() == whole.trace()
    ages = [line["staleness"] for line in whole.steps()]
    assert max(ages) == rollout["staleness"] + 1
    assert all(line["kl_sampler"] > 0 for line in whole.steps()[2:])


def test_the_exact_divergence_is_what_many_sampled_tokens_show_and_zero_to_itself():
    prompts = Prompts.of(listcraft.tasks("train", 3, levels=(1, 2)), 3, 9, 0)
    policy = TablePolicy(prompts, "phrase", 2.0, 1.0, 0)
    other = policy.with_model(TablePolicy(prompts, "phrase", 1.0, 1.0, 0).model)
    assert float(policy.divergence(policy)) == 0
    number = torch.arange(3).repeat_interleave(20_000)
    drawn = policy.sample(number, 9, seed=0)
    theirs = token_stats(other.logits(*drawn.tensors("cpu")), drawn.completions).logp
    sampled = (drawn.old_logp - theirs)[drawn.mask].mean()
    assert float(policy.divergence(other)) == pytest.approx(float(sampled), rel=0.03)


def test_a_sampled_select_split_has_noise_and_no_bias_and_the_report_split_stays_exact(tmp_path):
    table = {"choices": 3, "sampled_select": True}
    train(recipe(table=table, tasks={"train": 6, "select": 40, "report": 3, "levels": [1, 2]}), tmp_path / "run")
    run = Run.open(tmp_path / "run")
    for line in run.evals("select"):
        assert {n for _, n, _ in line["results"]} == {8}
        counted = sum(c for _, _, c in line["results"]) / (8 * 40)
        assert counted == pytest.approx(line["pass_at"]["1"], abs=0.1)
    assert {n for line in run.evals("report") for _, n, _ in line["results"]} == {1_000_000}
