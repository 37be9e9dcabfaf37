"""A study on one machine or on Ray: each chain in its own process and resumable; and what a chain will need."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from entrostat.campaign import Campaign, CampaignOutcome, Checkpoint
from entrostat.campaign.chain import OUTCOME, campaign_folder, run_chain
from entrostat.campaign.checkpoints import model_source
from entrostat.campaign.database import chain_folder, write_results
from entrostat.campaign.engine import Listener
from entrostat.campaign.single import AFTER_ROLL_BACK
from entrostat.engine.policy import DTYPES, EMBEDDED, PolicyError, embedded_folder
from entrostat.engine.train import judging, open_campaign, quieten_libraries, starting_point
from entrostat.errors import EntrostatError
from entrostat.grading.kernel import die_with_parent
from entrostat.recipe import Recipe, StudyRecipe
from entrostat.recipe.task_sets import TaskSplits
from entrostat.runs import RunError, atomic_write

Job = tuple[str, int]  # method, seed
POLL_SECONDS = 0.5
RETRIES = 3  # of a Ray task whose worker died


class StudyError(EntrostatError, RuntimeError):
    """Chains of a study failed; the message has one line per chain, with its cause."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a study is. done, total: optimizer steps; those that a finished campaign did not need count as done."""

    done: int
    total: int
    chains_done: int
    chains: int


def jobs(study: StudyRecipe) -> list[Job]:
    """The chains of a study, seed by seed, so that the methods can be compared before all seeds are done."""
    return [(method, seed) for seed in study.seeds for method in study.methods]


def run_study(
    study: StudyRecipe,
    out: str | Path,
    *,
    workers: int = 1,
    ray: bool = False,
    progress: Callable[[Standing], None] = lambda _: None,
) -> Path:
    """Run the chains of a study that have not been run, and write their results; returns the SQLite file.

    out: the study's folder. workers: chains at a time, each in a process on this machine, or, with `ray`, as tasks of
    a Ray cluster whose nodes see the folder.
    Raises StudyError if chains failed: the others are finished, and the same call resumes the failed ones. RunError:
    `out` holds something that is not a study.
    """
    folder = Path(out)
    _begin(study, folder)
    todo = jobs(study)
    write_results(folder, todo)
    faults: list[str] = []
    spread = _on_ray(study, folder, todo) if ray else _in_processes(study, folder, todo, workers)
    for ended in spread:
        if ended is not None:
            (method, seed), fault = ended
            write_results(folder, [(method, seed)])
            faults += [f"{method}, seed {seed}: {fault}"] if fault else []
        progress(standing(study, folder))
    if faults:
        raise StudyError("\n".join(faults))
    return folder / "results.sqlite"


def run_one(
    study: StudyRecipe, method: str, seed: int, out: Path, listener: Listener | None = None
) -> list[CampaignOutcome]:
    """Run one chain of a study in this process, or resume it.

    Raises PolicyError, IsolationError and RunError before anything is written, and later CheckpointError and
    TrainingError; earlier files stay intact.
    """
    recipes = [study.recipe(method, seed, number) for number in range(study.campaigns)]
    start = starting_point(recipes[0])
    with judging(recipes[0]) as grader:

        def opened(recipe: Recipe, place: Path, begin: Checkpoint) -> Campaign:
            return open_campaign(recipe, TaskSplits.of(recipe.tasks), grader, place, begin, listener)

        campaigns = [partial(opened, recipe) for recipe in recipes]
        return run_chain(campaigns, start, chain_folder(out, method, seed), kept=study.kept)


def standing(study: StudyRecipe, out: Path) -> Standing:
    """How far a study is, from its folder."""
    total = done = chains_done = 0
    for method, seed in jobs(study):
        steps = study.steps[method]
        chain = chain_folder(out, method, seed)
        total += steps * study.campaigns
        for number in range(study.campaigns):
            place = campaign_folder(chain, number)
            if (place / OUTCOME).exists():
                done += steps
                chains_done += number == study.campaigns - 1
            else:
                logs = (place / "steps.jsonl", place / AFTER_ROLL_BACK / "steps.jsonl")
                done += sum(log.read_bytes().count(b"\n") for log in logs if log.exists())
                break
    return Standing(done, total, chains_done, len(study.seeds) * len(study.methods))


