"""The questions of the ablation: settings, their values, and what was published of them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

PAPER = "Hu et al. 2018 (arXiv:1709.01507), section 6, SE-ResNet-50, ImageNet top-1 error"
PAPER_PLAIN = 0.2330  # of ResNet-50, without SE


class Axis(NamedTuple):
    """One question of the ablation: its title, each value in words as they are shown, the value of
    the usual SE network, and each value's ImageNet error, which is the hypothesis for the order."""

    title: str
    values: Mapping[object, str]
    reference: object
    published: Mapping[object, float] = MappingProxyType({})


AXES = {
    "gate_at": Axis(
        title="Where the gate stands in a Res2Net block, whose streams joined again are Z, "
        "of which a last 1x1 convolution makes the branch's output",
        values={
            "last": "on the last stream",
            "last_from_z": "on the last stream, from all of Z",
            "first2": "on streams 1 and 2",
            "first2_from_z": "on streams 1 and 2, from all of Z",
            "streams": "on each stream, an SE each",
            "fused": "on the fused map Z",
            "output": "on the branch's output",
            "literal": "on Z, without the last 1x1",
        },
        reference="fused",
    ),
    "reduction": Axis(
        title="The reduction r of the gate's hidden layer",
        values={r: str(r) for r in (2, 4, 8, 16, 32)},
        reference=16,
        published={2: 0.2229, 4: 0.2225, 8: 0.2226, 16: 0.2228, 32: 0.2272},
    ),
    "squeeze": Axis(
        title="The statistic that the squeeze takes of each channel",
        values={"avg": "mean", "max": "maximum", "std": "standard deviation"},
        reference="avg",
        published={"avg": 0.2228, "max": 0.2257},
    ),
    "gate": Axis(
        title="The gate's last non-linearity",
        values={name: name for name in ("sigmoid", "tanh", "relu", "hard_sigmoid")},
        reference="sigmoid",
        published={"sigmoid": 0.2228, "tanh": 0.2300, "relu": 0.2347},
    ),
    "position": Axis(
        title="Where SE stands in a residual block",
        values={
            "standard": "standard (end of the branch)",
            "pre": "pre (before the branch)",
            "post": "post (after the addition)",
            "identity": "identity (on the shortcut)",
        },
        reference="standard",
        published={"standard": 0.2228, "pre": 0.2223, "post": 0.2278, "identity": 0.2220},
    ),
    "stages": Axis(
        title="Which stages have SE",
        values={(1,): "stage 1", (2,): "stage 2", (3,): "stage 3", None: "all stages"},
        reference=None,
        # The paper's stages 2, 3 and 4 of four; ours are the first, second and third of three.
        published={(1,): 0.2303, (2,): 0.2304, (3,): 0.2268, None: 0.2228},
    ),
    "attention": Axis(
        title="Which attention",
        values={
            "se": "SE",
            "eca": "ECA",
            "cbam": "CBAM",
            "scse": "scSE",
            "ge": "GE (no weights)",
            "scale": "control: a constant a channel",
            "half": "control: one half",
        },
        reference="se",
    ),
}
