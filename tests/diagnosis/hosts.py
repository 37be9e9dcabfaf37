"""One small run as every host writes it: made anew from the hosts' own print statements and metric names.

The sources read for that are those of TRL, verl, OpenRLHF, slime, prime-rl, SkyRL, NeMo RL, AReaL, ROLL, ms-swift,
LLaMA-Factory, tinker-cookbook, EasyR1, open-instruct, torchtune, DeepSpeed-Chat, oat, NeMo-Aligner and Trinity-RFT.
"""

from __future__ import annotations

import io
import json
import math
import pprint
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import yaml
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

STEPS = 30
TOTAL = 60
EVERY = 10  # steps from one evaluation to the next


@dataclass(frozen=True)
class Step:
    """What the run measured at a step; `heldout` at every EVERY-th alone."""

    step: int
    entropy: float
    reward: float
    length: float
    truncated: float
    grad_norm: float
    heldout: float | None = None


def run() -> list[Step]:
    """A run whose entropy falls while reward and held-out score rise, every number exact in four decimals."""
    return [
        Step(
            step,
            round(0.9 * math.exp(-step / 12), 4),
            round(0.2 + 0.01 * step, 4),
            200.0 + step,
            round(0.002 * step, 4),
            round(0.3 + 0.001 * step, 4),
            round(0.1 + 0.01 * step, 4) if step % EVERY == 0 else None,
        )
        for step in range(1, STEPS + 1)
    ]


@dataclass(frozen=True)
class Host:
    """write: the run as the host's text. name: of the file. has: what stands in it. end: the last step, if it says."""

    write: Callable[[list[Step]], str]
    name: str = "train.log"
    has: tuple[str, ...] = ("entropy", "reward", "length", "truncated", "grad_norm", "heldout")
    end: int | None = None
    first: int = 1


def trl_row(step: Step, quoted: bool = False) -> dict[str, object]:
    cell = str if quoted else lambda value: value
    row = {
        "loss": 0.01,
        "grad_norm": step.grad_norm,
        "learning_rate": 1e-06,
        "num_tokens": 1000.0 * step.step,
        "completions/mean_length": step.length,
        "completions/max_length": 512.0,
        "completions/clipped_ratio": step.truncated,
        "rewards/accuracy_reward/mean": step.reward / 2,
        "rewards/accuracy_reward/std": 0.1,
        "reward": step.reward,
        "reward_std": 0.3,
        "entropy": step.entropy,
        "epoch": round(step.step / TOTAL, 4),
    }
    return {name: cell(value) for name, value in row.items()}


def trl_evaluation(step: Step, quoted: bool = False) -> dict[str, object]:
    cell = str if quoted else lambda value: value
    row = {"eval_loss": 0.2, "eval_reward": step.heldout, "eval_entropy": 7.0, "eval_runtime": 3.1, "epoch": 0.5}
    return {name: cell(value) for name, value in row.items()}


def bar(step: int) -> str:
    return f"\r {step / TOTAL:4.0%}|██▌       | {step}/{TOTAL} [00:{step % 60:02d}<10:00,  1.00s/it]"


def trl_console(steps: list[Step], quoted: bool = False, bars: bool = True) -> str:
    lines = ["{'learning_rate': 1e-06, 'beta': 0.04, 'clip_ratio': 0.2}\n", "***** Running training *****\n"]
    for step in steps:
        lines += [bar(step.step) if bars else "", f"{trl_row(step, quoted)}\n"]
        if step.heldout is not None:
            lines.append(f"\r 50%|█████     | 4/8 [00:01<00:01,  2.00it/s]\n{trl_evaluation(step, quoted)}\n")
    return "".join(lines)


def trainer_state(steps: list[Step]) -> str:
    rows: list[dict[str, object]] = []
    for step in steps:
        rows.append({**trl_row(step), "step": step.step})
        if step.heldout is not None:
            rows.append({**trl_evaluation(step), "step": step.step})
    return json.dumps({"global_step": STEPS, "log_history": rows, "max_steps": TOTAL}, indent=2)


