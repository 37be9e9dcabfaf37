"""`engine: verl`: a study's chains trained by verl, over workers whose weights are one number, and its reward."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl is not installed: no recipe is trained by it")

import torch
import verl_chain_world as world
import yaml
from hydra import compose, initialize_config_module
from verl.trainer.ppo.core_algos import kl_penalty
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from entrostat.campaign.chain import read_hand_over
from entrostat.engine.local import LocalEngine
from entrostat.engine.study import run_one
from entrostat.integrations.verl import recipe as ours
from entrostat.integrations.verl.engine import VerlEngine
from entrostat.integrations.verl.trainer import EntropyPPOTrainer, check, controller_of, objective_of, optimizer_steps
from entrostat.objective.regularisers import kl_estimate
from entrostat.recipe import RecipeError, StudyRecipe, build_controller, build_objective, parse_recipe
from entrostat.recipe.loading import parse_as
from entrostat.recipe.task_sets import TaskSplits
from entrostat.runs import Run, atomic_write

HERE = Path(__file__).parent
STAND_IN = [
    "actor_rollout_ref.rollout.name=vllm",
    "+actor_rollout_ref.rollout.agent.agent_loop_manager_class=verl_chain_world.Rollout",
    "trainer.v1.trainer_mode=stand_in",
    "trainer.n_gpus_per_node=1",
    "trainer.logger=[console]",
    "data.dataloader_num_workers=0",
    "ray_kwargs.ray_init.num_cpus=3",
    "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
]
BASE = {
    "engine": "entrostat.integrations.verl.recipe:build_verl_engine",  # `verl` where the package's metadata is current
    "engine_arguments": STAND_IN,
    "tasks": {"train": 4, "select": 4, "report": 4},
    "rollout": {"prompts": 4, "samples": 4},
    "update": {"epochs": 2, "learning_rate": 1.0, "warmup_steps": 0},
    "evaluation": {"samples": 4, "pass_at": [1, 4], "every": 2, "report": "peak"},
    "campaign": {"steps": 4, "checkpoint_every": 1},
    "grading": {"workers": 1},
}


def recipe(**changes):
    return parse_recipe({"name": "x", **BASE, **changes})


def study(start):
    base = {**BASE, "policy": {"path": str(start)}}
    content = {"name": "verl", "seeds": [0], "campaigns": 2, "kept": 2, "base": base, "methods": {"naive": {}}}
    return parse_as(StudyRecipe, content)


def composed(wanted, folder):
    settings = ours.verl_settings(wanted, folder, chat_template=False)
    given = [f"{key}={ours.in_hydra(value)}" for key, value in settings.items()]
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=given)


@pytest.fixture
def stand_in(monkeypatch):
    """The processes of verl can import the workers of `verl_chain_world`, and load them."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *filter(None, sys.path)]))
    monkeypatch.setenv("VERL_USE_EXTERNAL_MODULES", world.__name__)
    monkeypatch.setenv("RAY_prestart_worker_first_driver", "0")  # workers that nothing would use


class Driven(VerlEngine):
    """With verl's driver in one process, without Ray."""

    def __init__(self, arguments, **options):
        super().__init__(arguments, modules=(), driver=(world.__file__,), **options)


def killed(start, out):
    """Run the study in a process that is killed after the first step of the second campaign."""
    steps = []

    def listen(line):
        if "split" not in line:
            steps.append(line["step"])
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=run_one, args=(study(start), "naive", 0, out, listen))
    process.start()
    process.join(300)
    return process.exitcode


