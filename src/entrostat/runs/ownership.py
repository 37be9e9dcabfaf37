"""Names that are read from files, and folders that are ours to move or delete.

A text from a file becomes part of a path only after `digest` has accepted it. A folder is moved or deleted only if we
made it. There are three proofs of that:

    .entrostat              a seal in the folder: the SHA-256 of its file names and sizes as we left them, or a claim,
                            which is there while the folder is being written
    <digest>                the folder's name is the digest of its content (`folder_digest`); older versions set no seal
    .writing-<64 digits>    a name drawn at random, of what is being written; .freed-...: of what is being deleted;
                            older versions wrote at .writing-<process id>

Everything else beside or inside such folders is left in place.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
from pathlib import Path
from reprlib import repr as shortened

from entrostat.runs.files import SEAL, RunError, folder_digest, refusal

CLAIM = "being written"
MOST = 10**15  # a count that names a folder has few enough digits for any file system
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PASSING = re.compile(r"\.(writing|freed)-[0-9a-f]{64}|\.writing-[0-9]{1,10}")


def is_digest(name: object) -> bool:
    """Whether `name` is 64 lower-case hexadecimal digits."""
    return isinstance(name, str) and _DIGEST.fullmatch(name) is not None


def digest(name: object, origin: str) -> str:
    """`name`, which `origin` gives, as the name of a folder. RunError: it is not a digest, and so may be any path."""
    if not isinstance(name, str) or not is_digest(name):
        raise RunError(
            f"{origin}: got {shortened(name)}, where the digest of a checkpoint belongs (64 hexadecimal digits); "
            "restore the file, or start in a new folder"
        )
    return name


def whole_number(value: object, origin: str) -> int:
    """`value`, which `origin` gives, as a count, such as one of steps. RunError: no whole number from 0 to MOST."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST:
        raise RunError(
            f"{origin}: got {shortened(value)}, where a whole number belongs (0, 1, 2, ... to {MOST}); "
            "restore the file, or start in a new folder"
        )
    return value


def plain_name(name: object, origin: str) -> str:
    """`name`, which `origin` gives, as the name of a folder of a study. RunError: it may be a path."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RunError(
            f"{origin}: got {shortened(name)}, where a name belongs (letters, digits and . _ + -); restore the file"
        )
    return name


def scratch(parent: Path) -> Path:
    """A path in `parent` to write a folder at, before it gets its name; `sweep` frees what a kill leaves there."""
    return parent / f".writing-{secrets.token_hex(32)}"


def claim(folder: Path) -> None:
    """Make the folder and mark it as ours while something is written into it. RunError: there is one that is not."""
    if folder.exists() and not is_ours(folder):
        raise RunError(f"{folder}: is in the way and was not made here; move it to another place")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SEAL).write_text(CLAIM)


def seal(folder: Path) -> None:
    """Mark a folder that we have written as ours, with what it holds now."""
    (folder / SEAL).write_text(_listing(folder))


def is_ours(folder: Path) -> bool:
    """Whether we made the folder and nothing has been added to it; never for a link to one."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    mark = folder / SEAL
    if mark.is_file():
        return mark.read_text(errors="replace") in (CLAIM, _listing(folder))
    return is_digest(folder.name) and folder_digest(folder) == folder.name


def remove(folder: Path) -> bool:
    """Delete the folder if it is ours; else touch nothing and return False. RunError: the disk refuses.

    It is renamed first, so that a kill leaves no partly deleted folder under its name.
    """
    if not is_ours(folder):
        return False
    doomed = folder.with_name(f".freed-{secrets.token_hex(32)}")
    try:
        folder.rename(doomed)
    except OSError as error:
        raise refusal(folder, error) from error
    shutil.rmtree(doomed, ignore_errors=True)
    return True


def sweep(parent: Path) -> None:
    """Free what killed processes left half written or half deleted in `parent`."""
    for path in parent.iterdir() if parent.is_dir() else ():
        if _PASSING.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def remove_digests(parent: Path, keep: set[str]) -> None:
    """Free the checkpoints in `parent` that are ours, named by their content and not in `keep`; and sweep it."""
    sweep(parent)
    for path in sorted(parent.iterdir()) if parent.is_dir() else ():
        if is_digest(path.name) and path.name not in keep:
            remove(path)


def _listing(folder: Path) -> str:
    """SHA-256 over the names and sizes of everything in the folder but the seal."""
    entries = sorted(path for path in folder.rglob("*") if path.name != SEAL)
    lines = [f"{path.relative_to(folder).as_posix()}\0{_size(path)}\n" for path in entries]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _size(path: Path) -> int:
    return 0 if path.is_dir() and not path.is_symlink() else path.lstat().st_size