def json_lines(rows: list[dict[str, object]]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def ms_swift(steps: list[Step]) -> str:
    rows: list[dict[str, object]] = []
    for step in steps:
        row = trl_row(step)
        row["entropy/mean"], row["entropy/max"] = row.pop("entropy"), 3.0
        rows.append({**row, "global_step/max_steps": f"{step.step}/{TOTAL}", "elapsed_time": "1m 2s"})
        if step.heldout is not None:
            rows.append({**trl_evaluation(step), "global_step/max_steps": f"{step.step}/{TOTAL}"})
    return json_lines(rows)


def llama_factory(steps: list[Step]) -> str:
    rows: list[dict[str, object]] = [
        {
            "current_steps": step.step,
            "total_steps": TOTAL,
            "loss": 0.1,
            "lr": 1e-6,
            "reward": step.reward,
            "epoch": 0.1,
            "percentage": 100 * step.step / TOTAL,
            "elapsed_time": "0:00:05",
            "remaining_time": "0:01:00",
        }
        for step in steps
    ]
    return json_lines(rows)


def verl_console(steps: list[Step]) -> str:
    lines = ["\x1b[36m(TaskRunner pid=7)\x1b[0m  'actor': {'entropy_coeff': 0, 'response_length': 128},"]
    lines.append(f"(TaskRunner pid=7) Total training steps: {TOTAL}")
    for step in steps:
        cells = {
            "actor/entropy": step.entropy,
            "actor/pg_clipfrac": "np.float64(0.01)",
            "actor/pg_clipfrac_lower": 0.9,
            "actor/ppo_kl": 0.001,
            "actor/grad_norm": f"np.float64({step.grad_norm})",
            "training/global_step": step.step,
            "critic/score/mean": step.reward,
            "critic/score/max": 1.0,
            "response_length/mean": step.length,
            "response_length/clip_ratio": step.truncated,
            "prompt_length/clip_ratio": 0.0,
            "timing_s/step": 1.5,
        }
        if step.heldout is not None:
            cells["val-core/gsm8k/acc/mean@1"] = step.heldout
            cells["val-aux/gsm8k/score/mean@1"] = 0.9
        pairs = " - ".join(f"{name}:{cell}" for name, cell in cells.items())
        lines.append(f"\x1b[36m(TaskRunner pid=7)\x1b[0m step:{step.step} - {pairs}")
    return "\n".join(lines)


def openrlhf(steps: list[Step]) -> str:
    lines = []
    for step in steps:
        status = {
            "policy_loss": 0.1,
            "actor_lr": 1e-6,
            "actor_grad_norm": step.grad_norm,
            "entropy_loss": step.entropy,
            "reward": step.reward,
            "return": 0.0,
            "response_length": step.length,
            "total_length": 900.0,
            "truncated": step.truncated,
            "kl": 0.01,
            "vllm_kl": 0.002,
            "timing/generation": 3.0,
        }
        head = "(PPOTrainer pid=9, ip=10.0.0.1) INFO 01-02 03:04:05 ppo_trainer.py:547] "
        lines.append(f"{head}✨ Global step {step.step}: {status}")
        if step.heldout is not None:
            logs = {"eval_gsm8k_pass1": step.heldout, "eval_gsm8k_pass4": 0.9, "eval_response_length_mean": 9.0}
            lines.append(f"{head}✨ Evaluation completed in 0:01:02, global_step {step.step}, eval_metrics: {logs}")
    return "\n".join(lines)


def slime(steps: list[Step], per_rollout: int = 1) -> str:
    lines = []
    for step in steps:
        head = "(MegatronTrainRayActor pid=77) [2026-01-02 03:04:05] data.py:1 - "
        index = step.step - 1
        rollout, rest = divmod(index, per_rollout)
        if not rest:
            lengths = {"rollout/response_len/mean": step.length, "rollout/truncated_ratio": step.truncated}
            rewards = {"rollout/rewards": 1e-9, "rollout/raw_reward": step.reward, "rollout/advantages": 1e-9}
            lines += [f"{head}perf {rollout}: {lengths}", f"{head}rollout {rollout}: {rewards}"]
        update = {"train/entropy_loss": step.entropy, "train/grad_norm": step.grad_norm, "train/step": index}
        lines.append(f"{head}step {index}: {update}")
        if step.heldout is not None and per_rollout == 1:
            scores = {"eval/aime": step.heldout, "eval/aime-truncated_ratio": 0.9, "eval/aime/response_len/mean": 9.0}
            lines.append(f"{head}eval {rollout}: {scores}")
    return "\n".join(lines)


def prime_rl(steps: list[Step]) -> str:
    lines = []
    for step in steps:
        lines.append(
            f"03:04:05 \x1b[32mSUCCESS\x1b[0m Step {step.step} |   1.23s | Loss 0.0100 | Entropy {step.entropy:.4f} | "
            f"Mismatch KL 0.0010 | Grad. Norm {step.grad_norm:.4f} | LR 1.00e-06 | Throughput 900 tokens/s | MFU 9.1%"
        )
        lines.append(
            f"03:04:06 SUCCESS Step {step.step} |   9.10s | Reward {step.reward:.4f} | Trainable 12/16 (75.0%) | "
            f"Turns 1.0 | Max Off-Policy 2 | Error 0.0% | Truncation {step.truncated:.1%}"
        )
        if step.heldout is not None:
            lines.append(
                f"03:04:07 SUCCESS Evaluated aime24 (Step {step.step}) | Policy v{step.step} |  20.10s | "
                f"Reward {step.heldout:.4f} | Turns 1.0 | Error 0.0% | Truncation 50.0%"
            )
    return "\n".join(lines)


def prime_rl_file(steps: list[Step]) -> str:
    """A row per subject, several a step; rewards of all environments, of what was trained on, and of each."""
    rows: list[dict[str, object]] = []
    for step in steps:
        pool = "train/agg/all"
        rows.append({"step": step.step, "time": 1.7e9, f"{pool}/agent/reward/mean": step.reward,
                     f"{pool}/agent/reward/p90": 1.0, "train/agg/effective/agent/reward/mean": 0.5,
                     "train/math/all/agent/reward/mean": 0.9, f"{pool}/num_output_tokens/mean": step.length,
                     f"{pool}/agent/is_truncated/mean": step.truncated, f"{pool}/agent/solved_some": 0.6,
                     f"{pool}/agent/rewards/format/mean": 0.9, "off_policy/mean": 1.0, "time/step": 30.0})  # fmt: skip
        rows.append({"step": step.step, "time": 1.7e9, "optim/lr": 1e-6, "optim/grad_norm": step.grad_norm})
        rows.append({"step": step.step, "time": 1.7e9, "entropy/all/mean": step.entropy, "entropy/all/max": 3.0,
                     "kl_ent_ratio/mean": 0.01})  # fmt: skip
        if step.heldout is not None:
            rows.append({"step": step.step, "eval/aime/all/agent/avg@8": step.heldout})
    return json_lines(rows)


def rllm_metrics(step: Step) -> dict[str, float]:
    return {
        "batch/solver/fractions/effective": 0.7,
        "batch/solver/fractions/too_easy": 0.1,
        "episode/response_tokens": step.length,
        "reward/solver/max": 1.0,
        "reward/solver/mean": step.reward,
        "reward/solver/std": 0.3,
        "time/step": 30.0,
        "train/entropy": step.entropy,
        "train/grad_norm": step.grad_norm,
    }


def rllm(steps: list[Step]) -> str:
    """Tables of rich, one for the step and one for its validation, each under a heading."""
    blocks = []
    for step in steps:
        shown = [(f"Step {step.step}", rllm_metrics(step))]
        if step.heldout is not None:
            shown.append(("Validation", {"val/math/pass@1": step.heldout, "val/math/pass@8": 0.9}))
        for title, cells in shown:
            table = Table("Metric", "Value", title=title)
            for name, value in cells.items():
                table.add_row(name, f"{value:.6f}")
            blocks.append(printed(table, 80))
    return "".join(blocks)


def rllm_plain(steps: list[Step]) -> str:
    """What it prints without rich."""
    rule = "=" * 60
    blocks = [
        "\n".join(
            ["", f"Step {step.step}", rule, *(f"{k:40s} {v:>15.6f}" for k, v in rllm_metrics(step).items()), rule]
        )
        for step in steps
    ]
    return "\n".join(blocks)


def skyrl(steps: list[Step]) -> str:
    blocks = []
    for step in steps:
        cells = {
            "policy/policy_entropy": f"{step.entropy:.4f}",
            "policy/raw_grad_norm": f"{step.grad_norm:.4f}",
            "policy/rollout_train_logprobs_abs_diff_mean": "0.0010",
            "reward/avg_raw_reward": f"{step.reward:.4f}",
            "reward/avg_pass_at_4": "0.9000",
            "generate/avg_num_tokens": f"{step.length:.4f}",
            "generate/avg_tokens_zero_rewards": "9.0000",
            "loss/avg_final_rewards": "0.1000",
            "trainer/global_step": step.step,
        }
        if step.heldout is not None:
            cells["eval/all/avg_score"] = f"{step.heldout:.4f}"
        body = "\n".join(
            f"\x1b[36m(skyrl_entrypoint pid=5)\x1b[0m {line}" for line in pprint.pformat(cells).splitlines()
        )
        blocks.append(f"2026-01-02 03:04:05.678 | INFO     | tracking:log:189 - Step {step.step}: \n{body}")
    return "\n".join(blocks)


def nemo_rl(steps: list[Step]) -> str:
    blocks = []
    for step in steps:
        block = f"\n{'=' * 25} Step {step.step}/{TOTAL} {'=' * 25}\n▶ Preparing batch...\n"
        if step.heldout is not None:
            block += (
                f"\n📊 Validation Results:\n    • Accuracy: {step.heldout:.4f}\n"
                "    • Average response length: 9.0 tokens\n    • Samples processed: 8\n"
            )
        block += (
            "\n📊 Training Results:\n  • Loss: 0.0100\n  • Generation KL Error: 0.0010\n"
            f"  • Avg Reward: {step.reward:.4f}\n  • Mean Generation Length: {step.length:.4f}\n"
            "\n⏱️  Timing:\n  • Total step time: 3.20s\n  • generation: 1.20s (37.5%)\n"
        )
        blocks.append(block)
    return "".join(blocks)


def areal(steps: list[Step]) -> str:
    """AReaL counts finished steps and prints a table of names and numbers, four pairs a line."""
    lines = []
    for step in steps:
        cells = {
            "ppo_actor/task_reward/avg": step.reward,
            "ppo_actor/task_reward/max": 1.0,
            "ppo_actor/seq_len/avg": step.length,
            "ppo_actor/no_eos_ratios/avg": step.truncated,
            "ppo_actor/update/entropy/avg": step.entropy,
            "ppo_actor/update/grad_norm": step.grad_norm,
            "ppo_actor/update/lr": 1e-6,
        }
        lines.append(f"[37m20260102-03:04:05.678 StatsLogger INFO: Epoch 1/5 Step {step.step % 7}/12 "
                     f"Train step {step.step}/{TOTAL} done.[0m")  # fmt: skip
        lines.append("20260102-03:04:05.679 StatsLogger INFO: Stats (1/1):")
        lines.append("20260102-03:04:05.679 StatsLogger INFO:")
        lines.append("╒" + "═" * 60 + "╕")
        pairs = [f"│ {name:32} │ {value:.4e} " for name, value in cells.items()]
        lines += ["".join(pairs[place : place + 4]) + "│" for place in range(0, len(pairs), 4)]
        lines.append("╘" + "═" * 60 + "╛")
    return "\n".join(lines)


def roll(steps: list[Step]) -> str:
    lines = []
    for step in steps:
        metrics = {
            "critic/score/mean": step.reward,
            "critic/rewards/mean": step.reward,
            "actor/entropy@mean": step.entropy,
            "actor/pg_loss@sum": 0.1,
            "actor/grad_norm": step.grad_norm,
            "tokens/response_length/mean": step.length,
            "tokens/prompt_length/mean": 70.0,
            "system/step": step.step,
        }
        if step.heldout is not None:
            metrics["val_correct/all/mean"] = step.heldout
        lines.append(
            f"[2026-01-02 03:04:05] [agentic_pipeline.py (232)] pipeline rollout global step {step.step} start..."
        )
        lines.append(f"[2026-01-02 03:04:05] [agentic_pipeline.py (613)] [INFO] {json.dumps(metrics)}")
        lines.append(f"[2026-01-02 03:04:06] [agentic_pipeline.py (619)] pipeline step {step.step} finished")
    return "\n".join(lines)


def tinker(steps: list[Step]) -> str:
    rows = []
    for step in steps:
        row: dict[str, object] = {
            "step": step.step - 1,
            "progress/batch": step.step - 1,
            "optim/lr": 1e-5,
            "optim/entropy": step.entropy,
            "optim/kl_sample_train_v1": 0.001,
            "env/all/reward/total": step.reward,
            "env/all/ac_tokens_per_turn": step.length,
            "env/all/by_group/frac_all_good": 0.1,
            "time/total": 7.8,
        }
        if step.heldout is not None:
            row["test/env/all/reward/total"] = step.heldout
        rows.append(row)
    return json_lines(rows)


def printed(table: Table | Panel, width: int) -> str:
    file = io.StringIO()
    Console(width=width, file=file, color_system=None).print(table)
    return file.getvalue()


def in_levels(cells: dict[str, object]) -> dict[str, object]:
    """`actor/entropy_loss` as `entropy_loss` within `actor`."""
    tree: dict[str, object] = {}
    for name, value in cells.items():
        *path, leaf = name.split("/")
        place: dict[str, object] = tree
        for part in path:
            place = place.setdefault(part, {})  # type: ignore[assignment]
        place[leaf] = value
    return tree


def easyr1_cells(step: Step, number: Callable[[float], object] = float) -> dict[str, object]:
    cells: dict[str, object] = {
        "actor/entropy_loss": number(step.entropy),
        "actor/grad_norm": number(step.grad_norm),
        "actor/pg_clipfrac_lower": number(0.9),
        "critic/score/max": 1.0,
        "critic/score/mean": step.reward,
        "perf/time_per_step": 9.0,
        "prompt_length/mean": 70.0,
        "response_length/clip_ratio": step.truncated,
        "response_length/max": 512.0,
        "response_length/mean": step.length,
        "timing_s/step": 1.5,
    }
    if step.heldout is not None:
        cells |= {"val/reward_score": number(step.heldout), "val/format_reward": 0.9, "val_response_length/mean": 9.0}
    return cells


def easyr1(steps: list[Step], number: Callable[[float], object] = float) -> str:
    """EasyR1 prints a heading and YAML; NumPy's numbers, which most of its metrics are, become tagged bytes."""
    text = "".join(
        f"Step {step.step}\n{yaml.dump(in_levels(easyr1_cells(step, number)), indent=2)}\n" for step in steps
    )
    return "".join(f"\x1b[36m(Runner pid=7)\x1b[0m {line}\n" for line in text.split("\n"))


def easyr1_file(steps: list[Step]) -> str:
    return json_lines([{"step": step.step, **in_levels(easyr1_cells(step))} for step in steps])


def kind_of(name: str) -> str:
    return name.split("/")[0] if "/" in name else "other"


def open_instruct(steps: list[Step], width: int = 200) -> str:
    """open-instruct prints a panel per step, a row per kind of metric, wrapped at the width of the console."""
    lines: list[str] = []
    for step in steps:
        cells = {
            "training_step": str(step.step),
            "scores": f"{step.reward:.4f}",
            "epoch": "0.1",
            "optim/grad_norm": f"{step.grad_norm:.4f}",
            "loss/policy_avg": "0.0100",
            "objective/kl1_avg": "0.0010",
            "policy/clipfrac_avg": "0.0010",
            "policy/entropy_avg": f"{step.entropy:.4f}",
            "val/sequence_lengths": f"{step.length:.2f}",
            "val/sequence_lengths_solved": "9.00",
            "val/stop_rate": "0.90",
        }
        if step.heldout is not None:
            cells["eval/scores"] = f"{step.heldout:.4f}"
        table = Table(show_header=False, box=None)
        for kind in sorted(set(map(kind_of, cells))):
            own = {name: cell for name, cell in cells.items() if kind_of(name) == kind}
            table.add_row(kind, " | ".join(f"{name.split('/', 1)[-1]}: {cell}" for name, cell in own.items()))
        lines.append(printed(Panel(table, title="Metrics", expand=False), width))
    return "".join(lines)


def torchtune(steps: list[Step]) -> str:
    return "\n".join(
        f"Step {s.step} | rewards:{s.reward} successes:{s.reward / 2} num_stop_tokens:12 loss:0.01 policy_loss:0.01 "
        f"kl_loss:0.001 clipfrac:0.002 ratios:1.0 approx_policy_kl:0.001 response_lengths:{s.length} "
        f"grad_norm:{s.grad_norm} lr:1e-06 "
        for s in steps
    )


def deepspeed_chat(steps: list[Step]) -> str:
    """DeepSpeed-Chat prints a step's losses on one line and its reward on another, counted from 0."""
    return "\n".join(
        f"Epoch: 0 | Step: {s.step - 1} | PPO Epoch: 1 | Actor Loss: -0.01 | Critic Loss: 0.2 | Unsup. Loss: 0.0\n"
        "End-to-End => Latency: 13.10s, TFLOPs: 8.20, Samples/sec: 2.40, Time/seq 0.41s, Batch Size: 32\n"
        "Generation => Latency: 9.10s, Per-token Latency 35.4 ms, TFLOPs: 1.2, BW: 30.1 GB/sec\n"
        f"Average reward score: {s.reward} | EMA reward score: {0.9 * s.reward}\n{'-' * 85}"
        for s in steps
    )


def oat(steps: list[Step]) -> str:
    blocks = []
    for step in steps:
        cells = {
            "actor/no_eos_count": 3.0,
            "actor/num_data": 128.0,
            "actor/response_tok_len": step.length,
            "actor/rewards": step.reward,
            "misc/lr": 1e-6,
            "misc/query_step": 128.0 * step.step,
            "train/entropy": step.entropy,
            "train/kl_sample_train_v1": 0.001,
            "train/learning_round": float(step.step),
            "train/pg_clipfrac": 0.002,
            "train/policy_grad_norm": step.grad_norm,
        }
        if step.heldout is not None:
            cells["eval/accuracy"] = step.heldout
        blocks.append(pprint.pformat(cells))
    return "\n".join(blocks)


def nemo_aligner(steps: list[Step]) -> str:
    """NeMo-Aligner's bar, of which each state has the metrics of the step that it has done."""
    lines = []
    for s in steps:
        cells = {
            "train_response_lengths": s.length + 70,
            "train_generation_length": s.length,
            "train_rewards": s.reward,
            "train_fraction_of_samples_properly_ended": 1 - s.truncated,
            "train_init_policy_kl": 0.01,
            "train_consumed_samples": 64 * s.step,
            "train_time": 1.5,
        }
        if s.heldout is not None:
            cells["val_rewards"] = s.heldout
        shown = ", ".join(f"{name}={cell:.3g}" for name, cell in cells.items())
        bar_of_the_step = f"{s.step / TOTAL:4.0%}|██▌       | {s.step}/{TOTAL} [00:12<10:00,  1.00s/it, {shown}]"
        lines.append(f"\rPPO Global Step:  {bar_of_the_step}")
    return "".join(lines)


def tinker_console(steps: list[Step]) -> str:
    lines: list[str] = []
    for step in steps:
        cells: dict[str, object] = {
            "env/all/ac_tokens_per_turn": step.length,
            "env/all/reward/total": step.reward,
            "optim/entropy": step.entropy,
            "optim/lr": 1e-5,
            "progress/batch": step.step,
        }
        if step.heldout is not None:
            cells["test/env/all/reward/total"] = step.heldout
        table = Table(show_header=True, title=f"Step {step.step}")
        table.add_column("Metric", width=30)
        table.add_column("Value")
        for name, cell in sorted(cells.items()):
            table.add_row(name, f"{cell:.6f}" if isinstance(cell, float) else str(cell))
        lines.append(f"ml_log:260 [INFO] \n{printed(table, 120).rstrip()}\n")
    return "".join(lines)


def trinity(steps: list[Step]) -> str:
    lines = []
    for step in steps:
        cells = {"actor/entropy_loss": step.entropy, "actor/grad_norm": step.grad_norm, "actor/pg_clipfrac": 0.01}
        lines.append(f"INFO 01-02 03:04:05 monitor.py:157] Step {step.step}: {cells}")
        scores: dict[str, float] = {"rollout/accuracy/mean": step.reward, "response_length/mean": step.length}
        if step.heldout is not None:
            scores["eval/gsm8k/accuracy/mean@4"] = step.heldout
        lines.append(f"INFO 01-02 03:04:05 monitor.py:157] Step {step.step}: {scores}")
    return "\n".join(lines)


def stable_baselines(steps: list[Step]) -> str:
    """The table that Stable-Baselines prints; its entropy loss is minus the entropy."""
    lines = []
    for s in steps:
        cells = [
            ("rollout/", ""),
            ("   ep_len_mean", f"{s.length:.0f}"),
            ("   ep_rew_mean", f"{s.reward:.4f}"),
            ("time/", ""),
            ("   iterations", str(s.step)),
            ("   total_timesteps", str(2048 * s.step)),
            ("train/", ""),
            ("   approx_kl", "0.009"),
            ("   entropy_loss", f"{-s.entropy:.4f}"),
        ]
        lines += ["-" * 40, *(f"| {name:21}| {cell:13}|" for name, cell in cells), "-" * 40]
    return "\n".join(lines)


def mlx(steps: list[Step]) -> str:
    return "\n".join(
        f"Iter {s.step}: Train loss 0.010, Total rewards mean {s.reward:.4f}, Total rewards std 0.300, "
        f"Grouped rewards mean {s.reward:.4f}, Average Generated Tokens: {s.length}, KL 0.001, "
        "Learning Rate 1.000e-06, It/sec 0.10, Tokens/sec 30.0, Peak mem 9.0 GB"
        for s in steps
    )


def typed_rows(steps: list[Step]) -> str:
    """A trainer of one's own: rows of several kinds in one file, each with its own `reward`."""
    rows: list[dict[str, object]] = []
    for step in steps:
        rows.append(
            {"type": "rollout", "grpo_step": step.step, "reward": step.reward, "avg_response_length": step.length}
        )
        for update in (0.9, 1.1):
            entropy, norm = update * step.entropy, update * step.grad_norm
            rows.append(
                {"type": "train", "grpo_step": step.step, "token_entropy": entropy, "grad_norm": norm, "reward": 9}
            )
        if step.heldout is not None:
            rows.append({"type": "eval", "grpo_step": step.step, "reward": step.heldout, "avg_response_length": 9.0})
        rows.append({"type": "summary", "grpo_step": step.step, "best_reward": 0.99, "step_seconds": 3.0})
    return json_lines(rows)


TABLE = ("Step", "Training Loss", "reward", "reward_std", "completions / mean_length", "completions / clipped_ratio",
         "rewards / check_answer / mean", "entropy")  # fmt: skip


def table_rows(steps: list[Step]) -> list[list[str]]:
    return [
        [str(s.step), *(f"{x:.6f}" for x in (0.01, s.reward, 0.3, s.length, s.truncated, 0.5, s.entropy))]
        for s in steps
    ]


def pasted(steps: list[Step], mark: str) -> str:
    return "\n".join(mark.join(cells) for cells in [list(TABLE), *table_rows(steps)]) + "\n"


def markdown(steps: list[Step]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in [list(TABLE), *table_rows(steps)]]
    return "# My run\n\nIt went, well, as follows:\n\n" + "\n".join([lines[0], "|---" * len(TABLE) + "|", *lines[1:]])


def latex(steps: list[Step]) -> str:
    rows = [" & ".join(row).replace("_", r"\_") + r" \\" for row in [list(TABLE), *table_rows(steps)]]
    return "\n".join([r"\begin{tabular}{rrrrrrr}", r"\toprule", rows[0], r"\midrule", *rows[1:], r"\end{tabular}"])


def grid(steps: list[Step]) -> str:
    """A table of reStructuredText, with a rule below every row."""
    rule = "+" + "+".join("-" * 20 for _ in TABLE) + "+"
    rows = ["|" + "|".join(f" {cell} " for cell in row) + "|" for row in [list(TABLE), *table_rows(steps)]]
    return "\n".join([rule, rows[0], rule.replace("-", "="), *(line for row in rows[1:] for line in (row, rule))])


def aligned(steps: list[Step]) -> str:
    rows = [list(TABLE), *table_rows(steps)]
    return "\n".join("  ".join(f"{cell:>32}" for cell in cells) for cells in rows)


def html(steps: list[Step]) -> str:
    head = "".join(f"<th>{name}</th>" for name in TABLE)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>\n" for cells in table_rows(steps))
    progress = (
        f"<div><progress value='{STEPS}' max='{TOTAL}'></progress>\n [ {STEPS}/{TOTAL} 0:10 &lt; 0:10, Epoch 0/1]</div>"
    )
    return f"{progress}<table border='1'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>"


def notebook(steps: list[Step]) -> str:
    small = "<table><tr><th>Step</th><th>Training Loss</th></tr><tr><td>1</td><td>2.0</td></tr></table>"
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["Unsloth: will patch, reward = 3\n"]},
        {
            "output_type": "display_data",
            "data": {"text/html": html(steps).splitlines(keepends=True), "text/plain": ["<HTML>"]},
        },
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# GRPO"]},
        {"cell_type": "code", "outputs": [{"output_type": "display_data", "data": {"text/html": small}}]},
        {"cell_type": "code", "outputs": outputs},
    ]
    return json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 0})


