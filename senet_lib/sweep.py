"""Sweeps: recipe and network chosen on held-out training images, with Optuna.

A trial is a run of `fit` in its own folder, beside an SQLite file of what was tried. A sweep goes
on from there, and processes that are given the same settings share its trials.
"""

import json
import math
import sys
from collections import ChainMap
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from senet_lib import errors, strict_yaml
from senet_lib.data.datasets import hold_out, load_data, take
from senet_lib.errors import RecipeError, RecordError
from senet_lib.models import create_model
from senet_lib.plugins import behind
from senet_lib.profiling import profile_model
from senet_lib.recipe import MACHINE, Recipe, Settings, check_setting, load_settings, setting
from senet_lib.runs.lock import stop_signals
from senet_lib.runs.records import RunRecord, from_top
from senet_lib.runs.study import train_command
from senet_lib.strict_yaml import shown
from senet_lib.training.fit import fit
from senet_lib.training.plan import CHECKPOINT, LEFT_OVER, PREVIOUS, tidy

if TYPE_CHECKING:
    import optuna

ROOT, DATABASE = Path("outputs/sweeps"), "optuna.db"
SAME = ("data", "models", "recipe", "num_val", "seed", "pruner", "space", "test_every")
HOPELESS = (  # of what a trial chose
    errors.BatchSizeError, errors.NonFiniteLossError, errors.OutOfMemoryError,
)  # fmt: skip
ALIKE = ("epochs", "schedule")  # of all trials, for they are compared epoch by epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep(Settings):
    """What a sweep tries. Several models are a choice like any other of the space."""

    num_val: int = setting("training images held out, to compare trials on", "[1, 1000000000]")
    trials: int = setting("how many, with those that are pruned", "[1, 1000000]")
    seed: int = setting("of all trainings, and of what is tried", "[0, 9223372036854775807]", 0)
    pruner: str = setting(
        "median: end a trial that is worse than most were at its epoch; hyperband: give few trials "
        "many epochs; none", default="median", choices=("median", "hyperband", "none"),
    )  # fmt: skip
    space: Mapping[str, Any] = field(default_factory=dict)  # choices or a range, by recipe field


def load_sweep(path: str | Path) -> Sweep:
    """Read a sweep from a YAML file. Errors as in `load_study`, and RecipeError where the space is
    empty or not one over fields of a recipe."""
    content = strict_yaml.read(Path(path))
    space = (content.pop("space", None) if isinstance(content, dict) else None) or {}
    sweep = load_settings(Sweep, content, str(path))
    if not isinstance(space, Mapping):
        raise RecipeError(f"space of {path} is {shown(space)}; it must be a mapping")
    if not space and len(sweep.models) == 1:
        raise RecipeError(f"{path} leaves nothing to choose: it has one model and no space")
    where = f"the space of {path}"
    return replace(sweep, space={name: _checked(name, space[name], where) for name in space})


def _checked(name: Any, values: Any, where: str) -> list | dict[str, Any]:
    """Choices as a list, or a range as Optuna takes it."""
    known = {spec.name: spec for spec in fields(Recipe) if spec.name not in ALIKE}
    if name not in known:
        raise errors.unknown(f"recipe field in {where}", shown(name).strip("'"), known)
    spec = known[name]
    if isinstance(values, list):
        choices = [check_setting(spec, value, where) for value in values]
        if len(set(choices)) == len(choices) > 1:
            return choices
    elif isinstance(values, Mapping) and spec.type in (int, float):
        for key in values:
            if key not in ("low", "high", "log"):
                raise errors.unknown(f"key of {name} in {where}", str(key), ("low", "high", "log"))
        low, high = (check_setting(spec, values.get(key), where) for key in ("low", "high"))
        log = values.get("log", False)
        if low < high and type(log) is bool and (low > 0 or not log):
            return {"low": low, "high": high, "log": log}
    raise RecipeError(
        f"{name} in {where} is {shown(values)}; it must be a list of two or more choices, or for a "
        "number a range such as {low: 0.01, high: 0.5, log: true}"
    )


def open_sweep(sweep: Sweep, root: str | Path = ROOT) -> "optuna.Study":
    """The Optuna study of a sweep, made where there is none yet.

    Args:
        sweep: its settings.
        root: folder of the sweeps' folders.
    Raises:
        RunExistsError: the folder holds a sweep of other settings.
        RecordError: the file there is no study of Optuna.
        SenetError: Optuna, a model or the data is not to be had.
    """
    errors.need("sweep", "optuna")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = from_top(root, ROOT) / sweep.study
    images = hold_out(load_data(sweep.data), sweep.num_val)
    size = (len(images.mean), *images.x_train.shape[1:3])
    for model in sweep.models:
        profile_model(create_model(model, len(images.classes), size[0]), size)  # refuses others
    sizes = sweep.space.get("train_images", [sweep.recipe.train_images])
    take(images, sizes["high"] if isinstance(sizes, dict) else max(sizes))  # refuses too many
    folder.mkdir(parents=True, exist_ok=True)
    pruner = {
        "median": optuna.pruners.MedianPruner(n_warmup_steps=sweep.recipe.epochs // 2),
        "hyperband": optuna.pruners.HyperbandPruner(max_resource=sweep.recipe.epochs),
        "none": optuna.pruners.NopPruner(),
    }[sweep.pruner]
    every = json.loads(json.dumps(asdict(sweep)))
    asked = {name: every[name] for name in SAME} | {"data_fingerprint": images.fingerprint}
    asked["plugins"] = dict(ChainMap(*(behind(name, {}) for name in sweep.models)))
    with FileLock(folder / "next.lock"):
        try:
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{(folder / DATABASE).resolve().as_uri()}?uri=true",  # a ? and {} in it
                engine_kwargs={"connect_args": {"timeout": 60}},  # seconds to wait for others
            )
            study = optuna.create_study(
                storage=storage, study_name=sweep.study, pruner=pruner, load_if_exists=True
            )
        except Exception as error:  # SQLAlchemy's and Optuna's, whatever the bytes provoke
            reason = errors.one_line(error)
            raise RecordError(f"{folder / DATABASE} cannot be used: {reason}") from None
        there = asked | study.user_attrs.get("settings", {})  # older ones say less
        there["recipe"] = Recipe().to_dict() | there["recipe"]
        if differing := [name for name in asked if asked[name] != there[name]]:
            raise errors.RunExistsError(
                f"{folder} holds a sweep of another {' and '.join(differing)}; "
                "give it another name, or move it away"
            )
        study.set_user_attr("settings", asked)
    return study


