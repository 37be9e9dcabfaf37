"""Steering in the worker processes of a real Ray cluster, killed and resumed; skipped where Ray is not installed.

Small packages with the hosts' names, which build actors, loop and checkpoint as the hosts do, stand in for them.
Thresholds, weights and a bonus that follow the entropy: those of every step are the library's.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed: no steering in its workers is checked")

import ray
import torch
import yaml

from entrostat.objective import policy_loss
from entrostat.recipe import build_controller, parse_recipe
from entrostat.tokens import TokenStats

SOURCE = Path(__file__).parents[3] / "src"
TOTAL = 4

LOOP = '''
import json, os, torch
OLD, LOGP = torch.tensor([[-0.1, -2.0]]), torch.tensor([[-0.05, -1.3]], requires_grad=True)
MASK, ENTROPIES = torch.ones(1, 2), [2.0, 0.3, 0.2, 1.9]


class Scheduler:
    """Counts optimizer steps, and is in the checkpoint."""
    last_epoch = 0


def train(trainer, step, save, file):
    """A step an iteration: loss, optimizer, checkpoint; a file asks it to die after the second."""
    while trainer.scheduler.last_epoch < 4:
        number = trainer.scheduler.last_epoch
        found, coefficient = step(ENTROPIES[number])
        with open(file + ".log", "a") as log:
            log.write(json.dumps([number, os.getpid(), found.item(), coefficient]) + "\\n")
        trainer.scheduler.last_epoch += 1
        save()
        if trainer.scheduler.last_epoch == 2 and not os.path.exists(file + ".died"):
            open(file + ".died", "w").close()
            os._exit(9)


def clipped(advantages, low, high):
    ratio = (LOGP - OLD).exp()
    return -torch.min(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages).sum()
'''
OPENRLHF = {
    "openrlhf/__init__.py": "",
    "openrlhf/loop.py": LOOP,
    "openrlhf/trainer/__init__.py": "",
    "openrlhf/trainer/ray/__init__.py": "",
    "openrlhf/trainer/ray/ppo_actor.py": """
import json, os, ray, torch
from types import SimpleNamespace
from openrlhf.loop import LOGP, MASK, OLD, Scheduler, clipped, train


class Actor(torch.nn.Module):
    def forward(self, entropy):
        return LOGP, SimpleNamespace(entropy=torch.full((1, 3), entropy))


class PolicyLoss(torch.nn.Module):
    policy_loss_type, clip_eps_low, clip_eps_high = "ppo", 0.2, 0.2

    def forward(self, log_probs, old_log_probs, advantages, action_mask=None):
        return clipped(advantages, self.clip_eps_low, self.clip_eps_high)


class Trainer:
    def __init__(self):
        self.actor, self.actor_loss_fn, self.scheduler = Actor(), PolicyLoss(), Scheduler()
        self.actor_scheduler, self.args = self.scheduler, SimpleNamespace(actor=SimpleNamespace(entropy_coef=0.0))


@ray.remote(num_gpus=1)
class PolicyModelActor:
    def init_model_from_pretrained(self, file):
        self.trainer, self.file, self.checkpoint_states = Trainer(), file, {}
        if os.path.exists(file):
            saved = json.loads(open(file).read())
            self.trainer.scheduler.last_epoch, self.checkpoint_states = saved["step"], saved["states"]

    def save_checkpoint(self, tag, client_states=None):
        with open(self.file, "w") as out:
            json.dump({"step": self.trainer.scheduler.last_epoch, "states": client_states}, out)

    def step(self, entropy):
        logp, _ = self.trainer.actor(entropy)
        found = self.trainer.actor_loss_fn(logp, OLD, torch.ones(1, 2), action_mask=MASK)
        return found, self.trainer.args.actor.entropy_coef

    def fit(self):
        train(self.trainer, self.step, lambda: self.save_checkpoint("tag", {"episode": 1}), self.file)
""",
    "openrlhf/cli/__init__.py": "",
    "openrlhf/cli/train_ppo_ray.py": """
import sys, ray
from openrlhf.trainer.ray.ppo_actor import PolicyModelActor

if __name__ == "__main__":
    ray.init()
    actor = PolicyModelActor.remote()
    ray.get(actor.init_model_from_pretrained.remote(sys.argv[1]))
    ray.get(actor.fit.remote())
""",
}
WORKER = "skyrl/backends/skyrl_train/workers/fsdp/fsdp_worker.py"
SKYRL = {
    **{
        f"{folder}/__init__.py": ""
        for folder in (
            "skyrl",
            "skyrl/train",
            "skyrl/train/entrypoints",
            "skyrl/backends",
            "skyrl/backends/skyrl_train",
            "skyrl/backends/skyrl_train/workers",
            "skyrl/backends/skyrl_train/workers/fsdp",
        )
    },
    "skyrl/loop.py": LOOP,
    "skyrl/train/config.py": """
from types import SimpleNamespace


class SkyRLTrainConfig(SimpleNamespace):
    @classmethod
    def from_cli_overrides(cls, arguments):
        own = {"eps_clip_low": 0.2, "eps_clip_high": 0.2, "use_entropy_loss": False, "entropy_loss_coef": 0.01}
        algorithm = SimpleNamespace(policy_loss_type="regular", **own)
        trainer = SimpleNamespace(strategy="fsdp", algorithm=algorithm)
        return cls(trainer=trainer, algorithm=algorithm, file=arguments[0])
""",
    "skyrl/train/utils.py": """
import ray

def validate_cfg(config): pass

def initialize_ray(config):
    ray.init()
""",
    "skyrl/train/entrypoints/main_base.py": """
import sys, ray


