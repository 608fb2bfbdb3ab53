"""Tables and sentences about what maps score, for the Grad-CAM notebook and the report."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from senet_lib.analysis.localisation import METRICS, Summary
from senet_lib.analysis.scores import StudyScores, all_scores, metric_label, read_scores
from senet_lib.analysis.statistics import FEWEST_SEEDS
from senet_lib.analysis.trials import FAITHFULNESS_LABELS, FEWEST_RIGHT, TRIAL_LABELS
from senet_lib.claims.definitions import Definition, claimed_order, definitions
from senet_lib.report.gallery import METHOD_NAMES
from senet_lib.report.table import Link, Table, Text, escape
from senet_lib.runs.study import StudyRuns
from senet_lib.wording import counted, span

if TYPE_CHECKING:
    import pandas as pd

    from senet_lib.analysis.cam_study import CamStudy

CHANCE = "a uniform map"
NOTEBOOK = "gradcam-seed*.html"
UNMEASURED = Text(
    "No map of this study was measured. Its settings name the networks to compare under `gradcam`."
)


def claimed_ious() -> dict[str, float]:
    """The second source's Grad-CAM IoU of each network, the highest first."""
    from senet_lib.claims.claim import load_claims

    return claimed_order(load_claims())


# One seed: the notebook


def subject_view(view: "CamStudy") -> Table:
    """Which networks, which images and which maps."""
    import pandas as pd

    first = view.runs[0]
    right, total = view.compared.right, len(view.compared.keep)
    rows = {
        "networks": [
            Link.to(run.path / "train.html", run.model, view.page_folder) or run.model
            for run in view.runs
        ],
        "seed": str(view.seed),
        "images": f"{first.evaluated_on} images of {first.data}; all "
        f"{counted(len(view.compared.runs), 'run')} compared, of every seed, classify {right:,} of "
        f"{total:,} correctly, and {_used(right)}",
        "maps": f"{_maps(view.method, view.layer)}, enlarged bilinearly, not scaled",
        "cases": ", ".join(f"{t.label}: {len(t.masks):,}" for t in view.trials),
    }
    frame = pd.DataFrame({"name": list(rows), "value": list(rows.values())})
    return Table(frame, text_columns=("name", "value"), row_names=True)


def show_seed(frame: "pd.DataFrame") -> None:
    """Display a table a trial: every network of one seed, and a uniform map.

    Args:
        frame: of `CamStudy.measure`.
    """
    import pandas as pd
    from IPython.display import display

    found = frame[frame["trial"] != "faithfulness"]
    for trial, here in found.groupby("trial", sort=False):
        labels = {metric: metric_label(trial, metric) for metric in dict.fromkeys(here["metric"])}
        chance = here.drop_duplicates("metric").set_index("metric")["chance"]
        rows = [{"network": CHANCE, **{labels[m]: number(chance[m]) for m in labels}}]
        for model, mine in here.groupby("model", sort=False):
            scores = mine.set_index("metric")["score"]
            rows.append({"network": model, **{labels[m]: number(scores[m]) for m in labels}})
            rows[-1]["zero maps"] = f"{mine['zero'].iloc[0]:,}"
        over = "median" if trial == "mosaic" else "mean"
        cases = counted(int(here["cases"].iloc[0]), "case")
        display(
            Table(
                pd.DataFrame(rows).fillna(""),
                f"{TRIAL_LABELS[trial]}: {over} over {cases}, one seed",
                text_columns=("network",),
            )
        )


def number(value: float) -> str:
    """A score with three decimals."""
    return f"{value:.3f}".replace("-", "−")


def ways_table(frame: "pd.DataFrame") -> Table:
    """Methods and layers against one another, on the same grids.

    Args:
        frame: of `CamStudy.measure_ways`.
    """
    import pandas as pd

    rows = []
    for (method, layer), group in frame.groupby(["method", "layer"], sort=False):
        row = {"method": METHOD_NAMES[method], "layer": layer}
        for model in dict.fromkeys(group["model"]):
            mine = group[group["model"] == model].set_index("metric")["score"]
            row[model] = f"{mine['energy']:.3f}, {mine['iou_at_area']:.3f}"
        rows.append(row)
    cases, trial = int(frame["cases"].iloc[0]), TRIAL_LABELS[frame["trial"].iloc[0]]
    chance = frame.drop_duplicates("metric").set_index("metric")["chance"]
    return Table(
        pd.DataFrame(rows),
        f"{trial}, {counted(cases, 'case')}: mass in the region, and IoU at the region's area. A "
        f"uniform map scores {chance['energy']:.3f}, {chance['iou_at_area']:.3f}",
        text_columns=("method", "layer"),
    )


