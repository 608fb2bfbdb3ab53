"""Train one network with one seed, and leave a run record.

A run can be stopped at any moment, by a time limit, an interrupt or a kill; started again, it goes
on from its last checkpoint and ends with the weights it would have had.
"""

import dataclasses
import hashlib
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from senet_lib import wording
from senet_lib.data.datasets import Dataset, hold_out, load_data, take
from senet_lib.device import Setup, keep_freed_memory, rounding
from senet_lib.errors import (
    CheckpointError,
    NonFiniteLossError,
    OutOfMemoryError,
    RecipeError,
    RunExistsError,
    is_out_of_memory,
)
from senet_lib.evaluation import error_and_loss, predict
from senet_lib.files import partial_name
from senet_lib.models import input_size
from senet_lib.profiling import profile_model
from senet_lib.recipe import Recipe, check_study
from senet_lib.runs import provenance
from senet_lib.runs.lock import LOCK, locked, stop_signals
from senet_lib.runs.records import (
    CHECKED,
    DEFAULT_ROOT,
    FAILED,
    RECORD,
    RunRecord,
    anchored,
    load_run,
    save_history,
    save_logits,
    save_record,
)
from senet_lib.runs.weights import (
    CHECKPOINT,
    DAMAGED,
    PREVIOUS,
    WEIGHTS,
    NetSpec,
    load_checkpoint,
    save_checkpoint,
    save_weights,
)
from senet_lib.training.engine import Engine, EpochResult
from senet_lib.training.progress import watch

PARTIALS = [f"{partial_name(name)}*" for name in (CHECKPOINT, RECORD, *CHECKED)]
LEFT_OVER = (CHECKPOINT, PREVIOUS, DAMAGED, LOCK, *PARTIALS)  # of no use to a finished run


class RunStopped(Exception):  # noqa: N818  (a stop is not an error)
    """The run stopped at a checkpoint before its last epoch; the same call goes on from there.

    Attributes:
        reason: "time limit", or the name of the signal.
        path: the run's folder.
        where: how far it came, in words.
    """

    def __init__(self, *, reason: str, path: Path, where: str = "before its first step") -> None:
        self.reason, self.path, self.where = reason, path, where
        super().__init__(
            f"stopped ({reason}) {where}; what there is of the run is in {path}: run the same "
            "again to go on"
        )

    def _render_traceback_(self) -> list[str]:
        """One line instead of a traceback, in notebooks."""
        why = "Interrupted" if self.reason == "SIGINT" else f"Stopped ({self.reason})"
        return [f"{why} {self.where}. Run this cell again to go on; the run is in {self.path}"]


class Interrupted(KeyboardInterrupt):
    """An interrupt at a moment when no checkpoint can be written, such as a second one."""

    def _render_traceback_(self) -> list[str]:
        """One line instead of a traceback, in notebooks."""
        return [
            "Interrupted at once. Run this cell again to go on from the last checkpoint, if any"
        ]


@contextmanager
def _plainly_interrupted() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted from None


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that is known before the first step."""

    spec: NetSpec
    recipe: Recipe
    seed: int
    data: str
    dataset: Dataset
    num_val: int
    study: str
    protocol: str
    out: Path
    num_params: int
    macs: int

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run; device, precision and speed do not."""
        return {
            "model": self.spec.model,
            "overrides": dict(self.spec.overrides),
            "seed": self.seed,
            "num_val": self.num_val,
            "data_fingerprint": self.dataset.fingerprint,
            **self.recipe.to_dict(),
        }


@dataclass(kw_only=True)
class Position:
    """Where a run stands."""

    epoch: int = 0
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    wall_seconds: float = 0.0
    started: str = ""


