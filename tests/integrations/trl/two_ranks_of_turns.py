"""Run by torchrun with two processes: turns and information are those of the completions of both in one batch."""

import os
import sys

import torch
from test_turns import Recorder, reward, rollout
from trl_world import policy, steps, trainer

from entrostat import prompt_information, token_stats, turn_sums
from entrostat.control import Constant, EntropyController
from entrostat.integrations.records import nested

rank = int(os.environ["RANK"])
once = {"gradient_accumulation_steps": 1, "steps_per_generation": 1, "num_iterations": 1, "max_steps": 1}
options = {
    "controller": EntropyController(Constant(), 1),
    "rollout_func": rollout(seed=rank),
    "information_every": 1,
}
run = trainer(sys.argv[1], Recorder, None, options, **once)
run.reward_funcs = [reward]
run.train()
found = nested(steps(run)[0]) if rank == 0 else None
everyone = run.accelerator.gather_for_metrics([run.first], use_gather_object=True)
assert len(everyone) == 2
assert everyone[0]["tool_mask"].tolist() != everyone[1]["tool_mask"].tolist()


@torch.no_grad()
def scored(prompt, turn):
    """ln p and the statistics of a completion's tokens after a prompt, each by a pass of its own."""
    logits = model(input_ids=torch.cat([prompt, turn])[None]).logits[0, len(prompt) - 1 : -1].double()
    return token_stats(logits, turn)


if rank == 0:
    model = policy()
    whole = [
        (prompt[seen.bool()], ids, own.bool() & tool.bool(), written.bool(), advantage)
        for batch in everyone
        for prompt, seen, ids, own, tool, written, advantage in zip(
            *(batch[name] for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "tool_mask")),
            batch["completion_mask"],
            batch["advantages"],
            strict=True,
        )
    ]
    width = max(len(ids) for _, ids, *_ in whole)
    columns = {name: torch.zeros(len(whole), width, dtype=torch.float64) for name in ("logp", "entropy", "correction")}
    masks = torch.zeros(len(whole), width, dtype=torch.bool)
    prompts = list(dict.fromkeys(tuple(prompt.tolist()) for prompt, *_ in whole))
    logp = torch.zeros(len(whole), len(prompts), dtype=torch.float64)
    lengths = torch.zeros(len(whole), dtype=torch.long)
    for row, (prompt, ids, own, written, _) in enumerate(whole):
        stats = scored(prompt, ids[written])
        for name, column in columns.items():
            column[row, : len(stats.logp)] = getattr(stats, name)
        masks[row, : len(own)] = own
        lengths[row] = int((~own).int().argmax()) if bool((~own).any()) else len(own)
        for place, other in enumerate(prompts):
            logp[row, place] = scored(torch.tensor(other), ids[: lengths[row]]).logp.sum()
    stats = stats.__class__(columns["logp"], columns["entropy"], columns["entropy"], columns["correction"])
    advantages = torch.stack([advantage for *_, advantage in whole])[:, None]
    record = turn_sums(stats, advantages, masks).metrics()
    assert found["turns_per_completion"] == record["turns_per_completion"]
    assert found["turns"].keys() == record["turns"].keys() == {"1", "2", "3"}
    for turn, each in record["turns"].items():
        for name in each.keys() - {"flow"}:
            assert abs(found["turns"][turn][name] - each[name]) < 1e-3 * abs(each[name]), (turn, name)
    own = torch.tensor([prompts.index(tuple(prompt.tolist())) for prompt, *_ in whole])
    information = prompt_information(logp, own=own, lengths=lengths)
    assert found["information"].keys() == information.keys()
    assert len(prompts) > 1
    for name, value in information.items():
        assert abs(found["information"][name] - value) < 1e-5 * max(1, abs(value)), name
    print("agrees", flush=True)
run.accelerator.wait_for_everyone()
run.accelerator.end_training()
os._exit(0)  # now and then gloo's threads abort an interpreter that shuts down, when all that is tested has been
