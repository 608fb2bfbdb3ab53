"""Exceptions whose message is one line: what was wrong, and what would be right.

A `SenetError` is a user's mistake, a `ValueError` in Python and exit code 2 on the command line.
"""

import difflib
import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class SenetError(ValueError):
    """A mistake in what the user asked for or supplied."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows instead of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class UnknownNameError(SenetError):
    """A model, dataset, attention, notebook or format that does not exist."""


class DataError(SenetError):
    """A dataset that is missing, truncated, of the wrong shape or not the one expected."""


class RecipeError(SenetError):
    """A training setting out of range, misspelt or at odds with another."""


class BatchSizeError(RecipeError):
    """A step has too few images for the network's normalisations."""


class RunExistsError(SenetError):
    """The run's folder holds a run of another recipe, or one that is being trained right now."""


class CheckpointError(SenetError):
    """A file that is not a checkpoint of ours, or does not fit the model."""


class RecordError(SenetError):
    """A run record that is missing, incomplete or unreadable."""


class ParameterError(SenetError):
    """A notebook parameter that does not exist or has the wrong type."""


class PluginError(SenetError):
    """A file of the user's own is missing, or failed when it was executed."""


class MissingDependencyError(SenetError):
    """An optional package that the command needs is not installed."""


class NonFiniteLossError(RuntimeError):
    """The loss became infinite or not a number, at a step of an epoch, both counted from 1."""

    def __init__(self, *, epoch: int, step: int) -> None:
        self.epoch, self.step = epoch, step
        super().__init__(
            f"the loss stopped being finite at epoch {epoch}, step {step}; "
            "a lower --lr or --precision fp32 is the usual remedy"
        )


class RunStopped(Exception):  # noqa: N818  (a stop is not an error)
    """The run stopped at a checkpoint, by a limit or a signal; the same call goes on from it."""

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


class OutOfMemoryError(RuntimeError):
    """The machine, its GPU or the limit set for the process has too little memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a CPU or a GPU."""
    words = ("out of memory", "allocate memory", "bad_alloc", "alloc_failed")
    return (
        isinstance(error, (MemoryError, OutOfMemoryError))
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words))
    )


@contextmanager
def failing(what: str) -> Iterator[None]:
    """SenetError, which says what fails and why, where somebody's module raises anything else."""
    try:
        yield
    except Exception as error:
        if isinstance(error, SenetError) or is_out_of_memory(error):
            raise
        raise SenetError(f"{what}: {type(error).__name__}: {one_line(error)}") from error


def unknown(kind: str, name: object, known: Iterable[str], more: str = "") -> UnknownNameError:
    """An `UnknownNameError` that offers the nearest names or, with none near, up to a hundred, and
    ends in what more there is to say."""
    known, near, what = sorted(known), [], f"{kind} is a name, not a {type(name).__name__}"
    if isinstance(name, str):
        what = f"unknown {kind} {name!r}"
        near = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(known) or 'none'}"
    if not near and len(known) > 100:
        hint = f"none of the {len(known):,} that there are is near"
    return UnknownNameError(f"{what}; {hint}{more}")


def need(extra: str, *packages: str) -> None:
    """MissingDependencyError, with the remedy, unless all these packages of an extra are there."""
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        how = f"in a clone: pip install -c constraints.txt -e '.[{extra}]'"
        raise MissingDependencyError(f"{', '.join(missing)} is missing; {how}")


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural unless it is 1."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def one_line(error: BaseException) -> str:
    """The error's text, which may quote all of a damaged file, in a line of 300 characters."""
    text = " ".join(str(error).split())
    return (text if len(text) <= 300 else f"{text[:297]}...") or type(error).__name__
