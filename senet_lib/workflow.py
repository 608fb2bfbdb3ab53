"""A study from the command line: Snakemake does the work, and few lines say how it goes.

What Snakemake itself prints goes into outputs/logs/<study>/workflow.log.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO

from senet_lib.files import read_json
from senet_lib.recipe import Study, load_study
from senet_lib.runs.records import DEFAULT_ROOT, HISTORY, RECORD

SECONDS = 2.0  # between two looks at what the runs have written
# What Snakemake says of a job: its rule, its number, its wildcards, its end.
_RULE = re.compile(r"(?:local)?(?:rule|checkpoint) (\w+):")
_JOB = re.compile(r"    jobid: (\d+)")
_WILDCARDS = re.compile(r"    wildcards: (.*)")
_DONE = re.compile(r"Finished jobid: (\d+)")
_ERROR = re.compile(r"Error in rule (\w+)")


def run_study(config: str | Path, cores: str) -> int:
    """Do what is missing of a study and say how it goes; the same again goes on from there. The
    exit code is Snakemake's."""
    study = load_study(config)
    log = Path("outputs/logs") / study.study / "workflow.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "snakemake", "--cores", cores, "--configfile", str(config)]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1_000_000
    words += ["--resources", "gpu=1", f"mem_mb={memory}"]  # no more runs at a time than fit
    print(f"{study.study}: {_total(study)} runs; what Snakemake says is in {log}", flush=True)
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            started = _follow(process, file, study)
            code = process.wait()
        except KeyboardInterrupt:  # Snakemake has it too, and lets the runs write a checkpoint
            code = process.wait() or 130
            started = True
        finally:
            signal.signal(signal.SIGTERM, before)
    if code and not started:
        print("\n".join(log.read_text(encoding="utf-8").splitlines()[-8:]), file=sys.stderr)
    return code


def _follow(process: subprocess.Popen, file: IO[str], study: Study) -> bool:
    """Keep every line and say what it means, until there are no more; whether any job began."""
    lines: SimpleQueue[str | None] = SimpleQueue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    jobs: dict[str, tuple[str, dict[str, str]]] = {}
    status, began, looked = _Status(study), time.monotonic(), 0.0
    rule = number = ""
    while True:
        with suppress(Empty):
            line = lines.get(timeout=0.2)
            if line is None:
                break
            file.write(line)
            file.flush()
            if found := _RULE.match(line):
                rule = found[1]
            elif found := _JOB.match(line):
                number = found[1]
                jobs.setdefault(number, (rule, {}))
            elif (found := _WILDCARDS.match(line)) and number in jobs:
                pairs = (pair.split("=", 1) for pair in found[1].split(", "))
                jobs[number] = rule, dict(pairs)
            elif (found := _DONE.match(line)) and found[1] in jobs:
                status.say(_ended(study, *jobs[found[1]]))
            elif found := _ERROR.match(line):
                status.say(f"{found[1]} failed; see outputs/logs/{study.study}")
        if time.monotonic() - looked > SECONDS:
            looked = time.monotonic()
            status.show(looked - began)
    status.clear()
    return bool(jobs)


def _read(stream: IO[str], lines: SimpleQueue) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _ended(study: Study, rule: str, about: dict[str, str]) -> str:
    """What is said of a job that has ended well."""
    if rule != "train":
        which = [f"{key} {value}" for key, value in about.items()]
        return " ".join([rule, *which, "made"]) if rule != "all" else ""
    with suppress(OSError, ValueError, KeyError, TypeError):
        record = read_json(_folder(study, about["model"], about["seed"]) / RECORD)
        return (
            f"{about['model']} seed {about['seed']}: {100 * record['test_error']:.2f} % error "
            f"after {record['wall_seconds'] / 60:.1f} min ({_finished(study)} of {_total(study)})"
        )
    return ""


class _Status:
    """A last line that is written over, where there is a terminal, below lines that stay."""

    def __init__(self, study: Study) -> None:
        self.study, self.live = study, sys.stdout.isatty()
        self.done_before = sum(epochs for *_, epochs in _epochs(study))

    def say(self, text: str) -> None:
        if text:
            self.clear()
            print(f"{time.strftime('%H:%M')}  {text}", flush=True)

    def show(self, seconds: float) -> None:
        if not self.live:
            return
        epochs = list(_epochs(self.study))
        total, done = len(epochs) * self.study.recipe.epochs, sum(n for *_, n in epochs)
        here = [f"{m} seed {s} {n}/{self.study.recipe.epochs}" for m, s, n in epochs
                if n > 0 and not (_folder(self.study, m, s) / RECORD).is_file()]  # fmt: skip
        text = f"{_finished(self.study)} of {len(epochs)} runs; epochs: {', '.join(here) or '-'}"
        if self.done_before < done < total:
            left = seconds * (total - done) / (done - self.done_before) / 60
            text += f"; the runs need about {left:.0f} min more"
        print(f"\r\x1b[K{text[:110]}", end="", flush=True)

    def clear(self) -> None:
        if self.live:
            print("\r\x1b[K", end="", flush=True)


def _folder(study: Study, model: str, seed: int | str) -> Path:
    return DEFAULT_ROOT / study.study / model / f"seed{seed}"


def _total(study: Study) -> int:
    return len(study.models) * len(study.seeds)


def _finished(study: Study) -> int:
    return sum((_folder(study, m, s) / RECORD).is_file() for m, s in _runs(study))


def _runs(study: Study) -> Iterator[tuple[str, int]]:
    return product(study.models, study.seeds)


def _epochs(study: Study) -> Iterator[tuple[str, int, int]]:
    """Network, seed and epochs done of each run, by the rows of its history."""
    for model, seed in _runs(study):
        rows = 0
        with suppress(OSError):
            text = (_folder(study, model, seed) / HISTORY).read_text(encoding="utf-8")
            rows = max(0, text.count("\n") - 1)
        yield model, seed, rows
