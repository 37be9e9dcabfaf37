"""Recipes that reproduce the settings of published methods, by the method's name.

What a run of the authors has besides the method, its model, batch and rate, is theirs where it is stated or in their
scripts; `chosen` names what is ours. The model is a hub id and the tasks are a file of one's own: such a model trains
on a host or a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Settings = Mapping[str, Any]
HIGHER = {"strategy": {"name": "constant", "upper": 0.28, "lower": 0.2}}
DUAL = {**HIGHER, "dual_clip": 10.0}


@dataclass(frozen=True)
class Published:
    """One recipe. method: the name it is about. chosen: what is ours, because the source leaves it open."""

    method: str
    about: str
    settings: Settings
    chosen: str = ""


def _run(
    name: str,
    model: str,
    prompts: int,
    samples: int,
    minibatches: int,
    tokens: int,
    rate: float = 1e-6,
    *,
    update: Settings | None = None,
    control: Settings | None = None,
    rollout: Settings | None = None,
) -> Settings:
    """A recipe of one rollout batch of prompts x samples, cut into `minibatches` optimizer steps."""
    return {
        "name": name,
        "policy": {"path": model, "dtype": "float32", "device": "cuda"},
        "tasks": {"family": "jsonl", "data": "tasks.jsonl", "train": max(prompts, 1024), "select": 64, "report": 256},
        "rollout": {
            "prompts": prompts,
            "samples": samples,
            "max_new_tokens": tokens,
            "batch_rows": 64,
            **(rollout or {}),
        },
        "update": {
            "epochs": 1,
            "minibatches": minibatches,
            "microbatch_rows": 4,
            "learning_rate": rate,
            "warmup_steps": 0,
            **(update or {}),
        },
        **({"control": dict(control)} if control else {}),
        "evaluation": {"every": 20, "samples": 8, "pass_at": [1, 8]},
        "campaign": {"steps": 400, "checkpoint_every": 10},
    }


def _flexible(name: str) -> Published:
    return Published(
        name,
        "Flexible entropy control, Qwen2.5-7B.",
        _run(name, "Qwen/Qwen2.5-7B", 512, 8, 2, 8192, control={"strategy": name}),
        "two optimizer steps per batch",
    )


def _reweighted(name: str, about: str, run: tuple[Any, ...], settings: Settings, chosen: str = "") -> Published:
    method = settings["name"]
    return Published(method, about, _run(name, *run, control={**DUAL, "reweighting": dict(settings)}), chosen)


SEQUENCES: Settings = {"aggregate": "sequence-mean"}
QWEN_7B, QWEN_MATH, QWEN3_8B = "Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-Math-7B", "Qwen/Qwen3-8B-Base"
COV_7B: Settings = {"objective": "reinforce", "kl_cov": {"share": 2e-3}}
COV_32B: Settings = {"objective": "reinforce", "kl_cov": {"share": 2e-4}}
GEOMETRY = "batch and steps per batch"

PUBLISHED: Mapping[str, Published] = {
    "id": _flexible("id"),
    "did": _flexible("did"),
    "od": _flexible("od"),
    "dapo": Published(
        "clip-higher",
        "DAPO: clip-higher, token-mean, dynamic sampling and the overlong reward.",
        _run(
            "dapo",
            "Qwen/Qwen2.5-32B",
            512,
            16,
            16,
            20480,
            update={"warmup_steps": 320, "failure_reward": -1},
            control=DUAL,
            rollout={"resample": 10, "overlong_buffer": 4096},
        ),
    ),
    "dr-grpo": Published(
        "dr-grpo",
        "Dr.GRPO: no standard deviation, a constant denominator.",
        _run(
            "dr-grpo",
            QWEN_MATH,
            128,
            8,
            1,
            3000,
            update={"advantage": "dr-grpo", "aggregate": "constant"},
        ),
    ),
    "gspo": Published(
        "gspo",
        "GSPO: four optimizer steps per batch.",
        _run("gspo", "Qwen/Qwen3-30B-A3B-Base", 256, 8, 4, 8192, update={"objective": "gspo", **SEQUENCES}),
        GEOMETRY,
    ),
    "luspo": Published(
        "luspo",
        "LUSPO: GSPO weighted by length.",
        _run(
            "luspo",
            QWEN_7B,
            256,
            8,
            4,
            8192,
            update={"objective": "luspo", "aggregate": "sequence-sum"},
        ),
        GEOMETRY,
    ),
    "sapo": Published(
        "sapo",
        "SAPO: four optimizer steps per batch.",
        _run("sapo", "Qwen/Qwen3-30B-A3B-Base", 256, 8, 4, 8192, update={"objective": "sapo", **SEQUENCES}),
        GEOMETRY,
    ),
    "gmpo": Published(
        "gmpo",
        "GMPO on Dr.GRPO's set-up.",
        _run("gmpo", QWEN_MATH, 128, 8, 8, 3000, update={"objective": "gmpo", "advantage": "dr-grpo", **SEQUENCES}),
    ),
    "cispo": Published(
        "cispo",
        "CISPO with the cap of ScaleRL.",
        _run("cispo", QWEN3_8B, 256, 8, 8, 8192, update={"objective": "cispo"}),
        GEOMETRY,
    ),
    "dcpo": Published(
        "dcpo",
        "DCPO's clip, with its dual clip of 10.",
        _run("dcpo", QWEN_MATH, 512, 16, 16, 4096, update=SEQUENCES, control={"strategy": "dcpo", "dual_clip": 10.0}),
        GEOMETRY,
    ),
    "abc-grpo": Published(
        "abc",
        "ABC-GRPO: four bounds.",
        _run("abc-grpo", "Qwen/Qwen3-4B-Base", 128, 8, 4, 4096, update=SEQUENCES, control={"strategy": "abc"}),
        GEOMETRY,
    ),
    "ripo": Published(
        "ripo",
        "RIPO on DAPO-Math-17k.",
        _run("ripo", QWEN3_8B, 256, 8, 8, 16384, control={"strategy": "ripo"}),
        GEOMETRY,
    ),
    "dppo-tv": Published(
        "dppo",
        "DPPO by total variation.",
        _run("dppo-tv", "Qwen/Qwen3-30B-A3B-Base", 256, 16, 16, 16384, update={"objective": "dppo"}),
        GEOMETRY,
    ),
    "dppo-kl": Published(
        "dppo",
        "DPPO by the binary KL.",
        _run(
            "dppo-kl",
            "Qwen/Qwen3-30B-A3B-Base",
            256,
            16,
            16,
            16384,
            update={"objective": {"name": "dppo", "divergence": "kl", "delta": 0.05}},
        ),
        f"{GEOMETRY}; delta",
    ),
    "cppo": Published(
        "cppo",
        "CPPO on a base model, with the adaptive budget.",
        _run(
            "cppo",
            QWEN3_8B,
            256,
            8,
            16,
            8192,
            update={"objective": {"name": "cppo", "budget": 0.02, "adaptive": True}},
        ),
        GEOMETRY,
    ),
    "drpo": Published(
        "drpo",
        "DRPO on Qwen3-4B.",
        _run(
            "drpo",
            "Qwen/Qwen3-4B-Base",
            64,
            8,
            4,
            8192,
            update={"objective": "drpo", "advantage": "dr-grpo", "aggregate": "constant"},
            rollout={"top_p": 0.9, "top_k": 20},
        ),
        "steps per batch",
    ),
    "up": Published(
        "up",
        "UP over GRPO.",
        _run("up", QWEN3_8B, 256, 8, 4, 8192, update={"objective": "up"}),
        GEOMETRY,
    ),
    "aspo": Published(
        "aspo",
        "ASPO, Archer2.0's mathematics run without its bands by entropy.",
        _run("aspo", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 64, 16, 4, 32768, update={"objective": "aspo"}),
        "one band for all tokens; no KL",
    ),
    "vespo": Published(
        "vespo",
        "VESPO, eight optimizer steps per batch.",
        _run("vespo", "Qwen/Qwen3-30B-A3B-Base", 256, 8, 8, 15360, update={"objective": "vespo"}),
    ),
    "bapo": Published(
        "bapo",
        "BAPO as its code has it.",
        _run("bapo", QWEN_7B, 256, 16, 4, 8192, update={"objective": {"name": "bapo", "form": "code"}}),
    ),
    "ce-gppo": Published(
        "ce-gppo",
        "CE-GPPO at 7B.",
        _run(
            "ce-gppo",
            "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
            128,
            8,
            8,
            16384,
            update={"objective": "ce-gppo"},
            control=DUAL,
        ),
    ),
    "nsr": Published(
        "nsr",
        "Near-boundary stochastic rescue over DAPO.",
        _run("nsr", QWEN_7B, 512, 8, 16, 8192, update={"objective": "nsr"}, control=HIGHER),
        f"{GEOMETRY}; width and probability",
    ),
    "clip-cov": Published(
        "clip-cov",
        "Clip-Cov at 7B, with the band from 0 to 2.",
        _run(
            "clip-cov",
            QWEN_7B,
            256,
            8,
            8,
            8192,
            5e-7,
            control={"strategy": {"name": "constant", "upper": 1.0, "lower": 1.0}, "reweighting": "clip-cov"},
        ),
    ),
    "kl-cov-7b": Published(
        "kl-cov", "KL-Cov at 7B: a share of 2e-3.", _run("kl-cov-7b", QWEN_7B, 256, 8, 8, 8192, 5e-7, update=COV_7B)
    ),
    "kl-cov-32b": Published(
        "kl-cov",
        "KL-Cov at 32B: a share of 2e-4.",
        _run("kl-cov-32b", "Qwen/Qwen2.5-32B", 256, 8, 8, 8192, update=COV_32B),
    ),
    "entropic": Published(
        "entropic",
        "EntroPIC, on-policy, at a target of .1.",
        _run(
            "entropic",
            QWEN3_8B,
            512,
            8,
            1,
            8192,
            rollout={"temperature": 0.6},
            control={"dual_clip": 3.0, "reweighting": {"name": "entropic", "target": 0.1}},
        ),
    ),
    "80-20": _reweighted(
        "80-20",
        "80/20 over DAPO.",
        ("Qwen/Qwen3-14B-Base", 512, 16, 16, 20480),
        {"name": "80/20"},
    ),
    "entropy-outliers-b": Published(
        "entropy-outliers",
        "Clip-B of entropy dynamics.",
        _run(
            "entropy-outliers-b",
            QWEN_7B,
            64,
            16,
            2,
            8192,
            control={"reweighting": {"name": "entropy-outliers", "limit": 2.5}},
        ),
        GEOMETRY,
    ),
    "entropy-outliers-v": Published(
        "entropy-outliers",
        "Clip-V of entropy dynamics.",
        _run(
            "entropy-outliers-v",
            QWEN_7B,
            64,
            16,
            2,
            8192,
            control={"reweighting": {"name": "entropy-outliers", "limit": 8.5, "centred": True, "most": 1e-4}},
        ),
        GEOMETRY,
    ),
    "entrocraft": Published(
        "entrocraft",
        "Entrocraft with its falling band.",
        _run(
            "entrocraft",
            "Qwen/Qwen3-4B-Base",
            1024,
            8,
            2,
            3072,
            update={"failure_reward": -1, "kl": {"coefficient": 0.001}},
            control={"reweighting": "entrocraft"},
        ),
        "steps per batch",
    ),
    "steer": _reweighted(
        "steer",
        "STEER, exponential.",
        (QWEN_MATH, 512, 8, 16, 3072),
        {"name": "steer", "form": "exponential"},
    ),
    "stare": _reweighted(
        "stare",
        "STARE O1, one step per batch.",
        (QWEN_MATH, 64, 8, 1, 3072),
        {"name": "stare"},
    ),
    "erc": _reweighted(
        "erc",
        "ERC over DAPO.",
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", 128, 8, 8, 16384),
        {"name": "erc"},
    ),
    "opefo": Published(
        "opefo",
        "OPEFO, strictly on-policy.",
        _run("opefo", QWEN_7B, 128, 8, 1, 4096, control={"reweighting": "opefo"}),
        "batch",
    ),
    "gepo": Published(
        "gepo",
        "GEPO with groups of 16.",
        _run("gepo", QWEN3_8B, 128, 16, 4, 8192, control={"reweighting": {"name": "gepo", "group_size": 16}}),
        GEOMETRY,
    ),
    "qae": Published(
        "qae",
        "QAE over DAPO, as its code computes the quantile.",
        _run(
            "qae",
            QWEN3_8B,
            512,
            16,
            16,
            20480,
            update={"advantage": {"name": "qae", "interpolated": True}},
            control=DUAL,
        ),
    ),
    "maxrl": Published(
        "maxrl",
        "MaxRL, one step per batch.",
        _run("maxrl", "Qwen/Qwen3-4B-Base", 256, 8, 1, 4096, update={"advantage": "maxrl"}),
        "batch",
    ),
    "w-reinforce": Published(
        "w-reinforce",
        "W-REINFORCE with the weight .1.",
        _run(
            "w-reinforce",
            QWEN_MATH,
            1024,
            8,
            4,
            4096,
            update={"advantage": "w-reinforce", "failure_reward": -1},
        ),
        "no KL",
    ),
    "grpo-dropout": Published(
        "grpo-dropout",
        "GRPODropout over GRPO.",
        _run("grpo-dropout", QWEN3_8B, 128, 8, 2, 8192, update={"advantage": "grpo-dropout"}),
        GEOMETRY,
    ),
}