def columns_document(steps: list[Step]) -> str:
    history = {
        "step": [s.step for s in steps],
        "entropy": [s.entropy for s in steps],
        "mean_reward": [s.reward for s in steps],
        "avg_completion_length": [s.length for s in steps],
    }
    return json.dumps({"config": {"lr": 1e-6, "tags": ["a"]}, "history": history}, indent=1)


def script(steps: list[Step]) -> str:
    return "\n".join(
        f"[rank0]: 2026-01-02 03:04:05 step {s.step}/{TOTAL}: loss=0.01, mean_reward={s.reward}, entropy={s.entropy}, "
        f"mean_len={s.length}, grad_norm={s.grad_norm}, time=3.2s"
        for s in steps
    )


def wandb_export(steps: list[Step]) -> str:
    lines = [",_step,_runtime,train/global_step,train/reward,train/entropy,train/grad_norm,eval/reward"]
    lines += [
        f"{i},{3 * s.step},{9.0},{s.step},{s.reward},{s.entropy},{s.grad_norm},{'' if s.heldout is None else s.heldout}"
        for i, s in enumerate(steps)
    ]
    return "\n".join(lines)


LEARNT = ("entropy", "reward", "length", "truncated", "grad_norm")
TABLED = ("entropy", "reward", "length", "truncated")

