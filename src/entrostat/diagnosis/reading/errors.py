"""The one error of reading a log."""

from __future__ import annotations

from entrostat.errors import EntrostatError

FORMATS = (
    "Formats that are read: console output of TRL, verl, OpenRLHF, slime, miles, prime-rl, SkyRL, NeMo RL, AReaL, "
    "ROLL, ms-swift, LLaMA-Factory, Unsloth, tinker, rllm, EasyR1, open-instruct, torchtune, DeepSpeed-Chat, oat, "
    "NeMo-Aligner and Trinity-RFT; JSON lines, JSON, CSV, TSV, Markdown, LaTeX, notebooks (.ipynb), "
    "trainer_state.json, TensorBoard, Weights & Biases, trackio, Parquet, and our run folders; any of the texts as "
    ".gz, .bz2, .xz or .zst, in a ZIP or tar archive, or on standard input (-)"
)


class LogError(EntrostatError, ValueError):
    """A log that cannot be read at all; the message names it, the cause and the remedy."""


class MissingLibraryError(LogError):
    """A log whose format needs a library that is not installed."""
