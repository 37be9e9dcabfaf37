"""TRL's rollouts of several turns: a tool's tokens, masked by env_mask, train nothing and are in no statistic.

Skipped where TRL is not installed.
"""

import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl", reason="TRL is not installed: completions of several turns are not checked")

from transformers import LlamaForCausalLM
from trl import GRPOTrainer
from trl_world import policy, steps, trainer

from entrostat import token_stats, turn_numbers
from entrostat.control import Constant, EntropyController, HighEntropyTokens, IncreaseThenDecrease, Part
from entrostat.integrations.records import nested
from entrostat.integrations.trl.trainer import EntropyGRPOTrainer
from entrostat.objective import ClipRule, Tis
from entrostat.runs.schema import STEP

TOOL = 90  # the first of three tokens that the tool writes


def rollout(last=0, logprobs=-2.0, seed=0):
    """A rollout function with two or three turns per completion, and a tool's reply after each, the last one too.

    last: what the last reply says, which no token of the model comes after.
    """
    draw = random.Random(seed)

    def generate(prompts, trainer):
        completions, masks, scored = [], [], []
        for _ in prompts:
            ids, mask = [], []
            turns = draw.randint(2, 3)
            for turn in range(turns):
                own = [draw.randint(3, 60) for _ in range(draw.randint(2, 4))]
                reply = [TOOL + (last if turn == turns - 1 else 0)] * 3
                ids += own + reply
                mask += [1] * len(own) + [0] * len(reply)
            completions.append(ids)
            masks.append(mask)
            scored.append([logprobs if own else 0.0 for own in mask])
        encoded = [trainer.processing_class(prompt)["input_ids"] for prompt in prompts]
        return {"prompt_ids": encoded, "completion_ids": completions, "logprobs": scored, "env_mask": masks}

    return generate


def reward(completion_ids, **_):
    """Of the model's tokens alone, as a grader of the last answer has it."""
    return [sum(token for token in ids if token < TOOL) % 7 / 7 for ids in completion_ids]


class Recorder(EntropyGRPOTrainer):
    """Keeps what the loss read of its first micro-batch."""

    first = None

    def _compute_loss(self, model, inputs):
        if self.first is None:
            self.first = {name: x.clone() for name, x in inputs.items() if isinstance(x, torch.Tensor)}
        return super()._compute_loss(model, inputs)


def trained(folder, kind, rollout_func, controller=None, **changes):
    options = {"rollout_func": rollout_func}
    if kind is not None:
        options["controller"] = controller or EntropyController(Constant(), 4)
    source = folder.parent / "model"  # on disk, from where TRL takes its reference
    policy().save_pretrained(source)
    model = LlamaForCausalLM.from_pretrained(source, dtype=torch.float32)
    run = trainer(folder, kind or GRPOTrainer, model, options, **changes)
    run.reward_funcs = [reward]
    run.train()
    return run


SEQUENCE = {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.01}


@pytest.mark.parametrize("changes", [{"loss_type": "dapo"}, SEQUENCE], ids=["dapo", "gspo"])
def test_without_control_it_is_plain_trl_to_rounding(tmp_path, changes):
    plain = trained(tmp_path / "plain", None, rollout(), beta=0.1, **changes)
    band = Constant(ClipRule.constant(0.01, 0.01)) if changes is SEQUENCE else Constant()
    ours = trained(tmp_path / "ours", EntropyGRPOTrainer, rollout(), EntropyController(band, 4), beta=0.1, **changes)
    for theirs, found in zip(steps(plain), steps(ours), strict=True):
        for name in theirs.keys() - {"step_time"}:
            assert found[name] == pytest.approx(theirs[name], abs=1e-5), name
        assert found["entrostat/entropy"] == pytest.approx(theirs["entropy"], abs=1e-4)
    for a, b in zip(plain.model.parameters(), ours.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "controller",
    [
        lambda: EntropyController(Constant(), 4),
        lambda: EntropyController(HighEntropyTokens(0.3), 4),
        lambda: EntropyController(IncreaseThenDecrease(), Tis(), total_steps=4),
    ],
    ids=["constant", "80/20", "id-with-a-correction"],
)
def test_what_a_tool_says_last_changes_nothing(tmp_path, controller):
    """No token of the model comes after it, so that only a leak of the mask could let it through."""
    one, other = (trained(tmp_path / str(last), EntropyGRPOTrainer, rollout(last), controller()) for last in (0, 40))
    for a, b in zip(steps(one), steps(other), strict=True):
        ours = [name for name in a if name.startswith("entrostat/")]
        assert len(ours) > 30
        for name in ("loss", "grad_norm", *ours):
            assert a[name] == pytest.approx(b[name], rel=1e-6, abs=1e-9), name


