"""What our networks and runs say of a claim.

A measure takes a claim, the book of all claims and the evidence of the runs, and gives what was
found in the claim's unit. What needs no run is in `arithmetic`.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from senet_lib.analysis.literature import PUBLISHED
from senet_lib.analysis.localisation import METRICS, Summary, summarise
from senet_lib.analysis.scores import IOU_METRICS, StudyScores
from senet_lib.analysis.statistics import FEWEST_SEEDS
from senet_lib.analysis.trials import TRIAL_LABELS
from senet_lib.claims.arithmetic import (
    LEVEL,
    LIKE_SIZE,
    MAP_SIZES,
    MILLION,
    SMALL_COST,
    TABLE,
    WIDEST,
    block_cost,
    cost,
    millions,
    thop_total,
)
from senet_lib.wording import counted

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
    """

    number: float | None = None
    interval: tuple[float, float] | None = None
    text: str = ""
    runs: Sequence["RunRecord"] = ()
    n: int = 0
    missing: Sequence[tuple[str, int]] = ()
    remark: str = ""
    holds: bool | None = None


def _exact(number: float, text: str, remark: str = "") -> Found:
    return Found(number=number, interval=(number, number), text=text, remark=remark)


def _total(claim: "Claim", book: "Book", evidence: "Evidence") -> Found:
    """Parameters or MACs, in millions; the first of several networks that agrees, if one does."""
    field_name = "num_params" if claim.measure == "params" else "macs"
    totals = {model: getattr(cost(model), field_name) for model in claim.models}
    best = next((m for m, n in totals.items() if claim.holds(n / MILLION)), claim.models[0])
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


def _mean(claim: "Claim", evidence: "Evidence", values: Mapping[int, float]) -> Found:
    """Mean over seeds with its t interval, or a call for further seeds."""
    from senet_lib.analysis.statistics import interval

    n = len(values)
    unit = "pp" if claim.measure in ("difference", "gain") else claim.unit
    runs = [evidence.of(model, claim.protocol)[s] for model in claim.models for s in values]
    mean = sum(values.values()) / n if n else math.nan
    if n < FEWEST_SEEDS:
        remark = f"{n} of {FEWEST_SEEDS} seeds so far, mean {mean:.2f} {unit}" if n else ""
        return Found(missing=evidence.missing(claim, FEWEST_SEEDS), runs=runs, n=n, remark=remark)
    found = interval(values.values(), LEVEL)
    half = (found.high - found.low) / 2 if found else 0.0
    if claim.epoch:  # a figure of a single run: where one more run would fall
        half *= math.sqrt(n + 1)
    low, high = mean - half, mean + half
    text = f"{mean:.2f} {unit} [{low:.2f}, {high:.2f}]"
    widest = max(WIDEST, claim.high - claim.low)
    if half > widest and not claim.epoch:
        remark = f"{text}: too wide to decide anything with {n} seeds"
        return Found(missing=evidence.missing(claim, n + 1), runs=runs, n=n, remark=remark)
    return Found(number=mean, interval=(low, high), text=text, runs=runs, n=n)


def _error(claim: "Claim", book: "Book", evidence: "Evidence") -> Found:
    """Mean test error, or accuracy, over seeds, in percent."""
    runs = evidence.of(claim.models[0], claim.protocol)
    sign = claim.measure == "accuracy"
    values = {s: 100 * abs(sign - run.test_error) for s, run in runs.items()}
    return _mean(claim, evidence, values)


