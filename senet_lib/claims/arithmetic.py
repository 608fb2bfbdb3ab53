"""What arithmetic alone says of a claim.

A check takes a claim and the book of all claims, and says whether the source's own figures, each of
them anywhere within its rounding, or the architecture allow the printed figure.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy import stats

from senet_lib.analysis.counters import count_thop_rule
from senet_lib.claims.claim import Book, Claim, say
from senet_lib.models import AttentionSpec, create_model, input_size
from senet_lib.models.blocks import BasicBlock
from senet_lib.models.res2net import Res2NetBlock
from senet_lib.profiling import ModelProfile, profile_model

MILLION = 1e6
CHANNELS, SCALE, REDUCTION = 64, 4, 16  # of the source's block table, r of all its networks
MAP_SIZES = (32, 16, 8)  # sides of the feature maps of the three stages, 32x32 images
RES2NET_STAGES = ((52, 32), (104, 16), (208, 8))  # channels, map side; three blocks each
SEEDS = 3  # behind every mean of the second source
TEST_IMAGES = 10_000
TABLE = "b-{}res2net29-{}".format
WITNESS = ((3.41, 3.43, 3.51), (3.01, 2.94, 3.00))
"""Errors of three seeds that print the table's two means and standard deviations, and its p."""
DISAGREEMENTS = 269
"""Images of 10,000 on which the networks disagree, for McNemar's test to give the printed p; odd,
for the difference of 47 images is."""


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """What arithmetic gives for a claim."""

    text: str  # the derivation, its numbers computed
    ruled_out: bool  # the printed figure is impossible
    number: float | None = None  # what it ought to be, in the claim's unit; None: a bound alone
    fact: str = ""  # key of the fact on which a contradiction rests


def _counted(count: Callable[[Any, tuple[int, ...]], Any], model: str) -> Any:
    """What a counter says of a network by its registry name; the random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        return count(create_model(model), input_size(model))


@cache
def cost(model: str) -> ModelProfile:
    """Parameters and MACs of a network by its registry name."""
    return _counted(profile_model, model)


@cache
def thop_total(model: str) -> int:
    """What thop's present rule, which adds normalisation and pooling, gives for a network."""
    return _counted(count_thop_rule, model).total()


def millions(number: float, digits: int = 3) -> str:
    """A count in millions, such as 0.856 M."""
    return f"{number / MILLION:.{digits}f} M"


# The block table


