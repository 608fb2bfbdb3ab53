"""A study from the command line: Snakemake does the work, and few lines say how it goes. What has
ended is seen by the files that are there."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from senet_lib.errors import SenetError
from senet_lib.files import read_json
from senet_lib.recipe import Study, load_study
from senet_lib.runs import DEFAULT_ROOT, HISTORY, LOGS, RECORD
from senet_lib.runs.lock import handling, locked, stopping

SECONDS = 2.0  # between two looks
CGROUP, LIMITS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
LIMIT_FILES = ("memory.max", "memory.limit_in_bytes")  # of version 2, and 1


def run_study(config: str | Path, cores: str) -> int:
    """Do what is missing of a study and say how it goes; the same again goes on from there. The
    exit code is Snakemake's, or 128 and the number of the signal that stopped it.

    Raises:
        SenetError: `cores` is neither "all" nor a whole number above 0, or there is no Snakefile.
        RunExistsError: another process is making the study.
    """
    if cores != "all" and not re.fullmatch("0*[1-9][0-9]{0,5}", cores):
        raise SenetError(f"--cores is {cores}; it must be all, or a whole number above 0")
    study = load_study(config)
    if not Path("Snakefile").is_file():
        raise SenetError(f"there is no Snakefile in {Path.cwd()}; go to the top of the clone first")
    busy = f"study {study.study} is being made by another process"
    with locked(LOGS / study.study / ".lock", busy):
        return _follow(_News(study), config, cores)


def _follow(news: "_News", config: str | Path, cores: str) -> int:
    words = [sys.executable, "-m", "snakemake", "--cores", cores, "--configfile", str(config)]
    words += ["--resources", "gpu=1", f"mem_mb={_memory()}"]  # no more runs at a time than fit
    name, total = news.study.study, len(news.folders)
    print(f"{name}: {total} runs; what Snakemake says is in {news.log}", flush=True)
    with news.log.open("w", encoding="utf-8") as file:
        how = {"stdout": file, "stderr": subprocess.STDOUT, "start_new_session": True}

        def stop(number: int, _: object) -> None:
            """As Ctrl-C does: Snakemake takes its locks away, and the runs write a checkpoint."""
            news.stopped.append(number)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)

        # A child of a script's background job would ignore it, too.
        with handling([signal.SIGINT], signal.default_int_handler):
            process = subprocess.Popen(words, env=os.environ | _cache(), **how)
        with handling(stopping(), stop):
            running = True
            while running:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(SECONDS)
                    running = False
                with suppress(OSError):  # nobody reads on, and the study goes on
                    news.tell()
            with suppress(OSError):
                news.clear()
    if news.stopped:
        with suppress(OSError):
            print(f"{name}: stopped; the same command goes on from there", flush=True)
        return 128 + news.stopped[0]
    return _exit_code(process.returncode, news.said(), config)


def _exit_code(code: int, said: str, config: str | Path) -> int:
    """Snakemake's, as a shell has it; of what only its log says, a few lines."""
    if code < 0:
        print(f"Snakemake was killed by signal {-code}", file=sys.stderr)
        return 128 - code
    if code and "LockException" in said:
        raise SenetError(
            "another Snakemake works in this folder, or one was killed; if none does: snakemake "
            f"--unlock --cores 1 --configfile {shlex.quote(str(config))}, and then the same again"
        )
    if code and "jobid:" not in said:
        print("\n".join(said.splitlines()[-8:]), file=sys.stderr)
    return code


