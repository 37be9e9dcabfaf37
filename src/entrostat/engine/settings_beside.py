"""What a file of results was made with, kept beside it: work that is taken up again is made with the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from entrostat.runs import RunError
from entrostat.runs.files import atomic_write


def refuse_other_settings(out: Path, settings: dict[str, Any], what: str) -> None:
    """Write the settings beside a new `out`, with the suffix .settings.json; compare them where `out` exists.

    what: the results and the verb, as in "samples drawn". Raises RunError, naming the first setting that differs, or
    the settings file where it is damaged.
    """
    beside = out.with_suffix(".settings.json")
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(beside, json.dumps(settings, indent=1).encode() + b"\n")
        return
    found = _read(beside) if beside.exists() else {}
    for field, value in settings.items():
        if found.get(field) != value:
            raise RunError(
                f"{out}: holds {what} with {field} {found.get(field, 'unknown')}, not {value}; choose another file "
                "with --out, or delete this one"
            )


def _read(file: Path) -> dict[str, Any]:
    """The settings. RunError: the file that has them is damaged."""
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file}: damaged ({error}); restore it, or choose another file with --out") from error
    if not isinstance(content, dict):
        raise RunError(f"{file}: holds no settings; restore it, or choose another file with --out")
    return content
