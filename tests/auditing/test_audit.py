"""A sound reward is accused of nothing, whatever host it is for; every planted flaw is found and told by its name."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from entrostat.auditing import BUILT_IN, AuditError, Example, audit, write_page

REWARDS = Path(__file__).with_name("rewards.py")


def audited(name: str, **settings):
    return audit(f"{REWARDS}:{name}", **{"most": 2, "timeout": 5.0, **settings})


SOUND = {
    "sound_trl": ("trl", "plain"),
    "sound_trl_chat": ("trl", "chat"),
    "sound_verl": ("verl", "plain"),
    "sound_verl_batch": ("verl-batch", "plain"),
    "sound_verifiers": ("verifiers", "plain"),
    "sound_verifiers_group": ("verifiers-group", "chat"),
    "SoundOpenEnv": ("openenv", "plain"),
    "sound_plain": ("plain", "plain"),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_reward_is_accused_of_nothing(name):
    found = audited(name, most=2 if name == "sound_plain" else 1)
    assert [(finding.kind, finding.evidence) for finding in found.findings] == []
    assert (found.signature, found.completions) == SOUND[name]
    assert found.false_positive.count == found.false_negative.count == 0
    assert found.false_positive.n > 100
    assert found.false_negative.n > 5


FLAWED = {
    "substring": {"several-answers", "negated", "overruled", "wrong-value"},
    "reversed_substring": {"empty", "wrong-value"},
    "first_box": {"overruled", "reasoning-only"},
    "swayed_judge": {"judge-injection"},
    "paid_by_length": {"length"},
    "evaluated": {"runs-in-process"},
    "raises_without_box": {"raises"},
    "not_finite": {"not-finite"},
    "too_few": {"wrong-result"},
    "at_random": {"not-repeatable"},
    "by_hash": {"not-repeatable"},
    "by_order": {"not-repeatable"},
    "by_batch": {"not-repeatable"},
    "quadratic": {"superlinear-time"},
    "ending": {"ends-process"},
    "narrow": {"signature"},
    "constant": {"blind"},
    "form_alone": {"form-alone", "form-gamed"},
    "strict_reasoning": {"neutral-change"},
}


@pytest.mark.parametrize("name", FLAWED)
def test_a_planted_flaw_is_found(name):
    found = audited(name, most=1)
    assert FLAWED[name] <= {finding.kind for finding in found.findings}
    for finding in found.findings:
        assert finding.summary
        assert finding.remedy


def test_a_hanging_call_is_a_finding_and_the_audit_goes_on():
    found = audited("hanging", most=1, timeout=0.5)
    assert "hangs" in {finding.kind for finding in found.findings}
    assert found.false_positive.n > 100


def test_given_completions_are_judged_as_their_giver_says():
    example = dataclasses.replace(BUILT_IN[0], right=("The answer is 42.",), wrong=("so \\boxed{42}",))
    kinds = {finding.kind for finding in audited("sound_plain", examples=[example]).findings}
    assert {"given-right", "given-wrong"} <= kinds


def test_a_reference_shows_the_form_that_is_asked_for():
    examples = [Example("Six times seven?", "42", "So \\boxed{42} it is."), Example("Two?", "2", "Well, \\boxed{2}!")]
    found = audited("sound_plain", examples=examples)
    assert "the reference's" in found.forms
    assert found.findings == ()


DOUBLE = Example(
    "Write double(x).",
    "assert double(2) == 4\nassert double(-1) == -2",
    "def double(x):\n    return 2 * x",
)


def test_code_that_exits_or_equals_everything_is_found_out():
    found = audited("program", examples=[DOUBLE], most=1)
    assert found.kind == "code"
    assert {"exit", "equal-to-all", "reads-tests"} <= {finding.kind for finding in found.findings}
    assert found.families["stub"].count == 0
    assert found.false_negative.count == 0


def test_a_reward_by_code_grader_is_accused_of_nothing():
    """As a reward function of TRL: none of the attacks on code pays, and no right code is refused."""
    wrong = ("def double(x):\n    return x * x",)
    example = dataclasses.replace(DOUBLE, columns={"entry_point": "double"}, wrong=wrong)
    found = audited("sound_code", examples=[example], most=1)
    assert [(finding.kind, finding.evidence) for finding in found.findings] == []
    assert (found.signature, found.kind) == ("trl", "code")
    assert found.false_positive.count == found.false_negative.count == 0
    assert found.false_positive.n > 100


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "has no absent"),
        ("fussy", "choose --signature"),
        ("needs_column", "'difficulty', which no example has"),
        ("BOX", "cannot be called"),
    ],
)
def test_what_cannot_be_audited_is_an_error_that_names_it(name, message):
    with pytest.raises(AuditError, match=message):
        audited(name)


def test_a_module_that_ends_the_process_is_an_error(tmp_path):
    (tmp_path / "gone.py").write_text("import os\nos._exit(7)\n")
    with pytest.raises(AuditError, match="status 7"):
        audit(f"{tmp_path / 'gone.py'}:f")


def test_the_page_shows_hostile_completions_as_text_and_the_dictionary_is_json(tmp_path):
    example = dataclasses.replace(BUILT_IN[0], wrong=("<script>alert(1)</script> \\boxed{42} \x1b[2J",))
    found = audited("sound_plain", examples=[example])
    write_page(found, tmp_path / "audit.html")
    page = (tmp_path / "audit.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["signature"] == "plain"


def test_no_process_is_left():
    before = set(os.listdir("/proc/self/fd"))
    audited("sound_plain", most=1)
    assert len(os.listdir("/proc/self/fd")) <= len(before)
