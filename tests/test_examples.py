"""The examples that need nothing but the package run as they stand."""

import json
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_the_loop_of_ones_own_learns_from_graded_completions():
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "grpo_loop.py"), "--steps", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    reward, entropy = (float(x) for x in re.search(r"reward (\S+)  entropy (\S+)", done.stdout).groups())
    assert 0 < reward < 1
    assert 0.1 < entropy < 0.6


@pytest.mark.parametrize("notebook", sorted((EXAMPLES / "notebooks").glob("*.ipynb")), ids=lambda file: file.stem)
def test_the_cells_of_a_notebook_run_in_order_and_are_kept_without_output(notebook, monkeypatch):
    matplotlib.use("Agg")
    monkeypatch.chdir(EXAMPLES.parent)
    space = {}
    for cell in json.loads(notebook.read_text())["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec(compile("".join(cell["source"]), str(notebook), "exec"), space)
    matplotlib.pyplot.close("all")