def _epoch(claim: "Claim", book: "Book", evidence: "Evidence") -> Found:
    """A figure of one epoch, read from the histories; runs not evaluated then do not count."""
    values = {}
    for seed, run in evidence.of(claim.models[0], claim.protocol).items():
        rows = run.history.set_index("epoch")
        if claim.column == "test_accuracy":
            values[seed] = 100 * (1 - float(rows["test_error"].get(claim.epoch, math.nan)))
        else:
            values[seed] = float(rows[claim.column].get(claim.epoch, math.nan))
    known = {seed: value for seed, value in values.items() if math.isfinite(value)}
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
    runs = evidence.of(claim.models[0], claim.protocol)
    n = len(runs)
    if n < FEWEST_SEEDS:
        return Found(missing=evidence.missing(claim, FEWEST_SEEDS), runs=list(runs.values()), n=n)
    from scipy import stats

    errors = [100 * run.test_error for run in runs.values()]
    mean = sum(errors) / n
    sd = math.sqrt(sum((e - mean) ** 2 for e in errors) / (n - 1))
    tail = (1 - LEVEL) / 2
    low, high = (sd * math.sqrt((n - 1) / stats.chi2.ppf(q, n - 1)) for q in (1 - tail, tail))
    return Found(
        number=sd,
        interval=(low, high),
        text=f"{sd:.3f} pp [{low:.3f}, {high:.3f}]",
        runs=list(runs.values()),
        n=n,
        remark=f"a weak test: with {n} seeds the interval spans a factor of {high / low:.0f}"
        if sd
        else "",
    )


def _differences(claim: "Claim", evidence: "Evidence") -> dict[int, float]:
    """Error of the plain network minus error of the variant on shared seeds, percentage points."""
    variant, plain = (evidence.of(model, claim.protocol) for model in claim.models)
    return {s: 100 * (plain[s].test_error - variant[s].test_error) for s in evidence.shared(claim)}


def _difference(claim: "Claim", book: "Book", evidence: "Evidence") -> Found:
    """Paired difference in error; signed as the claim is."""
    sign = -1 if claim.value.startswith("-") else 1
    values = {s: sign * d for s, d in _differences(claim, evidence).items()}
    return _mean(claim, evidence, values)


def _gain(claim: "Claim", book: "Book", evidence: "Evidence") -> Found:
    """Gain in accuracy over shared seeds, and what it costs in MACs."""
    variant, plain = (cost(model).macs for model in claim.models)
    share = 100 * (variant - plain) / plain
    found = _mean(claim, evidence, _differences(claim, evidence))
    remark = "; ".join(filter(None, [found.remark, f"the cost: {share:+.3f} % MACs"]))
    holds = None if found.interval is None else found.interval[0] > 0 and share < SMALL_COST
    return replace(found, holds=holds, remark=remark)


def _efficiency(claim: "Claim", book: "Book", evidence: "Evidence") -> Found:
    """Parameters for each percentage point of error drop; the drop is the source's until it is
    measured."""
    variant, plain = (cost(model).num_params for model in claim.models)
    added = (variant - plain) / MILLION
    printed = book[f"{claim.id}-derror"]
    drop = _mean(claim, evidence, _differences(claim, evidence))
    if drop.interval is None:
        low, high, middle = -printed.high, -printed.low, -float(printed.value)
        said = f"the source's own drop of {middle} pp; whether that holds is {printed.id}"
    else:
        (low, high), middle = drop.interval, drop.number
        said = f"the measured drop of {drop.text}"
    # A drop that may be nothing has no finite price.
    interval = (added / high if high > 0 else math.inf, added / low if low > 0 else math.inf)
    number = added / middle if middle > 0 else math.inf
    runs, n = ([], 0) if drop.interval is None else (drop.runs, drop.n)
    text = f"{number:.3f} M/pp" if math.isfinite(number) else "no drop to pay for"
    remark = f"{variant - plain:,} parameters over {said}"
    return Found(number=number, interval=interval, text=text, runs=runs, n=n, remark=remark)


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
    holds = None
    if found.interval:
        holds = claim.meets(*found.interval) and found.interval[1] < 100 * best.error
    return replace(found, holds=holds, remark="; ".join(filter(None, [found.remark, remark])))


def _recomputed(claim: "Claim", book: "Book", evidence: "Evidence") -> Found:
    """What only the source's own figures give: the number is the derivation's."""
    return Found()


