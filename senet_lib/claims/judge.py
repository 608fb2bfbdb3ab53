"""The verdict on each claim of `claims.yaml`: computed here, and written down nowhere else.

The first that applies:

- contradicted by arithmetic: the source's own other figures, or what the architecture makes
  inevitable, rule the printed figure out (`claims.arithmetic`): no run could confirm it and them;
- depends on our choices: a size of a network whose widths the source does not state, or a count
  that one shortcut prints and another does not. Many choices of widths print the source's three
  totals (`claims.widths`), and the range over them stands beside the figure;
- not yet measured: runs of the protocol are missing, or those there are leave it undecided;
- reproduced: a count prints as claimed; a mean, a difference or a standard deviation over at least
  three seeds is the claimed one by two one-sided tests (`claims.equivalence`);
- not reproduced: a count prints otherwise, or the 95 % interval excludes the printed figure. A near
  miss is one that would agree if the last zero printed is no digit.

Gains, prices, the state of the art, an IoU, the p-value and figures of one epoch have rules of
their own, see `claims.measures`. Every verdict has the chance that it would also be reached were
the claim false; what arithmetic rules out, and what depends on our choices, would be in any case.
"""

import json
import math
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from senet_lib.analysis.scores import StudyScores, all_scores
from senet_lib.claims.arithmetic import ARITHMETIC
from senet_lib.claims.claim import Book, Claim, content, load_claims, load_protocol, say
from senet_lib.claims.equivalence import count_if_false
from senet_lib.claims.evidence import Evidence, claim_runs
from senet_lib.claims.measures import MEASURES, Found, exact
from senet_lib.claims.widths import PREFIXES, family_range, fitting_widths
from senet_lib.errors import counted
from senet_lib.files import anchored
from senet_lib.recipe import load_study
from senet_lib.runs.records import DEFAULT_ROOT, RunRecord
from senet_lib.runs.study import train_command

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
CONTRADICTED, NOT_MEASURED = "contradicted by arithmetic", "not yet measured"
DEPENDS = "depends on our choices"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, CONTRADICTED, DEPENDS, NOT_MEASURED)


