"""The claims of the two source documents, and what runs and arithmetic say of each.

A claim is a row of `claims.yaml`; its verdict is computed here and stands nowhere else.

The tolerance comes from the printed digits: 0.63 stands for [0.625, 0.635), "~11" for
[10.5, 11.5), "+3.2" for [3.15, 3.25); the zeros of 100 and 0.80 are digits. A range such as 82-88
stands as it is, both ends included; "> 0" for everything above 0.

The verdicts, the first that applies:

- contradicted by arithmetic: the source's own figures, or what the architecture makes inevitable,
  rule the printed figure out (`senet_lib.arithmetic`), so that no run could confirm it;
- not yet measured: runs of the protocol are missing, and the commands that make them are given;
- reproduced: the measured interval and the tolerance have a point in common;
- not reproduced: they have none.

The measured interval of a count is the count itself. Of a mean over seeds it is the 95 % t
interval, of a difference the one over the differences of shared seeds, of a standard deviation the
95 % chi-square interval, and of a figure that the source printed from one single run the 95 %
prediction interval of one more run. All take at least three seeds. An interval of a mean that
reaches further than one percentage point (or the width of a claimed range) to either side fits too
much to decide anything: more seeds are asked for. Two claims have a rule of their own: a gain
(`a-se-gain`) is reproduced if its whole interval is above 0 and the MACs grow by less than 1 %; the
state of the art (`b-sota`) if the mean agrees with the printed one and its whole interval is below
the published errors at like size. Parameters for a percentage point (`b-efficiency-*`) are ours
over the source's own drop in error, until that drop is measured.

A run counts for a protocol if recipe and images are the protocol's, whatever its study is called.
"""

import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from senet_lib.arithmetic import ARITHMETIC, Derivation
from senet_lib.collect import train_command
from senet_lib.data import CIFAR10_FINGERPRINT
from senet_lib.errors import RecordError, SenetError, unknown
from senet_lib.publish import PUBLISHED
from senet_lib.recipe import Recipe, Study, load_study
from senet_lib.records import (
    DEFAULT_ROOT,
    RECORD,
    RunRecord,
    anchored,
    find_runs,
    from_top,
    load_run,
)
from senet_lib.verdicts import MEASURES, Found
from senet_lib.wording import counted

if TYPE_CHECKING:
    from senet_lib.display import Table, Text
    from senet_lib.scores import StudyScores

CLAIMS = Path(__file__).with_name("claims.yaml")
REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
CONTRADICTED, NOT_MEASURED = "contradicted by arithmetic", "not yet measured"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, CONTRADICTED, NOT_MEASURED)


# A claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One figure of a source document.

    Attributes:
        id: its name.
        source: file name of the document.
        where: section of the document.
        subject: the model, pair or block it is about.
        quantity: what is claimed, in words.
        value: as printed.
        unit: M (million), %, pp (percentage points), nats, M/pp or none.
        measure: which quantity of ours answers it, a key of `MEASURES`.
        note: what is odd about it.
        printed: the value as printed, where `value` lost a digit or holds two numbers.
        models: registry names; of a pair, the variant first.
        protocol: how the networks must have been trained; empty for what needs no training.
        arithmetic: key of `senet_lib.arithmetic.ARITHMETIC`; empty if no check applies.
        epoch: epoch of the history that is meant, counted from 1; 0 for the last.
        column: which figure of that epoch.
        reconstructed: the networks are ours, their widths chosen to come near the source's totals.
    """

    id: str
    source: str
    where: str
    subject: str
    quantity: str
    value: str
    unit: str
    measure: str
    note: str = ""
    printed: str = ""
    models: Sequence[str] = ()
    protocol: str = ""
    arithmetic: str = ""
    epoch: int = 0
    column: str = ""
    reconstructed: bool = False

    @property
    def claimed(self) -> str:
        """The figure with its unit."""
        return f"{self.printed or self.value} {self.unit}".strip()

    @property
    def low(self) -> float:
        """Lower end of the tolerance, in the claim's unit."""
        return tolerance(self.printed or self.value)[0]

    @property
    def high(self) -> float:
        """Upper end of the tolerance, likewise; infinite where none is claimed."""
        return tolerance(self.printed or self.value)[1]

    @property
    def middle(self) -> float:
        """Halfway between them."""
        return (self.low + self.high) / 2

    def holds(self, number: float) -> bool:
        """Whether a number is within the tolerance."""
        return self.meets(number, number)

    def meets(self, low: float, high: float) -> bool:
        """Whether an interval, ends included, and the tolerance have a point in common."""
        with_end = is_range(self.printed or self.value)
        return high >= self.low and (low <= self.high if with_end else low < self.high)


