"""The examples that need nothing but the package run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_the_loop_of_ones_own_learns_from_graded_completions():
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "grpo_loop.py"), "--steps", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    reward, entropy = (float(x) for x in re.search(r"reward (\S+)  entropy (\S+)", done.stdout).groups())
    assert 0 < reward < 1
    assert 0.1 < entropy < 0.6
