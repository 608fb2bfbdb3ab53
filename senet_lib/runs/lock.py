"""What keeps a folder whole: one process at a time, and no stop between two steps."""

import errno
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from senet_lib.errors import RunExistsError, RunStopped

LOCK = ".lock"
_NO_FLOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock file against other processes; the system lets go when this one dies.

    On a file system that has no locks the file itself is the lock. It names host and process; of
    one that has died on this host it is taken over.

    Args:
        path: the lock file; missing folders are made, and an empty one is removed afterwards.
        busy: what a RunExistsError says when another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _acquire(path, busy)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is held: who opened it before finds that it is no longer there
        with suppress(OSError):
            lock.release()
        with suppress(OSError):
            path.parent.rmdir()  # only if nothing was written


def _acquire(path: Path, busy: str, kind: type[BaseFileLock] = FileLock) -> BaseFileLock:
    lock = kind(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # filelock tells that it falls back, as is meant
            lock.acquire(timeout=0)
    except Timeout:
        raise RunExistsError(busy + _holder(path)) from None
    except (NotImplementedError, OSError) as error:
        if kind is SoftFileLock or getattr(error, "errno", errno.ENOSYS) not in _NO_FLOCK:
            raise
        with suppress(OSError):
            if path.stat().st_size == 0:  # what the first kind has made to lock it
                path.unlink()
        return _acquire(path, busy, SoftFileLock)
    return lock


def _holder(path: Path) -> str:
    """Which process a lock file names, if it does: one of a file system without locks."""
    with suppress(OSError, ValueError):
        process, host = path.read_text(encoding="utf-8").split()[:2]
        return f" (process {process} on {host}; if that one is gone, remove {path})"
    return ""


@contextmanager
def stop_signals() -> Iterator[list[str]]:
    """Names of the SIGINT, SIGTERM and SIGHUP received; a second SIGINT interrupts at once. Those
    that no RunStopped came of are raised again in the end, for the handlers of before."""
    received: list[str] = []

    def note(number: int, _: object) -> None:
        if number == signal.SIGINT and "SIGINT" in received:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    try:
        with handling(stopping(), note):
            yield received
    except (RunStopped, KeyboardInterrupt):
        received.clear()
        raise
    finally:
        for name in received:
            signal.raise_signal(signal.Signals[name])


@contextmanager
def handling(signals: Iterable[int], handler: Callable[[int, object], None]) -> Iterator[None]:
    """Within, these signals go to a function of their number and the frame; in another thread than
    the first, which alone may ask for them, nothing changes."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in (signals if main else ())}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def stopping() -> list[int]:
    """The signals that ask a process to stop, but for a SIGHUP that it was started to ignore."""
    heard = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if heard else [])]