@_plainly_interrupted()
def fit(
    *,
    model: str,
    recipe: Recipe | None = None,
    seed: int = 0,
    data: str = "cifar10",
    out: str | Path | None = None,
    study: str | None = None,
    protocol: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    num_val: int = 0,
    device: str = "auto",
    precision: str = "auto",
    compile: str = "auto",
    threads: int = 0,
    test_every: int = 1,
    max_minutes: float | None = None,
    checkpoint_minutes: float = 2.0,
    progress: str = "auto",
    on_epoch: Callable[[list[dict[str, float]], EpochResult], None] | None = None,
) -> RunRecord:
    """Train a network, or go on with it, or return its record if it is finished.

    Args:
        model: registry name.
        recipe: how to train; None for the paper's 300 epochs.
        seed: decides initialisation, order and augmentation; 0 or above.
        data: a dataset's name or path.
        out: the run's folder; None for outputs/runs/<study>/<model>/seed<seed>.
        study: name of the study; None for "paper" when recipe and data are the paper's, and else
            a name made from data and recipe.
        protocol: name the recipe goes by; None for "paper" or "custom".
        overrides: arguments for the model's builder.
        num_val: training images held out, which are evaluated instead of the test set.
        device: auto, cpu or cuda.
        precision: auto, fp32 or bf16.
        compile: auto, on or off.
        threads: CPU threads; 0 for all.
        test_every: epochs between two evaluations, at least 1; the last epoch is always evaluated.
        max_minutes: stop at a checkpoint after so long.
        checkpoint_minutes: longest time between two checkpoints.
        progress: auto, live (bar and curves in a notebook), bar, log or none.
        on_epoch: called after each epoch with the history so far and the epoch's result.
    Returns:
        The record. Its error is that of the last epoch; nothing is selected on test images.
    Raises:
        SenetError: something asked for is wrong; the type says what.
        RunExistsError: the folder holds a run of another recipe, or one being trained now.
        RunStopped: the time limit was reached, or a signal came; call again to go on.
        NonFiniteLossError: the loss diverged.
        OutOfMemoryError: there is too little memory.
        OSError: a file could not be written; `filename` says which. The last checkpoint is whole.
    """
    began = time.perf_counter()
    if max_minutes is not None and not max_minutes > 0:
        raise RecipeError(f"max_minutes is {max_minutes}; it must be above 0")
    if type(test_every) is not int or test_every < 1:
        raise RecipeError(f"test_every is {test_every!r}; it must be a whole number, 1 or above")
    if not checkpoint_minutes >= 0:
        raise RecipeError(f"checkpoint_minutes is {checkpoint_minutes}; it must be 0 or above")
    with stop_signals() as signals:
        job = _plan(
            model, recipe or Recipe(), seed, data, out, study, protocol, overrides or {}, num_val
        )
        if (job.out / RECORD).is_file():
            return _finished(job, precision)
        if signals:
            raise RunStopped(reason=signals[0], path=job.out)
        busy = f"{job.out} is being trained by another process right now"
        with locked(job.out / LOCK, busy), _memory_named(job):
            if (job.out / RECORD).is_file():  # finished while we waited for the folder
                return _finished(job, precision)
            _tidy(job.out, *PARTIALS, FAILED)  # of a process that was killed or has failed
            source = provenance.git_state()  # now: by the end, the checkout may be another
            state = _checkpoint_of(job, precision)
            position = Position(**state["position"]) if state else Position(started=_now())
            if state and precision == "auto":
                precision = state["setup"]["precision"]
            setup = Setup.choose(
                device=device, precision=precision, compile=compile, threads=threads
            )
            keep_freed_memory()
            if setup.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            torch.manual_seed(seed)
            engine = Engine(job.spec.build(), job.dataset, job.recipe, seed, setup)
            if state:
                _take_up(engine, state, job)
            keeper = _Keeper(job, engine, position, signals, began, max_minutes, checkpoint_minutes)
            shown = watch(
                progress,
                epochs=job.recipe.epochs,
                steps=engine.steps_per_epoch,
                batch_size=engine.batch_size,
                split=job.dataset.test_name,
            )

            def after_step(step: int) -> None:
                position.step = step
                shown.advance(step)
                if step < engine.steps_per_epoch:
                    keeper.pause_if_due()

            shown.start(_announcement(job, setup, position), position.history)
            try:
                with rounding(tf32=setup.precision != "fp32"):  # fp32 means fp32, on a GPU too
                    for epoch in range(position.epoch, job.recipe.epochs):
                        shown.start_epoch(epoch + 1, position.step)
                        result = engine.run_epoch(epoch, position.step, after_step)
                        _check_finite(result.step_losses, epoch)
                        last = epoch + 1 == job.recipe.epochs
                        error, loss = float("nan"), float("nan")  # of an epoch not evaluated
                        if last or (epoch + 1) % test_every == 0:
                            shown.start_measuring()
                            error, loss = _evaluate(job, engine, keep=last)
                        speed = engine.images_per_second
                        row = {
                            "epoch": epoch + 1,
                            "lr": result.lr,
                            "train_loss": result.step_losses.double().mean().item(),
                            "train_error": result.train_error,
                            "test_loss": loss,
                            "test_error": error,
                            "images_per_second": float("nan") if speed is None else speed,
                            "wall_seconds": keeper.wall_seconds,
                        }
                        position.history.append(row)
                        position.epoch, position.step = epoch + 1, 0
                        save_history(job.out, position.history)
                        shown.end_epoch(position.history)
                        if on_epoch:
                            on_epoch(position.history, result)
                        if not last:
                            keeper.pause_if_due()
            finally:
                shown.close()
            return _finish(job, engine, position, keeper.wall_seconds, source)


