"""Stand-ins for trainers with losses of their own: what our adapters touch of each, looped and checkpointed as it does.

`step(number, tokens)` runs a training step in two micro-batches; afterwards tokens.logp.grad is its gradient. `kill()`
leaves nothing but the checkpoint, from which the next step goes on.
"""

import copy
import enum
import functools
import pickle
import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import torch

from entrostat.integrations.losses import areal, miles, nemo_rl, openrlhf, prime_rl, roll, skyrl, slime, steering
from entrostat.tokens import token_stats

ROWS, LENGTH, VOCABULARY = 3, 8, 7
MICRO_BATCHES = ([0], [1, 2])


class Tokens:
    """(ROWS, LENGTH) tokens, padded; logp is a leaf, and the other tokens of the vocabulary share 1 - p.

    sharpness: of the distribution of those others, which moves the entropy.
    """

    def __init__(self, sharpness=1.0):
        generator = torch.Generator().manual_seed(0)
        self.old = -0.1 - 2 * torch.rand(ROWS, LENGTH, generator=generator)
        ratios = torch.linspace(0.5, 1.05, ROWS * LENGTH)[torch.randperm(ROWS * LENGTH, generator=generator)]
        self.logp = (self.old + ratios.log().view_as(self.old) + 0.4).clamp_max(-0.02).requires_grad_()
        self.advantages = torch.tensor([1.0, -0.5, 2.0])[:, None].expand(ROWS, LENGTH)
        self.mask = torch.arange(LENGTH) < torch.tensor([8, 5, 2])[:, None]
        self.ids = torch.arange(ROWS * LENGTH).view(ROWS, LENGTH) % VOCABULARY
        others = sharpness * torch.randn(ROWS, LENGTH, VOCABULARY, generator=generator)
        self.others = others.scatter(-1, self.ids[..., None], -torch.inf).log_softmax(-1)

    @property
    def logits(self):
        rest = self.others + torch.log(-torch.expm1(self.logp))[..., None]
        return rest.scatter(-1, self.ids[..., None], self.logp[..., None])

    @property
    def stats(self):
        return token_stats(self.logits, self.ids, entropy_grad=True)

    def rows(self, chosen):
        """Some rows, of which only the gradient of logp is shared with this batch."""
        part = copy.copy(self)
        for name in ("old", "logp", "advantages", "mask", "ids", "others"):
            setattr(part, name, getattr(self, name)[chosen])
        return part


def clipped(logp, old, advantages, low, high):
    """PPO's loss of every token as the hosts write it."""
    ratio = (logp - old).exp()
    return -torch.min(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)


class Host:
    """A stand-in. coefficients: the entropy coefficients that its loss read, one per micro-batch."""

    def __init__(self, monkeypatch, folder):
        self.monkeypatch, self.folder, self.coefficients = monkeypatch, folder, []
        self.build()

    def build(self):
        """A process of the host, new."""

    def kill(self):
        """Another process takes over, from the checkpoint of the last step."""
        steering.steering_of_file.cache_clear()
        self.build()

    def stand_in(self, path, **names):
        """A module of the host, and its parents."""
        parts = path.split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            if name not in sys.modules:
                self.monkeypatch.setitem(sys.modules, name, ModuleType(name))
        for name, value in names.items():
            self.monkeypatch.setattr(sys.modules[path], name, value, raising=False)

    def backward(self, loss):
        loss.backward()