_RANGE = re.compile(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)")


def is_range(text: str) -> bool:
    """Whether a printed figure is a range such as 82-88."""
    return _RANGE.fullmatch(text) is not None


def tolerance(text: str) -> tuple[float, float]:
    """What the printed digits stand for: the ends of an interval.

    Args:
        text: a number with or without "~" or a sign, a range such as 82-88, or "> 0 ...".
    Raises:
        SenetError: it is none of these.
    """
    if found := _RANGE.fullmatch(text):
        return float(found[1]), float(found[2])
    if text.startswith("> 0"):
        return 0.0, math.inf
    if not re.fullmatch(r"~?[+-]?\d+(\.\d+)?", text):
        raise SenetError(f"{text!r} is no figure with a tolerance, such as 0.63, ~11 or 82-88")
    number = Decimal(text.removeprefix("~"))
    half = Decimal(1).scaleb(int(number.as_tuple().exponent)) / 2
    return float(number - half), float(number + half)


@cache
def _content() -> Mapping[str, Any]:
    return yaml.safe_load(CLAIMS.read_text(encoding="utf-8"))


def load_claims(pattern: str = "*") -> list[Claim]:
    """The claims whose id matches a shell-style pattern, in the order of the documents.

    Raises:
        UnknownNameError: there is no such claim.
        SenetError: no claim matches the pattern.
    """
    claims = [Claim(**row) for row in _content()["claims"]]
    found = [claim for claim in claims if fnmatchcase(claim.id, pattern)]
    if not found and re.search(r"[*?[]", pattern):
        raise SenetError(f"no claim matches {pattern!r}; `senet claims` lists all")
    if not found:
        raise unknown("claim", pattern, [claim.id for claim in claims])
    return found


def load_protocol(name: str) -> Study:
    """A protocol as a study of no networks: its seeds, data and recipe.

    Raises:
        UnknownNameError: there is no such protocol.
    """
    protocols = _content()["protocols"]
    if name not in protocols:
        raise unknown("protocol", name, protocols)
    spec = protocols[name]
    return Study(
        study=name,
        protocol=name,
        data="cifar10",
        models=(),
        seeds=tuple(spec["seeds"]),
        recipe=Recipe.from_dict(spec["recipe"]),
    )


# The runs


def claim_runs(*roots: str | Path) -> list[RunRecord]:
    """Every finished run below some folders, without the unreadable (`senet runs` names them).

    Args:
        roots: folders; none: outputs/runs and outputs/published/runs.
    Raises:
        RecordError: a folder that is named does not exist.
    """
    for root in roots:
        if not Path(root).is_dir():
            raise RecordError(f"{root} is no folder, so there are no runs to read")
    roots = roots or (DEFAULT_ROOT, anchored(PUBLISHED / "runs"))
    found = []
    for folder in (path for root in roots for path in find_runs(root)):
        if (folder / RECORD).is_file():
            try:
                found.append(load_run(folder))
            except RecordError:
                continue
    return found