def run_sweep(sweep: Sweep, root: str | Path = ROOT) -> "optuna.Study":
    """Try what is left to try of a sweep, beside other processes that do the same; arguments and
    errors as in `open_sweep` and `fit`.

    Returns:
        The study. A finished trial's value is its error on the held-out images, and its user
        attributes are run (its folder), model, num_params, macs, wall_seconds, and command, which
        trains the same on all images.
    """
    study, folder = open_sweep(sweep, root), from_top(root, ROOT) / sweep.study
    import optuna

    while found := _next(study, sweep, folder):
        trial, lock = found
        out = folder / _run_of(trial)
        with stop_signals() as signals:
            try:
                record = _run(trial, sweep, out)
                again = replace(sweep, recipe=Recipe.from_dict(record.recipe))
                trial.set_user_attr("command", train_command(again, "", record.model, sweep.seed))
                for name in ("model", "num_params", "macs", "wall_seconds"):
                    trial.set_user_attr(name, getattr(record, name))
                study.tell(trial, record.test_error)
                said = f"error {100 * record.test_error:.2f} %"
            except (optuna.TrialPruned, *HOPELESS) as ended:
                tidy(out, *LEFT_OVER)
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                said = str(ended)
            finally:
                lock.release()
            values = (
                (k, f"{v:.3g}" if isinstance(v, float) else v) for k, v in trial.params.items()
            )
            tried = (v if k == "model" else f"{k} {v}" for k, v in values)
            print(f"{out.name}: {said}; {', '.join(tried)}", flush=True)
            if signals:
                where = f"after {out.name}"
                raise errors.RunStopped(reason=signals[0], path=folder, where=where)
    return study


def _run_of(trial: "optuna.Trial | optuna.trial.FrozenTrial") -> str:
    """Name of the folder of its run, which is that of the trial it goes on with."""
    return trial.user_attrs.get("run", f"trial{trial.number}")


def _next(
    study: "optuna.Study", sweep: Sweep, folder: Path
) -> "tuple[optuna.Trial, FileLock] | None":
    """The next trial, and the lock that says that its process lives; None: there are enough."""
    # One whose process is gone is tried again with its values in its folder, where its run goes on.
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    with FileLock(folder / "next.lock"):
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            with suppress(Timeout), FileLock(folder / f"{_run_of(trial)}.lock", timeout=0):
                # Another process may have ended it since the list was read.
                dead = study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                if dead.state == TrialState.FAIL:
                    study.enqueue_trial(dead.params, user_attrs={"run": _run_of(dead)})
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        begun = len(study.get_trials(deepcopy=False, states=states))
        if begun >= sweep.trials:
            return None
        # By its place alone, so that what a killed sweep tries next is what it would have tried.
        (drawn,) = np.random.SeedSequence([sweep.seed, begun]).generate_state(1)
        study.sampler = TPESampler(seed=int(drawn), constant_liar=True)
        trial = study.ask()
        lock = FileLock(folder / f"{_run_of(trial)}.lock")
        lock.acquire()
        trial.set_user_attr("run", _run_of(trial))
        return trial, lock


def _run(trial: "optuna.Trial", sweep: Sweep, out: Path) -> RunRecord:
    """Train what the trial suggests; TrialPruned when it is not worth going on."""
    from optuna import TrialPruned

    chosen: dict[str, Any] = {}
    for name, values in sweep.space.items():
        if isinstance(values, list):
            chosen[name] = trial.suggest_categorical(name, values)
        else:
            whole = type(values["low"]) is int
            chosen[name] = (trial.suggest_int if whole else trial.suggest_float)(name, **values)
    model, told = sweep.models[0], 0
    if len(sweep.models) > 1:
        model = trial.suggest_categorical("model", sweep.models)

    def tell(history: Sequence[Mapping[str, float]], *_: Any) -> None:
        nonlocal told
        for row in history[told:]:
            if not math.isnan(row["test_error"]):
                trial.report(row["test_error"], int(row["epoch"]))
        told = len(history)
        if told < sweep.recipe.epochs and trial.should_prune():
            raise TrialPruned(f"pruned after {told} of {sweep.recipe.epochs} epochs")

    try:
        recipe = replace(sweep.recipe, **chosen)
    except RecipeError as error:  # two of these contradict each other
        raise TrialPruned(str(error)) from None
    about = {name: getattr(sweep, name) for name in ("seed", "data", "num_val", "study", *MACHINE)}
    if any((out / name).exists() for name in (CHECKPOINT, PREVIOUS)):
        about["precision"] = "auto"  # that with which it began
    return fit(
        model=model, recipe=recipe, out=out, on_epoch=tell,
        progress="bar" if sys.stderr.isatty() else "none", **about,
    )  # fmt: skip