class BasePPOExp:
    def __init__(self, config):
        self.config = config

    def run(self):
        from skyrl.backends.skyrl_train.workers.fsdp.fsdp_worker import PolicyWorker

        ray.get(PolicyWorker.remote(cfg=self.config).fit.remote())


if __name__ == "__main__":
    from importlib import import_module

    import_module(sys.argv[1].partition("=")[2]).main()
""",
    WORKER: """
import os, ray, torch
from types import SimpleNamespace
from skyrl.loop import LOGP, MASK, OLD, Scheduler, clipped, train


def ppo_policy_loss(log_probs, old_log_probs, advantages, config, loss_mask=None, rollout_logprobs=None):
    return clipped(advantages, config.eps_clip_low, config.eps_clip_high)


class FSDPPolicyWorkerBase:
    def __init__(self, cfg):
        self.cfg, self.policy_loss_fn, self.scheduler = cfg, ppo_policy_loss, Scheduler()

    def forward_backward(self, data):
        ones, config = torch.ones(1, 2), self.cfg.algorithm
        self.loss = self.policy_loss_fn(LOGP, OLD, ones, config=config, loss_mask=MASK)
        self.coefficient = config.entropy_loss_coef * config.use_entropy_loss
        return SimpleNamespace(metrics={"policy_entropy": data})

    def save_checkpoint(self, ckpt_dir):
        with open(self.cfg.file, "w") as out:
            out.write(str(self.scheduler.last_epoch))

    def load_checkpoint(self, ckpt_dir):
        self.scheduler.last_epoch = int(open(self.cfg.file).read())

    def step(self, entropy):
        self.forward_backward(entropy)
        return self.loss, self.coefficient

    def fit(self):
        if os.path.exists(self.cfg.file):
            self.load_checkpoint(self.cfg.file + ".folder")
        train(self, self.step, lambda: self.save_checkpoint(self.cfg.file + ".folder"), self.cfg.file)


PolicyWorker = ray.remote(num_gpus=1)(FSDPPolicyWorkerBase)
""",
}
HOSTS = {
    "openrlhf": (OPENRLHF, ["entrostat.integrations.losses.openrlhf"]),
    "skyrl": (
        SKYRL,
        ["skyrl.train.entrypoints.main_base", "trainer.override_entrypoint=entrostat.integrations.losses.skyrl"],
    ),
}


CONTROL = """
strategy: {name: od}
bonus: {name: adaptive, target: 1.0, delta: 0.1}
parts: [{name: "steered_parts:Unlikely"}]
total_steps: 4
"""
PART = """
from entrostat.control import Part


class Unlikely(Part):
    needs_entropy = True
    entropy = 1.0

    def observe(self, step):
        self.entropy = step.entropy

    def weights(self, batch):
        return 1 - batch.stats.logp.exp() * self.entropy / 4

    def state_dict(self):
        return {"entropy": self.entropy}

    def load_state_dict(self, state):
        self.entropy = state["entropy"]
"""


def expected():
    """Loss and coefficient of every step of the stand-ins, by the library's own controller and loss."""
    controller = build_controller(
        parse_recipe(
            {"name": "host", "campaign": {"steps": TOTAL}, "control": yaml.safe_load(CONTROL.split("total")[0])}
        )
    )
    old, logp, mask = torch.tensor([[-0.1, -2.0]]), torch.tensor([[-0.05, -1.3]]), torch.ones(1, 2, dtype=torch.bool)
    for number, entropy in enumerate((2.0, 0.3, 0.2, 1.9)):
        stats = TokenStats(logp, *[torch.full((1, 2), entropy)] * 3)
        weights = controller.weights(stats, torch.ones(1, 2), mask, old_logp=old)
        out = policy_loss(logp, old, weights, mask, rule=controller.rule())
        yield out.per_token.sum().item(), controller.entropy_coef()
        controller.observe(number + 1, 2 * entropy, 2)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment of a host's driver on one Ray cluster, whose workers find the packages that stand in."""
    folder = tmp_path_factory.mktemp("hosts")
    for files, _ in HOSTS.values():
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
    (folder / "steered_parts.py").write_text(PART)
    (folder / "control.yaml").write_text(CONTROL)
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(folder))
        patched.setenv("PYTHONPATH", f"{folder}:{SOURCE}")
        node = ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
        address = node.address_info["gcs_address"]
        yield {**os.environ, "ENTROSTAT_CONTROL": str(folder / "control.yaml"), "RAY_ADDRESS": address}
        ray.shutdown()


@pytest.mark.parametrize("name", HOSTS)
def test_the_workers_follow_the_controller_through_a_kill_and_a_resume(tmp_path, cluster, name):
    _, (module, *arguments) = HOSTS[name]
    checkpoint = tmp_path / "checkpoint"
    command = [sys.executable, "-m", module, *arguments, str(checkpoint)]
    first = subprocess.run(command, env=cluster, capture_output=True, text=True, timeout=300)
    assert first.returncode != 0, first.stderr[-3000:]
    assert Path(f"{checkpoint}.died").exists(), first.stderr[-3000:]
    second = subprocess.run(command, env=cluster, capture_output=True, text=True, timeout=300)
    assert second.returncode == 0, second.stderr[-3000:]
    lines = map(json.loads, Path(f"{checkpoint}.log").read_text().splitlines())
    steps, processes, losses, coefficients = zip(*lines, strict=True)
    assert steps == (0, 1, 2, 3)
    assert len(set(processes)) == 2
    by_library = list(expected())
    assert losses == pytest.approx([loss for loss, _ in by_library], rel=1e-6)
    assert coefficients == pytest.approx([coefficient for _, coefficient in by_library])
    assert len(set(losses)) == 4  # thresholds and weights moved
    assert len(set(coefficients)) > 1
