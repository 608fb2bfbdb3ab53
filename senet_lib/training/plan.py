"""What a run is before its first step, and what is in its folder already."""

import dataclasses
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from senet_lib import plugins
from senet_lib.data.datasets import Dataset, hold_out, load_data, named_from_top, take
from senet_lib.errors import CheckpointError, RecipeError, RunExistsError, SenetError
from senet_lib.files import anchored, partial_name, sha256_of_json
from senet_lib.profiling import ModelProfile, black_image, profile_model
from senet_lib.recipe import Recipe, check_study
from senet_lib.runs.lock import LOCK
from senet_lib.runs.records import CHECKED, DEFAULT_ROOT, RECORD, RunRecord, load_run
from senet_lib.runs.weights import CHECKPOINT, DAMAGED, PREVIOUS, NetSpec, load_checkpoint
from senet_lib.training.engine import Engine

PARTIALS = [f"{partial_name(name)}*" for name in (CHECKPOINT, RECORD, *CHECKED)]
SAME = ("model", "overrides", "num_val", "data_fingerprint", "seed", "plugins")  # and the recipe
LEFT_OVER = (CHECKPOINT, PREVIOUS, DAMAGED, LOCK, *PARTIALS)  # of no use to a finished run


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that is known before the first step."""

    spec: NetSpec
    recipe: Recipe
    seed: int
    dataset: Dataset
    study: str
    protocol: str
    out: Path
    num_params: int
    macs: int
    plugins: dict[str, str]

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run; device, precision and speed do not."""
        about = {"seed": self.seed, "plugins": self.plugins, **self.spec.to_dict()}
        return {name: about[name] for name in SAME} | self.recipe.to_dict()


@dataclass(kw_only=True)
class Position:
    """Where a run stands."""

    epoch: int = 0
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    wall_seconds: float = 0.0
    started: str = ""


def make_job(
    model: str, recipe: Recipe, seed: int, data: str | Path, out: str | Path | None,
    study: str | None, protocol: str | None, overrides: Mapping[str, Any], num_val: int,
) -> Job:  # fmt: skip
    """Load the data and the model, and settle every name; raises before anything is written."""
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise RecipeError(f"seed is {seed!r}; it must be a whole number from 0 to 2**63 - 1")
    if type(num_val) is not int:  # which the record could not say
        raise RecipeError(f"num_val is {num_val!r}; it must be a whole number")
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"recipe is a {type(recipe).__name__}; give a Recipe(epochs=3, lr=0.1)")
    data, protocol = os.fspath(data), protocol and str(protocol)
    spec = NetSpec(
        model=model, overrides=dict(overrides), data=data, num_val=num_val,
        classes=("",) * 10, mean=(0.0,) * 3, std=(1.0,) * 3,
    )  # fmt: skip
    spec.build()  # an unknown name or override ends here, before the data is read
    for name in plugins.unkept(model, overrides):
        print(
            f"note: {name} was registered in this session, so the record keeps no text of it and "
            f"cannot tell whether it has changed; put it in a file and name that: {plugins.HOW}",
            file=sys.stderr,
        )
    dataset = load_data(data)
    if num_val:
        dataset = hold_out(dataset, num_val)
    dataset = take(dataset, recipe.train_images)
    images = {name: getattr(dataset, name) for name in ("classes", "mean", "std")}
    known = {"data": named_from_top(data), "data_fingerprint": dataset.fingerprint}
    spec = dataclasses.replace(spec, **known, **images)
    size = len(spec.mean), *dataset.x_train.shape[1:3]
    profile = _counted(model, spec.build(), size, len(spec.classes))
    paper = recipe == Recipe() and data == "cifar10" and not num_val and not overrides
    protocol = protocol or ("paper" if paper else "custom")
    tag = sha256_of_json([recipe.id, spec.overrides, num_val])[:6]
    stem = re.sub(r"[^A-Za-z0-9.-]+", "_", Path(data).stem)[:80].lstrip("._-") or "data"
    study = check_study(study or ("paper" if paper else f"{stem}-{tag}"))
    return Job(
        spec=spec,
        recipe=recipe,
        seed=seed,
        dataset=dataset,
        study=study,
        protocol=protocol,
        out=Path(out) if out else anchored(DEFAULT_ROOT) / study / model / f"seed{seed}",
        num_params=profile.num_params,
        macs=profile.macs,
        plugins=plugins.behind(model, overrides),
    )


def _counted(name: str, network: nn.Module, size: Sequence[int], num_classes: int) -> ModelProfile:
    """What a network costs; SenetError where it cannot be trained as a classifier, or be kept."""
    if any(isinstance(p, nn.UninitializedParameter) for p in network.parameters()):
        raise SenetError(f"{name} has lazy layers; give each its number of inputs")
    if not any(p.requires_grad for p in network.parameters()):
        raise SenetError(f"{name} has no parameter that can be trained")
    if any(key.endswith("_extra_state") for key in network.state_dict()):
        raise SenetError(f"{name} has a get_extra_state, which weights cannot hold; use a buffer")
    profile = profile_model(network, size)
    with black_image(network, size) as image:
        found = network(image)
    shape = getattr(found, "shape", None)
    if shape != (1, num_classes):
        what = f"a {type(found).__name__}" if shape is None else f"{tuple(shape)}"
        wanted = f"a classifier of {num_classes} classes makes (1, {num_classes})"
        raise SenetError(f"{name} makes {what} of one image; {wanted}")
    return profile


def finished(job: Job, precision: str) -> RunRecord:
    """The record in the folder, if it is whole and of the same run."""
    record = load_run(job.out)
    there = {name: getattr(record, name) for name in SAME} | record.recipe
    _compare(job, there, record.precision, precision)
    record.verify()
    tidy(job.out, *LEFT_OVER)  # by a process killed after it had written the record
    return record


def checkpoint_of(job: Job, precision: str) -> dict[str, Any] | None:
    """The newest whole checkpoint of the same run, if any; a damaged one is named and set aside."""
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


def take_up(engine: Engine, state: Mapping[str, Any], job: Job) -> None:
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
    asked, there = job.identity(), {"plugins": {}, **Recipe().to_dict(), **there}
    if precision != "auto":
        there, asked = {**there, "precision": precision_there}, {**asked, "precision": precision}
    asked, there = (json.loads(json.dumps(run)) for run in (asked, there))  # (1, 3) is [1, 3]
    differing = [name for name in asked if asked[name] != there.get(name)]
    if differing:
        pairs = "; ".join(f"{n}: {_shown(n, there)} there, {_shown(n, asked)} asked"
                          for n in differing[:3])  # fmt: skip
        other = f"another run ({pairs})"
        mine, theirs = asked["plugins"], there["plugins"]
        if changed := [name for name in mine if theirs.get(name, mine[name]) != mine[name]]:
            other = f"a run of another text of {' and '.join(changed)}"
        raise RunExistsError(
            f"{job.out} holds {other}; give another --out or --study, or move it away"
        )


def _shown(name: str, run: Mapping[str, Any]) -> Any:
    """What a run has of that name; of files of Python their names alone."""
    value = run.get(name)
    return " and ".join(value) or "none" if name == "plugins" else value


def tidy(folder: Path, *patterns: str) -> None:
    """Remove what is of no use in a run's folder any more, as far as that is allowed."""
    for path in (path for pattern in patterns for path in folder.glob(pattern)):
        with suppress(OSError):
            path.unlink()
