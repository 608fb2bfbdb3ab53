"""What arithmetic alone says of a claim.

A check takes a claim and the book of all claims, recomputes what the source's own figures or the
architecture allow, and says whether the printed figure is among it. Where it starts from printed
figures it takes each of them anywhere within its rounding, so that a contradiction is none of the
rounding. Every number in a text is computed here or read from the book. MACs are multiply-adds of
convolutions and linear layers for one image; M is a million.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from senet_lib.claims.claim import Claim
    from senet_lib.profiling import ModelProfile

    Book = Mapping[str, Claim]

MILLION = 1e6
CHANNELS, SCALE, REDUCTION = 64, 4, 16  # of the source's block table, r of all its networks
MAP_SIZES = (32, 16, 8)  # sides of the feature maps of the three stages, 32x32 images
RES2NET_STAGES = ((52, 32), (104, 16), (208, 8))  # channels, map side; three blocks each
SEEDS = 3  # behind every mean of the second source
TEST_IMAGES = 10_000
SMALL_COST = 1.0  # percent more MACs
LIKE_SIZE = 2.0  # times the parameters
TABLE = "b-{}res2net29-{}".format


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """What arithmetic gives for a claim.

    Attributes:
        text: the derivation, its numbers computed.
        ruled_out: the printed figure is impossible.
        number: what the figure ought to be, in the claim's unit; None where only a bound follows.
        fact: key of `FACTS` on which a contradiction rests; empty where there is none.
    """

    text: str
    ruled_out: bool
    number: float | None = None
    fact: str = ""


FACTS = {
    "block-weights": "the weights of a block of 64 channels",
    "block-macs": "the products of such a block at the sizes of the three stages",
    "deep-network": "the size of ResNet-110 without any gates",
    "densenet-macs": "the products of DenseNet-BC-100-12, layer by layer",
    "gate-macs": "gates cost at most a five-hundredth of a block's products, whatever the widths",
    "effect-size": "the effect size that the table's means and standard deviations imply",
}
"""The independent facts behind the contradictions."""


@cache
def cost(model: str) -> "ModelProfile":
    """Parameters and MACs of a network by its registry name; the random state stays as it is."""
    import torch

    from senet_lib.models import create_model, input_size
    from senet_lib.profiling import profile_model

    with torch.random.fork_rng(devices=[]):
        return profile_model(create_model(model), input_size(model))


@cache
def thop_total(model: str) -> int:
    """What thop's present rule, which adds normalisation and pooling, gives for a network."""
    import torch

    from senet_lib.analysis.counters import count_thop_rule
    from senet_lib.models import create_model, input_size

    with torch.random.fork_rng(devices=[]):
        return count_thop_rule(create_model(model), input_size(model)).total()


def millions(number: float, digits: int = 3) -> str:
    """A count in millions, such as 0.856 M."""
    return f"{number / MILLION:.{digits}f} M"


# The block table


