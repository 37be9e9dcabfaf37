"""verl's real FSDP2 engine and training worker on CPUs: our loss is vanilla bit for bit, a checkpoint resumes, and
flexec's od follows the entropy.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl is not installed: its engine is not run")

SCRIPT = Path(__file__).with_name("verl_fsdp_ranks.py")


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_worker_under_our_loss_is_verls_own_steered(tmp_path, ranks):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}", str(SCRIPT)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPT.parent), *filter(None, sys.path)])}
    done = subprocess.run(
        [*command, str(tmp_path)], capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("equal to vanilla, bit for bit") == ranks
    assert done.stdout.count("resumes from its checkpoint") == ranks
    assert done.stdout.count("follows the entropy") == ranks