class Slime(Host):
    module, rollout = slime, -1

    def kill(self):
        self.begin(self.rollout + 1)  # it dies within the next rollout, which has written the state of its start
        super().kill()

    def build(self):
        def get_responses(logits, *, args, unconcat_tokens, total_lengths, response_lengths):
            ends = torch.tensor(total_lengths).cumsum(0)
            for tokens, end, length in zip(unconcat_tokens, ends, response_lengths, strict=True):
                yield logits[0, end - length - 1 : end - 1], tokens[-length:]

        def policy_loss_function(args, batch, logits, mean):
            tokens = self.tokens
            old = torch.cat(batch["log_probs"]) if batch.get("log_probs") else tokens.logp.detach().flatten()
            advantages = torch.cat(batch["advantages"])
            per_token = clipped(tokens.logp.flatten(), old, advantages, args.eps_clip, args.eps_clip_high)
            self.coefficients.append(args.entropy_coef)
            entropy = tokens.stats.entropy.flatten()
            return mean(per_token) - args.entropy_coef * mean(entropy), {"tis": args.use_tis}

        group = SimpleNamespace(tp=SimpleNamespace(group=None))
        names = {
            "mpu": SimpleNamespace(get_tensor_model_parallel_group=lambda: None),
            "get_parallel_state": lambda: group,
        }
        self.stand_in(self.module.LOSS, policy_loss_function=policy_loss_function, get_responses=get_responses, **names)
        if self.module is miles:
            self.stand_in(miles.RESPONSES, get_responses=get_responses)
        else:
            self.stand_in(self.module.LOSS, get_rollout_top_p_logprob_kwargs=None)
        self.monkeypatch.setattr(slime, "_rollout", None)
        names = {"advantage_estimator": "grpo", "use_rollout_logprobs": False, "use_tis": True, "entropy_coef": 0.0}
        self.args = SimpleNamespace(**names, eps_clip=0.2, eps_clip_high=0.2, save=str(self.folder), load=None)

    def begin(self, number):
        self.rollout = number
        for micro_step in range(2):  # a rollout has several optimizer steps
            self.module.before_train_step(self.args, number, micro_step, None, None, None)

    def step(self, number, tokens, old=True):
        self.begin(number)
        for rows in MICRO_BATCHES:
            self.backward(self.loss(tokens.rows(rows), old)[0])

    def loss(self, tokens, old=True):
        self.tokens, count = tokens, len(tokens.old)
        prompt = torch.zeros(count, 2, dtype=torch.long)
        whole = torch.cat([tokens.logits[:, :1], tokens.logits, tokens.logits[:, -1:]], 1)
        batch = {
            "advantages": list(tokens.advantages.unbind()),
            "log_probs": list(tokens.old.unbind()) if old else None,
            "unconcat_tokens": list(torch.cat([prompt, tokens.ids], 1).unbind()),
            "total_lengths": [LENGTH + 2] * count,
            "response_lengths": [LENGTH] * count,
        }
        return self.module.loss_function(
            self.args, batch, whole.flatten(0, 1)[None], lambda x: (x * tokens.mask.flatten()).sum()
        )


class Miles(Slime):
    module = miles


class Roll(Host):
    module = roll

    def build(self):
        host = self

        class ActorWorker:
            rank_info = SimpleNamespace(tp_size=1, cp_size=1)

            def train_step(self, data):
                for rows in MICRO_BATCHES:
                    host.backward(self.loss_func(host.data(rows), host.logits(rows))[0])

            train_step.BIND_WORKER_METHOD_FLAG = "dispatch"

            def get_old_log_probs_with_cache(self, data, log_probs):
                return data.batch["old_log_probs"]

            def loss_func(self, data, output_tensor):
                config, mask = self.pipeline_config, data.batch["response_mask"][:, 1:]
                advantages = data.batch["advantages"]
                logp = self.strategy.op_compute_log_probs(output_tensor, data.batch["input_ids"])
                old = self.get_old_log_probs_with_cache(data, logp)
                assert config.use_pg_clip_range
                per_token = clipped(logp, old, advantages, config.pg_clip_low, config.pg_clip_high)
                entropy = self.strategy.op_compute_entropy(logits=output_tensor, attention_mask=None)
                host.coefficients.append(config.entropy_loss_coef)
                loss = per_token - config.entropy_loss_coef * entropy
                return (loss * mask).sum(), {"m": config.pg_clip}

        def log_probs(logits, ids):
            return logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)

        def entropy(logits, attention_mask):
            return torch.distributions.Categorical(logits=logits[:, :-1]).entropy()

        self.stand_in("roll.pipeline.rlvr.actor_worker", ActorWorker=ActorWorker)
        roll._worker.cache_clear()
        self.worker = roll.EntropyActorWorker()
        self.worker.strategy = SimpleNamespace(op_compute_log_probs=log_probs, op_compute_entropy=entropy)
        self.worker.pipeline_config = SimpleNamespace(
            importance_sampling="token",
            actor_train=SimpleNamespace(),
            use_pg_clip_range=False,
            pg_clip=0.2,
            pg_clip_low=0.2,
            pg_clip_high=0.2,
            entropy_loss_coef=0.0,
            output_dir=str(self.folder),
            resume_from_checkpoint=True,
        )

    def logits(self, rows):
        logits = self.tokens.rows(rows).logits
        return torch.cat([logits, logits[:, :1]], 1)

    def data(self, rows):
        tokens = self.tokens.rows(rows)
        first = torch.zeros(len(rows), 1)
        batch = {
            "response_mask": torch.cat([first, tokens.mask.float()], 1).long(),
            "input_ids": torch.cat([first.long(), tokens.ids], 1),
            "advantages": tokens.advantages,
            "old_log_probs": tokens.old,
        }
        return SimpleNamespace(batch=batch, meta_info=self.meta)

    def step(self, number, tokens):
        self.tokens, self.meta = tokens, {"global_step": number}
        self.worker.train_step(SimpleNamespace(meta_info=self.meta))


