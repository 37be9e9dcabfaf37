"""A chain's view of a TRL trainer: what it keeps, when it stops, and that a killed campaign goes on."""

import pytest

pytest.importorskip("trl", reason="TRL is not installed: no campaign with it is checked")

from trl_world import policy, tokenizer, trainer

from entrostat.campaign import Campaign, Checkpoint, EarlyStop, Naive, run_campaign
from entrostat.campaign.chain import read_hand_over, run_chain
from entrostat.campaign.engine import Evaluate, GoOn, Plan, Stop
from entrostat.control import EntropyController, IncreaseThenDecrease
from entrostat.integrations.trl.engine import TrlEngine, last_whole_checkpoint
from entrostat.integrations.trl.trainer import EntropyGRPOTrainer
from entrostat.runs import Run


@pytest.fixture
def start(tmp_path):
    folder = tmp_path / "start"
    policy().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return Checkpoint(folder, step=0)


def build(folder, steps, output):
    from transformers import AutoModelForCausalLM

    controller = EntropyController(IncreaseThenDecrease(), steps)
    return trainer(
        output,
        EntropyGRPOTrainer,
        AutoModelForCausalLM.from_pretrained(folder),
        {"controller": controller},
        max_steps=steps,
        save_strategy="steps",
        save_steps=2,
    )


def scores(by_step):
    """A measure that reads pass@1 off a list, so that the course of a campaign is known."""

    def measure(trained, split, part):
        passed = by_step[trained.state.global_step] if split == "select" else 1
        return [["a", 4, passed]][part]

    return measure


def record(folder):
    return Run.create(folder, {"name": "trl"}, 0, {}, {})


def test_a_campaign_stops_after_its_peak_and_hands_it_over(tmp_path, start):
    engine = TrlEngine(build, scores([0, 2, 3, 1, 1, 1, 1]), split=1)
    run = record(tmp_path / "run")
    outcome = run_campaign(engine, EarlyStop(patience=2, steps=6), start, run)
    trace = outcome.trace
    assert (trace.peak.step, trace.end.step, outcome.stopped) == (2, 4, True)
    assert outcome.handed_over.path == trace.peak.path
    kept = {path for path in run.checkpoints_dir.iterdir() if path.is_dir()}
    assert kept == {trace.start.path, trace.peak.path, trace.end.path}
    lines = run.steps()
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[0]["phase"] == "increase"
    assert lines[0]["regions"].keys() == {"NONE", "E1", "E2", "E3", "E4"}
    assert (trace.end.path / "model.safetensors").exists()
    assert run_campaign(engine, EarlyStop(patience=2, steps=6), start, run).trace == trace


def test_a_killed_campaign_resumes(tmp_path, start):
    class KilledError(Exception):
        pass

    def killed(trained, split, part):
        if trained.state.global_step == 3:
            raise KilledError
        return scores([0, 1, 2, 3, 4])(trained, split, part)

    run = record(tmp_path / "run")
    with pytest.raises(KilledError):
        run_campaign(TrlEngine(build, killed, split=1), Naive(steps=4), start, run)
    trace = run_campaign(TrlEngine(build, scores([0, 1, 2, 3, 4]), split=1), Naive(steps=4), start, run).trace
    assert trace.select.steps == (0, 1, 2, 3, 4)
    assert [line["step"] for line in run.steps()] == [1, 2, 3, 4]
    assert trace.peak.step == 4


