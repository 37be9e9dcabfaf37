"""Campaigns of verl, so that a chain can drive it: `entrostat.campaign.engine.Engine`.

verl's driver runs as a separate process and dies with this one. `verl/campaign.py`, which it loads, reports each step
over a connection on which both ends must prove a key; the bookkeeping stays here. In the run folder:
    checkpoints/        the weights that are kept, in Hugging Face format
    verl/driver.log     what verl's processes wrote
    verl/checkpoints/   verl's own last checkpoint, from which a killed campaign resumes
    verl/kept/          the kept weights in verl's own form; like verl/checkpoints, deleted at the end
A folder that is not ours (`entrostat.runs.ownership`) is never deleted.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any, Literal

from entrostat.campaign import CampaignTrace, Checkpoint
from entrostat.campaign.checkpoints import STATE_FILE, Keeper, verify
from entrostat.campaign.engine import Listener, Order, Plan, Progress
from entrostat.campaign.loop import CampaignLoop, Schedule
from entrostat.campaign.stopping import at_least_one
from entrostat.errors import EntrostatError
from entrostat.grading.kernel import die_with_parent
from entrostat.integrations.peak import keep
from entrostat.integrations.records import step_line
from entrostat.integrations.verl import refuse_trl_beside_verl
from entrostat.runs import Run, RunError
from entrostat.runs.ownership import claim, remove, scratch, seal, sweep

MODULES = "VERL_USE_EXTERNAL_MODULES"
DRIVER = ("-m", "verl.trainer.main_ppo")
PART = f"{__package__}.campaign"
CONTENTS = ("model", "optimizer", "extra")
SAVED = (*CONTENTS, "hf_model")  # in Hugging Face format too
POLL_SECONDS = 1.0
END_SECONDS = 300.0  # within which verl has to end by itself
LINES = 20  # of its output that an error quotes


class VerlError(EntrostatError, RuntimeError):
    """verl's process failed; the message names its log and quotes the end of it."""


