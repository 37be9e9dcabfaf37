"""Steering in the worker processes of a real Ray cluster, killed and resumed; skipped where Ray is not installed.

Small packages with the hosts' names, which build actors, loop and checkpoint as the hosts do, stand in for them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed: no steering in its workers is checked")

from entrostat.control import IncreaseThenDecrease

SOURCE = Path(__file__).parents[3] / "src"
TOTAL = 4

LOOP = '''
import json, os, torch
OLD, LOGP = torch.tensor([[-0.1, -2.0]]), torch.tensor([[0.6, -1.3]], requires_grad=True)


class Scheduler:
    """Counts optimizer steps, and is in the checkpoint."""
    last_epoch = 0


def train(trainer, loss, file):
    """A step an iteration: loss, optimizer, checkpoint; a file asks it to die after the second."""
    while trainer.scheduler.last_epoch < 4:
        found = loss()
        with open(file + ".log", "a") as log:
            log.write(json.dumps([trainer.scheduler.last_epoch, os.getpid(), found.item()]) + "\\n")
        trainer.scheduler.last_epoch += 1
        with open(file, "w") as out:
            out.write(str(trainer.scheduler.last_epoch))
        if trainer.scheduler.last_epoch == 2 and not os.path.exists(file + ".died"):
            open(file + ".died", "w").close()
            os._exit(9)


def clipped(low, high):
    ratio = (LOGP - OLD).exp()
    return -torch.min(ratio, ratio.clamp(1 - low, 1 + high)).sum()
'''
OPENRLHF = {
    "openrlhf/__init__.py": "",
    "openrlhf/loop.py": LOOP,
    "openrlhf/trainer/__init__.py": "",
    "openrlhf/trainer/ray/__init__.py": "",
    "openrlhf/trainer/ray/ppo_actor.py": """
import os, ray, torch
from openrlhf.loop import LOGP, OLD, Scheduler, clipped, train


class PolicyLoss(torch.nn.Module):
    policy_loss_type, clip_eps_low, clip_eps_high = "ppo", 0.2, 0.2

    def forward(self, log_probs, old_log_probs):
        return clipped(self.clip_eps_low, self.clip_eps_high)


class Trainer:
    def __init__(self):
        self.actor_loss_fn, self.scheduler = PolicyLoss(), Scheduler()
        self.actor_scheduler = self.scheduler


@ray.remote(num_gpus=1)
class PolicyModelActor:
    def init_model_from_pretrained(self, file):
        self.trainer, self.file = Trainer(), file
        if os.path.exists(file):
            self.trainer.scheduler.last_epoch = int(open(file).read())

    def fit(self):
        train(self.trainer, lambda: self.trainer.actor_loss_fn(LOGP, OLD), self.file)
""",
    "openrlhf/cli/__init__.py": "",
    "openrlhf/cli/train_ppo_ray.py": """
import sys, ray
from openrlhf.trainer.ray.ppo_actor import PolicyModelActor

if __name__ == "__main__":
    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False)
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
        algorithm = SimpleNamespace(policy_loss_type="regular", eps_clip_low=0.2, eps_clip_high=0.2)
        trainer = SimpleNamespace(strategy="fsdp", algorithm=algorithm)
        return cls(trainer=trainer, algorithm=algorithm, file=arguments[0])
""",
    "skyrl/train/utils.py": """
import ray

def validate_cfg(config): pass

def initialize_ray(config):
    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False)
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
import os, ray
from skyrl.loop import LOGP, OLD, Scheduler, clipped, train


def ppo_policy_loss(log_probs, old_log_probs, advantages, config):
    return clipped(config.eps_clip_low, config.eps_clip_high)


class FSDPPolicyWorkerBase:
    def __init__(self, cfg):
        self.cfg, self.policy_loss_fn, self.scheduler = cfg, ppo_policy_loss, Scheduler()
        if os.path.exists(cfg.file):
            self.scheduler.last_epoch = int(open(cfg.file).read())

    def fit(self):
        train(self, lambda: self.policy_loss_fn(LOGP, OLD, None, config=self.cfg.algorithm), self.cfg.file)


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


def expected(step):
    """The loss of the stand-ins under ID after `step` steps: two rewarded tokens with a ratio of e^.7."""
    import torch

    old = torch.tensor([-0.1, -2.0])
    ratio = torch.tensor([0.6, -1.3]) - old
    _, high = IncreaseThenDecrease().rule(step, TOTAL).bounds(old)
    return -torch.minimum(ratio.exp(), high).sum().item()


@pytest.mark.parametrize("name", HOSTS)
def test_the_workers_follow_the_schedule_through_a_kill_and_a_resume(tmp_path, name):
    files, (module, *arguments) = HOSTS[name]
    for path, text in files.items():
        file = tmp_path / "host" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    control = tmp_path / "control.yaml"
    control.write_text(f"strategy: {{name: id}}\ntotal_steps: {TOTAL}\n")
    checkpoint = tmp_path / "checkpoint"
    environment = {**os.environ, "ENTROSTAT_CONTROL": str(control), "PYTHONPATH": f"{tmp_path / 'host'}:{SOURCE}"}
    command = [sys.executable, "-m", module, *arguments, str(checkpoint)]
    first = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert first.returncode != 0, first.stderr[-3000:]
    assert checkpoint.read_text() == "2", first.stderr[-3000:]
    second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert second.returncode == 0, second.stderr[-3000:]
    steps, processes, losses = zip(*map(json.loads, Path(f"{checkpoint}.log").read_text().splitlines()), strict=True)
    assert steps == (0, 1, 2, 3)
    assert len(set(processes)) == 2
    assert losses == pytest.approx([expected(step) for step in steps], rel=1e-6)
    assert len(set(losses)) > 2  # the thresholds moved