def test_the_newest_checkpoint_that_a_kill_left_whole_is_gone_on_from(tmp_path):
    for step, state in ((2, '{"global_step": 2}'), (10, '{"global_step": 10}'), (11, '{"global'), (12, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-best").mkdir()
    assert last_whole_checkpoint(tmp_path, 0) == tmp_path / "checkpoint-10"
    assert last_whole_checkpoint(tmp_path, 11) is None
    assert last_whole_checkpoint(tmp_path / "none", 0) is None


class LooksBack(Naive):
    """After step 3 evaluates the second task of step 2, and then stops and keeps that step."""

    def plan(self, history):
        return Plan(budget=4, rate=0.5)

    def decide(self, progress, history):
        if progress.step < 3:
            return GoOn(progress.step)
        if not any(line["step"] == 2 for line in progress.evals):
            return Evaluate(2, 1, 2)
        return Stop(2, "seen enough")


def test_a_controller_may_evaluate_and_keep_an_earlier_step(tmp_path, start):
    from safetensors.torch import load_file

    seen, rates = [], []

    def measure(trained, split, part):
        rates.append(trained.args.learning_rate)
        seen.append((split, part, {name: value.clone() for name, value in trained.model.state_dict().items()}))
        return [["a", 4, 1], ["b", 4, 2]][part]

    run = record(tmp_path / "run")
    trace = run_campaign(TrlEngine(build, measure, split=2, every=None), LooksBack(steps=4), start, run).trace
    assert (trace.peak.step, trace.end.step, trace.confirmed) == (2, 3, 2)
    (line,) = run.evals("select")
    assert (line["step"], line["at"], line["tasks"], line["results"]) == (2, 3, [1, 2], [["b", 4, 2]])
    assert set(rates) == {0.5e-2}
    kept = load_file(trace.peak.path / "model.safetensors")
    evaluated = next(weights for split, part, weights in seen if part == slice(1, 2))
    for name, value in kept.items():
        assert value.equal(evaluated[name])
    assert not all(value.equal(kept[name]) for name, value in load_file(trace.end.path / "model.safetensors").items())


def test_a_chain_starts_each_campaign_from_the_hand_over_of_the_one_before(tmp_path, start):
    from safetensors.torch import load_file

    began = []

    def recorded(folder, steps, output):
        began.append(load_file(folder / "model.safetensors"))
        return build(folder, steps, output)

    engine = TrlEngine(recorded, scores([0, 1, 2]), split=1)
    opened = [lambda place, _: Campaign(engine, Naive(steps=2), record(place))] * 3
    outcomes = run_chain(opened, start, tmp_path / "chain", kept=3)
    for weights, before in zip(began[1:], outcomes, strict=False):
        handed_over = load_file(read_hand_over(tmp_path / "chain", before.handed_over).path / "model.safetensors")
        assert all(value.equal(weights[name]) for name, value in handed_over.items())
    assert len({outcome.handed_over.path.name for outcome in outcomes}) == 3


class ChangesItsChampion(Naive):
    """Keeps step 1, and after step 3 looks at it once more before it keeps that one."""

    def decide(self, progress, history):
        if progress.step < 3:
            return GoOn(min(progress.step, 1))
        if not any(line["step"] == 1 for line in progress.evals):
            return Evaluate(1, 0, 1)
        return GoOn(3) if progress.step < 4 else Stop(3)


def test_weights_that_a_resumed_campaign_asks_for_again_are_kept(tmp_path, start):
    class KilledError(Exception):
        pass

    def measure(trained, split, part):
        return [["a", 4, 1]]

    class Killed(ChangesItsChampion):
        def decide(self, progress, history):
            if progress.step == 4:
                raise KilledError
            return super().decide(progress, history)

    def saves_at_two(folder, steps, output):
        made = build(folder, steps, output)
        made.args.save_steps = 2
        return made

    run = record(tmp_path / "run")
    engine = TrlEngine(saves_at_two, measure, split=1, every=None)
    with pytest.raises(KilledError):
        run_campaign(engine, Killed(steps=4), start, run)
    run_campaign(engine, ChangesItsChampion(steps=4), start, run)
    assert [(line["step"], line["at"]) for line in run.evals("select")] == [(1, 3)]


def test_a_step_line_has_the_learning_rate_that_crest_reads(tmp_path, start):
    run = record(tmp_path / "run")
    run_campaign(TrlEngine(build, scores([0, 1, 2]), split=1), Naive(steps=2), start, run)
    assert [line["lr"] for line in run.steps()] == pytest.approx([1e-2, 0.5e-2])


def test_every_is_checked():
    with pytest.raises(ValueError, match=r"every is 0; give at least 1"):
        TrlEngine(build, scores([0]), split=1, every=0)
