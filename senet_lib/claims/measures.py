"""What our networks and runs say of a claim.

A measure takes a claim, the book of all claims and the evidence of the runs, and gives what was
found in the claim's unit. What needs no run is in `arithmetic`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from senet_lib.analysis.literature import PUBLISHED
from senet_lib.analysis.localisation import METRICS
from senet_lib.analysis.statistics import FEWEST_SEEDS, standard_deviation
from senet_lib.analysis.trials import TRIAL_LABELS
from senet_lib.claims.arithmetic import (
    LIKE_SIZE,
    MAP_SIZES,
    MILLION,
    SMALL_COST,
    TABLE,
    block_cost,
    cost,
    millions,
    thop_total,
)
from senet_lib.claims.definitions import CHOSEN, claimed_order, definitions
from senet_lib.claims.equivalence import (
    ALPHA,
    Estimate,
    agrees,
    mean_if_false,
    spread_agrees,
    spread_if_false,
    spread_interval,
)
from senet_lib.errors import counted

if TYPE_CHECKING:
    from senet_lib.claims.claim import Claim
    from senet_lib.claims.evidence import Evidence
    from senet_lib.runs.records import RunRecord

    Book = Mapping[str, Claim]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A measured quantity in the claim's unit; without an interval, it is not measured yet.

    Attributes:
        number: the estimate.
        interval: its ends, equal for what has no spread.
        text: number and interval in words.
        runs: the runs behind it.
        n: seeds behind it, 0 where none is needed.
        missing: model and seed of the runs that are needed.
        remark: what a reader should know.
        holds: the answer, where it is not that tolerance and interval meet.
        if_false: chance that the answer would be the same if the claim were false; None for counts.
    """

    number: float | None = None
    interval: tuple[float, float] | None = None
    text: str = ""
    runs: Sequence["RunRecord"] = ()
    n: int = 0
    missing: Sequence[tuple[str, int]] = ()
    remark: str = ""
    holds: bool | None = None
    if_false: float | None = None


def _exact(number: float, text: str, remark: str = "") -> Found:
    return Found(number=number, interval=(number, number), text=text, remark=remark)


def _total(claim: "Claim", book: "Book", evidence: "Evidence") -> Found:
    """Parameters or MACs, in millions, of the row's one network; others are shown beside it."""
    field_name = "num_params" if claim.measure == "params" else "macs"
    totals = {model: getattr(cost(model), field_name) for model in claim.models}
    best = claim.models[0]
    texts = {model.replace("+", ", "): millions(n) for model, n in totals.items()}
    text = "; ".join(f"{n} ({m})" if len(texts) > 1 else n for m, n in texts.items())
    remark = ""
    if claim.measure == "macs":
        half = millions(MILLION * claim.middle / 2, 1)
        remark = (
            f"thop counts multiply-adds, so this row does: {totals[best]:,} MACs are "
            f"{millions(2 * totals[best], 1)} FLOPs, and {claim.claimed} FLOPs would be {half} "
            f"MACs; thop's rule adds normalisation and pooling, {millions(thop_total(best), 1)} in "
            "all"
        )
    return _exact(totals[best] / MILLION, text, remark)


def _added(claim: "Claim", book: "Book", evidence: "Evidence") -> Found:
    """Parameters (millions or percent) or MACs (percent) that a variant adds to its plain one."""
    field_name = "macs" if "macs" in claim.measure else "num_params"
    variant, plain = (getattr(cost(model), field_name) for model in claim.models)
    share = 100 * (variant - plain) / plain
    number = share if claim.unit == "%" else (variant - plain) / MILLION
    unit = "MACs" if field_name == "macs" else "parameters"
    return _exact(number, f"{variant - plain:+,} {unit}, {share:+.{2 if share > 1 else 3}f} %")


def _block(claim: "Claim", book: "Book", evidence: "Evidence") -> Found:
    """Parameters or MACs of one block, by our code."""
    profile = block_cost(claim.subject, MAP_SIZES[0])
    if claim.measure == "block-params":
        return _exact(profile.num_params / MILLION, f"{profile.num_params / MILLION:.4f} M")
    sides = {side: block_cost(claim.subject, side).macs for side in MAP_SIZES}
    text = "; ".join(f"{millions(n, 1)} MACs at {side}x{side}" for side, n in sides.items())
    return _exact(profile.macs / MILLION, text)