def faithfulness_table(frame: "pd.DataFrame") -> Table:
    """Whether the network's answer depends on what its maps rank high, one seed.

    Args:
        frame: of `CamStudy.measure`.
    """
    import pandas as pd

    found = frame[frame["trial"] == "faithfulness"]
    rows = []
    for model in dict.fromkeys(found["model"]):
        mine = found[found["model"] == model].set_index("metric")
        row = {"network": model}
        for metric, label in FAITHFULNESS_LABELS.items():
            row[label] = number(mine.loc[metric, "score"])
            row[f"{label}, {CHANCE}"] = number(mine.loc[metric, "chance"])
        rows.append(row)
    cases = int(found["cases"].iloc[0]) if len(found) else 0
    return Table(
        pd.DataFrame(rows),
        f"Mean over {counted(cases, 'image')}. Deletion: lower is better; insertion and ROAD: "
        "higher is better",
        text_columns=("network",),
    )


def answer(view: "CamStudy", frame: "pd.DataFrame") -> Text:
    """What one seed's maps say, in a paragraph.

    Args:
        view: the networks and trials.
        frame: of `CamStudy.measure`.
    """
    trial = view.trials[0].name
    parts = [
        _ranked(frame, trial, "On grids of four images", "energy"),
        _ranked(frame, f"{trial}-alone", "With each tile seen alone", "energy"),
        _ranked(frame, "objects", "On single objects with an exact mask", "iou_at_area"),
    ]
    found = frame.drop_duplicates(["model", "trial"])
    zero, cases = int(found["zero"].sum()), int(found["cases"].sum())
    parts.append(f"{zero:,} of {cases:,} maps are zero; they count as misses.")
    parts.append("One seed ranks nothing: the report has all seeds.")
    return Text(" ".join(filter(None, parts)))


def _ranked(frame: "pd.DataFrame", trial: str, where: str, metric: str) -> str:
    """The best and the worst network of a trial, in a sentence."""
    here = frame[(frame["trial"] == trial) & (frame["metric"] == metric)].sort_values("score")
    if here.empty:
        return ""
    low, high, name = here.iloc[0], here.iloc[-1], metric_label(trial, metric)
    best = f"{escape(high['model'])} has the highest {name} ({high['score']:.3f})"
    if len(here) > 1:
        best += f", {escape(low['model'])} the lowest ({low['score']:.3f})"
    return f"{where}, {best}; a uniform map scores {high['chance']:.3f}."


def _maps(method: str, layer: str) -> str:
    """How maps are made and where they are taken, in words."""
    place = "the last layer before the pooling" if layer == "last" else layer
    return f"{METHOD_NAMES[method]} at {place}"


def _used(right: int) -> str:
    """Which images are asked about, given how many all networks get right."""
    if right < FEWEST_RIGHT:
        return "for want of more any image is used, right or wrong"
    return "only these are used"


# Over the seeds: the report


def trial_table(scores: StudyScores, trial: str) -> Table:
    """Every metric of every network on one trial, over the seeds, with its 95 % interval."""
    import pandas as pd

    metrics = [m for m in METRICS if any(scores.per_seed(x, trial, m) for x in scores.models)]
    if trial == "faithfulness":
        metrics = list(FAITHFULNESS_LABELS)
    rows = [
        {
            "network": CHANCE,
            "n": "",
            **{metric_label(trial, m): hundredths(scores.chance(trial, m)) for m in metrics},
            "zero maps": "",
        }
    ]
    for model in scores.models:
        seeds = scores.per_seed(model, trial, metrics[0])
        if not seeds:
            continue
        f = scores.frame
        mine = f[(f["model"] == model) & (f["trial"] == trial) & (f["metric"] == metrics[0])]
        values = {
            metric_label(trial, m): _estimate(scores.summary(model, trial, m)) for m in metrics
        }
        zero = f"{int(mine['zero'].sum()):,} of {int(mine['cases'].sum()):,}"
        rows.append({"network": model, "n": str(len(seeds)), **values, "zero maps": zero})
    return Table(
        pd.DataFrame(rows), _caption(scores, trial), text_columns=("network",), empty="Nothing."
    )


def _estimate(found: Summary) -> str:
    """The mean with its interval, if it has one."""
    ends = span(found.interval, hundredths)
    return hundredths(found.mean) + (f" ({ends})" if ends else "")


def hundredths(value: float) -> str:
    """A mean over seeds, whose interval is wider than its third decimal."""
    return f"{value:.2f}".replace("-", "−")


def _caption(scores: StudyScores, trial: str) -> str:
    if trial == "faithfulness":
        return (
            "Faithfulness: what the network's probability does when pixels are removed or put back "
            "in the map's order. Deletion: lower is better; insertion and ROAD: higher is better"
        )
    over = "median" if trial == "mosaic" else "mean"
    return f"{TRIAL_LABELS[trial]}: {over} over the cases, mean and 95 % t interval over n seeds"


def setting(scores: StudyScores) -> Text:
    """Which networks and images the tables are about."""
    recipe = scores.recipe
    number = recipe.get("train_images") or 0
    images = f"{number:,} training images" if number else "all training images"
    right = min(scores.right.values())
    return Text(
        f"Study {escape(scores.study)}, protocol {escape(scores.protocol)}: "
        f"{counted(recipe['epochs'], 'epoch')} over {images} of {escape(scores.data)}. "
        f"{_maps(scores.method, scores.layer)}. All networks are asked about the same images: "
        f"{right:,} are classified correctly by every run of theirs, and {_used(right)}."
    )


