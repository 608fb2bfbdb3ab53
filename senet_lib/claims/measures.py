"""What our networks and runs say of a claim.

A measure takes a claim, the book of all claims and the evidence of the runs, and gives what was
found in the claim's unit. What needs no run is in `arithmetic`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from senet_lib.analysis.literature import PUBLISHED
from senet_lib.analysis.localisation import METRICS
from senet_lib.analysis.statistics import FEWEST_SEEDS, standard_deviation
from senet_lib.analysis.trials import TRIAL_LABELS
from senet_lib.claims.arithmetic import MAP_SIZES, MILLION, block_cost, cost, millions, thop_total
from senet_lib.claims.claim import Book, Claim, say
from senet_lib.claims.definitions import CHOSEN, claimed_order, definitions
from senet_lib.claims.equivalence import ALPHA, FACTOR, Estimate, Spread
from senet_lib.claims.evidence import Evidence
from senet_lib.claims.widths import added_params
from senet_lib.errors import counted
from senet_lib.runs.records import RunRecord

SMALL_COST = 1.0  # percent more MACs
LIKE_SIZE = 2.0  # times the parameters


@dataclass(frozen=True, kw_only=True)
class Found:
    """A measured quantity in the claim's unit; without an interval, it is not measured yet."""

    number: float | None = None  # the estimate
    interval: tuple[float, float] | None = None  # its ends, equal for what has no spread
    measured: str = ""  # number and interval in words
    runs: Sequence[RunRecord] = ()  # the runs behind it
    n: int = 0  # seeds behind it, 0 where none is needed
    missing: Sequence[tuple[str, int]] = ()  # model and seed of the runs that are needed
    remark: str = ""  # what a reader should know
    holds: bool | None = None  # the answer, where it is not that tolerance and interval meet
    if_false: float | None = None  # chance of the same answer were the claim false; None for counts
    depends: bool = False  # another reading that the source leaves open has the other answer

    def saying(self, *remarks: str) -> "Found":
        """The same with more remarks; those that are empty say nothing."""
        return replace(self, remark="; ".join(filter(None, [self.remark, *remarks])))


def exact(number: float, measured: str, **more: Any) -> Found:
    """What is found where nothing varies: the number in the claim's unit, in words, and other
    fields of `Found`."""
    return Found(number=number, interval=(number, number), measured=measured, **more)


def _total(claim: Claim, book: Book, evidence: Evidence) -> Found:
    """Parameters or MACs, in millions, of the first reading of the row; others are shown beside it,
    and where only some print the claim, it depends on them."""
    field = "num_params" if claim.measure == "params" else "macs"
    totals = {model: getattr(cost(model), field) for model in claim.models}
    best, remark = totals[claim.models[0]], ""
    texts = [f"{millions(n)} ({model.replace('+', ', ')})" for model, n in totals.items()]
    if claim.measure == "macs":
        remark = say("macs", claim=claim, half=millions(MILLION * claim.middle / 2, 1),
                     thop=millions(thop_total(claim.models[0]), 1))  # fmt: skip
    if len(totals) == 1:
        return exact(best / MILLION, millions(best), remark=remark)
    text = "; ".join(texts)
    differ = len({claim.holds(n / MILLION) for n in totals.values()}) > 1
    found = exact(best / MILLION, text, remark=text, depends=differ)
    return found.saying(say("shortcut") if differ else "", remark)


def _added(claim: Claim, book: Book, evidence: Evidence) -> Found:
    """Parameters (millions or percent) or MACs (percent) that a variant adds to its plain one."""
    field, unit = ("macs", "MACs") if "macs" in claim.measure else ("num_params", "parameters")
    variant, plain = (getattr(cost(model), field) for model in claim.models)
    share = 100 * (variant - plain) / plain
    number = share if claim.unit == "%" else (variant - plain) / MILLION
    return exact(number, f"{variant - plain:+,} {unit}, {share:+.{2 if share > 1 else 3}f} %")