def _judged(
    claim: "Claim",
    evidence: "Evidence",
    estimate: Estimate | None,
    n: int,
    answer: Callable[[Estimate], bool | None],
    if_false: Callable[[Estimate, bool], float],
) -> Found:
    """A mean or a difference with its interval and the answer, or a call for further seeds.

    Args:
        estimate: what was measured; None where seeds are too few for any.
        n: seeds that all networks of the claim have.
        answer: whether it is as claimed, None where further seeds are needed.
        if_false: how likely that answer is if the claim is false.
    """
    unit = "pp" if claim.measure in ("difference", "gain") else claim.unit
    runs = [evidence.of(m, claim.protocol)[s] for m in claim.models for s in evidence.shared(claim)]
    if estimate is None:
        said = f"{n} of {FEWEST_SEEDS} seeds so far" if n else ""
        return Found(missing=evidence.missing(claim, FEWEST_SEEDS), runs=runs, n=n, remark=said)
    low, high = estimate.interval()
    text = f"{estimate.number:.2f} {unit} [{low:.2f}, {high:.2f}]"
    holds = answer(estimate)
    if holds is None:
        remark = f"{text}: {n} seeds leave it undecided"
        return Found(missing=evidence.missing(claim, n + 1), runs=runs, n=n, remark=remark)
    return Found(
        number=estimate.number,
        interval=(low, high),
        text=text,
        runs=runs,
        n=n,
        holds=holds,
        if_false=if_false(estimate, holds),
    )


def _of_mean(values: Sequence[float]) -> Estimate | None:
    """The mean of seeds; None where they are too few."""
    n = len(values)
    if n < FEWEST_SEEDS:
        return None
    se = standard_deviation(np.array(values)) / math.sqrt(n)
    return Estimate(number=float(np.mean(values)), se=se, df=n - 1)


def _mean(claim: "Claim", evidence: "Evidence", values: Sequence[float]) -> Found:
    """A mean over seeds, which must lie within the margin of the printed figure."""

    def answer(found: Estimate) -> bool | None:
        holds = agrees(claim, found)
        if holds is False and claim.epoch:  # a figure of a single run: where one more would fall
            wider = replace(found, se=found.se * math.sqrt(found.df + 2))
            return None if claim.meets(*wider.interval()) else False
        return holds

    chance = partial(mean_if_false, claim)
    return _judged(claim, evidence, _of_mean(values), len(values), answer, chance)


def _error(claim: "Claim", book: "Book", evidence: "Evidence") -> Found:
    """Mean test error, or accuracy, over seeds, in percent."""
    runs = evidence.of(claim.models[0], claim.protocol)
    sign = claim.measure == "accuracy"
    return _mean(claim, evidence, [100 * abs(sign - run.test_error) for run in runs.values()])


def _epoch(claim: "Claim", book: "Book", evidence: "Evidence") -> Found:
    """A figure of one epoch, read from the histories; runs not evaluated then do not count."""
    values = {}
    for seed, run in evidence.of(claim.models[0], claim.protocol).items():
        rows = run.history.set_index("epoch")
        if claim.column == "test_accuracy":
            values[seed] = 100 * (1 - float(rows["test_error"].get(claim.epoch, math.nan)))
        else:
            values[seed] = float(rows[claim.column].get(claim.epoch, math.nan))
    known = [value for value in values.values() if math.isfinite(value)]
    found = _mean(claim, evidence, known)
    if found.interval is None and not found.missing:
        remark = (
            f"{counted(len(values) - len(known), 'run')} not evaluated after epoch {claim.epoch}; "
            "further seeds are needed, evaluated after every epoch"
        )
        more = len(values) + FEWEST_SEEDS - len(known)
        return replace(found, missing=evidence.missing(claim, more), remark=remark)
    return found


def _sigma(claim: "Claim", book: "Book", evidence: "Evidence") -> Found:
    """Standard deviation over seeds (n - 1), percentage points, with its chi-square interval."""
    runs = list(evidence.of(claim.models[0], claim.protocol).values())
    n = len(runs)
    if n < FEWEST_SEEDS:
        return Found(missing=evidence.missing(claim, FEWEST_SEEDS), runs=runs, n=n)
    sd = standard_deviation(np.array([100 * run.test_error for run in runs]))
    low, high = spread_interval(sd, n - 1)
    text = f"{sd:.3f} pp [{low:.3f}, {high:.3f}]"
    holds = spread_agrees(claim, sd, n - 1)
    if holds is None:
        remark = f"{text}: {n} seeds leave it undecided"
        return Found(missing=evidence.missing(claim, n + 1), runs=runs, n=n, remark=remark)
    return Found(
        number=sd,
        interval=(low, high),
        text=text,
        runs=runs,
        n=n,
        holds=holds,
        if_false=spread_if_false(claim, n - 1, holds),
    )