class Evidence:
    """The runs on CIFAR-10's test images, by recipe, model and seed; each seed counts once."""

    def __init__(self, runs: Sequence[RunRecord], scores: Sequence["StudyScores"] = ()) -> None:
        self.maps = [one for one in scores if one.fingerprint == CIFAR10_FINGERPRINT]
        self.runs: dict[str, dict[str, dict[int, RunRecord]]] = {}
        for run in runs:
            if run.data_fingerprint != CIFAR10_FINGERPRINT or run.num_val or run.overrides:
                continue
            seeds = self.runs.setdefault(run.recipe_id, {}).setdefault(run.model, {})
            seeds.setdefault(run.seed, run)

    def of(self, model: str, protocol: str) -> dict[int, RunRecord]:
        """Runs of a model under a protocol, by seed, ascending."""
        runs = self.runs.get(load_protocol(protocol).recipe.id, {}).get(model, {})
        return dict(sorted(runs.items()))

    def shared(self, claim: Claim) -> list[int]:
        """Seeds that all models of a claim have runs of."""
        runs = [self.of(model, claim.protocol) for model in claim.models]
        return sorted(set.intersection(*(set(r) for r in runs)))

    def missing(self, claim: Claim, wanted: int) -> list[tuple[str, int]]:
        """Model and seed of the runs without which the claim's models do not share enough seeds."""
        shared, planned = self.shared(claim), load_protocol(claim.protocol).seeds
        more = [s for s in (*planned, *range(100)) if s not in shared]
        seeds = list(dict.fromkeys(more))[: max(wanted - len(shared), 0)]
        return [(m, s) for m in claim.models for s in seeds if s not in self.of(m, claim.protocol)]

    def scores(self, claim: Claim) -> "StudyScores | None":
        """What maps of the claim's protocol score, if they were measured."""
        own = load_protocol(claim.protocol).recipe.id
        return next((one for one in self.maps if one.recipe_id == own), None)

    def other_scores(self, claim: Claim) -> list["StudyScores"]:
        """What maps of other recipes score."""
        own = load_protocol(claim.protocol).recipe.id
        return [one for one in self.maps if one.recipe_id != own]

    def elsewhere(self, claim: Claim) -> list[list[RunRecord]]:
        """Runs of all models of a claim on shared seeds under another recipe, a list a model;
        those that saw the most images. Empty if there are none."""
        own, best, most = load_protocol(claim.protocol).recipe.id, [], 0
        for recipe, models in self.runs.items():
            if recipe == own or not all(model in models for model in claim.models):
                continue
            seeds = sorted(set.intersection(*(set(models[m]) for m in claim.models)))
            runs = [[models[m][s] for s in seeds] for m in claim.models]
            if seeds and (images := _images(runs[0][0])) > most:
                best, most = runs, images
        return best


def _images(run: RunRecord) -> int:
    """Training images that a run saw, those of each epoch counted again."""
    return run.recipe["epochs"] * (run.recipe.get("train_images") or 50_000)