HOSTS = {
    "trl": Host(trl_console, end=TOTAL),
    "trl, quoted": Host(lambda steps: trl_console(steps, quoted=True), end=TOTAL),
    "trl, no bars": Host(lambda steps: trl_console(steps, bars=False)),
    "trl, every rank": Host(
        lambda steps: "\n".join(
            f"[rank{rank}]: {line}" for line in trl_console(steps, bars=False).split("\n") for rank in range(4)
        ),
    ),
    "trainer_state": Host(trainer_state, "trainer_state.json", end=TOTAL),
    "ms-swift": Host(ms_swift, "logging.jsonl", end=TOTAL),
    "llama-factory": Host(llama_factory, "trainer_log.jsonl", has=("reward",), end=TOTAL),
    "verl": Host(verl_console, end=TOTAL),
    "openrlhf": Host(openrlhf),
    "slime": Host(slime, first=0),
    "prime-rl": Host(prime_rl, has=("entropy", "reward", "truncated", "grad_norm", "heldout")),
    "prime-rl, file": Host(prime_rl_file, "metrics.jsonl"),
    "rllm": Host(rllm, has=("entropy", "reward", "length", "grad_norm", "heldout")),
    "rllm, plain": Host(rllm_plain, has=("entropy", "reward", "length", "grad_norm")),
    "skyrl": Host(skyrl, has=("entropy", "reward", "length", "grad_norm", "heldout")),
    "nemo-rl": Host(nemo_rl, has=("reward", "length", "heldout"), end=TOTAL),
    "areal": Host(areal, has=LEARNT, end=TOTAL),
    "roll": Host(roll, has=("entropy", "reward", "length", "grad_norm", "heldout")),
    "tinker": Host(tinker, "metrics.jsonl", has=("entropy", "reward", "length", "heldout"), first=0),
    "tinker, console": Host(tinker_console, has=("entropy", "reward", "length", "heldout")),
    "easyr1": Host(easyr1),
    "easyr1, numpy": Host(lambda steps: easyr1(steps, np.float64)),
    "easyr1, file": Host(easyr1_file, "experiment_log.jsonl"),
    "open-instruct": Host(open_instruct, has=("entropy", "reward", "length", "grad_norm", "heldout")),
    "open-instruct, narrow": Host(lambda steps: open_instruct(steps, 80), has=("entropy", "reward", "heldout")),
    "torchtune": Host(torchtune, has=("reward", "length", "grad_norm")),
    "deepspeed-chat": Host(deepspeed_chat, has=("reward",), first=0),
    "oat": Host(oat, has=("entropy", "reward", "length", "grad_norm", "heldout")),
    "nemo-aligner": Host(nemo_aligner, has=("reward", "heldout"), end=TOTAL),
    "trinity": Host(trinity, has=("entropy", "reward", "length", "grad_norm", "heldout")),
    "stable-baselines": Host(stable_baselines, has=("entropy", "reward", "length")),
    "mlx-lm": Host(mlx, has=("reward", "length")),
    "typed rows": Host(typed_rows, "metrics.jsonl", has=("entropy", "reward", "length", "grad_norm", "heldout")),
    "pasted table": Host(lambda steps: pasted(steps, "\t"), "table.txt", has=TABLED),
    "csv": Host(lambda steps: pasted(steps, ","), "table.csv", has=TABLED),
    "aligned table": Host(aligned, "table.txt", has=TABLED),
    "markdown": Host(markdown, "table.md", has=TABLED),
    "latex": Host(latex, "table.tex", has=TABLED),
    "grid": Host(grid, "table.rst", has=TABLED),
    "html": Host(html, "page.html", has=TABLED, end=TOTAL),
    "notebook": Host(notebook, "train.ipynb", has=TABLED, end=TOTAL),
    "json of columns": Host(columns_document, "history.json", has=("entropy", "reward", "length")),
    "own script": Host(script, has=("entropy", "reward", "length", "grad_norm"), end=TOTAL),
    "wandb export": Host(wandb_export, "export.csv", has=("entropy", "reward", "grad_norm", "heldout")),
}
