"""A chain's folder: what its files may name, and what of it is freed."""

import json

import pytest
from hostile_names import HOSTILE, filled, precious_folder, tree

from entrostat.campaign import Campaign, CampaignTrace, Checkpoint, EarlyStop, Naive
from entrostat.campaign.chain import campaign_folder, read_hand_over, read_lines_of, read_outcome, run_chain
from entrostat.runs import Run, RunError, Trajectory
from entrostat.runs.files import folder_digest
from entrostat.runs.ownership import scratch, seal


class Counting:
    """An engine whose weights are a number in a file, one more than those it started from."""

    correct = (0, 1)

    def run(self, start, plan, decide, record):
        for split in ("select", "report"):
            for step in (0, 1):
                record.log_eval({"step": step, "split": split, "results": [["t", 2, self.correct[step]]]})
        before = int((start.path / "weights").read_text())
        first, last = (self.save(record, before + step) for step in (0, 1))
        curve = Trajectory((0, 1), tuple(c / 2 for c in self.correct))
        points = Checkpoint(first, 0), Checkpoint(last, 1)
        return CampaignTrace(curve, curve, points[0], points[curve.peak_step], points[1])

    def save(self, record, number):
        folder = scratch(record.checkpoints_dir)
        folder.mkdir()
        (folder / "weights").write_text(str(number))
        named = record.checkpoints_dir / folder_digest(folder)
        seal(folder)
        return folder.rename(named)


@pytest.fixture
def start(tmp_path):
    folder = tmp_path / "my-model"  # a user's own, with a name of their own
    folder.mkdir()
    (folder / "weights").write_text("0")
    return Checkpoint(folder, 0)


def run(folder, start, campaigns, engine=None):
    def opened(place, _):
        return Campaign(engine or Counting(), Naive(steps=1), Run.create(place, {}, 0, {}, {}))

    return run_chain([opened] * campaigns, start, folder)


def hand_overs(chain):
    return [int((path / "weights").read_text()) for path in (chain / "checkpoints").iterdir()]


def test_each_campaign_starts_from_the_last_and_only_the_newest_weights_stay(tmp_path, start):
    run(tmp_path / "chain", start, 2)
    run(tmp_path / "chain", start, 3)
    assert hand_overs(tmp_path / "chain") == [3]
    assert not list((tmp_path / "chain").glob("campaign-*/checkpoints"))
    assert (start.path / "weights").read_text() == "0"


@pytest.mark.parametrize("field", ["start", "peak", "end", "handed_over"])
@pytest.mark.parametrize("name", HOSTILE)
def test_an_outcome_that_names_a_path_is_refused_and_nothing_is_touched(tmp_path, start, name, field):
    precious = precious_folder(tmp_path)
    run(tmp_path / "chain", start, 1)
    file = tmp_path / "chain/campaign-00/outcome.json"
    content = json.loads(file.read_text())
    content["checkpoints"][field]["digest"] = filled(name, precious)
    file.write_text(json.dumps(content))
    before = tree(tmp_path)
    with pytest.raises(RunError, match=rf"outcome\.json: damaged .*checkpoints\.{field}\.digest"):
        run(tmp_path / "chain", start, 2)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("content", ["", "[", "[]", "3", "null", "{}", '{"checkpoints": []}', "[" * 100_000])
def test_an_outcome_that_is_none_is_refused(tmp_path, start, content):
    run(tmp_path / "chain", start, 1)
    (tmp_path / "chain/campaign-00/outcome.json").write_text(content)
    with pytest.raises(RunError, match=r"outcome\.json: damaged"):
        run(tmp_path / "chain", start, 2)


def test_a_step_that_is_no_number_is_refused(tmp_path, start):
    run(tmp_path / "chain", start, 1)
    file = tmp_path / "chain/campaign-00/outcome.json"
    content = json.loads(file.read_text())
    content["checkpoints"]["end"]["step"] = "1"
    file.write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"checkpoints\.end\.step: got '1'"):
        run(tmp_path / "chain", start, 2)


def test_folders_of_the_user_s_own_stay_where_they_are(tmp_path, start):
    chain = tmp_path / "chain"
    run(chain, start, 1)
    own = [chain / "checkpoints/best", chain / "campaign-00/checkpoints/notes", chain / "checkpoints" / ("a" * 64)]
    for folder in own:
        folder.mkdir(parents=True)
        (folder / "notes.txt").write_text("mine")
    link = chain / "checkpoints" / ("b" * 64)
    link.symlink_to(own[0])
    run(chain, start, 2)
    assert [(folder / "notes.txt").read_text() for folder in (*own, link)] == ["mine"] * 4
    assert sorted(path.name for path in (chain / "checkpoints").iterdir() if (path / "weights").exists()) == [
        folder_digest(next(path for path in (chain / "checkpoints").iterdir() if (path / "weights").exists()))
    ]