class Areal(Host):
    module = areal

    def build(self):
        class Engine:
            version = 0

            def get_version(self):
                return self.version

            def train_batch(self, input_, loss_fn, loss_weight_fn):
                return loss_fn(input_["logp"], input_["entropy"], input_)

            def save(self, meta):
                return "saved"

            def load(self, meta):
                return "loaded"

        self.stand_in("areal.engine.fsdp_engine", FSDPPPOActor=Engine)
        areal._actor.cache_clear()
        self.engine = areal.EntropyFSDPPPOActor()
        self.meta = SimpleNamespace(path=str(self.folder), with_optim=True)

    def kill(self):
        super().kill()
        assert self.engine.load(self.meta) == "loaded"

    def step(self, number, tokens):
        self.engine.version = number
        for rows in MICRO_BATCHES:
            self.backward(self.engine.train_batch(self.packed(tokens.rows(rows)), self.loss_fn(), None))
        self.engine.version = number + 1  # AReaL sets the next version, then saves
        assert self.engine.save(self.meta) == "saved"

    def packed(self, tokens):
        mask = tokens.mask
        names = {"prox_logp": tokens.old, "logprobs": tokens.old - 0.1, "advantages": tokens.advantages}
        names |= {"logp": tokens.logp, "entropy": tokens.stats.entropy}
        return {**{name: value[mask] for name, value in names.items()}, "loss_mask": torch.ones(int(mask.sum()))}

    def loss_fn(self, **changes):
        fixed = {"importance_sampling_level": "token", "use_sapo_loss": False, "prox_logp_method": "recompute"}
        return functools.partial(grpo_loss_fn, **{"eps_clip": 0.2, "eps_clip_higher": None, **fixed, **changes})


def grpo_loss_fn(logprobs, entropy, input_data, eps_clip, eps_clip_higher, **_):
    high = eps_clip if eps_clip_higher is None else eps_clip_higher
    loss = clipped(logprobs, input_data["prox_logp"], input_data["advantages"], eps_clip, high)
    return (loss * input_data["loss_mask"]).sum()


class Kind(enum.Enum):
    LOGIT = "logit"
    LOGPROB = "logprob"


class NemoLoss:
    """NeMo RL's loss object, as far as the adapter knows it."""

    sequence_level_importance_ratios = use_cispo = disable_ppo_ratio = force_on_policy_ratio = False
    ratio_clip_min = ratio_clip_max = 0.2
    loss_type, input_type = "TOKEN_LEVEL", Kind.LOGPROB

    def __call__(self, next_token_logprobs, data, global_valid_seqs, global_valid_toks):
        old, advantages, mask = (data[name][:, 1:] for name in ("prev_logprobs", "advantages", "token_mask"))
        per_token = clipped(next_token_logprobs, old, advantages, self.ratio_clip_min, self.ratio_clip_max)
        return (per_token * mask).sum(), {"gen_kl_error": 0.0}


class NemoPolicy:
    """NeMo RL's policy: what reaches its workers is a copy of the loss, new at every call."""

    def __init__(self, host, **cfg):
        self.host, self.cfg = host, cfg

    def train(self, data, loss_fn, timer=None):
        worker, metrics = pickle.loads(pickle.dumps(loss_fn)), []
        for rows in MICRO_BATCHES:
            tokens = self.host.tokens.rows(rows)
            logits = torch.cat([tokens.logits, tokens.logits[:, :1]], 1)
            inputs, batch = prepare_loss_input(logits, self.host.data(tokens), worker)
            loss, found = worker(data=batch, global_valid_seqs=1, global_valid_toks=1, **inputs)
            self.host.backward(loss)
            metrics.append(found)
        return {"all_mb_metrics": {name: [one[name] for one in metrics] for name in metrics[0]}}


def prepare_loss_input(logits, data, loss_fn, *_, **__):
    if loss_fn.input_type is Kind.LOGIT:
        return {"logits": logits}, data
    logp = logits[:, :-1].log_softmax(-1).gather(-1, data["input_ids"][:, 1:, None]).squeeze(-1)
    return {"next_token_logprobs": logp}, data


@dataclass
class SaveState:
    total_steps: int = 0
    current_step: int = 0