@dataclass(frozen=True, kw_only=True)
class Judgement(Found):
    """What was found of one claim, and what that says of it."""

    claim: Claim
    verdict: str  # one of `VERDICTS`
    derivation: str  # the arithmetic, with its numbers, if any applies
    commands: Sequence[str]  # what to type to get the runs that are missing
    near_miss: bool  # the figure would agree if the last zero printed is no digit
    fact: str  # the fact that a contradiction rests on, by its key
    # what the figure lies between over the choices of `claims.widths`, in the claim's unit; None
    # where its network's widths are stated
    family: tuple[float, float] | None

    def lines(self) -> dict[str, str]:
        """Everything by name, for a reader; what there is none of is left out."""
        claim, widths = self.claim, ""
        if self.family:
            low, high = self.family
            widths = f"{low:.4g} to {high:.4g} {claim.unit} over {len(fitting_widths())} choices"
        lines = {
            "claim": claim.id,
            "source": f"{content()['documents'][claim.source]}; {claim.where}",
            "subject": f"{claim.subject}: {claim.quantity}",
            "claimed": f"{claim.claimed} (from {claim.low:g} to {claim.high:g})",
            "measured": self.measured,
            "verdict": self.verdict,
            "if false": f"as likely as {self.if_false:.2g}" if _finite(self.if_false) else "",
            "rests on": content()["facts"].get(self.fact, ""),
            "widths": widths,
            "arithmetic": self.derivation,
            "remark": self.remark,
            "runs": "\n".join(run.path.as_posix() for run in self.runs),
            "to do": "\n".join(self.commands),
        }
        return {name: text.replace("\n", "\n" + 12 * " ") for name, text in lines.items() if text}

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON; what is infinite becomes None."""
        printed = ("id", "source", "where", "subject", "quantity", "claimed", "low", "high", "unit")
        own = ("verdict", "measured", "number", "interval", "n", "if_false", "near_miss", "fact",
               "family", "derivation", "commands", "remark")  # fmt: skip
        fields = {name: getattr(self.claim, name) for name in printed}
        fields |= {name: getattr(self, name) for name in own}
        fields |= {"runs": [run.path.as_posix() for run in self.runs], "note": self.claim.note}
        return {name: _finite(value) for name, value in fields.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def judge(
    claims: Sequence[Claim], runs: Sequence[RunRecord], scores: Sequence[StudyScores] = ()
) -> list[Judgement]:
    """Say of each claim what was found, in their order.

    Args:
        claims: those to judge.
        runs: whatever there are; those of other recipes, data or networks settle nothing.
        scores: what maps score, as `analysis.scores.all_scores` reads it; likewise.
    """
    book, evidence = {claim.id: claim for claim in load_claims()}, Evidence(runs, scores)
    return [_judge(claim, book, evidence) for claim in claims]


def _judge(claim: Claim, book: Book, evidence: Evidence) -> Judgement:
    derived = ARITHMETIC[claim.arithmetic](claim, book) if claim.arithmetic else None
    found = MEASURES[claim.measure](claim, book, evidence)
    if derived and derived.number is not None and found.number is None:
        found = exact(derived.number, f"{derived.number:.3g}")
    family, near = None if found.runs else family_range(claim), False
    if derived and derived.ruled_out:
        verdict, if_false = CONTRADICTED, 1.0
    elif family or found.depends:
        verdict, if_false = DEPENDS, 1.0
    elif found.interval is None:
        verdict, if_false = NOT_MEASURED, None
    else:
        holds = claim.meets(*found.interval) if found.holds is None else found.holds
        verdict = REPRODUCED if holds else NOT_REPRODUCED
        if_false = count_if_false(claim, holds) if found.if_false is None else found.if_false
        near = not holds and not claim.protocol and claim.nearly_holds(found.number)
    remarks, missing = [found.remark], ()
    if verdict == NOT_MEASURED:
        missing = tuple(found.missing)
        remarks.insert(0, _named(missing))
    elif verdict == DEPENDS and family:
        low, high = family
        both = ", whatever the gates squeeze" * (len(PREFIXES.get(claim.models[0], "")) > 1)
        about = {"number": len(fitting_widths()), "low": low, "high": high, "claim": claim}
        remarks.insert(0, say("widths", **about, readings=both))
    elif claim.reconstructed:
        remarks.insert(0, "measured on our reconstruction")
    if near:
        remarks.insert(0, "a near miss: it agrees if the last zero printed is no digit")
    if verdict != CONTRADICTED:
        remarks.append(claim.reply or claim.note)
        remarks.append(content()["protocols"].get(claim.protocol, {}).get("remark"))
    if verdict == NOT_MEASURED:
        remarks.append(_elsewhere(claim, evidence))
    changes = {"remark": "; ".join(filter(None, remarks)), "if_false": if_false}
    changes |= {"missing": missing, "runs": tuple(found.runs)}
    return Judgement(
        **vars(replace(found, **changes)),
        claim=claim,
        verdict=verdict,
        derivation=derived.text if derived else "",
        commands=_commands(claim, missing) if verdict == NOT_MEASURED else [],
        near_miss=near,
        fact=derived.fact if verdict == CONTRADICTED else "",
        family=family,
    )


def _by_model(missing: Sequence[tuple[str, int]]) -> dict[str, list[int]]:
    """The seeds of each model together."""
    return {model: [s for m, s in missing if m == model] for model, _ in missing}


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
    run, n = groups[0][0], len(groups[0])
    means = [100 * np.mean([run.test_error for run in runs]) for runs in groups]
    said = " and ".join(f"{m:.2f} % ({name})" for name, m in zip(claim.models, means, strict=True))
    return say("elsewhere", run=run, epochs=counted(run.recipe["epochs"], "epoch"), means=said,
               images=run.recipe.get("train_images") or 50_000,
               seeds=counted(n, "seed"))  # fmt: skip


def _commands(claim: Claim, missing: Sequence[tuple[str, int]]) -> list[str]:
    """What makes the missing runs, a command a model, by the protocol's file of settings if it is
    at hand and says the same, else by flags; then what measures the maps of all networks that a
    claim of an IoU is made of, a command a seed."""
    protocol = load_protocol(claim.protocol)
    config = content()["protocols"][claim.protocol]["config"]
    path = anchored(config)
    by_file = path.is_file() and load_study(path).recipe == protocol.recipe
    runs = _by_model(missing).items()
    commands = [train_command(protocol, config if by_file else "", m, *seeds) for m, seeds in runs]
    if claim.measure == "localisation":
        study, measured = claim.protocol, [c for c in load_claims() if c.measure == claim.measure]
        models = shlex.quote("models=" + json.dumps([c.models[0] for c in measured]))
        commands += [
            f"senet notebook gradcam --out outputs/reports/{study}/gradcam-seed{seed}.ipynb "
            f"-p study={study} -p seed={seed} -p {models} -p grids=250"
            for seed in protocol.seeds
        ]
    return commands


# What is shown


def counts(judgements: Sequence[Judgement]) -> dict[str, int]:
    """How many claims have each verdict, named for so many, in the order of `VERDICTS`; 0 where
    none has it."""
    found = Counter(judgement.verdict for judgement in judgements)
    named = {verdict: verdict for verdict in VERDICTS}
    if near := sum(judgement.near_miss for judgement in judgements):
        named[NOT_REPRODUCED] += f" ({near} by rounding alone)"
    if found[DEPENDS] != 1:
        named[DEPENDS] = DEPENDS.replace("depends", "depend")
    return {named[verdict]: found[verdict] for verdict in VERDICTS}


def facts(judgements: Sequence[Judgement]) -> dict[str, list[str]]:
    """The independent facts behind the contradictions: {key of a fact: ids of the claims}."""
    found = {f: [j.claim.id for j in judgements if j.fact == f] for f in content()["facts"]}
    return {fact: ids for fact, ids in found.items() if ids}


def judge_all(runs_root: str | Path = DEFAULT_ROOT, pattern: str = "*") -> list[Judgement]:
    """The claims that `load_claims` finds, by the runs below a folder and the scores in the reports
    beside it; if that is outputs/runs, by the published ones too. A folder that does not exist
    holds no runs."""
    roots = [] if Path(runs_root) == DEFAULT_ROOT else [Path(runs_root)]
    scores = all_scores(*(root.parent / "reports" for root in roots))
    return judge(load_claims(pattern), claim_runs(*roots), scores)