@contextmanager
def _memory_named(job: Job) -> Iterator[None]:
    """Say in one line what there was too little memory for."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"there is too little memory to train {job.spec.model} in {job.out}; a smaller "
            "--batch-size needs less. What was done up to the last checkpoint is kept"
        ) from None


def _tidy(folder: Path, *patterns: str) -> None:
    """Remove what is of no use in a run's folder any more, as far as that is allowed."""
    for path in (path for pattern in patterns for path in folder.glob(pattern)):
        with suppress(OSError):
            path.unlink()


def _evaluate(job: Job, engine: Engine, *, keep: bool) -> tuple[float, float]:
    """Error and loss on the evaluated images; after the last epoch in fp32, and kept."""
    dataset = job.dataset
    precision = "fp32" if keep else engine.setup.precision
    logits = predict(engine.result, dataset.x_test, dataset.mean, dataset.std, precision=precision)
    error, loss = error_and_loss(logits, torch.from_numpy(dataset.y_test).to(logits.device))
    if keep:
        if not (logits.isfinite().all() and math.isfinite(loss)):  # the last step did it
            raise NonFiniteLossError(epoch=job.recipe.epochs, step=engine.steps_per_epoch)
        save_logits(job.out, logits.cpu().numpy(), dataset.y_test)
    return error, loss


class _Keeper:
    """Writes a checkpoint when it is time, and stops the run when a limit or a signal says so."""

    def __init__(
        self, job: Job, engine: Engine, position: Position, signals: list[str], began: float,
        max_minutes: float | None, checkpoint_minutes: float,
    ) -> None:  # fmt: skip
        self.job, self.engine, self.position = job, engine, position
        self.signals, self.began = signals, began
        self.deadline = began + 60 * max_minutes if max_minutes else float("inf")
        self.seconds_between = 60 * checkpoint_minutes
        self.saved_at = time.perf_counter()

    @property
    def wall_seconds(self) -> float:
        """Of this call and those before it."""
        return self.position.wall_seconds + time.perf_counter() - self.began

    def pause_if_due(self) -> None:
        """Raises RunStopped once the checkpoint is written, if the run is to stop."""
        now = time.perf_counter()
        reason = self.signals[0] if self.signals else "time limit" if now > self.deadline else ""
        if not reason and now - self.saved_at < self.seconds_between:
            return
        self.engine.stop_clock()
        position = self.position
        _check_finite(self.engine.step_losses[: position.step], position.epoch)
        save_checkpoint(
            self.job.out / CHECKPOINT,
            {
                "identity": self.job.identity(),
                "spec": self.job.spec.to_dict(),
                "setup": dataclasses.asdict(self.engine.setup),
                "position": dataclasses.asdict(position) | {"wall_seconds": self.wall_seconds},
                "engine": self.engine.state(),
            },
        )
        self.saved_at = time.perf_counter()
        if reason:
            epochs = self.job.recipe.epochs
            where = f"in epoch {position.epoch + 1} of {epochs} after step {position.step}"
            raise RunStopped(reason=reason, path=self.job.out, where=where)
        self.engine.resume_clock()


