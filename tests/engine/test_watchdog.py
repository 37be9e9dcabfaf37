"""The watchdog over the embedded engine: what it does to a campaign, and that a resume does the same."""

import pytest

from entrostat.campaign import Naive
from entrostat.campaign.chain import read_outcome
from entrostat.campaign.database import read_results, write_results
from entrostat.campaign.engine import Progress
from entrostat.campaign.single import AFTER_ROLL_BACK
from entrostat.diagnosis import Acting, Detector, Finding, Watchdog
from entrostat.engine.study import run_one
from entrostat.engine.train import train
from entrostat.engine.watchdog import Watched
from entrostat.recipe import RecipeError, StudyRecipe, parse_recipe
from entrostat.recipe.loading import parse_as
from entrostat.runs import Run

SMALL = {
    "name": "watched",
    "threads": 1,
    "tasks": {"train": 4, "select": 2, "report": 2},
    "rollout": {"prompts": 2, "samples": 2, "max_new_tokens": 8},
    "update": {"epochs": 1},
    "evaluation": {"samples": 1, "pass_at": [1]},
    "campaign": {"steps": 5, "checkpoint_every": 1},
    "grading": {"workers": 1},
}


class AtStep(Detector):
    """Finds a critical truncation from step 3 on."""

    kind = "truncation"
    columns = ("entropy",)

    def find(self, history, end):
        if history.step < 3:
            return None
        return Finding(self.kind, "critical", history.step, 2, "made to order", {"end": float(end)}, ("entropy",))


@pytest.fixture(autouse=True)
def one_detector(monkeypatch):
    monkeypatch.setattr(Acting, "watchdog", lambda self, end=None: Watchdog(end, (AtStep(confirm=1),)))


def recipe(**watch):
    return parse_recipe({**SMALL, "watch": watch})


def kinds(folder):
    return [line["kind"] for line in Run.open(folder).decisions()]


def test_note_writes_the_finding_down_and_goes_on(tmp_path):
    outcome = train(recipe(action="note"), tmp_path / "run")
    assert outcome.trace.steps_used == 5
    [line] = Run.open(tmp_path / "run").decisions()
    assert (line["step"], line["kind"]) == (3, "finding")
    assert "made to order" in line["cause"]
    assert line["evidence"] == {"end": 5.0}


def test_stop_ends_the_campaign_and_hands_over_its_end(tmp_path):
    outcome = train(recipe(action="stop"), tmp_path / "run")
    assert outcome.stopped
    assert outcome.handed_over.step == outcome.trace.end.step == 3
    assert kinds(tmp_path / "run") == ["finding", "stop"]
    assert "watchdog" in Run.open(tmp_path / "run").decisions()[1]["cause"]


def test_keep_peak_hands_over_the_peak(tmp_path):
    outcome = train(recipe(action="keep-peak"), tmp_path / "run")
    assert outcome.handed_over == outcome.trace.peak


@pytest.mark.parametrize("ignored", [{"severity": "critical", "kinds": ["kl-runaway"]}])
def test_findings_that_are_not_named_are_only_noted(tmp_path, ignored):
    outcome = train(recipe(action="stop", **ignored), tmp_path / "run")
    assert outcome.trace.steps_used == 5
    assert kinds(tmp_path / "run") == ["finding"]


def test_roll_back_goes_on_from_the_peak_under_the_switch(tmp_path):
    switch = {"control": {"strategy": "id"}, "update": {"epochs": 2}}
    first = tmp_path / "run"
    train(recipe(action="roll-back", switch=switch), first)
    second = Run.open(first / AFTER_ROLL_BACK)
    assert kinds(first)[:2] == ["finding", "stop"]
    assert kinds(first)[-1] == "switch"
    assert second.recipe["control"]["strategy"]["name"] == "id"
    assert second.recipe["update"]["epochs"] == 2
    assert second.recipe["campaign"]["steps"] == 2
    assert second.recipe["watch"]["action"] == "keep-peak"
    assert len(second.steps()) == 2


def test_a_campaign_that_its_own_controller_ends_is_not_rolled_back(tmp_path):
    """It stops at step 1 of 5, one step after its peak at the start, before anything is found."""
    campaign = {**SMALL["campaign"], "controller": {"name": "es-online", "patience": 1}}
    stopped = parse_recipe(
        {**SMALL, "tasks": {**SMALL["tasks"], "levels": [4]}, "campaign": campaign, "watch": {"action": "roll-back"}}
    )
    outcome = train(stopped, tmp_path / "run")
    assert outcome.stopped
    assert not (tmp_path / "run" / AFTER_ROLL_BACK).exists()


def test_a_killed_run_finds_and_decides_the_same(tmp_path):
    class Killed(Exception):
        pass

    def kill_at_2(line):
        if line["step"] == 2 and line.get("split") == "report":
            raise Killed

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(recipe(action="keep-peak"), whole)
    with pytest.raises(Killed):
        train(recipe(action="keep-peak"), broken, kill_at_2)
    train(recipe(action="keep-peak"), broken)
    assert Run.open(broken).decisions() == Run.open(whole).decisions()
    assert Run.open(broken).trace() == Run.open(whole).trace()


def test_a_finished_run_is_decided_the_same_again(tmp_path):
    first = train(recipe(action="keep-peak"), tmp_path / "run")
    before = Run.open(tmp_path / "run").decisions()
    assert train(recipe(action="keep-peak"), tmp_path / "run").handed_over == first.handed_over
    assert Run.open(tmp_path / "run").decisions() == before


