"""The runs of one study: those that may be compared, and what became of the others.

Runs are compared only when recipe, data and evaluated images are the same. Every other run, and
every run the settings ask for and that is not there, is a `Problem` with the command that mends it.
"""

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path

from senet_lib import plugins, strict_yaml
from senet_lib.data.datasets import NAMES, load_data
from senet_lib.errors import RecordError, SenetError, unknown
from senet_lib.files import anchored
from senet_lib.recipe import MACHINE, Recipe, Settings, Study, load_settings, load_study
from senet_lib.runs import DEFAULT_ROOT, LOGS, PUBLISHED, records
from senet_lib.runs.records import RunRecord, but_published, check_records, from_top, runs_folder


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A run that is not in the comparison, or all that are missing of one network."""

    model: str  # registry name
    seeds: tuple[int, ...]  # its seed, or theirs; empty where the folder does not say
    state: str  # missing, unfinished, failed, damaged or set aside
    reason: str = ""  # what is known about it
    command: str = ""  # what to type to get it; empty where nothing needs to be done
    files: Sequence[Path] = ()  # what there is to look at


@dataclass(frozen=True, kw_only=True)
class StudyRuns:
    """What a study has given so far."""

    study: str  # its name
    runs: Sequence[RunRecord]  # finished, of one recipe, data and split, by network and seed
    problems: Sequence[Problem]  # the other runs
    settings: Study | None  # what the study asks for, if that is known
    page_folder: Path  # folder of the page, which links start from
    scores_folder: Path  # where the scores of maps and gates lie

    @property
    def num_wanted(self) -> int:
        """Runs the settings ask for; without settings, those of which anything is there."""
        if self.settings:
            return len(self.settings.runs)
        return len(self.runs) + len(self.problems)


def collect(
    study: str = "",
    config: str = "",
    runs_root: str | Path = DEFAULT_ROOT,
    page_folder: str | Path = "",
    logs_root: str | Path = LOGS,
) -> StudyRuns:
    """Find the runs of a study.

    Args:
        study: its name; may be empty when `config` is given.
        config: path of the study's settings, or the settings themselves as YAML; empty: whatever
            is found counts, and nothing is missing.
        runs_root, logs_root: folders of the studies' folders and of their logs. Without settings,
            where the default folder has nothing of the study, its published runs are taken.
        page_folder: where the page will be, and where scores of maps and gates lie; empty:
            outputs/reports/<study>, and for the published runs the scores of their report.
    Raises:
        RecordError: no study is named, or another than the settings', or without settings, the
            folder mixes recipes or data.
    """
    if settings := _read_settings(config) if config else None:
        settings.check_models()
    if settings and study not in ("", settings.study):
        raise RecordError(f"the config is of study {settings.study}, not {study}")
    study = study or (settings.study if settings else "")
    if not study:
        raise RecordError("name a study, such as study=smoke, or its config")
    root = runs_folder(runs_root, "" if settings else study)
    logs = from_top(logs_root, LOGS) / study
    if not settings and not (root / study).is_dir():
        known = [path.name for path in root.glob("*") if path.is_dir()]
        raise unknown("study", study, known, but_published(study))
    found, problems = [], []
    for path in records.find_runs(root / study):
        run, state, reason = records.look(path)
        if run:
            found.append(run)
        else:
            problems.append(_problem(path, *records.names(path), state, reason, logs))
    reasons = {run.path: _set_aside(run, settings) for run in found} if settings else {}
    for path, own in records.copies(found).items():
        reasons[path] = f"the same network and seed as {own}"
    runs = [run for run in found if not reasons.get(run.path)]
    reasons |= _on_other_images(runs, settings.data if settings else "")
    for run in found:
        if why := reasons.get(run.path):
            problems.append(_problem(run.path, run.model, run.seed, "set aside", why, logs))
    runs = [run for run in runs if not reasons.get(run.path)]
    check_one_kind(runs, study)
    if settings:
        problems = _complete(problems, runs, settings, config, logs)
        order = {name: i for i, name in enumerate(settings.models)}
        runs.sort(key=lambda run: (order[run.model], run.seed))
    usual = anchored("outputs/reports") / study
    published = root.resolve() == anchored(PUBLISHED / "runs").resolve()
    scores = root.parent / "reports" / study if published else usual
    return StudyRuns(
        study=study,
        runs=runs,
        problems=problems,
        settings=settings,
        page_folder=Path(page_folder or usual),
        scores_folder=Path(page_folder or scores),
    )


def _read_settings(config: str) -> Study:
    if os.path.isfile(config) or not {"\n", ":"} & set(config):
        return load_study(config)
    return load_settings(Study, strict_yaml.parse(config, "the study"), "the study")


def _logs(logs: Path, model: str, seed: int | None) -> list[Path]:
    path = logs / f"{model}-seed{seed}.log"
    return [path] if path.is_file() else []


def _problem(
    folder: Path, model: str, seed: int | None, state: str, reason: str, logs: Path
) -> Problem:
    files = [folder / records.RECORD]
    if state in ("unfinished", "failed"):
        files = [*sorted(folder.glob("*.partial.ipynb")), *_logs(logs, model, seed)]
    seeds = () if seed is None else (seed,)
    return Problem(model=model, seeds=seeds, state=state, reason=reason, files=files)


def _set_aside(run: RunRecord, settings: Study) -> str:
    """Why a finished run is no part of the comparison the settings ask for; empty if it is."""
    there, asked = Recipe.from_dict(run.recipe).to_dict(), settings.recipe.to_dict()
    if differing := [f"{k} {there[k]}, not {v}" for k, v in asked.items() if there[k] != v]:
        return f"made with another recipe: {'; '.join(differing)}"
    if run.data != settings.data and {run.data, settings.data} & set(NAMES):
        return f"trained on {run.data}, not {settings.data}"
    if run.overrides:
        return f"another network: {', '.join(f'{k}={v}' for k, v in run.overrides.items())}"
    if run.num_val:
        return f"evaluated on {run.num_val} held-out training images"
    if (run.model, run.seed) not in settings.runs:
        return "not among the models and seeds of the study's settings"
    return ""


def _on_other_images(runs: Sequence[RunRecord], data: str) -> dict[Path, str]:
    """Why runs on other images than the data's (those of most runs, if not at hand) are apart."""
    counts = Counter(run.data_fingerprint for run in runs).most_common()
    called = {run.data for run in runs}
    if len(counts) < 2 or (not data and len(called) > 1):
        return {}
    right = counts[0][0] if counts[0][1] > counts[1][1] else ""
    with suppress(SenetError, OSError):
        now = load_data(data or called.pop()).fingerprint
        right = now if now in dict(counts) else right
    others = [run for run in runs if right and run.data_fingerprint != right]
    why = f"trained on other images: fingerprint %.12s, not {right[:12]} as the others"
    return {run.path: why % run.data_fingerprint for run in others}