class VerlEngine:
    """Runs campaigns with `python -m verl.trainer.main_ppo` and `arguments`, those of verl's command line.

    They set data, batch, lengths, learning rate, trainer mode and so on; the campaign's own settings follow them
    (see `overrides`). A step is one of verl's training steps, which may hold several optimizer steps.

    every, report: see `entrostat.campaign.loop.Schedule`. save_every: verl's training steps between its checkpoints.
    optimizer_steps: what one of verl's training steps counts as in plan, record and `every`. listener: called with
    every line as it is written. modules: modules for verl to load, beside those of VERL_USE_EXTERNAL_MODULES.
    passing: lowest `acc` of a completion that passed, or reward if the reward function gives no acc. host: the address
    to listen on; the name in the cluster if Ray may put verl's driver on another machine. driver: what Python runs.
    ValueError: every or save_every below 1, or another report.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        every: int | None = 1,
        report: Literal["peak", "every"] = "peak",
        save_every: int = 1,
        modules: Sequence[str] = ("entrostat.integrations.verl.trainer",),
        passing: float = 1.0,
        host: str = "127.0.0.1",
        driver: Sequence[str] = DRIVER,
        optimizer_steps: int = 1,
        listener: Listener | None = None,
    ) -> None:
        refuse_trl_beside_verl()
        at_least_one("save_every", save_every)
        at_least_one("optimizer_steps", optimizer_steps)
        self.counted, self.listener = optimizer_steps, listener
        self.arguments, self.schedule, self.save_every = tuple(arguments), Schedule(every, report), save_every
        given = [name for name in os.environ.get(MODULES, "").split(",") if name]
        self.modules = tuple(dict.fromkeys([*modules, *given, PART]))
        self.passing, self.host, self.driver = passing, host, tuple(driver)

    def run(self, start: Checkpoint, plan: Plan, decide: Callable[[Progress], Order], record: Run) -> CampaignTrace:
        """See `Engine.run`. VerlError: verl's process failed. CheckpointError: the start is corrupt. ValueError: the
        plan's budget is not a multiple of `optimizer_steps`.
        """
        if plan.budget % self.counted:
            raise ValueError(
                f"plan: budget is {plan.budget} optimizer steps, and one of verl's training steps has {self.counted}; "
                f"give a multiple of {self.counted}"
            )
        home = record.path / "verl"
        loop = CampaignLoop(record, plan, decide, self.schedule, self.listener)
        if not loop.finished:
            verify(start)
            home.mkdir(exist_ok=True)
            self._train(start, plan, loop, home)
        _forget_but(home, None)
        _forget_kept(home, ())
        for folder in (home / "checkpoints", home / "kept"):
            (folder / "latest_checkpointed_iteration.txt").unlink(missing_ok=True)
            with suppress(OSError):  # missing, or not empty
                folder.rmdir()
        return loop.trace()

    def overrides(self, start: Path, plan: Plan, home: Path, resume: int | None) -> dict[str, Any]:
        """What the campaign sets in verl's configuration; resume: the step to resume from."""
        steps = max(plan.budget // self.counted, 1)
        resumed = {"trainer.resume_mode": "disable"}
        if resume is not None:
            resumed = {
                "trainer.resume_mode": "resume_path",
                "trainer.resume_from_path": quoted(_checkpoint(home, resume // self.counted)),
            }
        checkpoint = "actor_rollout_ref.actor.checkpoint"
        return {
            "actor_rollout_ref.model.path": quoted(start),
            "trainer.total_training_steps": steps,
            "trainer.total_epochs": steps,
            "trainer.default_local_dir": quoted(home / "checkpoints"),
            **resumed,
            "trainer.save_freq": -1,
            "trainer.test_freq": -1,
            "trainer.val_before_train": "false",
            "trainer.max_actor_ckpt_to_keep": "null",
            "trainer.max_critic_ckpt_to_keep": "null",
            f"{checkpoint}.save_contents": f"[{','.join(SAVED)}]",
            f"{checkpoint}.load_contents": f"[{','.join(CONTENTS)}]",
            "hydra.run.dir": quoted(home / "hydra"),
            f"++ray_kwargs.ray_init.runtime_env.env_vars.{MODULES}": quoted(",".join(self.modules)),
            "+trainer.entrostat_campaign.address": quoted(home / "address.json"),
            "+trainer.entrostat_campaign.rate": plan.rate,
            "+trainer.entrostat_campaign.passing": self.passing,
        }

    def _train(self, start: Checkpoint, plan: Plan, loop: CampaignLoop, home: Path) -> None:
        resume = loop.resume.step if loop.resume else None
        if resume is not None and not _checkpoint(home, resume // self.counted).exists():
            resume = None
        _forget_but(home, None if resume is None else resume // self.counted)
        given = self.overrides(start.path.absolute(), plan, home.absolute(), resume)
        command = [sys.executable, *self.driver, *self.arguments, *(f"{key}={value}" for key, value in given.items())]
        environment = {**os.environ, MODULES: ",".join(self.modules), "HYDRA_FULL_ERROR": "1"}
        with _launched(command, environment, home, self, loop.keeper) as verl:
            if verl.began != (resume or 0):
                raise VerlError(f"verl began at step {verl.began}, not at {resume or 0}; see {home / 'driver.log'}")
            loop.run(verl, resume)
            verl.stop()


class _Verl:
    """verl's process and the connection to it: `entrostat.campaign.loop.SteppingHost`."""

    def __init__(self, process: subprocess.Popen[bytes], home: Path, engine: VerlEngine, keeper: Keeper) -> None:
        self.process, self.home, self.keeper = process, home, keeper
        self.counted, self.save_every = engine.counted, engine.save_every
        self.connection: Connection | None = None
        self.split = self.began = 0
        self.measured: tuple[str, ...] = ()
        self._now = scratch(home / "kept")  # where verl keeps the current weights while it uses others

    def meet(self, address: socket.socket, key: bytes) -> None:
        """Wait for the process that knows the key, and receive its first message."""
        address.settimeout(POLL_SECONDS)
        while self.connection is None:
            with suppress(TimeoutError, AuthenticationError, EOFError, ConnectionError):
                connection = Connection(address.accept()[0].detach())
                deliver_challenge(connection, key)
                answer_challenge(connection, key)
                self.connection = connection
            if self.process.poll() is not None:
                raise self._failed()
        greeting = self._receive()
        self.split, self.began = greeting["tasks"], greeting["step"] * self.counted
        self.measured = tuple(greeting["measured"])

    def step(self) -> dict[str, Any]:
        """See `SteppingHost.step`."""
        _forget_but(self.home, self.keeper.resume.step // self.counted if self.keeper.resume else None)
        self._now = scratch(self.home / "kept")
        _forget_kept(self.home, self.keeper.needed)
        self._say({"do": "train"})
        done = self._receive()
        return step_line(done["step"] * self.counted, done["logged"])

    def resumable(self, step: int) -> bool:
        """After every `save_every` of verl's steps."""
        return step > 0 and step // self.counted % self.save_every == 0

    def save_resume_point(self, to: Checkpoint) -> None:
        """Make verl write all that it needs to resume here; `step` deletes its previous checkpoint."""
        folder = _checkpoint(self.home, to.step // self.counted)
        claim(folder)
        self._ask({"do": "checkpoint"})
        seal(folder)
        to.path.mkdir()
        (to.path / STATE_FILE).write_text(json.dumps({"checkpoint": str(folder.relative_to(self.home.parent))}))

    def save(self, to: Checkpoint) -> None:
        """See `Host.save`."""
        native, written = self._native(to.step), scratch(self.home / "kept")
        self._ask({"do": "save", "folder": str(written.absolute())})
        seal(written)
        if native.exists() and not remove(native):
            raise RunError(f"{native}: exists and was not made here; move it to another place")
        written.rename(native)
        keep(native / "huggingface", to.path)
        if not any(to.path.glob("*.safetensors")):
            raise VerlError(
                f"verl wrote no *.safetensors to {native / 'huggingface'}; see what hf_model in "
                "actor.checkpoint.save_contents does with this engine and model"
            )

    def evaluate(self, split: str, part: slice, weights: Checkpoint | None) -> Mapping[str, Any]:
        """See `Host.evaluate`."""
        native = None if weights is None else str(self._native(weights.step).absolute())
        order = {"split": split, "first": part.start or 0, "last": part.stop, "weights": native}
        return {"results": self._ask({"do": "evaluate", **order, "now": str(self._now.absolute())})}

    def stop(self) -> None:
        """End verl."""
        self._say({"do": "stop"})
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(END_SECONDS)

    def _native(self, step: int) -> Path:
        return self.home / "kept" / f"step-{step:06d}"

    def _ask(self, order: Mapping[str, Any]) -> Any:
        self._say(order)
        return self._receive()["done"]

    def _say(self, order: Mapping[str, Any]) -> None:
        assert self.connection is not None
        with suppress(OSError):  # the cause is received next
            self.connection.send_bytes(json.dumps(order).encode())

    def _receive(self) -> dict[str, Any]:
        assert self.connection is not None
        try:
            while not self.connection.poll(POLL_SECONDS):
                if self.process.poll() is not None:
                    raise self._failed()
            message: dict[str, Any] = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._failed() from error
        return message

    def _failed(self) -> VerlError:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10 * POLL_SECONDS)
        log = self.home / "driver.log"
        last = log.read_text(errors="replace").splitlines()[-LINES:]
        status = self.process.returncode
        ended = "lost its connection" if status is None else f"ended with exit status {status}"
        return VerlError("\n".join([f"verl {ended}; its output is in {log}, and ends with:", *last]))


@contextmanager
def _launched(
    command: Sequence[str], environment: Mapping[str, str], home: Path, engine: VerlEngine, keeper: Keeper
) -> Iterator[_Verl]:
    """verl's process, in a session of its own, and the connection to it; both are closed afterwards."""
    key, address = secrets.token_bytes(32), home / "address.json"
    with socket.create_server((engine.host, 0)) as server, (home / "driver.log").open("ab") as log:
        address.unlink(missing_ok=True)
        with open(os.open(address, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({"host": engine.host, "port": server.getsockname()[1], "key": key.hex()}, file)
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=partial(die_with_parent, signal.SIGKILL),
        )
        verl = _Verl(process, home, engine, keeper)
        try:
            verl.meet(server, key)
            yield verl
        finally:
            if verl.connection is not None:
                verl.connection.close()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            address.unlink(missing_ok=True)


def _checkpoint(home: Path, step: int) -> Path:
    """The folder of verl's checkpoint of one of its steps."""
    return home / "checkpoints" / f"global_step_{step}"


def _forget_but(home: Path, step: int | None) -> None:
    """Delete verl's checkpoints of other steps, and leftovers of a killed process."""
    for folder in (home / "checkpoints").glob("global_step_*"):
        if folder.name != f"global_step_{step}":
            remove(folder)
    sweep(home / "kept")


def _forget_kept(home: Path, steps: Collection[int]) -> None:
    """Delete verl's form of the weights of all steps but these."""
    sweep(home / "kept")
    for folder in (home / "kept").glob("step-*"):
        if folder.name not in {f"step-{step:06d}" for step in steps}:
            remove(folder)


def quoted(value: Path | str) -> str:
    """Any text as a string of hydra's grammar."""
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
