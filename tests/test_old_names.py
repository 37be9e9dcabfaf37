"""Import paths of before the renaming still give the same objects, and say what to write in their place."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from entrostat._renamed import NEW_PATHS, current_name


def python(code):
    return subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("old", "same"),
    [
        ("from entrostat.diagnose import read_log as old", "from entrostat.diagnosis import read_log as new"),
        (
            "from entrostat.diagnose.detectors.kl import KlRunaway as old",
            "from entrostat.diagnosis.detectors.kl import KlRunaway as new",
        ),
        ("from entrostat.diagnose.finding import Finding as old", "from entrostat import Finding as new"),
        (
            "import entrostat.diagnose.reading.errors as old",
            "import entrostat.diagnosis.reading.errors as new",
        ),
    ],
)
@pytest.mark.parametrize("first", ["old", "new"])
def test_an_old_path_is_the_new_module(old, same, first):
    lines = [old, same] if first == "old" else [same, old]
    result = python("; ".join([*lines, "assert old is new"]))
    assert result.returncode == 0, result.stderr
    assert "DeprecationWarning: entrostat.diagnose is now entrostat.diagnosis" in result.stderr


HOSTS = {
    "losses.openrlhf": ("SteeredPolicyLoss", "openrlhf"),
    "losses.slime": ("loss_function", "slime"),
    "losses.steering": ("Steering", "steering"),
    "trl.watchdog": ("WatchdogCallback", "trl_watchdog"),
    "verl.loss": ("register_losses", "verl_loss"),
    "verl.watchdog": ("PeakKeeper", "verl_watchdog"),
}


@pytest.mark.parametrize("new", HOSTS)
@pytest.mark.parametrize("first", ["old", "new"])
def test_the_old_path_of_a_host_is_its_module_in_a_folder(new, first):
    name, old = HOSTS[new]
    lines = [
        f"from entrostat.integrations.{old} import {name} as old",
        f"from entrostat.integrations.{new} import {name} as new",
    ]
    result = python(
        "; ".join([*(lines if first == "old" else lines[::-1]), "assert old is new", "print(new.__module__)"])
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"entrostat.integrations.{new}\n"
    warning = f"entrostat.integrations.{old} is now entrostat.integrations.{new}; the old path goes in 0.2"
    assert warning in " ".join(result.stderr.split())


def test_a_command_of_an_old_path_runs():
    old, new = (
        subprocess.run(
            [sys.executable, "-m", f"entrostat.integrations.{module}"], capture_output=True, text=True, check=False
        )
        for module in ("openrlhf", "losses.openrlhf")
    )
    assert old.returncode == new.returncode == 1
    assert old.stderr.splitlines()[-1] == new.stderr.splitlines()[-1] != ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("entrostat.grading.puzzles.PuzzleGrader", "entrostat.grading.PuzzleGrader"),
        ("entrostat.control.masking.ClipCov", "entrostat.control.ClipCov"),
        ("entrostat.engine.checkpoint.CheckpointStore", "entrostat.campaign.checkpoints.CheckpointStore"),
        ("entrostat.entropy.regions.Region", "entrostat.Region"),
        ("entrostat.objective.surrogates.Gspo", "entrostat.objective.gspo.Gspo"),
        ("entrostat.objective.bands.DppoClip", "entrostat.objective.dppo.DppoClip"),
        ("entrostat.recipe.sections.Recipe", "entrostat.Recipe"),
        ("entrostat.engine.extension.extended", "entrostat.engine.train.extended"),
        ("entrostat.integrations.verl.beside_trl.WANTED", "entrostat.integrations.verl.WANTED"),
    ],
)
@pytest.mark.parametrize("first", ["old", "new"])
def test_what_went_into_another_module_is_found_at_its_old_path(old, new, first):
    lines = [
        "from {} import {} as {}".format(*path.rpartition(".")[::2], name)
        for name, path in (("old", old), ("new", new))
    ]
    result = python("; ".join([*(lines if first == "old" else lines[::-1]), "assert old is new"]))
    assert result.returncode == 0, result.stderr
    assert f"{old.rpartition('.')[0]}" in result.stderr
    assert "; the old path goes in 0.2" in result.stderr


def test_a_function_stays_one_when_the_module_that_had_its_name_is_imported():
    code = (
        "import entrostat.entropy as e, entrostat.entropy.regions as m, entrostat.auditing.audit as a; "
        "from entrostat.auditing import audit; assert m.Region is e.Region; "
        "assert callable(e.regions) and callable(audit) and callable(a.Audit)"
    )
    assert python(code).returncode == 0


def test_a_module_whose_names_moved_still_says_what_it_lacks():
    result = python("import entrostat.objective.bands as b; b.NoSuchBand")
    assert "module 'entrostat.objective.bands' has no attribute 'NoSuchBand'" in result.stderr


def test_every_old_path_names_a_module_and_its_new_path_is_current():
    for old, new in NEW_PATHS.items():
        assert find_spec(new) is not None
        assert current_name(f"{old}.Name") == f"{new}.Name"
        assert current_name(new) == new
    assert current_name("entrostat.integrations.records") == "entrostat.integrations.records"


def test_a_module_that_never_was_is_not_found():
    result = python("import entrostat.diagnose.nothing")
    assert "ModuleNotFoundError: No module named 'entrostat.diagnosis.nothing'" in result.stderr


def test_the_new_path_warns_of_nothing():
    assert python("import entrostat.diagnosis.detectors.kl").stderr == ""


@pytest.mark.parametrize("old", ["from entrostat import advantages", "from entrostat.strategies import Constant"])
def test_other_old_names_work_and_warn(old):
    result = python(old)
    assert result.returncode == 0
    assert "DeprecationWarning" in result.stderr


def test_the_warning_is_shown_at_the_line_of_the_import(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text("import sys\n\nimport entrostat.strategies\n")
    result = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert f"{script}:3: DeprecationWarning: entrostat.strategies is now entrostat.control" in result.stderr


def test_the_function_can_be_called_after_an_import_of_an_old_path(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text("".join(f'{{"step": {step}, "entropy": 1.0}}\n' for step in range(5)))
    code = (
        f"import entrostat, entrostat.diagnose.columns; print(entrostat.diagnose(entrostat.read_log({str(log)!r})).end)"
    )
    result = python(code)
    assert (result.returncode, result.stdout.strip()) == (0, "None"), result.stderr
