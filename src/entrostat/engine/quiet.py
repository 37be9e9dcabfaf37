"""A screen that belongs to the run."""

from __future__ import annotations

import warnings


def quieten_libraries() -> None:
    """Keep transformers' and TRL's progress bars, log lines and notices of deprecation off this process's screen."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl)\b")