def _memory() -> int:
    """MB that there are, or that a container or a job of SLURM has of them."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError, ValueError):
        limits.append(int(os.environ.get("SLURM_MEM_PER_NODE", "0")) * 2**20)
        for line in CGROUP.read_text(encoding="utf-8").splitlines():
            _, kinds, path = line.split(":", 2)
            own = LIMITS / kinds / path.strip("/")  # the limits of those above hold too
            files = [folder / name for folder in (own, *own.parents) for name in LIMIT_FILES]
            texts = [file.read_text(encoding="utf-8").strip() for file in files if file.is_file()]
            limits += [int(text) for text in texts if text.isdigit()]  # the others: no limit
    return min(filter(None, limits)) // 1_000_000


def _cache() -> dict[str, str]:
    """Where Snakemake keeps what it reads again, if its usual folder cannot be written to."""
    usual = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    folder = Path(usual, "snakemake")
    with suppress(OSError):
        if folder.is_absolute():  # which ~ is not where there is no home
            folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return {}
    return {"XDG_CACHE_HOME": os.path.abspath(".snakemake/cache")}


class _News:
    """A line for what has ended since the last look; on a terminal, one more that is written over
    tells of what is being done."""

    def __init__(self, study: Study) -> None:
        self.study, self.live, self.began = study, sys.stdout.isatty(), time.monotonic()
        self.log = LOGS / study.study / "workflow.log"
        self.stopped: list[int] = []  # the signals that have come
        self.folders = {
            (model, seed): DEFAULT_ROOT / study.study / model / f"seed{seed}"
            for model, seed in study.runs
        }
        self.log.unlink(missing_ok=True)
        self.told: set[tuple[str, int]] = set()
        self.told |= self._ended().keys()
        self.epochs_before = sum(map(_epochs, self.folders.values()))

    def tell(self) -> None:
        """Say what is new."""
        for key, line in self._ended().items():
            if key not in self.told:
                self.told.add(key)
                self.clear()
                print(f"{time.strftime('%H:%M')}  {line}", flush=True)
        if self.live:
            print(f"\r\x1b[K{self._status()[:110]}", end="", flush=True)

    def clear(self) -> None:
        """Take the last line away."""
        if self.live:
            print("\r\x1b[K", end="", flush=True)

    def said(self) -> str:
        """What Snakemake has printed; nothing if somebody has removed it."""
        with suppress(OSError):
            return self.log.read_text(encoding="utf-8", errors="replace")
        return ""

    def _finished(self) -> list[tuple[str, int]]:
        return [key for key, folder in self.folders.items() if (folder / RECORD).is_file()]

    def _ended(self) -> dict[tuple[str, int], str]:
        """What has ended, by its file, which is a new one each time, or by its place in the log;
        records that were told are not read again."""
        found, finished = {}, self._finished()
        for model, seed in finished:
            path = self.folders[model, seed] / RECORD
            with suppress(OSError, ValueError, KeyError, TypeError):
                key = str(path), path.stat().st_ino
                if key in self.told:
                    continue
                record = read_json(path)
                found[key] = (
                    f"{model} seed {seed}: {100 * record['test_error']:.2f} % error after "
                    f"{record['wall_seconds'] / 60:.1f} min "
                    f"({len(finished)} of {len(self.folders)})"
                )
        for page in sorted(Path("outputs/reports", self.study.study).glob("[!.]*.html")):
            with suppress(OSError):  # it may be gone by now
                found[str(page), page.stat().st_ino] = f"{page} made"
        said = "" if self.stopped else self.said()  # what was stopped has not failed
        for error in re.finditer(r"Error in rule (\w+)", said):
            found[str(self.log), error.start()] = f"{error[1]} failed; see {self.log.parent}"
        return found

    def _status(self) -> str:
        """Runs and epochs that are done, and how long the others may take."""
        each, finished = self.study.recipe.epochs, self._finished()
        done = {key: _epochs(folder) for key, folder in self.folders.items()}
        here = [f"{m} seed {s} {n}/{each}" for (m, s), n in done.items()
                if n and (m, s) not in finished]  # fmt: skip
        text = f"{len(finished)} of {len(done)} runs; epochs: {', '.join(here) or '-'}"
        new, left = sum(done.values()) - self.epochs_before, len(done) * each - sum(done.values())
        if new > 0 and left:
            minutes = (time.monotonic() - self.began) * left / new / 60
            text += f"; the runs need about {minutes:.0f} min more"
        return text


def _epochs(folder: Path) -> int:
    """Epochs that a run has done, by the rows of its history."""
    with suppress(OSError):
        return max(0, (folder / HISTORY).read_text(encoding="utf-8").count("\n") - 1)
    return 0
