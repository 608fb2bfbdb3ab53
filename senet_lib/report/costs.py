"""Tables of what networks cost in parameters, multiply-accumulates, time and memory.

Counts are for one image, times for a batch.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from senet_lib.analysis.counters import CountedNetwork
from senet_lib.analysis.families import family
from senet_lib.models.attention import NO_ATTENTION, AttentionSpec
from senet_lib.models.blocks import BasicBlock
from senet_lib.models.res2net import Res2NetBlock
from senet_lib.profiling import profile_model
from senet_lib.report.table import Table, Text, escape
from senet_lib.wording import counted

if TYPE_CHECKING:
    import pandas as pd

_Mark = float | torch.cuda.Event
CLAIM_COLUMNS = ("claimed", "factor", "claimed FLOPs")
QUARTILES = (0.25, 0.5, 0.75)

# The networks' costs


def cost_table(networks: Sequence[CountedNetwork]) -> Table:
    """Parameters and MACs in closed form, fvcore's MACs, and the step from the plain network."""
    import pandas as pd

    by_name = {network.name: network for network in networks}
    rows = []
    for network in networks:
        plain = by_name.get(family(network.name, list(by_name)), network)
        more_params = network.profile.num_params / plain.profile.num_params - 1
        more_macs = network.profile.macs / plain.profile.macs - 1
        rows.append({
            "network": network.name,
            "input": "×".join(map(str, network.input_size)),
            "parameters": f"{network.profile.num_params:,}",
            "over plain": "" if network is plain else f"+{_span([more_params])}",
            "MACs": f"{network.profile.macs:,}",
            "MACs over plain": "" if network is plain else f"+{_span([more_macs], 3)}",
            "MACs by fvcore": f"{network.fvcore.macs:,}",
            "they differ by": network.difference,
        })  # fmt: skip
    frame = pd.DataFrame(rows)
    caption = (
        "Parameters, and multiply-accumulates of convolutions and linear layers for one image, in "
        "closed form and by fvcore"
    )
    if rows and not any(frame["they differ by"]):
        frame = frame.drop(columns="they differ by")
        caption += ": the two agree for every network"
    if len({network.input_size for network in networks}) == 1:
        frame = frame.drop(columns="input")
    return Table(
        frame,
        caption,
        text_columns=("network", "input", "they differ by"),
        empty="No network was named.",
    )


def convention_table(networks: Sequence[CountedNetwork]) -> Table:
    """The totals of each network by the five conventions, in millions."""
    import pandas as pd

    rows = [
        {
            "network": network.name,
            "closed form": _millions(network.profile.macs),
            "with biases added": f"{network.profile.macs + network.profile.bias_adds:,}",
            "fvcore, all": _millions(network.fvcore.total),
            "thop's rule": _millions(network.thop.total),
            "torch's counter": _millions(network.torch_flops),
        }
        for network in networks
    ]
    return Table(
        pd.DataFrame(rows),
        "One network by five conventions, for one image",
        text_columns=("network",),
        empty="No network was named.",
    )


def left_out_table(networks: Sequence[CountedNetwork]) -> Table:
    """What the closed form and fvcore leave uncounted, each operator with its number of calls."""
    import pandas as pd

    rows = [
        {
            "network": network.name,
            "left out of the closed form": _calls(network.profile.uncounted),
            "left out by fvcore": _calls(network.fvcore.left_out),
        }
        for network in networks
    ]
    columns = ["network", "left out of the closed form", "left out by fvcore"]
    return Table(
        pd.DataFrame(rows, columns=columns),
        "Operators that compute and are not in the count, with their number of calls",
        text_columns=columns,
        empty="No network was named.",
    )


