"""The claims of the two source documents, and what runs and arithmetic say of each.

A claim is a row of `claims.yaml`; its verdict is computed here and stands nowhere else.

The tolerance comes from the printed digits: 0.63 stands for [0.625, 0.635), "~11" for
[10.5, 11.5), "+3.2" for [3.15, 3.25); the zeros of 100 and 0.80 are digits. A range such as 82-88
stands as it is, both ends included; "> 0" for everything above 0.

The verdicts, the first that applies:

- contradicted by arithmetic: the source's own figures, or what the architecture makes inevitable,
  rule the printed figure out (`senet_lib.claims.arithmetic`), so that no run could confirm it;
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
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senet_lib.claims.arithmetic import ARITHMETIC, Derivation
from senet_lib.claims.claim import Claim, _content, load_claims, load_protocol
from senet_lib.claims.evidence import Evidence, claim_runs
from senet_lib.claims.measures import MEASURES, Found
from senet_lib.recipe import load_study
from senet_lib.runs.published import PUBLISHED
from senet_lib.runs.records import (
    DEFAULT_ROOT,
    RunRecord,
    anchored,
    from_top,
)
from senet_lib.runs.study import train_command
from senet_lib.wording import counted

if TYPE_CHECKING:
    from senet_lib.analysis.scores import StudyScores
    from senet_lib.report.table import Table, Text

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
CONTRADICTED, NOT_MEASURED = "contradicted by arithmetic", "not yet measured"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, CONTRADICTED, NOT_MEASURED)


# A claim


# The runs


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
        scores: what maps score, see `senet_lib.analysis.scores.all_scores`; likewise.
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
    from senet_lib.analysis.scores import all_scores

    root = from_top(runs_root, DEFAULT_ROOT)
    published = anchored(PUBLISHED / "runs")
    roots = (root, published) if Path(runs_root) == DEFAULT_ROOT else (root,)
    found = [folder for folder in roots if Path(folder).is_dir()]
    scores = all_scores(*(Path(folder).parent / "reports" for folder in roots))
    return judge(load_claims(), claim_runs(*found) if found else [], scores)


def verdict_text(judgements: Sequence[Judgement]) -> "Text":
    """How many claims met which verdict, in a sentence."""
    from senet_lib.report.table import Text

    said = ", ".join(f"**{number}** {verdict}" for verdict, number in counts(judgements).items())
    return Text(
        f"Of the {len(judgements)} numbers that the two source documents state: {said}. A number "
        "counts as measured only by runs of the protocol it was claimed for."
    )


def claims_table(judgements: Sequence[Judgement]) -> "Table":
    """Every claim with what was measured, the verdict, the arithmetic and the command."""
    import pandas as pd

    from senet_lib.report.table import Table

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