def test_a_tools_tokens_get_no_weight_and_each_turn_its_own_statistics(tmp_path):
    class Doubled(Part):
        def weights(self, batch):
            masks.append(batch.mask.clone())
            return torch.full_like(batch.stats.logp, 2.0)

    masks = []
    model = policy()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    run = trainer(
        tmp_path,
        Recorder,
        model,
        {"controller": EntropyController(Doubled(), total_steps=1), "rollout_func": rollout()},
        gradient_accumulation_steps=1,
        steps_per_generation=1,
        num_iterations=1,
        max_steps=1,
    )
    run.train()
    first = run.first
    mask = (first["completion_mask"] * first["tool_mask"]).bool()
    torch.testing.assert_close(masks[0], mask)
    assert bool((first["completion_ids"][first["completion_mask"].bool() & ~mask] == TOOL).all())

    model.load_state_dict(start)
    ids = torch.cat([first["prompt_ids"], first["completion_ids"]], 1)
    seen = torch.cat([first["prompt_mask"], first["completion_mask"]], 1)
    kept = first["completion_ids"].shape[1]
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=seen).logits[:, -kept - 1 : -1]
    stats = token_stats(logits, first["completion_ids"])
    numbers = turn_numbers(mask)
    (line,) = steps(run)
    record = nested(line)
    turns = record["turns"]
    assert set(turns) == {str(number) for number in range(1, int(numbers.max()) + 1)} == {"1", "2", "3"}
    for number in (1, 2, 3):
        own, found = numbers == number, turns[str(number)]
        assert found["entropy"] == pytest.approx(float(stats.entropy[own].mean()), rel=1e-5)
        assert found["surprisal"] == pytest.approx(float(-stats.logp[own].mean()), rel=1e-5)
        assert found["completions"] == pytest.approx(float(own.any(1).float().mean()))
    assert record["turns_per_completion"] == pytest.approx(float(numbers.amax(1).float().mean()))
    tokens = {number: int((numbers == number).sum()) for number in (1, 2, 3)}
    flow = sum(turns[str(number)]["flow"] * count for number, count in tokens.items()) / sum(tokens.values())
    assert flow == pytest.approx(record["flow_up"] + record["flow_down"], rel=1e-4, abs=1e-9)
    STEP.check({name: record[name] for name in ("turns", "turns_per_completion")} | {"step": 1}, "the log")


def test_a_token_that_the_sampler_could_not_score_has_no_mismatch_as_in_trl(tmp_path):
    def generate(prompts, trainer):
        found = whole(prompts, trainer)
        return found if keep else found | {"logprobs": [[None, *row[1:]] for row in found["logprobs"]]}

    lines = {}
    for keep in (True, False):
        whole = rollout()
        run = trained(tmp_path / str(keep), EntropyGRPOTrainer, generate, EntropyController(Tis(), total_steps=4))
        lines[keep] = steps(run)
    for whole_line, line in zip(lines[True], lines[False], strict=True):
        assert line["entrostat/mismatch/distance"] < whole_line["entrostat/mismatch/distance"]
        assert line["loss"] == line["loss"]  # no NaN


def test_over_two_ranks_turns_and_information_are_those_of_all_completions_in_one_batch(tmp_path):
    script = Path(__file__).with_name("two_ranks_of_turns.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("agrees") == 1


def test_single_turns_have_no_record_of_turns(tmp_path):
    run = trainer(tmp_path, EntropyGRPOTrainer, options={"controller": EntropyController(Constant(), 4)})
    run.train()
    assert not any("turns" in name for line in steps(run) for name in line)


@torch.no_grad()
def test_the_information_of_prompts_and_first_turns_is_their_definition(tmp_path):
    """Each first turn scored under each distinct prompt by a forward pass of its own; one batch in two is measured."""
    controller = EntropyController(Constant(), 4)
    changes = {"gradient_accumulation_steps": 1, "steps_per_generation": 1, "num_iterations": 1}
    model = policy()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    options = {"controller": controller, "rollout_func": rollout(), "information_every": 2}
    run = trainer(tmp_path, Recorder, model, options, **changes, per_device_train_batch_size=16)
    with torch.enable_grad():
        run.train()
    lines = steps(run)
    assert ["entrostat/information/nats" in line for line in lines] == [True, False, True, False]
    model.load_state_dict(start)
    batch = run.first
    prompts = [row[own.bool()] for row, own in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)]
    distinct = {tuple(prompt.tolist()) for prompt in prompts}
    nats, surprisal = [], []
    for row, prompt in enumerate(prompts):
        turn = batch["completion_ids"][row][: int(batch["tool_mask"][row].argmin())]
        scores = {}
        for other in distinct:
            ids = torch.cat([torch.tensor(other, device=turn.device), turn])[None]
            logp = model(input_ids=ids).logits[0, len(other) - 1 : -1].double().log_softmax(-1)
            scores[other] = float(logp.gather(1, turn.unsqueeze(1)).sum())
        mine = scores[tuple(prompt.tolist())]
        nats.append(mine - math.log(sum(map(math.exp, scores.values())) / len(scores)))
        surprisal.append(-mine / len(turn))
    found = nested(lines[0])["information"]
    assert len(distinct) > 1
    assert found["most"] == pytest.approx(math.log(len(distinct)))
    assert found["nats"] == pytest.approx(sum(nats) / len(nats), abs=1e-5)
    assert found["conditional_entropy"] == pytest.approx(sum(surprisal) / len(surprisal), abs=1e-5)