def _localisation(claim: "Claim", book: "Book", evidence: "Evidence") -> Found:
    """The source defines no mask and no threshold, so every definition measured is tried.

    The claim holds if there is a definition by which the networks stand in the claimed order and
    this one's value lies in its interval. Scores of another recipe settle nothing.
    """

    order = list(claimed_order(book.values()))
    model = claim.models[0]
    remark = (
        "the source does not say what the maps were compared with, so every definition is tried"
    )
    missing = evidence.missing(claim, FEWEST_SEEDS)
    own = evidence.scores(claim)
    found = [d for d in (definitions(own, order) if own else []) if d.seeds >= FEWEST_SEEDS]
    if not found:
        return Found(
            missing=missing, remark="; ".join([remark, *_short_maps(claim, order, evidence)])
        )
    means = [d.summaries[model].mean for d in found]
    holding = [
        d
        for d in found
        if d.ordered and (ends := d.summaries[model].interval) and claim.meets(ends.low, ends.high)
    ]
    named = "; ".join(d.label for d in holding) or "no definition"
    return Found(
        number=sorted(means)[len(means) // 2],
        interval=(min(means), max(means)),
        text=f"{min(means):.2f} to {max(means):.2f} over {counted(len(found), 'definition')}",
        runs=list(evidence.of(model, claim.protocol).values()),
        n=min(d.seeds for d in found),
        remark=f"{remark}; order and value as claimed: {named}",
        holds=bool(holding),
    )


def _short_maps(claim: "Claim", order: Sequence[str], evidence: "Evidence") -> list[str]:
    """What maps of other trainings score, which settles nothing about this one."""

    said = []
    for scores in evidence.other_scores(claim):
        tried = definitions(scores, order)
        values = [s.mean for d in tried if (s := d.summaries[claim.models[0]]).mean is not None]
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
    "localisation": _localisation,
}


# The claimed order


def claimed_order(claims: Iterable["Claim"]) -> dict[str, float]:
    """The claimed Grad-CAM IoU of each network, the highest first."""
    claimed = {c.models[0]: c.middle for c in claims if c.measure == "localisation"}
    return dict(sorted(claimed.items(), key=lambda pair: -pair[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One meaning that "the IoU of the map" could have, and what the networks score by it.

    Attributes:
        trial: key of the trial.
        metric: key of the metric.
        summaries: over the seeds, by network.
        ordered: whether the means stand in the claimed order.
        seeds_ordered: seeds whose own scores stand in it.
        seeds: seeds that all networks have.
    """

    trial: str
    metric: str
    summaries: Mapping[str, Summary]
    ordered: bool
    seeds_ordered: int
    seeds: int

    @property
    def label(self) -> str:
        """Metric and trial in words."""
        return f"{METRICS[self.metric].label}, {TRIAL_LABELS[self.trial]}"


def definitions(scores: StudyScores, order: Sequence[str]) -> list[Definition]:
    """Every IoU that was measured, for networks in the order claimed, the highest first.

    Args:
        scores: of one study.
        order: the networks.
    Returns:
        A definition for each trial and each of `IOU_METRICS` that all networks have scores of.
    """
    found = []
    for trial in scores.trials:
        for metric in IOU_METRICS:
            values = [scores.per_seed(model, trial, metric) for model in order]
            if not all(values):
                continue
            shared = sorted(set.intersection(*map(set, values)))
            summaries = {m: summarise(v) for m, v in zip(order, values, strict=True)}
            means = [summaries[model].mean for model in order]
            found.append(
                Definition(
                    trial=trial,
                    metric=metric,
                    summaries=summaries,
                    ordered=_falls(means),
                    seeds_ordered=sum(_falls([v[seed] for v in values]) for seed in shared),
                    seeds=len(shared),
                )
            )
    return found


def _falls(values: Sequence[float]) -> bool:
    """Whether each value lies below the one before."""
    return all(a > b for a, b in itertools.pairwise(values))
