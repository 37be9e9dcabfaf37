"""A study's results.sqlite: each number is what the run folders say, and a damaged file is replaced or named."""

import json
import statistics

import pytest
from tests.campaign.test_chain import Counting

from entrostat.campaign import Campaign, CampaignTrace, Care, Checkpoint, EarlyStop
from entrostat.campaign.chain import run_chain
from entrostat.campaign.database import TABLES, chain_folder, read_results, write_results
from entrostat.runs import Run, RunError, Trajectory, collapse_report, noise_floor

SELECT = [2, 4, 8, 6, 2]  # correct of ten, by step, of each of four tasks
REPORT = [1, 3, 7, 9, 3]
SOME = {"pass_at": {"2": 0.5}, "distinct": 1.5, "hard": 0.25, "entropy": 0.3, "length": 40, "truncated": 0.1}


class Written(Counting):
    """Four steps that are written down beforehand, evaluated `at` some, with the peak at step 2 if that is one of them.

    confirmed: whether the rule chose it.
    """

    confirmed = None
    at = range(5)

    def run(self, start, plan, decide, record):
        for step, counts in enumerate(zip(SELECT, REPORT, strict=True)):
            if step:
                record.log_step({"step": step, "lr": 1.0, "seconds": {"rollout": 1.0, "update": 0.5}})
            if step not in self.at:
                continue
            for split, c in zip(("select", "report"), counts, strict=True):
                results = [[f"task-{i}", 10, c] for i in range(4)]
                line = {"step": step, "split": split, "results": results, "seconds": 0.25, "verdicts": {"passed": c}}
                record.log_eval({**line, **SOME})
        before = int((start.path / "weights").read_text())
        saved = {step: Checkpoint(self.save(record, before + step), step) for step in (0, 2, 4) if step in self.at}
        first, peak, last = saved[0], saved[2 if 2 in self.at else 0], saved[4]
        select, report = (Trajectory(self.at, [counts[step] / 10 for step in self.at]) for counts in (SELECT, REPORT))
        lines = {"steps": record.steps(), "evals": record.evals("select")}
        return CampaignTrace(select, report, first, peak, last, confirmed=self.confirmed, **lines)


@pytest.fixture
def study(tmp_path):
    weights = tmp_path / "model"
    weights.mkdir()
    (weights / "weights").write_text("0")

    def run(method, seed, campaigns, rule):
        recipe = {"method": method, "tasks": {"select": 4}}

        def opened(place, _):
            return Campaign(Written(), rule, Run.create(place, recipe, seed, {}, {}))

        run_chain([opened] * campaigns, Checkpoint(weights, 0), chain_folder(tmp_path / "study", method, seed))

    run("es", 7, 2, EarlyStop(steps=4))
    run("care", 0, 1, Care(steps=4))
    write_results(tmp_path / "study", [("es", 7), ("care", 0)])
    return tmp_path / "study"


def test_a_campaign_is_one_row_read_at_the_steps_that_select_chose(study):
    care, first, second = read_results(study, "campaigns")
    assert [(row["method"], row["seed"], row["campaign"]) for row in (care, first, second)] == [
        *[("care", 0, 0), ("es", 7, 0), ("es", 7, 1)]
    ]
    expected = {
        "steps": 4,
        "peak_step": 2,
        "hand_over_step": 2,
        "start": 0.1,
        "peak": 0.7,
        "end": 0.3,
        "handed_over": 0.7,
        "collapsed": 1,
        "end_to_peak": 0.25,
        "stopped": 0,
        "seconds": 4 * 1.5 + 10 * 0.25,
        "select_evaluations": 5.0,
        "trace_oracle": 0.7,
    }
    assert {name: first[name] for name in expected} == pytest.approx(expected)
    assert first["gap"] == pytest.approx(0.4)
    assert first["noise_floor"] == pytest.approx(noise_floor([(10, 7)] * 4, 5))
    curve = Trajectory(range(5), [c / 10 for c in SELECT])
    cliff = collapse_report(curve, curve).cliff
    assert (first["phase_score"], first["onset"]) == (cliff.phase_score, cliff.onset_largest)
    assert first["decisions_left"] == cliff.decisions_left
    assert {**second, "campaign": 0} == first
    assert (care["hand_over_step"], care["handed_over"]) == (4, pytest.approx(0.3))


def test_an_evaluation_is_one_row_with_all_that_was_measured(study):
    rows = [row for row in read_results(study, "evaluations") if (row["method"], row["campaign"]) == ("es", 1)]
    assert [row["number"] for row in rows] == list(range(10))
    for step in range(5):
        select, report = rows[2 * step : 2 * step + 2]
        assert (select["step"], select["split"], select["select_share"]) == (step, "select", 1.0)
        assert (report["step"], report["split"], report["select_share"]) == (step, "report", None)
        assert (select["pass_at_1"], report["pass_at_1"]) == pytest.approx((SELECT[step] / 10, REPORT[step] / 10))
        assert json.loads(report["verdicts"]) == {"passed": REPORT[step]}
    names = {"distinct_solutions": 1.5, "hard": 0.25, "entropy": 0.3, "length": 40, "truncated": 0.1, "seconds": 0.25}
    assert {name: rows[3][name] for name in names} == names
    assert json.loads(rows[3]["pass_at_k"]) == {"2": 0.5}