# The verdicts


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What was found of one claim.

    Attributes:
        claim: the claim.
        verdict: one of `VERDICTS`.
        number: the measured or recomputed figure in the claim's unit, None where there is none.
        interval: ends of its interval, None where nothing is measured.
        measured: number and interval in words.
        n: seeds behind it, 0 where no training is needed.
        runs: the runs behind it, or those there are of too few.
        derivation: the arithmetic, with its numbers; empty where none applies.
        missing: model and seed of the runs that are needed.
        commands: what to type to get them.
        remark: what a reader should know.
    """

    claim: Claim
    verdict: str
    number: float | None
    interval: tuple[float, float] | None
    measured: str
    n: int
    runs: Sequence[RunRecord]
    derivation: str
    missing: Sequence[tuple[str, int]]
    commands: Sequence[str]
    remark: str

    @property
    def command(self) -> str:
        """All commands in one line, to be typed as it stands."""
        return "; ".join(self.commands)

    def lines(self) -> dict[str, str]:
        """Everything by name, for a reader; what there is none of is left out."""
        lines = {
            "claim": self.claim.id,
            "source": f"{self.claim.source}, {self.claim.where}",
            "subject": f"{self.claim.subject}: {self.claim.quantity}",
            "claimed": f"{self.claim.claimed} (from {self.claim.low:g} to {self.claim.high:g})",
            "measured": self.measured,
            "verdict": self.verdict,
            "arithmetic": self.derivation,
            "remark": self.remark,
            "runs": "\n".join(run.path.as_posix() for run in self.runs),
            "to do": "\n".join(self.commands),
        }
        return {name: text.replace("\n", "\n" + 12 * " ") for name, text in lines.items() if text}

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON; what is infinite becomes None."""
        names = ("id", "source", "where", "subject", "quantity", "claimed", "low", "high", "unit")
        fields = {name: getattr(self.claim, name) for name in names}
        fields |= {n: getattr(self, n) for n in ("verdict", "measured", "number", "interval", "n")}
        fields |= {
            "runs": [run.path.as_posix() for run in self.runs],
            "derivation": self.derivation,
            "commands": list(self.commands),
            "remark": self.remark,
            "note": self.claim.note,
        }
        return {name: _finite(value) for name, value in fields.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def judge(
    claims: Sequence[Claim], runs: Sequence[RunRecord], scores: Sequence["StudyScores"] = ()
) -> list[Judgement]:
    """Say of each claim what was found; the rules are in the module's docstring.

    Args:
        claims: those to judge.
        runs: whatever runs there are; those of other recipes, data or networks settle nothing.
        scores: what maps score, see `senet_lib.scores.all_scores`; likewise.
    Returns:
        One judgement a claim, in the same order.
    """
    book, evidence = {claim.id: claim for claim in load_claims()}, Evidence(runs, scores)
    return [_judge(claim, book, evidence) for claim in claims]


def _judge(claim: Claim, book: Mapping[str, Claim], evidence: Evidence) -> Judgement:
    derived = ARITHMETIC[claim.arithmetic](claim, book) if claim.arithmetic else None
    found = MEASURES[claim.measure](claim, book, evidence)
    if derived and derived.number is not None and found.number is None:
        ends = (derived.number, derived.number)
        found = replace(found, number=derived.number, interval=ends, text=f"{derived.number:.3g}")
    verdict = _verdict(claim, derived, found)
    open_still = verdict == NOT_MEASURED
    remarks = [_reconstructed(claim, verdict), found.remark]
    if verdict != CONTRADICTED:
        remarks.append(claim.note)
    if open_still:
        remarks = [_named(found.missing), *remarks, _elsewhere(claim, evidence)]
    commands = _commands(claim, found.missing) if open_still else []
    if claim.measure == "localisation" and open_still:
        commands += _gradcam_commands(claim)
    return Judgement(
        claim=claim,
        verdict=verdict,
        number=found.number,
        interval=found.interval,
        measured=found.text,
        n=found.n,
        runs=tuple(found.runs),
        derivation=derived.text if derived else "",
        missing=tuple(found.missing) if open_still else (),
        commands=tuple(commands),
        remark="; ".join(filter(None, remarks)),
    )


def _verdict(claim: Claim, derived: Derivation | None, found: Found) -> str:
    if derived and derived.ruled_out:
        return CONTRADICTED
    if found.interval is None:
        return NOT_MEASURED
    holds = claim.meets(*found.interval) if found.holds is None else found.holds
    return REPRODUCED if holds else NOT_REPRODUCED


def _reconstructed(claim: Claim, verdict: str) -> str:
    """That a network is ours in its widths, so that its size is evidence of nothing."""
    if not claim.reconstructed or verdict == NOT_MEASURED:
        return ""
    if claim.protocol or verdict == CONTRADICTED:
        return "measured on our reconstruction"
    return (
        "by our reconstruction, whose widths were chosen to meet these totals, so that neither "
        "agreement nor a near miss is evidence"
    )


def _by_model(missing: Sequence[tuple[str, int]]) -> dict[str, list[int]]:
    """The seeds of each model together."""
    seeds: dict[str, list[int]] = {}
    for model, seed in missing:
        seeds.setdefault(model, []).append(seed)
    return seeds


def _named(missing: Sequence[tuple[str, int]]) -> str:
    """Which runs are missing."""
    parts = [
        f"{model} seed{'s' * (len(seeds) > 1)} {' '.join(map(str, seeds))}"
        for model, seeds in _by_model(missing).items()
    ]
    return f"missing: {', '.join(parts)}" if parts else ""


def _elsewhere(claim: Claim, evidence: Evidence) -> str:
    """What runs of another recipe found, which settles nothing here."""
    groups = evidence.elsewhere(claim)
    if not groups or claim.measure in ("epoch", "sigma", "localisation"):
        return ""
    first, n = groups[0][0], len(groups[0])
    means = [sum(100 * run.test_error for run in runs) / n for runs in groups]
    said = " and ".join(f"{m:.2f} % ({name})" for name, m in zip(claim.models, means, strict=True))
    images = first.recipe.get("train_images") or 50_000
    return (
        f"another recipe (study {first.study}: {counted(first.recipe['epochs'], 'epoch')} of "
        f"{images:,} images, {counted(n, 'seed')}), which settles nothing here, found a mean error "
        f"of {said}"
    )


def _commands(claim: Claim, missing: Sequence[tuple[str, int]]) -> list[str]:
    """What makes the missing runs, a command a model: by the protocol's file of settings where
    that is at hand and says the same, else by flags."""
    if not missing:
        return []
    protocol, config = (
        load_protocol(claim.protocol),
        _content()["protocols"][claim.protocol]["config"],
    )
    path = anchored(config)
    by_file = path.is_file() and load_study(path).recipe == protocol.recipe
    commands = []
    for model, seeds in _by_model(missing).items():
        command = f"senet train --config {config} --model {model} --seed {seeds[0]}"
        if not by_file:
            command = train_command(protocol, "", model, seeds[0])
        several = f"--seeds {' '.join(map(str, seeds))}"
        one = f"--seed {seeds[0]}"
        commands.append(command.replace(one, several) if len(seeds) > 1 else command)
    return commands


def _gradcam_commands(claim: Claim) -> list[str]:
    """What measures the maps of all networks that such a claim is made of, a command a seed."""
    models = json.dumps([c.models[0] for c in load_claims() if c.measure == claim.measure])
    study = claim.protocol
    return [
        f"senet notebook gradcam --out outputs/reports/{study}/gradcam-seed{seed}.ipynb "
        f"-p study={study} -p seed={seed} -p {shlex.quote('models=' + models)} -p grids=250"
        for seed in load_protocol(study).seeds
    ]


# What is shown


def counts(judgements: Sequence[Judgement]) -> dict[str, int]:
    """How many claims have each verdict, in the order of `VERDICTS`; 0 where none has it."""
    found = Counter(judgement.verdict for judgement in judgements)
    return {verdict: found[verdict] for verdict in VERDICTS}


def judge_all(runs_root: str | Path = DEFAULT_ROOT) -> list[Judgement]:
    """Every claim, by the runs below a folder; below outputs/runs, by the published ones too.

    Args:
        runs_root: the folder of the studies' folders; one that does not exist holds no runs.
    """
    from senet_lib.scores import all_scores

    root = from_top(runs_root, DEFAULT_ROOT)
    published = anchored(PUBLISHED / "runs")
    roots = (root, published) if Path(runs_root) == DEFAULT_ROOT else (root,)
    found = [folder for folder in roots if Path(folder).is_dir()]
    scores = all_scores(*(Path(folder).parent / "reports" for folder in roots))
    return judge(load_claims(), claim_runs(*found) if found else [], scores)


def verdict_text(judgements: Sequence[Judgement]) -> "Text":
    """How many claims met which verdict, in a sentence."""
    from senet_lib.display import Text

    said = ", ".join(f"**{number}** {verdict}" for verdict, number in counts(judgements).items())
    return Text(
        f"Of the {len(judgements)} numbers that the two source documents state: {said}. A number "
        "counts as measured only by runs of the protocol it was claimed for."
    )


def claims_table(judgements: Sequence[Judgement]) -> "Table":
    """Every claim with what was measured, the verdict, the arithmetic and the command."""
    import pandas as pd

    from senet_lib.display import Table

    rows = [
        {
            "claim": j.claim.id,
            "of": f"{j.claim.subject}: {j.claim.quantity}",
            "claimed": j.claim.claimed,
            "measured": j.measured or "–",
            "n": j.n or "",
            "verdict": j.verdict,
            "remark": "; ".join(filter(None, [j.derivation, j.remark])),
            "to measure it": j.command,
        }
        for j in judgements
    ]
    columns = ["claim", "of", "claimed", "measured", "n", "verdict", "remark", "to measure it"]
    said = ", ".join(f"{number} {verdict}" for verdict, number in counts(judgements).items())
    return Table(
        pd.DataFrame(rows, columns=columns),
        f"{counted(len(judgements), 'claim')}: {said}",
        text_columns=("claim", "of", "claimed", "measured", "verdict"),
        prose_columns=("remark",),
        code_columns=("to measure it",),
        empty="No claim was asked for.",
    )
