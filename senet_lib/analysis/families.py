"""Which networks belong together: a plain one and its variants."""

from collections.abc import Sequence
from dataclasses import fields

from senet_lib.models.attention import AttentionSpec
from senet_lib.runs.records import RunRecord, check_records

# Settings that say which attention a network has, and how; the others say what it is put in.
OF_ATTENTION = {"gate_at", *(spec.name for spec in fields(AttentionSpec))}


def family(model: str, models: Sequence[str]) -> str:
    """The plain network that `model` is a variant of, or itself, be it among `models` or not:
    `resnet20` of `se_resnet20` and `resnet20+attention=eca`, `res2net29` of `se_res2net29_last`
    where it or `se_res2net29` is. What is no setting of the attention stays: `resnet20+shortcut=A`
    of `se_resnet20+shortcut=A`."""
    bare, *settings = model.split("+")
    stem = bare.removeprefix("se_")
    stems = (stem, stem.rpartition("_")[0]) if bare.startswith("se_") else (bare,)
    kept = [text for text in settings if text.partition("=")[0] not in OF_ATTENTION]
    options = ["+".join([name, *kept]) for name in stems]
    known = [name for name in options if name in models]
    known += [name for name in options[1:] if f"se_{name}" in models]
    return [*known, options[0]][0]


def variant(model: str, models: Sequence[str]) -> str:
    """What a network has beside its family's plain one: "plain", "se", "se last", ..."""
    (bare, *settings), (plain, *kept) = (m.split("+") for m in (model, family(model, models)))
    rest = bare.replace(plain, "", 1).split("_")
    return " ".join(filter(None, [*rest, *(s for s in settings if s not in kept)])) or "plain"


def by_model(runs: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """Runs by the name of their network, seeds ascending; families together, plain first."""
    check_records(runs)
    groups: dict[str, list[RunRecord]] = {}
    for run in sorted(runs, key=lambda r: r.seed):
        groups.setdefault(run.network, []).append(run)
    names = list(groups)
    order = {f: i for i, f in enumerate(dict.fromkeys(family(m, names) for m in names))}
    ranked = sorted(names, key=lambda m: (order[family(m, names)], variant(m, names) != "plain"))
    return {name: groups[name] for name in ranked}