def test_it_reads_whole_evaluations_of_the_select_split_alone(tmp_path):
    run = Run.create(tmp_path / "run", {}, 0, {}, {})
    watched = Watched(Naive(5), recipe(action="note").watch, run, 5)
    lines = [
        {"step": 0, "split": "report", "results": [["a", 1, 1]]},
        {"step": 0, "split": "select", "tasks": [0, 1], "results": [["a", 1, 1]]},
        {"step": 0, "split": "select", "results": [["a", 1, 0]]},
    ]
    watched.decide(Progress(0, 5, (), lines, (0,), 1), ())
    assert watched.watchdog.history.series("heldout").values.tolist() == [0.0]


def test_the_address_of_a_webhook_stands_nowhere_in_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("HOOK", "http://127.0.0.1:9/SECRET")
    train(recipe(webhook="HOOK"), tmp_path / "run")
    decisions = Run.open(tmp_path / "run").decisions()
    assert any(decision["kind"] == "not sent" for decision in decisions)
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert files
    assert not any(b"SECRET" in file.read_bytes() for file in files)


def test_a_webhook_without_an_address_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv("HOOK", raising=False)
    with pytest.raises(RecipeError, match=r"watch\.webhook: .*HOOK"):
        train(recipe(webhook="HOOK"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("watch", "field"),
    [
        ({"action": "panic"}, "watch.action"),
        ({"kinds": ["typo"]}, "watch.kinds"),
        ({"switch": {"control": {"strategy": "id"}}}, "watch.switch"),
        ({"action": "roll-back", "switch": {"update": {"epochs": 0}}}, "epochs"),
        ({"webhook": "https://host/secret"}, "watch.webhook"),
    ],
)
def test_faulty_settings_are_refused_by_name(watch, field):
    with pytest.raises(RecipeError, match=field):
        parse_recipe({**SMALL, "watch": watch})


def study(steps=5, campaigns=2, **watch):
    base = {key: value for key, value in SMALL.items() if key != "name"}
    base = {**base, "campaign": {**SMALL["campaign"], "steps": steps}, "watch": watch}
    return parse_as(
        StudyRecipe, {"name": "s", "seeds": [0], "campaigns": campaigns, "base": base, "methods": {"m": {}}}
    )


def test_a_chain_s_campaign_is_watched_as_a_run_is(tmp_path):
    """With the first campaign's recipe `train` leaves the same trace and decisions behind."""
    for action in ("note", "keep-peak", "roll-back"):
        own, out = study(action=action, campaigns=1), tmp_path / action
        (outcome,) = run_one(own, "m", 0, out / "study")
        alone = train(own.recipe("m", 0, 0), out / "run")
        place = out / "study/m/seed-0/campaign-00"
        pairs = [(place, out / "run")]
        if action == "roll-back":
            pairs.append((place / AFTER_ROLL_BACK, out / "run" / AFTER_ROLL_BACK))
        for chained, single in pairs:
            assert Run.open(chained).trace() == Run.open(single).trace()
            assert Run.open(chained).decisions() == Run.open(single).decisions()
        assert outcome.handed_over.path.name == alone.handed_over.path.name
        assert outcome.trace.steps_used == {"note": 5, "roll-back": 5}.get(action, 3)


def test_a_roll_back_in_a_chain_spends_what_is_left_and_hands_over_what_came_of_it(tmp_path):
    own = study(action="roll-back", switch={"control": {"strategy": "id"}})
    first, second = run_one(own, "m", 0, tmp_path)
    chain = tmp_path / "m/seed-0"
    place = chain / "campaign-00"
    assert [line["step"] for line in first.trace.steps] == [1, 2, 3, 4, 5]
    assert first.trace.end.step == 5
    assert Run.open(place / AFTER_ROLL_BACK).recipe["control"]["strategy"]["name"] == "id"
    assert Run.open(chain / "campaign-01").hashes["policy"] == first.handed_over.path.name
    assert [path.name for path in (chain / "checkpoints").iterdir()] == [second.handed_over.path.name]
    assert not list(chain.glob("**/after-roll-back/checkpoints"))
    again = [read_outcome(chain / f"campaign-0{number}") for number in (0, 1)]
    assert again == [first, second]
    write_results(tmp_path, [("m", 0)])
    rows = read_results(tmp_path, "campaigns")
    assert [row["steps"] for row in rows] == [5, 5]
    assert [row["peak_step"] for row in rows] == [outcome.trace.peak.step for outcome in (first, second)]
    told = [(row["campaign"], row["kind"], row["step"]) for row in read_results(tmp_path, "decisions")]
    assert (0, "switch", 3) in told
    assert {step for campaign, kind, step in told if (campaign, kind) == (0, "finding")} == {3}
    evaluated = [row["step"] for row in read_results(tmp_path, "evaluations") if row["split"] == "select"]
    assert sorted(evaluated) == sorted([*range(6), *range(6)])


def test_a_chain_killed_after_a_roll_back_goes_on_to_the_same(tmp_path):
    class Killed(Exception):
        pass

    def kill(place):
        def listen(line):
            seen.append(line)
            if len(seen) == place:
                raise Killed

        seen = []
        return listen

    own = study(action="roll-back", campaigns=1)
    (whole,) = run_one(own, "m", 0, tmp_path / "whole")
    for number in (9, 16):
        out = tmp_path / str(number)
        with pytest.raises(Killed):
            run_one(own, "m", 0, out, kill(number))
        (outcome,) = run_one(own, "m", 0, out)
        assert outcome.trace.select == whole.trace.select
        assert outcome.handed_over.path.name == whole.handed_over.path.name
        for place in ("m/seed-0/campaign-00", f"m/seed-0/campaign-00/{AFTER_ROLL_BACK}"):
            assert Run.open(out / place).trace() == Run.open(tmp_path / "whole" / place).trace()
            assert Run.open(out / place).decisions() == Run.open(tmp_path / "whole" / place).decisions()