def _block(claim: Claim, book: Book, evidence: Evidence) -> Found:
    """Parameters or MACs of one block, by our code."""
    profiles = {side: block_cost(claim.subject, side) for side in MAP_SIZES}
    first = profiles[MAP_SIZES[0]]
    if claim.measure == "block-params":
        return exact(first.num_params / MILLION, f"{first.num_params / MILLION:.4f} M")
    sides = [f"{millions(p.macs, 1)} MACs at {side}x{side}" for side, p in profiles.items()]
    return exact(first.macs / MILLION, "; ".join(sides))


def _judged(
    claim: Claim,
    evidence: Evidence,
    found: Estimate | Spread | None,
    n: int,
    *,
    answer: Callable[[], bool | None] | None = None,
    if_false: Callable[[bool], float] | None = None,
) -> Found:
    """What was measured of n seeds (None: of too few) with the answer, or a call for more seeds;
    whether the figure agrees, and its chance were the claim false, unless others are given."""
    runs = evidence.behind(claim)
    if found is None:
        said = f"{n} of {FEWEST_SEEDS} seeds so far" if n else ""
        return Found(missing=evidence.missing(claim, FEWEST_SEEDS), runs=runs, n=n, remark=said)
    low, high = found.interval()
    unit = "pp" if claim.measure in ("difference", "gain", "efficiency") else claim.unit
    digits = 3 if isinstance(found, Spread) else 2
    text = f"{found.number:.{digits}f} {unit} [{low:.{digits}f}, {high:.{digits}f}]"
    holds = answer() if answer else found.agrees(claim)
    if holds is None:
        remark = f"{text}: {n} seeds leave it undecided"
        return Found(missing=evidence.missing(claim, n + 1), runs=runs, n=n, remark=remark)
    chance = if_false(holds) if if_false else found.if_false(claim, holds)
    return Found(
        number=found.number, interval=(low, high), measured=text, runs=runs, n=n, holds=holds,
        if_false=chance,
    )  # fmt: skip


def _of_mean(values: Sequence[float]) -> Estimate | None:
    """The mean of seeds; None where they are too few."""
    n = len(values)
    if n < FEWEST_SEEDS:
        return None
    se = standard_deviation(np.array(values)) / math.sqrt(n)
    return Estimate(number=float(np.mean(values)), se=se, df=n - 1)


def _error(claim: Claim, book: Book, evidence: Evidence) -> Found:
    """Mean test error, or accuracy, over seeds, in percent."""
    runs, sign = evidence.behind(claim), claim.measure == "accuracy"
    values = [100 * abs(sign - run.test_error) for run in runs]
    return _judged(claim, evidence, _of_mean(values), len(values))


def _epoch(claim: Claim, book: Book, evidence: Evidence) -> Found:
    """A figure of one epoch, read from the histories; runs not evaluated then do not count."""
    runs, known = evidence.behind(claim), []
    accuracy = claim.column == "test_accuracy"
    for run in runs:
        column = run.history.set_index("epoch")["test_error" if accuracy else claim.column]
        value = float(column.get(claim.epoch, math.nan))
        if math.isfinite(value):
            known.append(100 * (1 - value) if accuracy else value)
    found = _of_mean(known)
    widened = math.sqrt(found.df + 2) if found else 1.0  # a single run's: where one more would fall

    def answer() -> bool | None:
        wider = replace(found, se=found.se * widened)
        return found.agrees(claim) or (None if claim.meets(*wider.interval()) else False)

    ways = {"answer": answer, "if_false": lambda holds: found.if_false(claim, holds, widened)}
    judged = _judged(claim, evidence, found, len(known), **ways)
    if judged.interval is None and not judged.missing:
        missing = evidence.missing(claim, len(runs) + FEWEST_SEEDS - len(known))
        lost = counted(len(runs) - len(known), "run")
        return replace(judged, missing=missing, remark=say("epoch", runs=lost, claim=claim))
    return judged


def _sigma(claim: Claim, book: Book, evidence: Evidence) -> Found:
    """Standard deviation over seeds (n - 1), percentage points."""
    errors = np.array([100 * run.test_error for run in evidence.behind(claim)])
    n, found = len(errors), None
    if n >= FEWEST_SEEDS:
        found = Spread(number=standard_deviation(errors), df=n - 1)
    return _judged(claim, evidence, found, n)