def _drop(claim: "Claim", evidence: "Evidence") -> tuple[Estimate | None, int]:
    """Error of the plain network minus error of the variant on the seeds both have, percentage
    points, and how many these are. The networks are independent: pairing by seed buys nothing."""
    seeds = evidence.shared(claim)
    if len(seeds) < FEWEST_SEEDS:
        return None, len(seeds)
    variant, plain = (
        _of_mean([100 * evidence.of(model, claim.protocol)[s].test_error for s in seeds])
        for model in claim.models
    )
    difference = Estimate(
        number=plain.number - variant.number,
        se=math.hypot(plain.se, variant.se),
        df=plain.df + variant.df,
    )
    return difference, len(seeds)


def _difference(claim: "Claim", book: "Book", evidence: "Evidence") -> Found:
    """Difference in error; signed as the claim is."""
    found, n = _drop(claim, evidence)
    if found and claim.value.startswith("-"):
        found = replace(found, number=-found.number)
    chance = partial(mean_if_false, claim)
    return _judged(claim, evidence, found, n, partial(agrees, claim), chance)


def _gain(claim: "Claim", book: "Book", evidence: "Evidence") -> Found:
    """Gain in accuracy over shared seeds, and what it costs in MACs."""
    variant, plain = (cost(model).macs for model in claim.models)
    share = 100 * (variant - plain) / plain

    def answer(gain: Estimate) -> bool | None:
        low, high = gain.interval()
        if low > 0:
            return share < SMALL_COST
        return False if high <= 0 else None

    found, n = _drop(claim, evidence)
    judged = _judged(claim, evidence, found, n, answer, lambda *_: ALPHA / 2)
    return replace(
        judged, remark="; ".join(filter(None, [judged.remark, f"the cost: {share:+.3f} % MACs"]))
    )


def _p_value(claim: "Claim", book: "Book", evidence: "Evidence") -> Found:
    """p of the paired t test over shared seeds; without a difference it is anything alike."""
    from scipy import stats

    seeds = evidence.shared(claim)
    runs = [evidence.of(model, claim.protocol)[s] for model in claim.models for s in seeds]
    n = len(seeds)
    errors = np.array([run.test_error for run in runs]).reshape(2, n)
    if n < FEWEST_SEEDS or not standard_deviation(errors[0] - errors[1]):
        wanted = max(FEWEST_SEEDS, n + (n >= FEWEST_SEEDS))
        return Found(missing=evidence.missing(claim, wanted), runs=runs, n=n)
    p = float(stats.ttest_rel(*errors).pvalue)
    holds, chance = claim.holds(p), claim.high - claim.low
    return Found(
        number=p,
        interval=(p, p),
        text=f"{p:.2g}",
        runs=runs,
        n=n,
        holds=holds,
        if_false=chance if holds else 1 - chance,
    )


def _efficiency(claim: "Claim", book: "Book", evidence: "Evidence") -> Found:
    """Parameters for each percentage point of error drop; the drop is the source's until it is
    measured."""
    variant, plain = (cost(model).num_params for model in claim.models)
    added = (variant - plain) / MILLION
    printed = book[f"{claim.id}-derror"]
    drop, _ = _drop(claim, evidence)
    if drop is None:
        low, high, middle = -printed.high, -printed.low, -float(printed.value)
        said = f"the source's own drop of {middle} pp; whether that holds is {printed.id}"
    else:
        (low, high), middle = drop.interval(), drop.number
        said = f"the measured drop of {middle:.2f} pp [{low:.2f}, {high:.2f}]"
    # A drop that may be nothing has no finite price.
    interval = (added / high if high > 0 else math.inf, added / low if low > 0 else math.inf)
    number = added / middle if middle > 0 else math.inf
    seeds = evidence.shared(claim) if drop else []
    runs = [evidence.of(model, claim.protocol)[s] for model in claim.models for s in seeds]
    text = f"{number:.3f} M/pp" if math.isfinite(number) else "no drop to pay for"
    return Found(
        number=number,
        interval=interval,
        text=text,
        runs=runs,
        n=len(seeds),
        remark=f"{variant - plain:,} parameters over {said}",
    )