def block_weights(subject: str) -> tuple[int, int]:
    """Weights of one block of the source's table (C = 64, s = 4, r = 16).

    Returns:
        Those applied at every pixel (the convolutions), and those of the gates, applied once.
    """
    if "res2net" in subject:
        width = CHANNELS // SCALE
        convs = 2 * CHANNELS**2 + (SCALE - 1) * 9 * width**2
    else:
        convs = 2 * 9 * CHANNELS**2
    gates = 2 * CHANNELS * (CHANNELS // REDUCTION) if subject.startswith("se-") else 0
    return convs, gates


@cache
def block_cost(subject: str, side: int) -> "ModelProfile":
    """The same block built by our code and profiled on a map of side x side pixels."""
    import torch

    from senet_lib.models import AttentionSpec
    from senet_lib.models.blocks import BasicBlock
    from senet_lib.models.res2net import Res2NetBlock
    from senet_lib.profiling import profile_model

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
    if "res2net" in subject:
        width = CHANNELS // SCALE
        text = (
            f"two 1x1 convolutions at C = {CHANNELS} and {SCALE - 1} of 3x3 at w = {width} have "
            f"2·{CHANNELS}² + {SCALE - 1}·9·{width}² = {convs:,} weights"
        )
    else:
        text = f"two 3x3 convolutions at C = {CHANNELS} have 2·9·{CHANNELS}² = {convs:,} weights"
    if gates:
        text += f", the gates 2·{CHANNELS}·{CHANNELS // REDUCTION} = {gates:,}"
    return text


def _block_params(claim: "Claim", book: "Book") -> Derivation:
    convs, gates = block_weights(claim.subject)
    total = block_cost(claim.subject, MAP_SIZES[0]).num_params
    norms = total - convs - gates
    text = (
        f"{_block_text(claim.subject)}; with {norms:,} of the normalisations the block has "
        f"{total:,} parameters, {millions(total)}, not {claim.claimed}"
    )
    number = total / MILLION
    out = not claim.nearly_holds(number)
    return Derivation(text=text, ruled_out=out, number=number, fact="block-weights")


def _block_macs(claim: "Claim", book: "Book") -> Derivation:
    convs, gates = block_weights(claim.subject)
    macs = {side: convs * side**2 + gates for side in MAP_SIZES}
    readings = [factor * n / MILLION for n in macs.values() for factor in (1, 2)]
    fits = [n for n in readings if claim.nearly_holds(n)]
    listed = "; ".join(
        f"{side}x{side}: {millions(n, 2)} MACs = {millions(2 * n, 2)} FLOPs"
        for side, n in macs.items()
    )
    plain = convs if "res2net" in claim.subject else 2 * 9 * CHANNELS**2
    text = (
        f"{_block_text(claim.subject)}; convolutions are applied at every pixel, gates once. "
        f"{listed}; not {claim.claimed}"
    )
    first = book["b-block-resnet-basic-flops"]
    if claim.subject == "se-resnet-basic":
        least = claim.low / first.high
        most = 1 + gates / (MAP_SIZES[-1] ** 2 * plain)
        text += (
            f". Over the table's own {first.claimed} it is a factor of at least {least:.2f}; the "
            f"gates make it {most:.5f} at most"
        )
    elif "res2net" in claim.subject:
        text += (
            f". At any one size the convolutions cost {convs / (2 * 9 * CHANNELS**2):.2f} times "
            f"those of the plain block, not {float(claim.value) / float(first.value):.2f} times"
        )
    return Derivation(text=text, ruled_out=not fits, fact="block-macs")


# Whole networks


def _plain_bound(claim: "Claim", book: "Book") -> Derivation:
    """No network with gates is smaller than the same network without them."""
    plain = claim.models[0].removeprefix("se_")
    field = "macs" if claim.measure == "macs" else "num_params"
    names = (plain, f"{plain}+shortcut=A")
    least = min(getattr(cost(name), field) for name in names)
    unit = "MACs" if field == "macs" else "parameters"
    text = (
        f"plain {plain} has {least:,} {unit} with shortcut A and "
        f"{getattr(cost(plain), field):,} with B; with gates it cannot have {claim.claimed}"
    )
    out = claim.loose[1] <= least / MILLION
    return Derivation(text=text, ruled_out=out, fact="deep-network")


def densenet_macs(depth: int = 100, growth: int = 12) -> int:
    """MACs of DenseNet-BC on 32x32 images in closed form, 10 classes, compression one half."""
    layers, channels, side = (depth - 4) // 6, 2 * growth, 32
    total = 9 * 3 * channels * side**2
    for stage in range(3):
        if stage:
            total += channels * (channels // 2) * side**2
            channels, side = channels // 2, side // 2
        for _ in range(layers):
            total += (channels * 4 * growth + 9 * 4 * growth * growth) * side**2
            channels += growth
    return total + 10 * channels


def _densenet(claim: "Claim", book: "Book") -> Derivation:
    macs = densenet_macs()
    text = (
        f"layer by layer (three stages of 16, each a 1x1 convolution to 48 channels and a 3x3 to "
        f"12; two transitions; 32x32 images) DenseNet-BC-100-12 has {macs:,} MACs, "
        f"{macs / MILLION / float(claim.value):.2f} times {claim.claimed}"
    )
    number = macs / MILLION
    out = not claim.nearly_holds(number)
    return Derivation(text=text, ruled_out=out, number=number, fact="densenet-macs")


def gate_share() -> float:
    """The largest share of a Res2Net block's MACs that its gates can add, whatever its widths.

    The gates of C channels cost at most 2 C²/r; the last 1x1 convolution alone costs C² H W.
    """
    return 2 / (REDUCTION * MAP_SIZES[-1] ** 2)


def _gate_macs(claim: "Claim", book: "Book") -> Derivation:
    share = gate_share()
    plain, gated = cost("res2net29").macs, cost("se_res2net29").macs
    pooled = sum(3 * channels * (side**2 + 1) for channels, side in RES2NET_STAGES)
    scaled = sum(3 * channels * side**2 for channels, side in RES2NET_STAGES)
    text = (
        f"the gates of a block cost 2·C²/{REDUCTION} MACs, its last 1x1 convolution alone C²·H·W "
        f"with H·W of at least {MAP_SIZES[-1] ** 2}: they add at most {100 * share:.3f} %, "
        f"whatever the widths. In our reconstruction {gated - plain:,} MACs, "
        f"{100 * (gated - plain) / plain:.3f} %; pooling as thop counts it would add "
        f"{100 * pooled / plain:.2f} %, and the scaling, which it does not count, "
        f"{100 * scaled / plain:.2f} %"
    )
    if claim.unit == "%":
        total = (gated - plain + pooled + scaled) / plain
        most = 100 * max(share, total)
        out = claim.low > most
        return Derivation(text=f"{text}; not {claim.claimed}", ruled_out=out, fact="gate-macs")
    # Were the last zero of 100 no digit, the source's own overhead would still bound the base.
    base, overhead = book[TABLE("", "flops")], book["b-flop-overhead"]
    highest = min(base.loose[1], claim.high / (1 + overhead.low / 100))
    most = highest * (1 + share)
    text += (
        f". With the source's own {overhead.claimed} the network without gates has {highest:.2f} M "
        f"at most, and that leads to {most:.1f} M at most"
    )
    out = claim.low > most
    return Derivation(text=f"{text}, not {claim.claimed}", ruled_out=out, fact="gate-macs")


def _param_overhead(claim: "Claim", book: "Book") -> Derivation:
    base, added = book[TABLE("", "params")], book["b-efficiency-se_res2net29-dparams"]
    share = 100 * float(added.value) / float(base.value)
    least, most = 100 * added.low / base.high, 100 * added.high / base.low
    text = (
        f"the table's own {added.claimed} over {base.claimed} is {share:.2f} % (anything from "
        f"{least:.1f} to {most:.1f} % within the rounding)"
    )
    return Derivation(text=text, ruled_out=claim.high <= least or claim.low >= most)


def _first2_params(claim: "Claim", book: "Book") -> Derivation:
    """Gates of half the channels cost a quarter, or three quarters if they squeeze all of them."""
    base, full = book["b-ablation-res2net29-params"], book["b-ablation-se_res2net29-params"]
    shares = {"a quarter": 1 / 4, "three quarters": 3 / 4}
    most = {name: base.high + share * (full.high - base.low) for name, share in shares.items()}
    ours, gated = cost("res2net29").num_params, cost("se_res2net29").num_params
    built = ours + 3 * (gated - ours) // 4
    text = (
        f"streams 1 and 2 are half of the channels. If their gates squeeze these alone, they have "
        f"2·(C/2)²/{REDUCTION} weights, a quarter of the full ones, and {base.claimed} without and "
        f"{full.claimed} with all gates lead to {most['a quarter']:.4f} M at most. But the source "
        f"squeezes the whole of Z (z in R^C, W1 in R^(C/r x C)): W1 stays whole and W2 halves, "
        f"three quarters of the weights and {most['three quarters']:.4f} M at most; in our own "
        f"widths {built:,}, which prints {built / MILLION:.2f}"
    )
    return Derivation(text=text, ruled_out=all(claim.low > bound for bound in most.values()))


# The efficiency table


def _depth_params(claim: "Claim", book: "Book") -> Derivation:
    """SE-ResNet-110's stated baseline is ResNet-56: the difference is depth before it is gates."""
    deep = min(cost(name).num_params for name in ("resnet110", "resnet110+shortcut=A"))
    shallow = max(cost(name).num_params for name in ("resnet56", "resnet56+shortcut=A"))
    gates = cost("se_resnet110").num_params - cost("resnet110").num_params
    least = (deep - shallow) / MILLION
    text = (
        f"the baseline is ResNet-56, another depth: plain ResNet-110 alone has at least "
        f"{deep - shallow:,} parameters more than ResNet-56 ({deep:,} - {shallow:,}); the gates "
        f"add {gates:,}"
    )
    if claim.measure == "added-params":
        out = claim.high <= least
        return Derivation(text=f"{text}; not {claim.claimed}", ruled_out=out, fact="deep-network")
    added = book["b-efficiency-se_resnet110-dparams"]
    drop = book["b-efficiency-se_resnet110-derror"]
    ratio = float(added.value) / -float(drop.value)
    most = -drop.low
    text = (
        f"the division is right, {added.value[1:]}/{drop.value[1:]} = {ratio:.3f}, but {text}. "
        f"That is {least / most:.3f} M/pp at least, given the source's own drop; not "
        f"{claim.claimed}"
    )
    out = claim.high <= least / most
    return Derivation(text=text, ruled_out=out, fact="deep-network")


def _division(claim: "Claim", book: "Book") -> Derivation:
    added = book["b-efficiency-se_res2net29-dparams"]
    drop = book["b-efficiency-se_res2net29-derror"]
    ratio = float(added.value) / -float(drop.value)
    least, most = added.low / -drop.low, added.high / -drop.high
    text = (
        f"the table's own {added.value[1:]} M over {drop.value[1:]} pp is {ratio:.3f} M/pp "
        f"({least:.3f} to {most:.3f} within the rounding)"
    )
    return Derivation(text=text, ruled_out=claim.high <= least or claim.low > most)


# Significance and effect size


def _table(book: "Book") -> tuple["Claim", "Claim", "Claim", "Claim"]:
    """Mean and SD of Res2Net-29, mean and SD of SE-Res2Net-29, in percent."""
    return tuple(book[TABLE(se, what)] for se in ("", "se_") for what in ("error", "sigma"))


def _as_printed(book: "Book") -> tuple[float, float, float, float]:
    return tuple(float(claim.value) for claim in _table(book))


def _faintest(book: "Book") -> tuple[float, float, float, float]:
    """The same with the nearest means and largest SDs that print so."""
    mean_1, sd_1, mean_2, sd_2 = _table(book)
    return mean_1.low, sd_1.high, mean_2.high, sd_2.high


WITNESS = ((3.41, 3.43, 3.51), (3.01, 2.94, 3.00))
"""Errors of three seeds that print the table's two means and standard deviations, and its p."""
DISAGREEMENTS = 269
"""Images of 10,000 on which the networks disagree, for McNemar's test to give the printed p; odd,
for the difference of 47 images is."""


def _p_value(claim: "Claim", book: "Book") -> Derivation:
    """The source names no test: a figure that some usual test allows is not ruled out."""
    from scipy import stats

    from senet_lib.analysis.statistics import from_summary

    mean_1, sd_1, mean_2, sd_2 = _as_printed(book)
    said = from_summary(mean_1, sd_1, SEEDS, mean_2, sd_2, SEEDS)
    paired = float(stats.ttest_rel(*WITNESS).pvalue)
    plain, gated = (f"{np.mean(e):.2f} ± {np.std(e, ddof=1):.2f}" for e in WITNESS)
    images = round((mean_1 - mean_2) * TEST_IMAGES / 100)
    fewer = (DISAGREEMENTS - images) // 2
    mcnemar = float(stats.binomtest(fewer, DISAGREEMENTS).pvalue)
    effect = book["b-cohens-d"]
    d_paired = stats.t.isf(claim.middle / 2, SEEDS - 1) / math.sqrt(SEEDS)
    text = (
        f"the source names no test. An unpaired one has t = ({mean_1} - {mean_2}) / "
        f"sqrt(({sd_1}² + {sd_2}²)/{SEEDS}) = {said.t_pooled:.1f}, df {said.df_pooled}, "
        f"p = {said.p_pooled:.5f}, not {claim.value}; a paired one can have it: the errors "
        f"{WITNESS[0]} and {WITNESS[1]} print {plain} and {gated} and give p = {paired:.4f}. "
        f"McNemar's test on one test set gives {mcnemar:.3f} if the networks disagree on "
        f"{DISAGREEMENTS} images. Together with d = {effect.value} it is impossible (a paired "
        f"p of {claim.value} means d = {d_paired:.1f}); that is {effect.id}"
    )
    possible = (said.p_pooled, said.p_welch, paired, mcnemar)
    return Derivation(text=text, ruled_out=not any(claim.holds(p) for p in possible))


def _cohens_d(claim: "Claim", book: "Book") -> Derivation:
    from senet_lib.analysis.statistics import from_summary

    mean_1, sd_1, mean_2, sd_2 = _as_printed(book)
    said = from_summary(mean_1, sd_1, SEEDS, mean_2, sd_2, SEEDS)
    mean_low, sd_a, mean_high, sd_b = _faintest(book)
    faint = from_summary(mean_low, sd_a, SEEDS, mean_high, sd_b, SEEDS)
    # Over the SD of the differences instead: that is at most the sum of the two.
    paired = (mean_low - mean_high) / (sd_a + sd_b)
    text = (
        f"the table's means and SDs give d = ({mean_1} - {mean_2}) / sqrt(({sd_1}² + {sd_2}²)/2) "
        f"= {said.cohens_d:.1f} (t = {said.t_pooled:.1f}, df {said.df_pooled}), and "
        f"{faint.cohens_d:.1f} at least within the rounding; over the SD of paired differences "
        f"{paired:.1f} at least; not {claim.value}"
    )
    out = claim.high <= min(faint.cohens_d, paired)
    return Derivation(text=text, ruled_out=out, number=said.cohens_d, fact="effect-size")


ARITHMETIC: dict[str, Callable[["Claim", "Book"], Derivation]] = {
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