def _check_finite(losses: torch.Tensor, epoch: int) -> None:
    """Raise NonFiniteLossError for the first step of an epoch (from 0) whose loss is not finite."""
    finite = losses.isfinite()
    if not finite.all():
        raise NonFiniteLossError(epoch=epoch + 1, step=int((~finite).nonzero()[0]) + 1)


def _plan(
    model: str, recipe: Recipe, seed: int, data: str, out: str | Path | None, study: str | None,
    protocol: str | None, overrides: Mapping[str, Any], num_val: int,
) -> Job:  # fmt: skip
    """Load the data and the model, and settle every name; raises before anything is written."""
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise RecipeError(f"seed is {seed!r}; it must be a whole number from 0 to 2**63 - 1")
    channels = input_size(model)[0]
    probe = NetSpec(
        model=model,
        overrides=overrides,
        classes=("",) * 10,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )
    probe.build()  # an unknown name or override ends here, before the data is read
    dataset = load_data(data)
    if num_val:
        dataset = hold_out(dataset, num_val)
    dataset = take(dataset, recipe.train_images)
    spec = dataclasses.replace(
        probe,
        classes=dataset.classes,
        mean=dataset.mean,
        std=dataset.std,
        data=data,
        data_fingerprint=dataset.fingerprint,
        num_val=num_val,
    )
    profile = profile_model(spec.build(), (channels, *dataset.x_train.shape[1:3]))
    paper = recipe == Recipe() and data == "cifar10" and not num_val and not overrides
    protocol = protocol or ("paper" if paper else "custom")
    settings = json.dumps([recipe.to_dict(), dict(overrides), num_val], sort_keys=True)
    tag = hashlib.sha256(settings.encode()).hexdigest()[:6]
    stem = re.sub(r"[^A-Za-z0-9.-]+", "_", Path(data).stem)[:80].lstrip("._-") or "data"
    study = check_study(study or ("paper" if paper else f"{stem}-{tag}"))
    return Job(
        spec=spec,
        recipe=recipe,
        seed=seed,
        data=data,
        dataset=dataset,
        num_val=num_val,
        study=study,
        protocol=protocol,
        out=Path(out) if out else anchored(DEFAULT_ROOT) / study / model / f"seed{seed}",
        num_params=profile.num_params,
        macs=profile.macs,
    )


def _finished(job: Job, precision: str) -> RunRecord:
    """The record in the folder, if it is whole and of the same run."""
    record = load_run(job.out)
    there = {name: getattr(record, name) for name in ("model", "overrides", "seed", "num_val")}
    there |= {"data_fingerprint": record.data_fingerprint, **record.recipe}
    _compare(job, there, record.precision, precision)
    record.verify()
    _tidy(job.out, *LEFT_OVER)  # by a process killed after it had written the record
    return record


def _checkpoint_of(job: Job, precision: str) -> dict[str, Any] | None:
    """The newest whole checkpoint in the folder, if there is one and it is of the same run.

    One that is damaged is named and set aside, and the one before takes its place.
    """
    for name in (CHECKPOINT, PREVIOUS):
        path = job.out / name
        if not path.is_file():
            continue
        try:
            state = load_checkpoint(path)
            there, used = state["identity"], state["setup"]["precision"]
            Position(**state["position"])
        except (CheckpointError, KeyError, TypeError) as error:
            reason = error if isinstance(error, CheckpointError) else f"{path} lacks {error}"
            older = name == CHECKPOINT and (job.out / PREVIOUS).is_file()
            then = "the run goes on from the one before" if older else "the run starts over"
            print(f"note: {reason}; {then}", file=sys.stderr)
            path.replace(job.out / DAMAGED)
            continue
        _compare(job, there, used, precision)
        return state
    return None


