"""What keeps a run's folder whole: one process at a time, and no stop between two steps."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from senet_lib.errors import RunExistsError

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder against a second run; the system lets go when the process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        if not _try_lock(file) or not _is_at(file, folder / LOCK):
            raise RunExistsError(f"{folder} is being trained by another process right now")
        for left_over in folder.glob(".*.partial"):  # of a process killed while it wrote
            left_over.unlink(missing_ok=True)
        try:
            yield
        finally:
            with suppress(OSError):
                (folder / LOCK).unlink()
                folder.rmdir()  # only if nothing was written


def _try_lock(file: IO[str]) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: no advisory locks; two runs in one folder go unnoticed there
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks; two runs in one folder go unnoticed there
        return True
    return True


def _is_at(file: IO[str], path: Path) -> bool:
    """False when another run has ended and taken the file away since it was opened."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


@contextmanager
def stop_signals() -> Iterator[list[str]]:
    """Names of the SIGINT and SIGTERM received; a second SIGINT interrupts at once."""
    received: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, frame: object) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