def by_command(start, out):
    """Run the study by `entrostat chain`, and verl's own program over Ray where that is asked for."""
    if not os.environ.get("WITH_RAY"):
        run_one(study(start), "naive", 0, out)
        return
    file = out.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(study(start).model_dump(mode="json")))
    command = [sys.executable, "-m", "entrostat", "chain", str(file), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_a_chain_that_was_killed_resumes_to_the_trace_of_entrostat_chain_over_ray(tmp_path, stand_in, monkeypatch):
    monkeypatch.setattr(ours, "VerlEngine", Driven)
    start = world.model_folder(tmp_path / "start")
    by_command(start, tmp_path / "whole")
    assert killed(start, tmp_path / "torn") == -signal.SIGKILL
    outcomes = run_one(study(start), "naive", 0, tmp_path / "torn")
    chain = tmp_path / "torn/naive/seed-0"
    handed_over = [world.number_of(read_hand_over(chain, outcome.handed_over).path) for outcome in outcomes]
    assert handed_over == [2, 4]  # 1 more per training step
    for number in (0, 1):
        torn, whole = (Run.open(tmp_path / name / f"naive/seed-0/campaign-0{number}") for name in ("torn", "whole"))
        assert torn.trace() == whole.trace()
        assert [line["step"] for line in whole.steps()] == [2, 4]  # optimizer steps, as in the recipe
        assert [line["step"] for line in whole.evals("select")] == [0, 2, 4]
    names = [name for name, _, _ in whole.evals("report")[0]["results"]]
    assert names == [task.id for task in TaskSplits.of(recipe().tasks).report]


def test_verls_configuration_follows_the_recipe(tmp_path):
    update = {"minibatches": 2, "advantage": "dr-grpo", "aggregate": "constant", "warmup_steps": 5}
    update |= {"max_grad_norm": None, "betas": [0.9, 0.95]}
    control = {"strategy": {"name": "id", "split": 0.25}, "bonus": {"name": "constant", "value": 0.01}}
    wanted = recipe(update={**BASE["update"], **update}, control={**control, "dual_clip": 3.0})
    config = composed(wanted, tmp_path / "it's a, folder=1")
    actor = config.actor_rollout_ref.actor
    assert config.data.train_files == str(tmp_path / "it's a, folder=1/train.parquet")
    assert (actor.ppo_mini_batch_size, actor.ppo_epochs, actor.optim.lr_warmup_steps) == (2, 2, 2)
    assert (actor.loss_agg_mode, actor.loss_scale_factor) == ("seq-mean-token-sum-norm", wanted.rollout.max_new_tokens)
    assert not config.algorithm.norm_adv_by_std_in_grpo
    assert list(actor.optim.betas) == [0.9, 0.95]
    assert optimizer_steps(config, 1) == wanted.update.steps_per_batch == 4
    assert check(config) == "C"
    assert controller_of(config, 4).state_dict() == build_controller(wanted).state_dict()
    assert repr(controller_of(config, 4).rule()) == repr(build_controller(wanted).rule())


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        (None, "threads", 2),
        ("update", "advantage", "reinforce"),
        ("update", "objective", "bapo"),
        ("update", "old_logp", "sampler"),
        ("control", "measure_change", True),
        ("control", "information", {"every": 1}),
        ("campaign", "optimizer", "carried"),
        ("campaign", "steps", 3),
        ("evaluation", "every", 3),
    ],
)
def test_what_verl_does_not_do_is_refused_by_name(section, field, value):
    changed = recipe(**({section: {**BASE.get(section, {}), field: value}} if section else {field: value}))
    name = f"{section}.{field}" if section else field
    with pytest.raises(RecipeError, match=rf"{name}: got .*engine verl"):
        ours.build_verl_engine(changed, None, None)


def test_dynamic_sampling_without_a_limit_is_verls_own_filter(tmp_path):
    drawn = {"rollout": {**BASE["rollout"], "resample": None}}
    for wanted, metric in ((recipe(engine="verl", **drawn), "reward"), (recipe(), None)):
        trainer = object.__new__(EntropyPPOTrainer)
        trainer.config = composed(wanted, tmp_path)
        buffer = trainer._build_replay_buffer()
        assert type(buffer) is ReplayBuffer
        assert buffer.filter_groups_metric == metric
    with pytest.raises(RecipeError, match=r"rollout\.resample: got 3, and verl's .* set it to null for that, or to 1"):
        recipe(engine="verl", rollout={**BASE["rollout"], "resample": 3})


@pytest.mark.parametrize("estimate", ["k1", "k2", "k3"])
@pytest.mark.parametrize("place", ["loss", "reward"])
def test_a_penalty_towards_the_start_is_verls_own(tmp_path, estimate, place):
    kl = {"coefficient": 0.3, "estimate": estimate, "place": place}
    config = composed(recipe(update={**BASE["update"], "kl": kl}), tmp_path)
    actor, algorithm = config.actor_rollout_ref.actor, config.algorithm
    assert (actor.use_kl_loss, algorithm.use_kl_in_reward) == (place == "loss", place == "reward")
    if place == "loss":
        assert (actor.kl_loss_coef, actor.kl_loss_type) == (0.3, estimate)
    else:
        found = algorithm.kl_penalty, algorithm.kl_ctrl.type, algorithm.kl_ctrl.kl_coef
        assert found == (estimate, "fixed", 0.3)
    assert check(config) == "C"
    logp, reference = torch.tensor([-1.0, -0.3, -2.0]), torch.tensor([-0.7, -0.4, -2.9])
    torch.testing.assert_close(kl_penalty(logp, reference, estimate), kl_estimate(logp, reference, estimate))