def test_a_hand_over_that_somebody_added_to_is_not_moved(tmp_path, start):
    chain = tmp_path / "chain"

    class Added(Counting):
        def run(self, *given):
            trace = super().run(*given)
            (trace.end.path / "notes.txt").write_text("mine")
            return trace

    with pytest.raises(RunError, match="was changed after the campaign"):
        run(chain, start, 1, Added())
    assert len(list(chain.glob("campaign-00/checkpoints/*/notes.txt"))) == 1


def test_an_engine_that_hands_over_a_folder_of_the_user_s_own_is_refused_and_the_folder_stays(tmp_path, start):
    class Foreign(Counting):
        def run(self, given, *rest):
            trace = super().run(given, *rest)
            return CampaignTrace(trace.select, trace.report, trace.start, trace.peak, Checkpoint(given.path, 1))

    before = tree(start.path)
    with pytest.raises(RunError, match="accepts only those in the run folder"):
        run(tmp_path / "chain", start, 1, Foreign())
    assert tree(start.path) == before


@pytest.mark.parametrize("link", ["campaign-00", "campaign-00/checkpoints", "checkpoints"])
def test_a_link_to_another_run_is_refused_and_that_run_stays_whole(tmp_path, start, link):
    chain, other = tmp_path / "chain", tmp_path / "other"
    run(chain, start, 1)
    run(other, start, 1)
    spare = Counting().save(Run.create(tmp_path / "spare", {}, 0, {}, {}), 7)
    (other / link).mkdir(exist_ok=True)
    spare.rename(other / link / spare.name)
    place = chain / link
    if place.exists():
        place.rename(tmp_path / "aside")
    place.symlink_to(other / link)
    before = tree(other)
    with pytest.raises(RunError, match=rf"{link}: is a link"):
        run(chain, start, 2)
    assert tree(other) == before


class Falling(Counting):
    """Stops after its first step and rolls back to its start, whatever its budget."""

    correct = (1, 0)


def test_a_campaign_in_two_parts_is_read_as_it_was_written_and_hands_over_the_second(tmp_path, start):
    """The first part falls and has a step left; the second starts from its hand-over, in a folder within its own."""
    opened = []

    def again(place):
        def go_on(outcome, left):
            opened.append((outcome.handed_over.step, left))
            return Campaign(Counting(), Naive(steps=1), Run.create(place / "after-roll-back", {}, 0, {}, {}))

        return go_on

    def open_campaign(place, _):
        return Campaign(Falling(), EarlyStop(steps=2), Run.create(place, {}, 0, {}, {}), again(place))

    [outcome] = run_chain([open_campaign], start, tmp_path / "chain")
    assert opened == [(0, 1)]
    place = campaign_folder(tmp_path / "chain", 0)
    known = read_outcome(place)
    assert known.trace.end.step == outcome.trace.end.step == 2
    assert (known.handed_over.step, known.stopped) == (outcome.handed_over.step, outcome.stopped) == (2, False)
    assert [part.handed_over.path.name for part in known.parts] == [
        part.handed_over.path.name for part in outcome.parts
    ]
    lines = read_lines_of(place, known)
    assert [line["step"] for line in lines.evals if line["split"] == "select"] == [0, 1, 2]
    assert [line["kind"] for line in lines.decisions] == ["roll-back", "switch"]
    assert hand_overs(tmp_path / "chain") == [1]
    assert not list(place.rglob("weights"))
    late = {"step": 0, "at": 1, "split": "select", "tasks": [0, 1], "results": [["t", 2, 1]]}
    Run.open(place / "after-roll-back").log_eval(late)  # of the weights that the first part handed over, its step 0
    assert [(line["step"], line["at"]) for line in read_lines_of(place, known).evals if "at" in line] == [(0, 2)]


def test_a_campaign_that_hands_over_the_weights_it_began_with_leaves_them_where_they_are(tmp_path, start):
    engines = [Counting(), Falling(), Counting()]

    def opened(number):
        return lambda place, _: Campaign(engines[number], EarlyStop(steps=1), Run.create(place, {}, 0, {}, {}))

    outcomes = run_chain([opened(number) for number in range(3)], start, tmp_path / "chain")
    assert [outcome.handed_over.step for outcome in outcomes] == [1, 0, 1]
    assert outcomes[0].handed_over.path.name == outcomes[1].handed_over.path.name
    assert hand_overs(tmp_path / "chain") == [2]


def test_several_hand_overs_can_be_kept(tmp_path, start):
    def opened(place, _):
        return Campaign(Counting(), Naive(steps=1), Run.create(place, {}, 0, {}, {}))

    seen = []
    run_chain([opened] * 4, start, tmp_path / "chain", kept=2, listener=lambda number, each: seen.append(number))
    assert sorted(hand_overs(tmp_path / "chain")) == [3, 4]
    assert seen == [0, 1, 2, 3]


def test_a_hand_over_is_step_0_of_the_campaign_that_starts_from_it(tmp_path):
    handed_over = Checkpoint(tmp_path / "campaign-00" / "checkpoints" / "abc", 7)
    assert read_hand_over(tmp_path, handed_over) == Checkpoint(tmp_path / "checkpoints" / "abc", 0)
