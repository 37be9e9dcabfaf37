"""Entropy control and collapse prevention for reinforcement learning with verifiable rewards (RLVR).

Every public name is here. Importing this package imports nothing heavy: a name brings its package, and torch where the
package needs it, when it is first used: reading a log does not wait for torch. Type checkers read `__init__.pyi`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from entrostat import _renamed

_HOMES = {
    "campaign": "CareV1 CareV2 Crest EarlyStop Naive",
    "control": """
        Adapo AdaptiveBonus Aepo ClipCov Constant ConstantBonus Corrected Curve DecreaseIncreaseDecrease DualClipped
        EntroPic Entrocraft EntropicWeights EntropyController EntropyOutliers EntropyRatioClip FixedWeights
        FlowCalibration Gepo HighEntropyTokens IncreaseThenDecrease Mai Measured MismatchSums Opefo OscillatoryDecay
        Part Phase Piecewise PolarityAware Prediction RepoR Schedule SkipRegion Stage Stare Steer Strategy TargetEntropy
        TargetWeights TokenBatch TokenSums mismatch_sums token_sums
    """,
    "diagnosis": "Detector Diagnosis Finding Log LogError Remedy Watchdog diagnose read_log",
    "engine.policy": "load_policy",
    "engine.scoring": "score_completions score_file",
    "engine.study": "run_study",
    "engine.train": "train",
    "entropy": "Region TurnSums entropy_flow polarity prompt_information regions sensitivity turn_numbers turn_sums",
    "errors": "EntrostatError",
    "grading": """
        CodeGrader MathGrader Outcome PuzzleGrader RayGrader RemoteGrader Verdict extract_code grade_file
    """,
    "objective": """
        CLIP_HIGHER CLIP_LOWER AbcClip Aspo Bapo CeGppo Cispo Clip ClipBand ClipRule ClipUndetached Correction Cppo
        DcpoClip Decoupled Dppo DppoClip Drpo DualClip Estr FreeRegion Gmpo Gspo IcePop LinearThreshold Luspo Mis Nsr
        Objective Opsm PolicyLoss Reinforce RipoClip SampledTokens Sapo SeqMaskTis Surrogate Tis Tokens Up Vespo
        adapted_coefficient aggregate divergence_drift entropy_bonus ewc_penalty kl_cov_penalty kl_to_reference
        policy_loss
    """,
    "recipe": "Recipe RecipeError StudyRecipe load_recipe load_study",
    "report": "build_report",
    "report.study": "build_study_report",
    "runs": "CollapseReport Run RunError Trajectory collapse_report noise_floor pass_at_k pass_hat_k",
    "tasks": "AnswerTask Call Exchange Expression ProgramTask PuzzleTask ScriptTask Spaces Task TaskError",
    "tokens": """
        TokenStats TopkTokenStats VocabShard effective_sample_size fused_token_stats sampler_kl token_stats
        topk_entropy_bounds topk_token_stats
    """,
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted({"__version__", *_HOME_OF})

_renamed.install()


def __getattr__(name: str) -> Any:
    """One of the names above, from its package (PEP 562)."""
    if name in _HOME_OF:
        value = getattr(import_module(f"entrostat.{_HOME_OF[name]}"), name)
    elif name == "__version__":
        from importlib.metadata import version

        value = version("entrostat")
    elif name == "advantages":
        return import_module("entrostat.advantages")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
