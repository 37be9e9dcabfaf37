"""The secret that random tests are derived from: made once per user, where graded code cannot read it."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import tempfile
import warnings
from pathlib import Path

_BYTES = 32


@functools.cache
def installation_secret() -> bytes:
    """The secret in random-tests.key of this user's state folder ($XDG_STATE_HOME or ~/.local/state), made if missing.

    Copy the file to have the same random tests on another machine. Where it cannot be kept, a warning says so and the
    secret is this process's own.
    """
    try:
        folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "entrostat"
        return read_or_make(folder / "random-tests.key")
    except (OSError, RuntimeError) as error:
        warnings.warn(
            f"random tests in assertion scripts will differ from run to run: their secret cannot be kept ({error}); "
            "set XDG_STATE_HOME to a folder that can be written, or pass secret=... to the grader",
            stacklevel=2,
        )
        return secrets.token_bytes(_BYTES)


def read_or_make(path: Path) -> bytes:
    """The secret in a file, made if it is missing; of processes that make it at once, all get the same."""
    with contextlib.suppress(FileNotFoundError):
        return _checked(path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)
    return _checked(path)


def _checked(path: Path) -> bytes:
    secret = path.read_bytes()
    if len(secret) < _BYTES:
        raise OSError(
            f"{path} holds {len(secret)} bytes, not a secret of at least {_BYTES}; remove it to have a new one"
        )
    return secret