def _take_up(engine: Engine, state: Mapping[str, Any], job: Job) -> None:
    """Put the checkpoint's state into the engine; a speed measured elsewhere is not mixed in."""
    try:
        engine.load_state(state["engine"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"the checkpoint in {job.out} does not fit its own run ({reason}); move it away"
        ) from None
    if state["setup"] != dataclasses.asdict(engine.setup):
        engine.timed_images, engine.timed_seconds = 0, 0.0
        print(
            "note: device, compilation or number of threads differ from before the stop, so the "
            "rest rounds differently",
            file=sys.stderr,
        )


def _compare(job: Job, there: Mapping[str, Any], precision_there: str, precision: str) -> None:
    # A record of an older version lacks the fields added since; they had their defaults.
    asked, there = job.identity(), {**Recipe().to_dict(), **there}
    if precision != "auto":
        there, asked = {**there, "precision": precision_there}, {**asked, "precision": precision}
    differing = [name for name in asked if asked[name] != there.get(name)]
    if differing:
        pairs = "; ".join(f"{n}: {there.get(n)} there, {asked[n]} asked" for n in differing[:3])
        raise RunExistsError(
            f"{job.out} holds another run ({pairs}); give another --out or --study, or move it away"
        )


def _finish(
    job: Job,
    engine: Engine,
    position: Position,
    wall_seconds: float,
    source: tuple[str | None, bool | None],
) -> RunRecord:
    """Write weights, history and, last, the record."""
    last = position.history[-1]
    save_history(job.out, position.history)
    save_weights(job.out / WEIGHTS, engine.result, job.spec)
    (commit, dirty), setup = source, engine.setup
    record = RunRecord(
        path=job.out,
        status="finished",
        study=job.study,
        protocol=job.protocol,
        model=job.spec.model,
        overrides=dict(job.spec.overrides),
        seed=job.seed,
        recipe=job.recipe.to_dict(),
        device=setup.device,
        precision=setup.precision,
        compile=setup.compile,
        fused=setup.fused,
        kernels_missing=setup.kernels_missing,
        threads=setup.threads,
        evaluated_on="val" if job.num_val else "test",
        num_val=job.num_val,
        test_error=last["test_error"],
        test_loss=last["test_loss"],
        train_loss=last["train_loss"],
        num_params=job.num_params,
        macs=job.macs,
        images_per_second=engine.images_per_second,
        wall_seconds=wall_seconds,
        peak_memory_mib=provenance.peak_memory_mib(engine.device),
        data=job.data,
        classes=list(job.spec.classes),
        mean=list(job.spec.mean),
        std=list(job.spec.std),
        data_fingerprint=job.dataset.fingerprint,
        git_commit=commit,
        git_dirty=dirty,
        versions=provenance.versions(),
        hardware=provenance.hardware(engine.device),
        started=position.started,
        finished=_now(),
    )
    save_record(record)
    _tidy(job.out, *LEFT_OVER)
    return load_run(job.out)


def _announcement(job: Job, setup: Setup, position: Position) -> str:
    where = f"{wording.device(setup)}, {wording.counted(setup.threads, 'thread')}"
    at = f"; going on in epoch {position.epoch + 1}, step {position.step}" if position.started and (
        position.epoch or position.step
    ) else ""  # fmt: skip
    if setup.kernels_missing:
        at += f"; plain PyTorch, for the kernels cannot be built: {setup.kernels_missing}"
    recipe = job.recipe
    if recipe.lr_policy == "step" and recipe.schedule and recipe.schedule[0] >= recipe.epochs:
        at += f"; the rate stays at {recipe.lr}, for its schedule begins after the last epoch"
    return f"{job.spec.model} seed {job.seed} on {job.data} ({where}) in {job.out}{at}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