def order_text(scores: StudyScores, claimed: Mapping[str, float] | None = None) -> Text:
    """Which meanings of IoU put the networks in the claimed order, and how near they come.

    Args:
        scores: of one study.
        claimed: IoU by network, the highest first; the second source's by default.
    """
    claimed = claimed_ious() if claimed is None else claimed
    found = definitions(scores, list(claimed))
    words = " > ".join(f"{escape(m)} ({v:.2f})" for m, v in claimed.items())
    if not found:
        absent = [m for m in claimed if m not in scores.models]
        return Text(f"The claimed order, {words}, cannot be asked: no maps of {', '.join(absent)}.")
    return Text(f"Claimed: {words}. {order_words(found, claimed)}")


def order_words(found: Sequence[Definition], claimed: Mapping[str, float]) -> str:
    """The answer of `order_text` alone."""
    ordered = [one for one in found if one.ordered]
    near = [one for one in found if meets(one, claimed)]
    which = "; ".join(
        f"{one.label} (in {one.seeds_ordered} of {counted(one.seeds, 'seed')})" for one in ordered
    )
    verb = "none gives" if not ordered else f"{len(ordered)} give{'s' * (len(ordered) == 1)}"
    parts = [
        f"Of {counted(len(found), 'definition')} measured, {verb} this order of the means"
        + (f": {which}." if which else ".")
    ]
    if near:
        parts.append(
            "All three claimed values lie inside the intervals of "
            + "; ".join(one.label for one in near)
            + "."
        )
    else:
        parts.append("None has the three claimed values inside its intervals.")
    if (n := min(one.seeds for one in found)) < FEWEST_SEEDS:
        parts.append(f"With {counted(n, 'seed')} shared by all three, no order is established.")
    return " ".join(parts)


def meets(one: Definition, claimed: Mapping[str, float]) -> bool:
    """Whether every claimed value lies in its network's interval over the seeds."""
    return all(
        (i := one.summaries[model].interval) is not None and i.low <= value <= i.high
        for model, value in claimed.items()
    )


def show_all(study: StudyRuns) -> None:
    """Display what the maps of a study score: tables, the claimed order, where it comes from."""
    from IPython.display import display

    from senet_lib.figures import maps as cam_plots
    from senet_lib.report.table import show

    own = read_scores(study.page_folder)
    if own is None:
        display(UNMEASURED, _elsewhere(study))
        return
    display(setting(own))
    show(cam_plots.pointing(own))
    for trial in own.trials:
        display(trial_table(own, trial))
    claimed = claimed_ious()
    if found := definitions(own, list(claimed)):
        display(Text("### Is that the claimed IoU?"))
        show(cam_plots.definitions(found, claimed))
    display(order_text(own), sources(study), _elsewhere(study))


def sources(study: StudyRuns) -> Text:
    """The notebooks behind the tables, which link the galleries."""
    pages = sorted(study.page_folder.glob(NOTEBOOK))
    links = [f"[{page.stem}]({page.name})" for page in pages]
    return Text(
        f"Maps to look at, and how these numbers were made: {', '.join(links)}." * bool(links)
    )


def _elsewhere(study: StudyRuns) -> Text:
    """Studies beside this one whose maps were measured as well, with links to their reports."""
    found = []
    for scores in all_scores(study.page_folder.parent):
        folder = scores.paths[0].parent
        page = folder / "index.html"
        if folder.resolve() == study.page_folder.resolve() or scores.study == study.study:
            continue
        link = Link.to(page, scores.study, study.page_folder)
        name = link if isinstance(link, str) else f"[{escape(link.text)}]({link.target})"
        found.append(f"{name or escape(scores.study)} ({escape(scores.data)})")
    if not found:
        return Text("")
    return Text(f"Maps were measured in further studies: {', '.join(found)}.")


def galleries(view: "CamStudy", per_class: int = 2) -> Table:
    """Write a gallery of each network beside the page, and link them.

    Args:
        view: the networks.
        per_class: right cases of each class, and likewise wrong ones; 0 writes none.
    """
    import pandas as pd

    from senet_lib.report.gallery import write_gallery

    rows = []
    for run in view.runs if per_class else ():
        folder = view.page_folder / f"gallery-{run.model}-seed{run.seed}"
        page = write_gallery(
            view.networks[run.model],
            view.compared.dataset,
            folder,
            name=f"{run.model}, seed {run.seed}",
            mean=run.mean,
            std=run.std,
            method=view.method,
            layer=view.layer,
            per_class=per_class,
            logits=run.test_logits()[0],
        )
        rows.append({"network": run.model, "gallery": Link.to(page, "open", view.page_folder)})
    return Table(
        pd.DataFrame(rows),
        "Right and wrong cases of every class, with the map of each",
        text_columns=("network", "gallery"),
        empty="No gallery was asked for.",
    )
