"""Work in the background, part by part, so that a question in between does not wait for its end."""

import contextvars
import threading
import time
from collections.abc import Callable, Hashable, Iterator

BREATH_SECONDS = 0.005  # between two parts, for whoever waits for the lock


class Reader:
    """Does jobs in a thread of its own; a job is an iterator, and each step of it is a part.

    Args:
        guard: called with the function that does one part; it takes the lock and shows errors.
        on_part: called after each part, within the guard, with the job's name and what the part
            gave.
        on_end: called after the last part, likewise, with the job's name.
    """

    def __init__(
        self,
        guard: Callable[[Callable[[], None]], None],
        on_part: Callable[[Hashable, float], None],
        on_end: Callable[[Hashable], None],
    ) -> None:
        self._guard, self._on_part, self._on_end = guard, on_part, on_end
        self._jobs: dict[Hashable, Iterator[float]] = {}
        self._changing = threading.Lock()
        self._thread: threading.Thread | None = None

    def want(self, name: Hashable, start: Callable[[], Iterator[float]]) -> None:
        """Have a job done before the others; `start` is called unless it has begun already."""
        with self._changing:
            job = self._jobs.pop(name, None)
            self._jobs[name] = start() if job is None else job
            if self._thread is None:
                # In the present context, by which a kernel knows what its messages belong to.
                work = contextvars.copy_context().run
                self._thread = threading.Thread(target=work, args=(self._work,), daemon=True)
                self._thread.start()

    def wait(self) -> None:
        """Return when there is nothing left to do."""
        while self._thread is not None:
            time.sleep(BREATH_SECONDS)

    def _work(self) -> None:
        while True:
            with self._changing:
                if not self._jobs:
                    self._thread = None
                    return
            self._guard(self._part)
            time.sleep(BREATH_SECONDS)

    def _part(self) -> None:
        with self._changing:
            name, job = list(self._jobs.items())[-1]
        share = None
        try:
            share = next(job, None)
        finally:
            if share is None:  # at its end, or failed: then it is not tried again by itself
                with self._changing:
                    del self._jobs[name]
        if share is None:
            self._on_end(name)
        else:
            self._on_part(name, share)
