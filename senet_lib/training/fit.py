"""Train one network with one seed, and leave a run record.

A run can be stopped at any moment, by a time limit, an interrupt or a kill; started again, it goes
on from its last checkpoint and ends with the weights it would have had: on a CPU bit for bit, on a
GPU as nearly as cuDNN repeats itself.
"""

import dataclasses
import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from senet_lib import errors
from senet_lib.device import KEEP_PEAKS, Setup, computed_on, keep_freed_memory, rounding
from senet_lib.evaluation import error_and_loss, predict
from senet_lib.recipe import Recipe, check_study
from senet_lib.runs import provenance, records
from senet_lib.runs.lock import LOCK, locked, stop_signals
from senet_lib.runs.records import RECORD, RunRecord
from senet_lib.runs.weights import CHECKPOINT, WEIGHTS, save_checkpoint, save_weights
from senet_lib.training import plan
from senet_lib.training.engine import Engine, EpochResult
from senet_lib.training.plan import LEFT_OVER, PARTIALS, Job, Position, make_job, tidy
from senet_lib.training.progress import watch

KEPT = ("study", "protocol", "seed", "num_params", "macs", "plugins")  # of a job, in its record


class Interrupted(KeyboardInterrupt):
    """An interrupt at a moment when no checkpoint can be written, such as a second one."""

    def _render_traceback_(self) -> list[str]:
        """One line instead of a traceback, in notebooks."""
        return ["Interrupted at once. Run this cell again to go on from a checkpoint, if any"]


@contextmanager
def _plainly_interrupted() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted from None