class Nemo(Host):
    module = nemo_rl

    def build(self):
        self.stand_in("nemo_rl.algorithms.loss.utils", prepare_loss_input=prepare_loss_input)
        saved = getattr(self, "saved", {})
        self.state = SaveState(total_steps=saved.get("total_steps", 0))
        checkpointer = SimpleNamespace(
            get_latest_checkpoint_path=lambda: "step" if saved else None, load_training_info=lambda path: saved
        )
        self.policy = NemoPolicy(self)
        self.steered = nemo_rl.steer(self.policy, NemoLoss(), self.state, checkpointer)

    def data(self, tokens):
        def whole(x):
            return torch.cat([torch.zeros(len(x), 1), x.float()], 1)

        names = {"prev_logprobs": tokens.old, "advantages": tokens.advantages, "token_mask": tokens.mask}
        names |= {"generation_logprobs": tokens.old}
        rest = {"sample_mask": torch.ones(len(tokens.old)), "input_ids": whole(tokens.ids).long()}
        return {**{name: whole(x) for name, x in names.items()}, **rest}

    def step(self, number, tokens):
        self.tokens = tokens
        found = self.policy.train(None, self.steered)
        assert not set(found["all_mb_metrics"]) & {nemo_rl.ENTROPY, nemo_rl.TOKENS}
        gradient = tokens.logp.grad.clone()
        self.policy.train(None, NemoLoss())  # another loss, such as a validation's, is no step
        tokens.logp.grad = gradient
        self.state.total_steps = number + 1
        self.saved = {**vars(self.state)}


class HostModule(torch.nn.Module):
    """OpenRLHF's loss module, as far as the adapter knows it."""

    policy_loss_type = "ppo"
    clip_eps_low = clip_eps_high = 0.2

    def forward(self, log_probs, old_log_probs, advantages, action_mask=None, **_):
        per_token = clipped(log_probs, old_log_probs, advantages, self.clip_eps_low, self.clip_eps_high)
        return (per_token * action_mask).sum(), "kl"


class Actor(torch.nn.Module):
    """OpenRLHF's actor: the log-probabilities and the output of a forward pass."""

    def forward(self, tokens):
        stats = tokens.stats
        prompt = torch.full((len(tokens.old), 2), torch.nan)
        return stats.logp, SimpleNamespace(entropy=torch.cat([prompt, stats.entropy], 1))


class OpenRlhf(Host):
    module = openrlhf

    def build(self):
        host, control = self, steering.steering(openrlhf.TIER, openrlhf.COEFFICIENT)

        class PolicyModelActor:
            def init_model_from_pretrained(self):
                saved = getattr(host, "saved", {"last_epoch": 0, "states": {}})
                self.checkpoint_states = saved["states"]
                self.trainer = SimpleNamespace(
                    actor=Actor(),
                    actor_loss_fn=HostModule(),
                    actor_scheduler=SimpleNamespace(last_epoch=saved["last_epoch"]),
                    args=SimpleNamespace(actor=SimpleNamespace(entropy_coef=host.coefficient)),
                )
                return "built"

            def save_checkpoint(self, tag, client_states=None, metric_value=None):
                host.saved = {"last_epoch": self.trainer.actor_scheduler.last_epoch, "states": client_states or {}}

        self.actor = openrlhf.steered_actor(PolicyModelActor, control)()
        assert self.actor.init_model_from_pretrained() == "built"

    coefficient = 0.0

    def step(self, number, tokens):
        trainer = self.actor.trainer
        assert trainer.actor_scheduler.last_epoch == number
        for rows in MICRO_BATCHES:
            part = tokens.rows(rows)
            logp, output = trainer.actor(part)
            loss, _ = trainer.actor_loss_fn(logp, part.old, part.advantages, action_mask=part.mask)
            coefficient = trainer.args.actor.entropy_coef
            self.coefficients.append(coefficient)
            self.backward(loss - coefficient * (output.entropy[:, -LENGTH:] * part.mask).sum())
        trainer.actor_scheduler.last_epoch += 1
        self.actor.save_checkpoint("tag", {"episode": 1})


def skyrl_loss(log_probs, old_log_probs, advantages, config, loss_mask=None, rollout_logprobs=None):
    per_token = clipped(log_probs, old_log_probs, advantages, config.eps_clip_low, config.eps_clip_high)
    return (per_token * loss_mask).sum(), {"c": config.correction}