def _sota(claim: "Claim", book: "Book", evidence: "Evidence") -> Found:
    """The mean error, against the claim and against the published errors at like size."""
    found = _error(claim, book, evidence)
    stated = book[TABLE("se_", "params")]
    limit = LIKE_SIZE * stated.middle * MILLION
    by_error = sorted(PUBLISHED, key=lambda point: point.error)
    near = [point for point in by_error if point.num_params and point.num_params <= limit]
    best, lowest = near[0], by_error[0]
    remark = (
        f"up to {LIKE_SIZE:.0f} times {stated.claimed}, the lowest of {len(near)} published errors "
        f"is {100 * best.error:.2f} % ({best.network}, {best.source}), the highest "
        f"{100 * near[-1].error:.2f} %; the lowest at any size is {100 * lowest.error:.2f} % "
        f"({lowest.network}, {lowest.source})"
    )
    holds = found.holds
    if holds:
        holds = found.interval[1] < 100 * best.error
    return replace(found, holds=holds, remark="; ".join(filter(None, [found.remark, remark])))


def _recomputed(claim: "Claim", book: "Book", evidence: "Evidence") -> Found:
    """What only the source's own figures give: the number is the derivation's."""
    return Found()


def _localisation(claim: "Claim", book: "Book", evidence: "Evidence") -> Found:
    """The source defines no mask and no threshold; the definition is chosen beforehand.

    The claim holds if by `CHOSEN` the networks stand in the claimed order and this one's mean lies
    within the margin. Other definitions are counted, as exploration; scores of another recipe
    settle nothing.
    """
    order = list(claimed_order(book.values()))
    model, own = claim.models[0], evidence.scores(claim)
    found = [d for d in (definitions(own, order) if own else []) if d.seeds >= FEWEST_SEEDS]
    chosen = next((d for d in found if (d.trial, d.metric) == CHOSEN), None)
    named = f"judged by {METRICS[CHOSEN[1]].label}, {TRIAL_LABELS[CHOSEN[0]]}"
    missing = evidence.missing(claim, FEWEST_SEEDS)
    if chosen is None:
        return Found(
            missing=missing, remark="; ".join([named, *_short_maps(claim, order, evidence)])
        )
    others = [d for d in found if d is not chosen]
    ordered = sum(d.ordered for d in others)
    remark = (
        f"{named}; of {counted(len(others), 'other definition')}, which are exploration, {ordered} "
        "give the claimed order"
    )
    by_chance = 1 / math.factorial(len(order))

    def if_false(estimate: Estimate, holds: bool) -> float:
        if holds:
            return by_chance * mean_if_false(claim, estimate, True)
        return 1 - by_chance * (1 - mean_if_false(claim, estimate, False))

    judged = _judged(
        claim,
        evidence,
        _of_mean(list(own.per_seed(model, *CHOSEN).values())),
        chosen.seeds,
        lambda estimate: agrees(claim, estimate) if chosen.ordered else False,
        if_false,
    )
    runs = list(evidence.of(model, claim.protocol).values())
    said = "; ".join(filter(None, [judged.remark, remark]))
    return replace(judged, runs=runs, remark=said)


def _short_maps(claim: "Claim", order: Sequence[str], evidence: "Evidence") -> list[str]:
    """What maps of other trainings score, which settles nothing about this one."""

    said = []
    for scores in evidence.other_scores(claim):
        tried = definitions(scores, order)
        values = [d.means[claim.models[0]] for d in tried]
        if not tried:
            continue
        ordered = [d.label for d in tried if d.ordered]
        which = f" ({'; '.join(ordered)})" if ordered else ""
        said.append(
            f"networks of another recipe (study {scores.study}: "
            f"{counted(scores.recipe['epochs'], 'epoch')}), which settle nothing here, score "
            f"{min(values):.2f} to {max(values):.2f}; of {counted(len(tried), 'definition')}, "
            f"{len(ordered)} give the claimed order{which}"
        )
    return said


MEASURES: dict[str, Callable[["Claim", "Book", "Evidence"], Found]] = {
    "params": _total,
    "macs": _total,
    "added-params": _added,
    "added-params-percent": _added,
    "added-macs-percent": _added,
    "block-params": _block,
    "block-macs": _block,
    "error": _error,
    "accuracy": _error,
    "sigma": _sigma,
    "epoch": _epoch,
    "difference": _difference,
    "gain": _gain,
    "efficiency": _efficiency,
    "sota": _sota,
    "recomputed": _recomputed,
    "p-value": _p_value,
    "localisation": _localisation,
}
