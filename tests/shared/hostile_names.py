"""Values that a file may hold where the name of a checkpoint belongs, and a folder that must outlive them."""

from pathlib import Path

HOSTILE = [
    "",
    ".",
    "..",
    "../..",
    "../../precious",
    "/tmp",
    "{precious}",
    "precious/../precious",
    "a" * 63,
    "a" * 65,
    "A" * 64,
    "a" * 64 + "\n",
    "a" * 32 + "/" + "a" * 31,
    "\u0661" * 64,  # digits of another script
    "\uff41" * 64,  # letters of another width
    "a" * 63 + "\0",
    "~",
    None,
    True,
    0,
    -1,
    1.5,
    1e999,
    [],
    ["a" * 64],
    {},
    {"digest": "a" * 64},
]


def precious_folder(parent: Path) -> Path:
    """A folder of the user's own."""
    folder = parent / "precious" / "thesis"
    folder.mkdir(parents=True)
    (folder / "chapter1.txt").write_text("years of work")
    return folder


def filled(value, precious: Path):
    """The value with the folder's path in it where it asks for that."""
    return value.replace("{precious}", str(precious)) if isinstance(value, str) else value


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