@pytest.mark.parametrize(("field", "value"), [("kind", "adaptive"), ("estimate", "exact"), ("reference", "base")])
def test_another_penalty_than_verls_is_refused_by_its_key(field, value):
    changed = recipe(update={**BASE["update"], "kl": {"estimate": "k3", field: value}})
    with pytest.raises(RecipeError, match=rf"update\.kl\.{field}: got '{value}', which engine verl cannot follow"):
        ours.build_verl_engine(changed, None, None)


OBJECTIVES = {
    "clip": {},
    "reinforce": {"advantage": "grpo"},
    "cispo": {},
    "gspo": {"aggregate": "sequence-mean"},
    "sapo": {"aggregate": "sequence-mean"},
    "gmpo": {"aggregate": "sequence-mean"},
    "ce-gppo": {},
    "nsr": {},
    "up": {},
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_worker_gets_the_recipes_objective_and_band(tmp_path, name):
    kl_cov = {"kl_cov": {"share": 0.1, "coefficient": 0.5}} if name == "reinforce" else {}
    wanted = recipe(update={**BASE["update"], **OBJECTIVES[name], "objective": name, **kl_cov})
    config = composed(wanted, tmp_path)
    assert check(config) == "C"
    assert objective_of(config) == (build_objective(wanted), (0.1, 0.5) if kl_cov else None)
    assert controller_of(config, 4).rule() == build_controller(wanted).rule()


def test_the_old_log_probabilities_are_the_engines_own_unless_the_recipe_sets_them():
    for engine in ("verl", BASE["engine"]):
        assert parse_recipe({"name": "x", "engine": engine}).update.old_logp == "recomputed"
        tis = parse_recipe({"name": "x", "engine": engine, "control": {"correction": "tis"}})
        assert parse_recipe(tis.model_dump()) == tis
    assert parse_recipe({"name": "x", "engine": "embedded"}).update.old_logp == "sampler"
    written = parse_recipe({"name": "x", "engine": "verl", "update": {"old_logp": "sampler"}})
    with pytest.raises(RecipeError, match=r"update\.old_logp: got 'sampler'"):
        ours.refuse_what_verl_cannot_do(written)


def test_the_embedded_engine_takes_no_arguments_of_verls():
    with pytest.raises(RecipeError, match=r"engine_arguments: got .* engine embedded reads none; remove them"):
        LocalEngine(recipe(engine="embedded"), None, None)


def test_verls_own_loader_gives_the_reward_of_the_recipes_grader(tmp_path):
    wanted = recipe(grading={"workers": 1, "isolation": "best-effort"})
    atomic_write(tmp_path / "recipe.json", wanted.model_dump_json().encode())
    reward = get_custom_reward_fn(composed(wanted, tmp_path))
    task = TaskSplits.of(wanted.tasks).select[0]
    answers = {str(test.args[0]): test.expected for test in task.tests}
    right = f"def {task.entry_point}(numbers):\n    return {answers!r}[str(numbers)]"
    for text, expected in ((right, 1.0), ("not code", 0.0)):
        found = reward(data_source="entrostat", solution_str=text, ground_truth=task.id, extra_info={})
        assert found == {"score": expected, "acc": expected}


def test_the_rows_are_the_tasks_of_each_split(tmp_path):
    from datasets import Dataset

    splits = TaskSplits.of(recipe(tasks={**BASE["tasks"], "ood": 2}).tasks)
    ours.write_rows(splits, tmp_path)
    files = (ours.TRAIN_FILE, ours.HELD_OUT_FILE)
    train, held_out = (Dataset.from_parquet(str(tmp_path / file), cache_dir=str(tmp_path / "cache")) for file in files)
    assert [row["extra_info"]["task"] for row in train] == [task.id for task in splits.train]
    for split in ("select", "report", "ood"):
        found = [row["prompt"][0]["content"] for row in held_out if row["extra_info"]["split"] == split]
        assert found == [task.prompt for task in getattr(splits, split)]