def block_weights(subject: str) -> tuple[int, int]:
    """Weights of one block of the source's table (C = 64, s = 4, r = 16): those applied at every
    pixel (the convolutions), and those of the gates, applied once."""
    convs = 2 * 9 * CHANNELS**2
    if "res2net" in subject:
        convs = 2 * CHANNELS**2 + (SCALE - 1) * 9 * (CHANNELS // SCALE) ** 2
    gates = 2 * CHANNELS * (CHANNELS // REDUCTION) if subject.startswith("se-") else 0
    return convs, gates


@cache
def block_cost(subject: str, side: int) -> ModelProfile:
    """The same block, as a claim calls it, by our code, for maps of so many pixels a side."""
    spec = AttentionSpec(attention="se" if subject.startswith("se-") else "none")
    with torch.random.fork_rng(devices=[]):
        if "res2net" in subject:
            block = Res2NetBlock(
                CHANNELS, base_width=CHANNELS // SCALE, scale=SCALE, stride=1, gate_at="fused",
                attention=spec,
            )  # fmt: skip
        else:
            block = BasicBlock(CHANNELS, CHANNELS, stride=1, shortcut="B", attention=spec)
        return profile_model(block, (CHANNELS, side, side))


def _block_text(subject: str) -> str:
    """How the weights of a block come about."""
    convs, gates = block_weights(subject)
    key = "weights-res2net" if "res2net" in subject else "weights-basic"
    text = say(key, C=CHANNELS, convs_3x3=SCALE - 1, w=CHANNELS // SCALE, convs=convs)
    more = {"C": CHANNELS, "hidden": CHANNELS // REDUCTION, "gates": gates}
    return say("weights-gates", weights=text, **more) if gates else text


def _block_params(claim: Claim, book: Book) -> Derivation:
    total = block_cost(claim.subject, MAP_SIZES[0]).num_params
    norms, number = total - sum(block_weights(claim.subject)), total / MILLION
    text = say("block-params", weights=_block_text(claim.subject), norms=norms, total=total,
               millions=millions(total), claim=claim)  # fmt: skip
    out = not claim.nearly_holds(number)
    return Derivation(text=text, ruled_out=out, number=number, fact="block-weights")


def _block_macs(claim: Claim, book: Book) -> Derivation:
    """No size is stated: the plain block is held against square maps of every side, the others
    against the plain block, at any size."""
    convs, gates = block_weights(claim.subject)
    macs = {side: convs * side**2 + gates for side in MAP_SIZES}
    listed = "; ".join(
        f"{side}x{side}: {millions(n, 2)} MACs = {millions(2 * n, 2)} FLOPs"
        for side, n in macs.items()
    )
    text = say("block-macs", weights=_block_text(claim.subject), listed=listed)
    first, plain = book["b-block-resnet-basic-flops"], block_weights("resnet-basic")[0]
    if claim.id == first.id:
        squares = [k * plain * side**2 / MILLION for side in range(1, 65) for k in (1, 2)]
        below = max(n for n in squares if n < claim.high)
        above = min(n for n in squares if n >= claim.high)
        text += say("block-macs-square", claim=claim, below=below, above=above)
        return Derivation(text=text, ruled_out=below < claim.low, fact="block-macs")
    least, most = claim.low / first.high, (convs + gates) / plain  # gates weigh most at one pixel
    text += say("block-macs-ratio", first=first, claim=claim, least=least, most=most)
    return Derivation(text=text, ruled_out=most < least, fact="block-macs")


# Whole networks


def _plain_bound(claim: Claim, book: Book) -> Derivation:
    """No network with gates is smaller than the same network without them."""
    plain = claim.models[0].removeprefix("se_")
    field, unit = ("macs", "MACs") if claim.measure == "macs" else ("num_params", "parameters")
    projected, padded = (getattr(cost(n), field) for n in (plain, f"{plain}+shortcut=A"))
    least = min(projected, padded)
    text = say("plain-bound", plain=plain, least=least, unit=unit, projected=projected)
    if out := claim.loose[1] <= least / MILLION:
        text = say("plain-bound-below", text=text, claim=claim)
    return Derivation(text=text, ruled_out=out, fact="deep-network")


def _densenet(claim: Claim, book: Book) -> Derivation:
    macs = cost(claim.models[0]).macs
    number = macs / MILLION
    text = say("densenet", macs=macs, times=number / float(claim.value), claim=claim)
    out = not claim.nearly_holds(number)
    return Derivation(text=text, ruled_out=out, number=number, fact="densenet-macs")


def _gate_macs(claim: Claim, book: Book) -> Derivation:
    """The gates of C channels cost at most 2 C²/r; the last 1x1 convolution alone C² H W."""
    pixels = MAP_SIZES[-1] ** 2
    share = 2 / (REDUCTION * pixels)
    plain, gated = cost("res2net29").macs, cost("se_res2net29").macs
    pooled = sum(3 * channels * (side**2 + 1) for channels, side in RES2NET_STAGES)
    scaled = sum(3 * channels * side**2 for channels, side in RES2NET_STAGES)
    text = say("gate-macs", r=REDUCTION, pixels=pixels, share=100 * share, added=gated - plain,
               percent=100 * (gated - plain) / plain, pooled=100 * pooled / plain,
               scaled=100 * scaled / plain)  # fmt: skip
    if claim.unit == "%":
        most = 100 * max(share, (gated - plain + pooled + scaled) / plain)
        text += say("gate-macs-percent", claim=claim)
    else:
        base = book[TABLE("", "flops")]
        most = base.high * (1 + share)
        text += say("gate-macs-total", base=base, most=most, claim=claim)
    return Derivation(text=text, ruled_out=claim.low > most, fact="gate-macs")


def _param_overhead(claim: Claim, book: Book) -> Derivation:
    base, added = book[TABLE("", "params")], book["b-efficiency-se_res2net29-dparams"]
    share = 100 * float(added.value) / float(base.value)
    least, most = 100 * added.low / base.high, 100 * added.high / base.low
    text = say("param-overhead", added=added, base=base, share=share, least=least, most=most)
    return Derivation(text=text, ruled_out=claim.high <= least or claim.low >= most)


def _first2_params(claim: Claim, book: Book) -> Derivation:
    """Gates of half the channels cost a quarter, or three quarters if they squeeze all of them."""
    base, full = book["b-ablation-res2net29-params"], book["b-ablation-se_res2net29-params"]
    most = [base.high + share * (full.high - base.low) for share in (1 / 4, 3 / 4)]
    ours, gated = cost("res2net29").num_params, cost("se_res2net29").num_params
    built = ours + 3 * (gated - ours) // 4
    text = say("first2-params", r=REDUCTION, base=base, full=full, quarter=most[0],
               three_quarters=most[1], built=built, millions=built / MILLION)  # fmt: skip
    return Derivation(text=text, ruled_out=all(claim.low > bound for bound in most))


# The efficiency table


def _depth_params(claim: Claim, book: Book) -> Derivation:
    """SE-ResNet-110's stated baseline is ResNet-56: the difference is depth before it is gates."""
    deep = min(cost(name).num_params for name in ("resnet110", "resnet110+shortcut=A"))
    shallow = max(cost(name).num_params for name in ("resnet56", "resnet56+shortcut=A"))
    gates = cost("se_resnet110").num_params - cost("resnet110").num_params
    least = (deep - shallow) / MILLION
    text = say("depth-params", more=deep - shallow, deep=deep, shallow=shallow, gates=gates)
    if claim.measure == "added-params":
        text = say("depth-params-total", text=text, claim=claim)
    else:
        added, drop = _efficiency(book, "se_resnet110")
        least /= -drop.low
        text = say("depth-params-price", text=text, added=added.value[1:], drop=drop.value[1:],
                   ratio=-float(added.value) / float(drop.value), least=least,
                   claim=claim)  # fmt: skip
    return Derivation(text=text, ruled_out=claim.high <= least, fact="deep-network")


def _efficiency(book: Book, model: str) -> tuple[Claim, Claim]:
    """Parameters that a network adds and the change in error, as the table has them."""
    return tuple(book[f"b-efficiency-{model}-{what}"] for what in ("dparams", "derror"))


def _division(claim: Claim, book: Book) -> Derivation:
    added, drop = _efficiency(book, "se_res2net29")
    least, most = added.low / -drop.low, added.high / -drop.high
    text = say("division", added=added.value[1:], drop=drop.value[1:], least=least, most=most,
               ratio=-float(added.value) / float(drop.value))  # fmt: skip
    return Derivation(text=text, ruled_out=claim.high <= least or claim.low > most)


# Significance and effect size


def _summary(book: Book, mean: str = "value", sd: str = "value") -> tuple[Any, dict[str, float]]:
    """The tests on the table's means and SDs of Res2Net-29 and SE-Res2Net-29, and these numbers: as
    printed, or the nearest means and the largest SDs that print so. (Cohen 1988, chapter 2.)"""
    numbers = {}
    for k, (se, end) in enumerate((("", "low"), ("se_", "high")), start=1):
        numbers[f"mean_{k}"] = float(getattr(book[TABLE(se, "error")], mean or end))
        numbers[f"sd_{k}"] = float(getattr(book[TABLE(se, "sigma")], sd))
    mean_1, sd_1, mean_2, sd_2 = numbers.values()
    given = mean_1, sd_1, SEEDS, mean_2, sd_2, SEEDS
    welch, pooled = (stats.ttest_ind_from_stats(*given, equal_var=e) for e in (False, True))
    d = (mean_1 - mean_2) / math.sqrt((sd_1**2 + sd_2**2) / 2)
    return {"welch": welch, "pooled": pooled, "df": 2 * SEEDS - 2, "d": d}, numbers


def _p_value(claim: Claim, book: Book) -> Derivation:
    """The source names no test: a figure that some usual test allows is not ruled out."""
    said, printed = _summary(book)
    paired = float(stats.ttest_rel(*WITNESS).pvalue)
    plain, gated = (f"{np.mean(e):.2f} ± {np.std(e, ddof=1):.2f}" for e in WITNESS)
    images = round((printed["mean_1"] - printed["mean_2"]) * TEST_IMAGES / 100)
    fewer = (DISAGREEMENTS - images) // 2
    mcnemar = float(stats.binomtest(fewer, DISAGREEMENTS).pvalue)
    d_paired = stats.t.isf(claim.middle / 2, SEEDS - 1) / math.sqrt(SEEDS)
    text = say("p-value", **printed, n=SEEDS, said=said, claim=claim, witness=WITNESS, plain=plain,
               gated=gated, paired=paired, mcnemar=mcnemar, disagreements=DISAGREEMENTS,
               effect=book["b-cohens-d"], d_paired=d_paired)  # fmt: skip
    possible = (said["pooled"].pvalue, said["welch"].pvalue, paired, mcnemar)
    return Derivation(text=text, ruled_out=not any(claim.holds(p) for p in possible))


def _cohens_d(claim: Claim, book: Book) -> Derivation:
    said, printed = _summary(book)
    faint, nearest = _summary(book, mean="", sd="high")
    mean_1, sd_1, mean_2, sd_2 = nearest.values()
    # Over the SD of the differences instead: that is at most the sum of the two.
    paired = (mean_1 - mean_2) / (sd_1 + sd_2)
    text = say("cohens-d", **printed, said=said, faint=faint["d"], paired=paired, claim=claim)
    out = claim.high <= min(faint["d"], paired)
    return Derivation(text=text, ruled_out=out, number=said["d"], fact="effect-size")


ARITHMETIC: dict[str, Callable[[Claim, Book], Derivation]] = {
    "block-params": _block_params,
    "block-macs": _block_macs,
    "plain-bound": _plain_bound,
    "densenet": _densenet,
    "gate-macs": _gate_macs,
    "param-overhead": _param_overhead,
    "first2-params": _first2_params,
    "depth-params": _depth_params,
    "division": _division,
    "p-value": _p_value,
    "cohens-d": _cohens_d,
}