def check_one_kind(runs: Sequence[RunRecord], study: str = "") -> None:
    """RecordError unless the runs, those of a study's folder if it is named, may be compared: of
    one recipe, data and split, and each seed of a network once."""
    check_records(runs)
    mixed = f"study {study} mixes" if study else "these runs mix"
    remedy = "take those of one study"
    if study:
        remedy = "give the config that says which, or move the others to another study"
    kinds = {(r.recipe_id, r.data_fingerprint, r.num_val): r for r in runs}
    if len(kinds) > 1:
        ways = "; ".join(
            f"{r.path.parent.name}/{r.path.name}: protocol {r.protocol}, "
            f"{r.recipe['epochs']} epochs, {r.data} {r.data_fingerprint[:8]}, {r.num_val} held out"
            for r in kinds.values()
        )
        raise RecordError(
            f"{mixed} {len(kinds)} recipes or datasets ({ways}); only runs of one compare: {remedy}"
        )
    seen: dict[tuple[str, int], RunRecord] = {}
    for run in runs:
        if other := seen.get(key := (run.network, run.seed)):
            both = f"{key[0]} seed {key[1]}, in {other.path} and {run.path}"
            raise RecordError(f"{mixed} two runs of {both}: {remedy}")
        seen[key] = run


def _complete(
    problems: Sequence[Problem], runs: Sequence[RunRecord], settings: Study, config: str, logs: Path
) -> list[Problem]:
    """Add the missing runs and the commands; a stray failure of an unwanted run is dropped."""
    finished = {(run.model, run.seed) for run in runs}
    others, completed, missing = list(problems), [], {}
    for model, seed in settings.runs:
        if (model, seed) in finished:
            continue
        problem = next((p for p in others if (p.model, p.seeds) == (model, (seed,))), None)
        if problem:
            others.remove(problem)
            first = "move the folder away, then " * (problem.state in ("set aside", "damaged"))
            command = first + train_command(settings, config, model, seed)
            completed.append(replace(problem, command=command))
        else:
            missing.setdefault(model, []).append(seed)
    for model, seeds in missing.items():
        files = [file for seed in seeds for file in _logs(logs, model, seed)]
        about = {"state": "missing", "command": train_command(settings, config, model, *seeds)}
        completed.append(Problem(model=model, seeds=tuple(seeds), files=files, **about))
    return completed + [p for p in others if p.state in ("set aside", "damaged")]


def train_command(settings: Settings, config: str, model: str, *seeds: int) -> str:
    """What to type to make runs of a study, a seed each."""
    run = ["--model", model, "--seeds" if len(seeds) > 1 else "--seed", *seeds]
    more = plugins.options(but=settings.plugins)
    if os.path.isfile(config) or os.path.isfile(anchored(config)):
        return shlex.join(map(str, ["senet", "train", "--config", config, *run, *more]))
    words = ["senet", "train", "--study", settings.study, *run, "--data", settings.data]
    words += [word for file in settings.plugins for word in ("--plugin", file)] + more
    default = Recipe().to_dict()
    for name, value in settings.recipe.to_dict().items():
        flag = "--wd" if name == "weight_decay" else "--" + name.replace("_", "-")
        if value is True:
            words += [flag]
        elif value != default[name]:
            words += [flag, *(value if isinstance(value, list) else [value])]
    for spec in fields(Settings):
        if spec.name in MACHINE and (value := getattr(settings, spec.name)) != spec.default:
            words += ["--" + spec.name.replace("_", "-"), value]
    return shlex.join(map(str, words))
