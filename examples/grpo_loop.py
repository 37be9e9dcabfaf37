"""GRPO in your own loop on the policy that the package carries, its entropy held along a line: nothing but torch.

python examples/grpo_loop.py --steps 8
"""

import argparse

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from entrostat import CodeGrader, Constant, Curve, EntropyController, TargetWeights, aggregate, policy_loss, token_stats
from entrostat.engine.policy import embedded_folder
from entrostat.objective.advantages import grpo
from entrostat.tasks import listcraft

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=8)
steps = parser.parse_args().steps
torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained(embedded_folder(), padding_side="left")
model = AutoModelForCausalLM.from_pretrained(embedded_folder(), dtype=torch.float32)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0)
controller = EntropyController(Constant(), TargetWeights(Curve([(0, 0.28), (1, 0.1)])), total_steps=2 * steps)
tasks = listcraft.tasks("train", 48)

with CodeGrader(workers=2, isolation="best-effort") as grader:
    for step in range(steps):
        batch = [task for task in tasks[8 * step % 48 :][:8] for _ in range(8)]  # groups of 8
        prompt = tokenizer([task.prompt for task in batch], return_tensors="pt", padding=True)
        width = prompt.input_ids.shape[1]
        whole = model.generate(
            **prompt, do_sample=True, top_k=0, max_new_tokens=48, pad_token_id=tokenizer.pad_token_id
        )
        ids = whole[:, width:]
        ended = (ids == tokenizer.eos_token_id).cumsum(1)
        mask = (ended == 0) | ((ended == 1) & (ids == tokenizer.eos_token_id))  # the end token is learned too
        texts = tokenizer.batch_decode(ids * mask + tokenizer.pad_token_id * ~mask, skip_special_tokens=True)
        rewards = torch.tensor([float(verdict.passed) for verdict in grader.grade(zip(batch, texts, strict=True))])
        advantages = grpo(rewards.view(-1, 8)).view(-1, 1)
        attention = torch.cat([prompt.attention_mask, mask.long()], dim=1)
        old_logp = None
        for update in (1, 2):  # passes over the batch
            positions = (attention.cumsum(1) - 1).clamp_min(0)
            logits = model(whole, attention_mask=attention, position_ids=positions).logits
            stats = token_stats(logits[:, width - 1 : -1], ids)  # the token at t is predicted from t - 1
            old_logp = stats.logp.detach() if old_logp is None else old_logp
            weighted = advantages * controller.weights(stats, advantages.expand_as(ids), mask)
            loss = aggregate(policy_loss(stats.logp, old_logp, weighted, mask, rule=controller.rule()).per_token, mask)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            controller.observe(2 * step + update, stats.entropy[mask].sum().item(), int(mask.sum()))
        print(f"step {step + 1:3d}  reward {rewards.mean():.3f}  entropy {stats.entropy[mask].mean():.3f}", flush=True)