def test_decisions_have_their_line_and_the_memory_of_care_its_own_table(study):
    decisions = read_results(study, "decisions")
    back = [row for row in decisions if row["method"] == "es"]
    assert [(row["campaign"], row["number"], row["step"], row["kind"]) for row in back] == [
        *[(0, 0, 4, "roll-back"), (1, 0, 4, "roll-back")]
    ]
    assert json.loads(back[0]["detail"])["to_step"] == 2
    assert "its highest was 0.800 at step 2" in back[0]["cause"]
    [memory] = read_results(study, "care_memory")
    assert memory["strategy"] == "4 steps"
    assert json.loads(memory["context"]) == {"positive_rate": 0.2, "share_of_steps": 1.0}
    assert json.loads(memory["delta"]) == {"pass@1": 0.0, "diversity": 0.0, "hard": 0.0}
    assert (memory["deviation"], memory["revisions"]) == (None, 0)
    assert 0 < memory["confidence"] < 1


def test_a_chain_is_one_row_with_its_recipe_and_the_campaigns_that_are_over(study):
    (chain_folder(study, "es", 7) / "campaign-01" / "outcome.json").unlink()
    write_results(study, [("es", 7)])
    care, es = read_results(study, "chains")
    assert (care["method"], care["campaigns_done"], es["seed"], es["campaigns_done"]) == ("care", 1, 7, 1)
    assert json.loads(es["recipe"])["method"] == "es"
    assert es["path"] == str(chain_folder(study, "es", 7))
    assert len(read_results(study, "campaigns")) == 2


def test_writing_again_changes_nothing_and_a_deleted_file_comes_back(study):
    before = {table: read_results(study, table) for table in TABLES}
    write_results(study, [("es", 7), ("care", 0)])
    assert {table: read_results(study, table) for table in TABLES} == before
    (study / "results.sqlite").unlink()
    write_results(study, [("care", 0), ("es", 7)])
    assert {table: read_results(study, table) for table in TABLES} == before


def test_a_chain_without_campaigns_has_no_row(tmp_path):
    write_results(tmp_path, [("naive", 0)])
    assert all(read_results(tmp_path, table) == [] for table in TABLES)


def test_a_missing_and_a_damaged_file_are_named(tmp_path, study):
    with pytest.raises(RunError, match=r"results\.sqlite: no such file; name the folder of a study"):
        read_results(tmp_path, "chains")
    (study / "results.sqlite").write_bytes(b"no database" * 100)
    for access in (lambda: read_results(study, "chains"), lambda: write_results(study, [("es", 7)])):
        with pytest.raises(RunError, match=r"results\.sqlite: .*delete the file, it is created again"):
            access()


def test_a_damaged_run_folder_leaves_the_file_as_it_was(study):
    before = read_results(study, "campaigns")
    (chain_folder(study, "es", 7) / "campaign-00" / "outcome.json").write_text("{}")
    with pytest.raises(RunError, match=r"outcome\.json: damaged"):
        write_results(study, [("care", 0), ("es", 7)])
    assert read_results(study, "campaigns") == before


def test_the_mean_of_the_tasks_is_that_of_their_shares(study):
    """Not of all samples: tasks may have had different numbers of them."""
    place = chain_folder(study, "care", 0) / "campaign-00"
    results = [["a", 10, 5], ["b", 2, 2], ["c", 4, 1]]
    Run.open(place).log_eval({"step": 4, "split": "ood", "results": results})
    write_results(study, [("care", 0)])
    *_, last = (row for row in read_results(study, "evaluations") if row["method"] == "care")
    assert last["pass_at_1"] == pytest.approx(statistics.fmean([0.5, 1.0, 0.25]))
    assert (last["split"], last["entropy"], json.loads(last["pass_at_k"])) == ("ood", None, {})


@pytest.mark.parametrize(
    ("at", "confirmed", "cliff"),
    [(range(5), 2, False), (range(5), None, True), ((0, 2, 4), None, True), ((0, 4), None, False)],
)
def test_a_course_has_a_cliff_if_it_was_evaluated_three_times_and_not_only_where_the_rule_asked(
    tmp_path, at, confirmed, cliff
):
    engine = Written()
    engine.at, engine.confirmed = at, confirmed
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("0")

    def opened(place, _):
        recipe = {"method": "crest", "tasks": {"select": 4}}
        return Campaign(engine, EarlyStop(steps=4), Run.create(place, recipe, 0, {}, {}))

    run_chain([opened], Checkpoint(tmp_path / "model", 0), chain_folder(tmp_path / "study", "crest", 0))
    write_results(tmp_path / "study", [("crest", 0)])
    [row] = read_results(tmp_path / "study", "campaigns")
    for name in ("phase_score", "onset", "decisions_left", "trace_oracle"):
        assert (row[name] is not None) == cliff
    assert row["gap"] == pytest.approx(0.4 if 2 in at else -0.2)