def convention_text(network: CountedNetwork) -> Text:
    """Why one network goes by several totals, with its own numbers."""
    macs, fvcore, thop = network.profile.macs, network.fvcore, network.thop
    norms = fvcore.by_operator.get("batch_norm", 0)
    kinds = thop.by_kind
    return Text(
        f"{escape(network.name)} has {_millions(macs)} multiply-accumulates. Torch's counter says "
        f"{_millions(network.torch_flops)}, {network.torch_flops / macs:.2f} times as many: it "
        "counts the multiplication and the addition apart. fvcore's total is "
        f"{_millions(fvcore.total)}: it adds {_millions(norms)} for normalisation, 2 a value. "
        f"thop's rule gives {_millions(thop.total)}, "
        f"{_millions(kinds.get('normalisation', 0))} of it for normalisation at 4 a value and "
        f"{_millions(kinds.get('pooling', 0))} for pooling; what thop calls FLOPs are mostly "
        f"multiply-accumulates. The additions of biases are {network.profile.bias_adds:,}."
    )


# One block of each type


def block_table(sizes: Sequence[int] = (32, 16, 8)) -> "pd.DataFrame":
    """One block of each of the second source's four types at C = 64, s = 4, r = 16.

    Args:
        sizes: heights, equal to the widths, of the block's input, in pixels.
    Returns:
        block, weights (of convolutions and linear layers), norm_params, num_params, and for each
        size n macs_n.
    """
    import pandas as pd

    rows = []
    for name, block in _blocks().items():
        profiles = {size: profile_model(block, (64, size, size)) for size in sizes}
        weights = sum(layer.num_params for layer in profiles[sizes[0]].layers)
        num_params = profiles[sizes[0]].num_params
        rows.append({
            "block": name,
            "weights": weights,
            "norm_params": num_params - weights,
            "num_params": num_params,
            **{f"macs_{size}": profile.macs for size, profile in profiles.items()},
        })  # fmt: skip
    return pd.DataFrame(rows)


def _blocks() -> dict[str, nn.Module]:
    """The four blocks by the names the source gives them, 64 channels in and out."""
    gated = AttentionSpec(attention="se", reduction=16)
    blocks: dict[str, nn.Module] = {}
    for prefix, spec in (("", NO_ATTENTION), ("SE-", gated)):
        name = "SE-ResNet" if prefix else "ResNet (2 conv)"
        blocks[name] = BasicBlock(64, 64, stride=1, shortcut="B", attention=spec)
    for prefix, spec in (("", NO_ATTENTION), ("SE-", gated)):
        blocks[f"{prefix}Res2Net"] = Res2NetBlock(
            64, base_width=16, scale=4, stride=1, gate_at="fused", attention=spec
        )
    return blocks


def block_table_view(
    blocks: "pd.DataFrame", claimed: Mapping[str, tuple[float, float]] | None = None
) -> Table:
    """`block_table` for readers, beside what was claimed.

    Args:
        blocks: from `block_table`.
        claimed: block to (parameters in millions, FLOPs in millions).
    """
    import pandas as pd

    rows = []
    for row in blocks.to_dict("records"):
        params, flops = (claimed or {}).get(row["block"], (None, None))
        sizes = [name for name in blocks.columns if name.startswith("macs_")]
        cells = {
            "block": row["block"],
            "weights": f"{row['weights']:,}",
            "norms": row["norm_params"],
            "claimed": "" if params is None else f"{params:.2f} M",
            "factor": "" if params is None else f"{1e6 * params / row['num_params']:.1f}",
            **{f"at {name[5:]}×{name[5:]}": f"{row[name]:,}" for name in sizes},
            "claimed FLOPs": "" if flops is None else f"{flops:g} M",
        }
        if not claimed:
            cells = {k: v for k, v in cells.items() if k not in CLAIM_COLUMNS}
        rows.append(cells)
    return Table(
        pd.DataFrame(rows),
        "One block with 64 channels in and out, 4 streams, r = 16: weights of its convolutions and "
        "linear layers, parameters of its norms, and multiply-accumulates by size of the input",
        text_columns=("block",),
    )


# Time and memory