@_plainly_interrupted()
def fit(
    *,
    model: str,
    recipe: Recipe | None = None,
    seed: int = 0,
    data: str | Path = "cifar10",
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
    on_epoch: Callable[[list[dict[str, float]], EpochResult, Path], None] | None = None,
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
        device: auto, cpu, cuda, mps or xpu.
        precision: auto, fp32 or bf16.
        compile: auto, on or off.
        threads: CPU threads; 0 for all.
        test_every: epochs between two evaluations, at least 1; the last epoch is always evaluated.
        max_minutes: stop at a checkpoint after so long.
        checkpoint_minutes: longest time between two checkpoints.
        progress: auto, live (bar and curves in a notebook), bar, log or none.
        on_epoch: called after each epoch with the history so far, the epoch's result and the run's
            folder.
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
        raise errors.RecipeError(f"max_minutes is {max_minutes}; it must be above 0")
    check_study(test_every, "test_every")
    if not checkpoint_minutes >= 0:
        raise errors.RecipeError(
            f"checkpoint_minutes is {checkpoint_minutes}; it must be 0 or above"
        )
    with stop_signals() as signals:
        job = make_job(
            model, recipe or Recipe(), seed, data, out, study, protocol, overrides or {}, num_val
        )
        if (job.out / RECORD).is_file():
            return plan.finished(job, precision)
        if signals:
            raise errors.RunStopped(reason=signals[0], path=job.out)
        busy = f"{job.out} is being trained by another process right now"
        with locked(job.out / LOCK, busy), _need_named(job):
            if (job.out / RECORD).is_file():  # finished while we waited for the folder
                return plan.finished(job, precision)
            tidy(job.out, *PARTIALS, records.FAILED)  # of a process that was killed or has failed
            source = provenance.git_state()  # now: by the end, the checkout may be another
            state = plan.checkpoint_of(job, precision)
            position = Position(**state["position"]) if state else Position(started=_now())
            if state and precision == "auto":
                precision = state["setup"]["precision"]
            wanted = {"device": device, "compile": compile, "threads": threads}
            setup = Setup.choose(precision=precision, **wanted)
            keep_freed_memory()
            gc.collect()  # an engine refers to itself, and one of before would count
            if setup.device in KEEP_PEAKS:
                torch.accelerator.reset_peak_memory_stats()
            torch.manual_seed(seed)
            engine = Engine(job.spec.build(), job.dataset, job.recipe, seed, setup)
            if state:
                plan.take_up(engine, state, job)
            keeper = _Keeper(job, engine, position, signals, began, max_minutes, checkpoint_minutes)
            size = {"steps": engine.steps_per_epoch, "batch_size": engine.batch_size}
            split = job.dataset.test_name
            shown = watch(progress, epochs=job.recipe.epochs, split=split, **size)

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
                        records.save_history(job.out, position.history)
                        shown.end_epoch(position.history)
                        if on_epoch:
                            on_epoch(position.history, result, job.out)
                        if not last:
                            keeper.pause_if_due()
            finally:
                shown.close()
            return _finish(keeper, source)


@contextmanager
def _need_named(job: Job) -> Iterator[None]:
    """Say in one line what there was too little memory for, or too small a batch."""
    try:
        yield
    except (MemoryError, RuntimeError, ValueError) as error:
        if "more than 1 value per channel" in str(error):  # as PyTorch says it
            raise errors.BatchSizeError(
                f"{job.spec.network} normalises maps of a single pixel here, so that a step needs "
                "more than one image: a batch_size above 1, and as many training images"
            ) from None
        if not errors.is_out_of_memory(error):
            raise
        raise errors.OutOfMemoryError(
            f"there is too little memory to train {job.spec.network} in {job.out}; a smaller "
            "--batch-size needs less. What was done up to the last checkpoint is kept"
        ) from None


def _evaluate(job: Job, engine: Engine, *, keep: bool) -> tuple[float, float]:
    """Error and loss on the evaluated images; after the last epoch in fp32, and kept."""
    dataset = job.dataset
    precision = "fp32" if keep else engine.setup.precision
    logits = predict(engine.result, dataset.x_test, dataset.mean, dataset.std, precision=precision)
    error, loss = error_and_loss(logits, torch.from_numpy(dataset.y_test).to(logits.device))
    if keep:
        if not (logits.isfinite().all() and math.isfinite(loss)):  # the last step did it
            raise errors.NonFiniteLossError(epoch=job.recipe.epochs, step=engine.steps_per_epoch)
        records.save_logits(job.out, logits.cpu().numpy(), dataset.y_test)
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
            raise errors.RunStopped(reason=reason, path=self.job.out, where=where)
        self.engine.start_clock()


def _check_finite(losses: torch.Tensor, epoch: int) -> None:
    """Raise NonFiniteLossError for the first step of an epoch (from 0) whose loss is not finite."""
    finite = losses.isfinite()
    if not finite.all():
        raise errors.NonFiniteLossError(epoch=epoch + 1, step=int((~finite).nonzero()[0]) + 1)


def _finish(keeper: _Keeper, source: tuple[str | None, bool | None]) -> RunRecord:
    """Write weights and, last, the record; logits and history are there."""
    job, engine, wall_seconds = keeper.job, keeper.engine, keeper.wall_seconds
    last = keeper.position.history[-1]
    save_weights(job.out / WEIGHTS, engine.result, job.spec)
    record = RunRecord(
        path=job.out,
        status="finished",
        **{k: getattr(job, k) for k in KEPT},
        **job.spec.to_dict(),
        **dataclasses.asdict(engine.setup),
        **{k: last[k] for k in ("test_error", "test_loss", "train_loss")},
        recipe=job.recipe.to_dict(),
        evaluated_on=job.dataset.test_name,
        images_per_second=engine.images_per_second,
        wall_seconds=wall_seconds,
        peak_memory_mib=provenance.peak_memory_mib(engine.device),
        git_commit=source[0],
        git_dirty=source[1],
        versions=provenance.versions(),
        hardware=provenance.hardware(engine.device),
        started=keeper.position.started,
        finished=_now(),
    )
    records.save_record(record)
    tidy(job.out, *LEFT_OVER)
    return records.load_run(job.out)


def _announcement(job: Job, setup: Setup, position: Position) -> str:
    where = f"{computed_on(setup)}, {errors.counted(setup.threads, 'thread')}"
    begun = position.epoch or position.step
    at = f"; going on in epoch {position.epoch + 1}, step {position.step}" if begun else ""
    if setup.kernels_missing:
        at += f"; plain PyTorch, for nothing can be compiled: {setup.kernels_missing}"
    recipe = job.recipe
    if recipe.lr_policy == "step" and recipe.schedule and recipe.schedule[0] >= recipe.epochs:
        at += f"; the rate stays at {recipe.lr}, for its schedule begins after the last epoch"
    return f"{job.spec.network} seed {job.seed} on {job.spec.data} ({where}) in {job.out}{at}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
