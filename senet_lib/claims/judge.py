"""The claims of the two source documents, and what runs and arithmetic say of each.

A claim is a row of `claims.yaml`; its verdict is computed here and stands nowhere else.

What the printed digits of a figure stand for says `claims.claim`. The verdicts, the first that
applies:

- contradicted by arithmetic: the source's own figures, or what the architecture makes inevitable,
  rule the printed figure out (`claims.arithmetic`), so that no run could confirm it. Each such
  verdict names the fact it rests on; there are fewer facts than contradictions;
- depends on our widths: a size of a network whose widths the source does not state. Many choices of
  widths print its three totals (`claims.widths`), and the range over them stands beside the figure;
- not yet measured: runs of the protocol are missing, or those there are leave it undecided; the
  commands that make more are given;
- reproduced: a count prints as claimed, for the one network of the row; a mean, a difference or a
  standard deviation over seeds is the claimed one by two one-sided tests (`claims.equivalence`);
- not reproduced: a count prints otherwise, or the 95 % interval excludes the printed figure. A near
  miss is one that would agree if the last zero printed is no digit.

Every verdict has the chance that it would also be reached were the claim false, in the sense of
`claims.equivalence`; what arithmetic rules out, and what was chosen to agree, would be in any case.

All measurements take at least three seeds. Some claims have a rule of their own. A figure that the
source printed from one single run is not reproduced where one more run would not fall there. A gain
(`a-se-gain`) is reproduced if its whole interval is above 0 and the MACs grow by less than 1 %; the
state of the art (`b-sota`) if the mean agrees and its whole interval is below the published errors
at like size; an IoU by the one definition chosen beforehand (`claims.definitions.CHOSEN`); the
p-value by the paired t test. Parameters for a percentage point (`b-efficiency-*`) are ours over the
source's own drop in error, until that drop is measured.

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

from senet_lib.claims.arithmetic import ARITHMETIC, FACTS, Derivation
from senet_lib.claims.claim import Claim, _content, load_claims, load_protocol
from senet_lib.claims.equivalence import count_if_false
from senet_lib.claims.evidence import Evidence, claim_runs
from senet_lib.claims.measures import MEASURES, Found
from senet_lib.claims.widths import family_range, fitting_widths
from senet_lib.errors import counted
from senet_lib.recipe import load_study
from senet_lib.runs.published import PUBLISHED
from senet_lib.runs.records import (
    DEFAULT_ROOT,
    RunRecord,
    anchored,
    from_top,
)
from senet_lib.runs.study import train_command

if TYPE_CHECKING:
    import pandas as pd

    from senet_lib.analysis.scores import StudyScores

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
CONTRADICTED, NOT_MEASURED = "contradicted by arithmetic", "not yet measured"
DEPENDS = "depends on our widths"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, CONTRADICTED, DEPENDS, NOT_MEASURED)


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
        if_false: chance that the verdict would also be reached were the claim false; None where
            nothing is measured.
        near_miss: the figure would agree if the last zero printed is no digit.
        fact: key of `arithmetic.FACTS` that a contradiction rests on, else empty.
        family: what the figure lies between over all widths that print the source's totals, in the
            claim's unit; None where its network's widths are stated.
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
    if_false: float | None = None
    near_miss: bool = False
    fact: str = ""
    family: tuple[float, float] | None = None

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
            "if false": "" if self.if_false is None else f"as likely as {self.if_false:.2g}",
            "rests on": FACTS.get(self.fact, ""),
            "widths": ""
            if self.family is None
            else f"{self.family[0]:.4g} to "
            f"{self.family[1]:.4g} {self.claim.unit} over {len(fitting_widths())} choices",
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
        found = ("verdict", "measured", "number", "interval", "n", "if_false", "near_miss", "fact")
        fields |= {name: getattr(self, name) for name in (*found, "family")}
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
    family = family_range(claim)
    verdict = _verdict(claim, derived, found, family)
    open_still = verdict == NOT_MEASURED
    near = verdict == NOT_REPRODUCED and not claim.protocol and claim.nearly_holds(found.number)
    remarks = [_reconstructed(claim, verdict, family), found.remark]
    if near:
        remarks.insert(0, "a near miss: it agrees if the last zero printed is no digit")
    if verdict != CONTRADICTED:
        remarks.append(claim.reply or claim.note)
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
        if_false=_if_false(claim, verdict, found),
        near_miss=near,
        fact=derived.fact if verdict == CONTRADICTED else "",
        family=family,
    )


def _if_false(claim: Claim, verdict: str, found: Found) -> float | None:
    if verdict in (CONTRADICTED, DEPENDS):
        return 1.0
    if verdict == NOT_MEASURED:
        return None
    held = verdict == REPRODUCED
    return count_if_false(claim, held) if found.if_false is None else found.if_false


def _verdict(
    claim: Claim,
    derived: Derivation | None,
    found: Found,
    family: tuple[float, float] | None,
) -> str:
    if derived and derived.ruled_out:
        return CONTRADICTED
    if family:
        return DEPENDS
    if found.interval is None:
        return NOT_MEASURED
    holds = claim.meets(*found.interval) if found.holds is None else found.holds
    return REPRODUCED if holds else NOT_REPRODUCED


def _reconstructed(claim: Claim, verdict: str, family: tuple[float, float] | None) -> str:
    """That a network is ours in its widths, so that its size is evidence of nothing."""
    if not claim.reconstructed or verdict == NOT_MEASURED:
        return ""
    if verdict != DEPENDS:
        return "measured on our reconstruction"
    low, high = family
    return (
        f"by our reconstruction; {len(fitting_widths())} other choices of widths print the "
        f"source's three totals and have {low:.4g} to {high:.4g} {claim.unit}: neither agreement "
        "nor disagreement is evidence"
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


def claims_frame(judgements: Sequence[Judgement]) -> "pd.DataFrame":
    """Every claim and what was found of it, a row each.

    Args:
        judgements: what `judge` gives.
    Returns:
        id, source, where, subject, quantity, claimed (with its unit), verdict, near_miss, number,
        low and high (its interval), n (seeds), if_false, fact, family_low and family_high (see
        `Judgement`), derivation, remark and command. Numbers are in the claim's unit, NaN where
        there is none.
    """
    import pandas as pd

    rows = []
    for found in judgements:
        low, high = found.interval or (math.nan, math.nan)
        family_low, family_high = found.family or (math.nan, math.nan)
        names = ("id", "source", "where", "subject", "quantity", "claimed")
        rows.append({
            **{name: getattr(found.claim, name) for name in names},
            "verdict": found.verdict,
            "near_miss": found.near_miss,
            "number": math.nan if found.number is None else found.number,
            "low": low,
            "high": high,
            "n": found.n,
            "if_false": math.nan if found.if_false is None else found.if_false,
            "fact": found.fact,
            "family_low": family_low,
            "family_high": family_high,
            "derivation": found.derivation,
            "remark": found.remark,
            "command": found.command,
        })  # fmt: skip
    return pd.DataFrame(rows)


def facts(judgements: Sequence[Judgement]) -> dict[str, list[str]]:
    """The independent facts behind the contradictions: {key of `FACTS`: ids of the claims}."""
    return {
        fact: ids
        for fact in FACTS
        if (ids := [found.claim.id for found in judgements if found.fact == fact])
    }


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
