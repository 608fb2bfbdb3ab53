"""Which networks belong together: a plain one and its variants."""

from collections.abc import Sequence
from dataclasses import fields

from senet_lib.models.attention import AttentionSpec
from senet_lib.runs.records import RunRecord, full_name

# Settings that say which attention a network has, and how; the others say what it is put in.
OF_ATTENTION = {"gate_at", *(spec.name for spec in fields(AttentionSpec))}


def label(run: RunRecord) -> str:
    """Name of the network with every setting of it, such as `se_resnet20+reduction=4`."""
    return full_name(run.model, run.overrides)


def family(model: str, models: Sequence[str]) -> str:
    """The plain network among `models` that `model` is a variant of, or itself: `resnet20` of
    `se_resnet20` and `resnet20+attention=eca`, `res2net29` of `se_res2net29_last`."""
    bare = model.partition("+")[0]
    stem = bare.removeprefix("se_")
    options = (stem, stem.rpartition("_")[0]) if bare.startswith("se_") else (bare,)
    return next((name for name in options if name in models), stem)


def variant(model: str, models: Sequence[str]) -> str:
    """What a network has beside its family's plain one: "plain", "se", "se last", ..."""
    rest, *settings = model.replace(family(model, models), "", 1).split("+")
    return " ".join(filter(None, [*rest.split("_"), *settings])) or "plain"


def by_model(runs: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """Runs by the label of their network, seeds ascending; families together, plain first."""
    groups: dict[str, list[RunRecord]] = {}
    for run in sorted(runs, key=lambda r: r.seed):
        groups.setdefault(label(run), []).append(run)
    names = list(groups)
    order = {f: i for i, f in enumerate(dict.fromkeys(family(m, names) for m in names))}
    ranked = sorted(names, key=lambda m: (order[family(m, names)], variant(m, names) != "plain"))
    return {name: groups[name] for name in ranked}