def speed_table(measured: "pd.DataFrame") -> Table:
    """Latency, throughput and memory of `measure_networks` for readers."""
    import pandas as pd

    rows = [
        {
            "network": row["model"],
            "batch": row["batch_size"],
            "median ms": f"{row['latency_ms']:,.2f}",
            "IQR ms": f"{row['latency_ms_low']:,.2f} to {row['latency_ms_high']:,.2f}",
            "images/s": f"{row['images_per_second']:,.0f}",
            "peak MiB": f"{row['peak_memory_mib']:,.1f}",
            "passes": row["num_timed"],
        }
        for row in measured.to_dict("records")
    ]
    where = ""
    if rows:
        first = measured.iloc[0]
        where = f" on {first['machine']}, {counted(int(first['threads']), 'CPU thread')}, fp32"
    return Table(
        pd.DataFrame(rows),
        f"Forward pass of a batch{where}: median and interquartile range of the timed passes",
        text_columns=("network",),
        empty="Nothing was measured.",
    )


def share_table(measured: "pd.DataFrame") -> Table:
    """Attention's share of parameters, multiply-accumulates and time, for readers."""
    import pandas as pd

    rows = [
        {
            "network": row["model"],
            "batch": row["batch_size"],
            "modules": row["attention_num_modules"],
            "of parameters": f"{100 * row['attention_params']:.2f} %",
            "of MACs": f"{100 * row['attention_macs']:.3f} %",
            "of the time": f"{100 * row['attention_time']:.1f} %",
            "IQR": _span([row["attention_time_low"], row["attention_time_high"]], 1),
        }
        for row in measured.to_dict("records")
        if row["attention_num_modules"]
    ]
    return Table(
        pd.DataFrame(rows),
        "Share of the attention modules in the whole network",
        text_columns=("network",),
        empty="None of these networks has attention.",
    )


def answer(networks: Sequence[CountedNetwork], measured: "pd.DataFrame") -> Text:
    """What attention adds to the networks whose plain form is there too."""
    by_name = {network.name: network for network in networks}
    plain = {name: family(name, list(by_name)) for name in by_name}
    pairs = [(by_name[a], by_name[b]) for a, b in plain.items() if b in by_name and a != b]
    if not pairs:
        return Text("No network stands beside its plain form here, so no cost can be compared.")
    profiles = [(gated.profile, plain.profile) for gated, plain in pairs]
    sentences = [
        f"Over {counted(len(pairs), 'pair')} of a network with attention and its plain form, "
        f"parameters grow by {_span([a.num_params / b.num_params - 1 for a, b in profiles])} and "
        f"multiply-accumulates by {_span([a.macs / b.macs - 1 for a, b in profiles], 3)}."
    ]
    for batch_size, group in measured.groupby("batch_size"):
        rows = {row["model"]: row for row in group.to_dict("records")}
        timed = [(rows[a.name], rows[b.name]) for a, b in pairs if {a.name, b.name} <= rows.keys()]
        if timed:
            ratios = [a["latency_ms"] / b["latency_ms"] - 1 for a, b in timed]
            memory = [a["peak_memory_mib"] / b["peak_memory_mib"] - 1 for a, b in timed]
            shares = [a["attention_time"] for a, _ in timed]
            sentences.append(
                f"At batch {batch_size} the median time of a pass differs from the plain "
                f"network's by {_span(ratios, 1)} and the peak memory by {_span(memory, 1)}; "
                f"{_span(shares, 1)} of the time passes in the attention modules."
            )
    return Text(" ".join(sentences))


def _span(fractions: Sequence[float], decimals: int = 2) -> str:
    """The least and the greatest of some fractions, in percent."""
    texts = [f"{100 * x:.{decimals}f}".replace("-", "−") for x in (min(fractions), max(fractions))]
    return f"{texts[0]} %" if texts[0] == texts[1] else f"{texts[0]} to {texts[1]} %"


def _millions(number: float) -> str:
    return f"{number / 1e6:,.2f} M"


def _calls(operators: Mapping[str, int]) -> str:
    """Operators with their numbers of calls, by the names that readers know."""
    return ", ".join(
        f"{name.removeprefix('native_')} {calls:,}" for name, calls in operators.items()
    )