class SkyRl(Host):
    """The FSDP worker; with `megatron` the scheduler counts as Megatron's does."""

    module, megatron = skyrl, False

    def build(self):
        host = self
        control = steering.steering(skyrl.TIER, skyrl.COEFFICIENT, measured=True)
        names = {"policy_loss_type": "regular", "correction": "tis", "use_entropy_loss": False}
        algorithm = SimpleNamespace(**names, eps_clip_low=0.2, eps_clip_high=0.2, entropy_loss_coef=0.01)
        counter = "num_steps" if self.megatron else "last_epoch"

        class PolicyWorkerBase:
            def __init__(self, cfg):
                self.cfg, self.policy_loss_fn = cfg, skyrl_loss
                self.scheduler = SimpleNamespace(**{counter: 0})

            def forward_backward(self, data, loss_fn=None):
                for rows in MICRO_BATCHES:
                    part = data.rows(rows)
                    loss, _ = self.policy_loss_fn(
                        part.logp, part.old, part.advantages, config=self.cfg.algorithm, loss_mask=part.mask
                    )
                    used = self.cfg.algorithm.use_entropy_loss * self.cfg.algorithm.entropy_loss_coef
                    host.coefficients.append(used)
                    host.backward(loss - used * (part.stats.entropy * part.mask).sum())
                return SimpleNamespace(metrics={"policy_entropy": data.stats.entropy[data.mask].mean().item()})

            def save_checkpoint(self, ckpt_dir, tokenizer=None):
                host.saved = getattr(self.scheduler, counter)

            def load_checkpoint(self, ckpt_dir):
                setattr(self.scheduler, counter, host.saved)

        self.counter = counter
        self.worker = skyrl.steered_worker(PolicyWorkerBase, control)(cfg=SimpleNamespace(algorithm=algorithm))

    def kill(self):
        super().kill()
        self.worker.load_checkpoint(str(self.folder))

    def step(self, number, tokens):
        self.worker.forward_backward(tokens)
        setattr(self.worker.scheduler, self.counter, number + 1)
        self.worker.save_checkpoint(str(self.folder))


class SkyRlMegatron(SkyRl):
    megatron = True


@dataclass
class Inputs:
    """prime-rl's LossInputs."""

    trainer_logprobs: torch.Tensor
    inference_logprobs: torch.Tensor
    advantages: torch.Tensor
    loss_mask: torch.Tensor


class Prime(Host):
    module, kwargs = prime_rl, None

    def build(self):
        class CheckpointManager:
            def load(self, step, model):
                return model

        @dataclass
        class DefaultLossConfig:
            dppo_mask_low: float = 0.2
            dppo_mask_high: float = 0.2
            adv_tau: float = 1.0
            kl_tau: float = 1e-3

        def default_loss_fn(inputs, config):
            move = inputs.trainer_logprobs.exp() - inputs.inference_logprobs.exp()
            masked = torch.where(inputs.advantages > 0, move > config.dppo_mask_high, move < -config.dppo_mask_low)
            ratio = (inputs.trainer_logprobs - inputs.inference_logprobs).exp()
            self.taus.append(config.kl_tau)
            return -(config.adv_tau * inputs.advantages * ratio * (inputs.loss_mask & ~masked)).sum()

        self.taus = []
        self.stand_in("prime_rl.configs.trainer", DefaultLossConfig=DefaultLossConfig)
        self.stand_in("prime_rl.trainer.rl.loss", default_loss_fn=default_loss_fn)
        self.stand_in("prime_rl.trainer.ckpt", CheckpointManager=CheckpointManager)
        self.forget()
        prime_rl.count_steps()
        weight = torch.nn.Parameter(torch.zeros(1))
        weight.grad = torch.ones(1)
        self.optimizer = torch.optim.AdamW([weight], lr=0.1)
        if saved := getattr(self, "saved", 0):
            assert sys.modules["prime_rl.trainer.ckpt"].CheckpointManager().load(saved, "model") == "model"

    @staticmethod
    def forget():
        """What a new process does not have."""
        if prime_rl._hook is not None:
            prime_rl._hook.remove()
        prime_rl._resumed_at, prime_rl._hook = 0, None
        prime_rl._steps.clear()
        prime_rl._parsed.cache_clear()

    def step(self, number, tokens):
        assert prime_rl.current_step() == number
        for row in range(ROWS):
            names = ("logp", "old", "advantages", "mask")
            inputs = Inputs(*(getattr(tokens, name)[row] for name in names))
            self.backward(prime_rl.loss(inputs, **self.kwargs))
        self.optimizer.step()
        self.saved = number + 1


HOSTS = (Slime, Miles, Roll, Areal, Nemo, OpenRlhf, SkyRl, SkyRlMegatron, Prime)