def _drop(claim: Claim, evidence: Evidence) -> tuple[Estimate | None, int]:
    """Error of the plain network minus error of the variant on the seeds both have, percentage
    points, and how many these are. The networks are independent: pairing by seed buys nothing."""
    errors = [100 * run.test_error for run in evidence.behind(claim)]
    n = len(errors) // 2
    variant, plain = _of_mean(errors[:n]), _of_mean(errors[n:])
    if plain is None:
        return None, n
    se, df = math.hypot(plain.se, variant.se), plain.df + variant.df
    return Estimate(number=plain.number - variant.number, se=se, df=df), n


def _difference(claim: Claim, book: Book, evidence: Evidence) -> Found:
    """Difference in error; signed as the claim is."""
    found, n = _drop(claim, evidence)
    if found and claim.value.startswith("-"):
        found = replace(found, number=-found.number)
    return _judged(claim, evidence, found, n)


def _gain(claim: Claim, book: Book, evidence: Evidence) -> Found:
    """Gain in accuracy over shared seeds, whose whole interval must be above 0, for MACs that grow
    by less than `SMALL_COST`."""
    variant, plain = (cost(model).macs for model in claim.models)
    share = 100 * (variant - plain) / plain
    found, n = _drop(claim, evidence)

    def answer() -> bool | None:
        low, high = found.interval()
        if low > 0:
            return share < SMALL_COST
        return False if high <= 0 else None

    judged = _judged(claim, evidence, found, n, answer=answer, if_false=lambda _: ALPHA / 2)
    return judged.saying(f"the cost: {share:+.3f} % MACs")


def _p_value(claim: Claim, book: Book, evidence: Evidence) -> Found:
    """p of the paired t test over shared seeds; there is none where they differ all alike."""
    runs = evidence.behind(claim)
    n = len(runs) // 2
    errors = np.array([run.test_error for run in runs]).reshape(2, n)
    if n < FEWEST_SEEDS or not standard_deviation(errors[0] - errors[1]):
        wanted = max(FEWEST_SEEDS, n + (n >= FEWEST_SEEDS))
        return Found(missing=evidence.missing(claim, wanted), runs=runs, n=n)
    p = float(stats.ttest_rel(*errors).pvalue)
    holds, chance = claim.holds(p), claim.high - claim.low
    if_false = chance if holds else 1 - chance
    return exact(p, f"{p:.2g}", runs=runs, n=n, holds=holds, if_false=if_false)


def _efficiency(claim: Claim, book: Book, evidence: Evidence) -> Found:
    """Parameters for each percentage point of error drop; the drop is the source's until it is
    measured. The claim holds if the 90 % interval of the price is within a factor of it; where the
    widths are ours and other choices of them have another answer, it depends on them."""
    variant, plain = (cost(model).num_params for model in claim.models)
    added = (variant - plain) / MILLION
    printed = book[f"{claim.id}-derror"]
    drop, n = _drop(claim, evidence)

    def price(points: float, added: float = added) -> float:
        return added / points if points > 0 else math.inf  # a drop that may be nothing has none

    def answer(added: float = added) -> bool | None:
        high, low = (price(end, added) for end in drop.interval(1 - 2 * ALPHA))
        if claim.middle / FACTOR <= low and high <= claim.middle * FACTOR:
            return True
        high, low = (price(end, added) for end in drop.interval())
        return None if claim.meets(low, high) else False

    def if_false(holds: bool) -> float:
        room = (claim.middle * FACTOR, claim.middle / FACTOR) if holds else (claim.high, claim.low)
        return drop.chance(holds, tuple(map(price, room)), price(2 * claim.middle))

    if drop is None:
        low, high, middle = -printed.high, -printed.low, -float(printed.value)
        said = f"the source's own drop of {middle} pp; whether that holds is {printed.id}"
        judged = Found()
    else:
        (low, high), middle = drop.interval(), drop.number
        said = f"the measured drop of {middle:.2f} pp [{low:.2f}, {high:.2f}]"
        judged = _judged(claim, evidence, drop, n, answer=answer, if_false=if_false)
        if judged.holds is None:
            return judged
        others = added_params() if claim.reconstructed else ()
        if unlike := sum(answer(more) != judged.holds for more in others):
            judged = replace(judged, depends=True)
            said += f"; {unlike} of {len(others)} other choices of widths have another answer"
    number = price(middle)
    text = f"{number:.3f} M/pp" if math.isfinite(number) else "no drop to pay for"
    about = {"measured": text, "remark": f"{variant - plain:,} parameters over {said}"}
    return replace(judged, number=number, interval=(price(high), price(low)), **about)