def _begin(study: StudyRecipe, out: Path) -> None:
    """Write the study's recipe; methods, seeds and campaigns may have been added since the last time."""
    file = out / "study.json"
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not _is_study(file))):
        raise RunError(f"{out}: holds something that is not a study; choose another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(file, json.dumps(study.model_dump(mode="json"), indent=1).encode() + b"\n")


def _is_study(file: Path) -> bool:
    """Whether `file` is a study's recipe as `_begin` writes it, of this version or an earlier one."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"name", "base", "methods", "seeds", "campaigns"} <= set(content)


Ended = tuple[Job, str | None] | None


def _in_processes(study: StudyRecipe, out: Path, todo: Sequence[Job], workers: int) -> Iterator[Ended]:
    """Each chain in a fresh process, `workers` at a time; yields one that has ended, or None while all are running."""
    context = multiprocessing.get_context("spawn")
    waiting = list(todo)
    running: dict[Job, tuple[Any, Any]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop(0)
                inbox, outbox = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(study, *job, out, outbox), daemon=False)
                process.start()
                outbox.close()
                running[job] = process, inbox
            for job, (process, inbox) in list(running.items()):
                process.join(POLL_SECONDS / len(running))
                if process.exitcode is not None:
                    del running[job]
                    yield job, _fault(process.exitcode, inbox)
            yield None
    finally:
        for process, _ in running.values():
            process.terminate()
            process.join()


def _fault(code: int, inbox: Any) -> str | None:
    """What went wrong in a process that ended with `code`; None if nothing did."""
    if code == 0:
        return None
    try:
        if inbox.poll():
            return str(inbox.recv())
    except EOFError:
        pass
    cause = signal.Signals(-code).name if code < 0 else f"status {code}"
    return f"its process ended with {cause}; run it again to resume"


def _child(study: StudyRecipe, method: str, seed: int, out: Path, outbox: Any) -> None:
    """A chain's process: it dies with the process that started it, so that no orphan locks the run folder."""
    die_with_parent(signal.SIGKILL)
    if os.getppid() == 1:
        os._exit(1)
    quieten_libraries()
    try:
        run_one(study, method, seed, out)
    except KeyboardInterrupt:
        os._exit(130)
    except Exception as error:
        outbox.send(f"{error}" if str(error) else type(error).__name__)
        os._exit(1)


def _on_ray(study: StudyRecipe, out: Path, todo: Iterable[Job]) -> Iterator[Ended]:
    """Each chain as a Ray task. One whose worker is preempted or dies is started again, and resumes."""
    try:
        import ray
    except ImportError as error:
        raise StudyError("ray is not installed; pip install 'entrostat[ray]', or omit --ray") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)

    def task(job: Job) -> str | None:
        quieten_libraries()
        try:
            run_one(study, *job, out.resolve())
        except Exception as error:
            return str(error) or type(error).__name__
        return None

    remote = ray.remote(task)
    needs = {job: _resources(study.recipe(*job, 0)) for job in todo}
    pending = {remote.options(**needs[job], max_retries=RETRIES).remote(job): job for job in needs}
    while pending:
        ended, _ = ray.wait(list(pending), timeout=2 * POLL_SECONDS)
        for reference in ended:
            job = pending.pop(reference)
            try:
                fault = ray.get(reference)
            except ray.exceptions.RayError as error:
                why = " ".join(str(error).split())
                fault = f"its task failed {RETRIES + 1} times ({type(error).__name__}: {why}); run it again to resume"
            yield job, fault
        yield None


def _resources(recipe: Recipe) -> dict[str, int]:
    """What Ray reserves for a chain: a CPU per thread, and a GPU where the policy is on one.

    Raises StudyError for a GPU by number, because Ray chooses it.
    """
    device = recipe.policy.device
    if ":" in device:
        raise StudyError(f"policy.device: got {device!r}, but with --ray Ray chooses the GPU; set it to 'cuda'")
    return {"num_cpus": recipe.threads or 1, "num_gpus": int(device == "cuda")}


def estimate(study: StudyRecipe, method: str) -> dict[str, Any]:
    """Upper bounds for one chain of a method: no campaign stops early, every completion has the full length.

    memory: weights, gradients and the two moments of AdamW (SGD has none) in the policy's dtype, for a model whose
    folder exists or whose name states its size (as in Qwen2.5-3B); "?" for others. Activations and the key-value cache
    are not included.
    """
    recipe = study.recipe(method, study.seeds[0], 0)
    steps = recipe.campaign.steps * study.campaigns
    batches = -(-recipe.campaign.steps // recipe.update.steps_per_batch) * study.campaigns
    training = batches * recipe.rollout.prompts * recipe.rollout.samples
    every = recipe.evaluation.every
    per_campaign = 1 + recipe.campaign.steps // every if every else 4
    split = {"select": recipe.tasks.select * per_campaign, "report": recipe.tasks.report * per_campaign}
    if recipe.evaluation.report == "peak":
        split["report"] = recipe.tasks.report * 3
    evaluation = sum(split.values()) * recipe.evaluation.samples * study.campaigns
    parameters = parameter_count(recipe.policy.path)
    width = DTYPES[recipe.policy.dtype].itemsize
    copies = 4 if recipe.update.optimizer == "adamw" else 2
    gigabytes = None if parameters is None else copies * width * parameters / 2**30
    return {
        "method": method,
        "campaigns": study.campaigns,
        "steps": steps,
        "training completions": training,
        "evaluation completions": evaluation,
        "tokens": (training + evaluation) * recipe.rollout.max_new_tokens,
        "memory": "?" if gigabytes is None else f"{gigabytes:.2f} GiB",
    }


def parameter_count(path: str) -> int | None:
    """Number of weights of a model, from its folder's safetensors headers or its name (Qwen2.5-7B, gemma-3-270m).

    PolicyError: a file is cut off or not a safetensors file.
    """
    folder = embedded_folder() if path == EMBEDDED else Path(model_source(path))
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if files:
        return sum(_elements(file) for file in files)
    for part in path.replace("_", "-").split("-"):
        unit = {"b": 10**9, "m": 10**6}.get(part[-1:].lower())
        if unit and part[:-1].replace(".", "", 1).isdigit():
            return round(float(part[:-1]) * unit)
    return None


def _elements(file: Path) -> int:
    try:
        with safe_open(file, "numpy") as tensors:
            return sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise PolicyError(f"policy.path: {file} cannot be read ({error}); give a whole checkpoint") from error