def _sota(claim: Claim, book: Book, evidence: Evidence) -> Found:
    """The lowest published error, of any size, for the source names none; no run settles it."""
    stated = book["b-se_res2net29-params"]
    limit = LIKE_SIZE * stated.middle * MILLION
    by_error = PUBLISHED.sort_values("error", kind="stable")
    near = by_error[by_error["num_params"] <= limit]
    best, lowest = near.iloc[0], by_error.iloc[0]
    record = float(100 * lowest.error)
    remark = say("sota", times=LIKE_SIZE, stated=stated, number=len(near), best=best, lowest=lowest,
                 least=100 * best.error, most=100 * near["error"].iloc[-1],
                 any_size=record)  # fmt: skip
    return exact(record, f"{record:.2f} % published", remark=remark, if_false=math.nan)


def _localisation(claim: Claim, book: Book, evidence: Evidence) -> Found:
    """Whether by `CHOSEN` the networks stand in the claimed order and this one's mean lies within
    the margin. Other definitions are counted, as exploration; other recipes settle nothing."""
    order, found, chosen = list(claimed_order(book.values())), [], None
    for scores in evidence.scores(claim, own=True):  # the first that have it settle it
        if chosen is None:
            own, found = scores, [d for d in definitions(scores, order) if d.seeds >= FEWEST_SEEDS]
            chosen = next((d for d in found if (d.trial, d.metric) == CHOSEN), None)
    named = f"judged by {METRICS[CHOSEN[1]].label}, {TRIAL_LABELS[CHOSEN[0]]}"
    if chosen is None:
        every = replace(claim, models=order)  # the maps of all of them are compared
        waiting = Found(missing=evidence.missing(every, FEWEST_SEEDS), remark=named)
        return waiting.saying(*_short_maps(claim, order, evidence))
    mean = _of_mean(list(own.per_seed(claim.models[0], *CHOSEN).values()))
    by_chance = 1 / math.factorial(len(order))

    def if_false(holds: bool) -> float:
        chance = mean.if_false(claim, holds)
        return by_chance * chance if holds else 1 - by_chance * (1 - chance)

    answer = None if chosen.ordered else lambda: False
    judged = _judged(claim, evidence, mean, chosen.seeds, answer=answer, if_false=if_false)
    others = [d.ordered for d in found if d is not chosen]
    count = counted(len(others), "other definition")
    about = {"in_order": "in" if chosen.ordered else "not in", "ordered": sum(others)}
    return judged.saying(f"{named}; {say('localisation', others=count, **about)}")


def _short_maps(claim: Claim, order: Sequence[str], evidence: Evidence) -> list[str]:
    """What maps of other trainings score, which settles nothing about this one."""
    said = []
    for scores in evidence.scores(claim, own=False):
        tried = definitions(scores, order)
        values = [d.means[claim.models[0]] for d in tried]
        ordered = [d.label for d in tried if d.ordered]
        if tried:
            said.append(say(
                "short-maps", scores=scores, epochs=counted(scores.recipe["epochs"], "epoch"),
                least=min(values), most=max(values), definitions=counted(len(tried), "definition"),
                ordered=len(ordered), which=f" ({'; '.join(ordered)})" if ordered else "",
            ))  # fmt: skip
    return said


MEASURES: dict[str, Callable[[Claim, Book, Evidence], Found]] = {
    **dict.fromkeys(("params", "macs"), _total),
    **dict.fromkeys(("added-params", "added-params-percent", "added-macs-percent"), _added),
    **dict.fromkeys(("block-params", "block-macs"), _block),
    **dict.fromkeys(("error", "accuracy"), _error),
    "sigma": _sigma,
    "epoch": _epoch,
    "difference": _difference,
    "gain": _gain,
    "efficiency": _efficiency,
    "sota": _sota,
    "recomputed": lambda *_: Found(),  # from the source's own figures: the derivation has it
    "p-value": _p_value,
    "localisation": _localisation,
}
