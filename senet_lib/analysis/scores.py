"""Scores of maps on disk, and over seeds.

`localisation-seed<k>.json` stands beside a study's report, one file a seed. It names the recipe, so
that scores of short trainings are never taken for those of long ones.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from senet_lib.analysis.localisation import METRICS
from senet_lib.analysis.statistics import interval
from senet_lib.analysis.trials import FAITHFULNESS_LABELS, Compared
from senet_lib.errors import RecordError
from senet_lib.files import read_json, write_json
from senet_lib.runs import REPORTS
from senet_lib.runs.records import anchored

PATTERN = "localisation-seed*.json"
USUAL = ("gradcam", "last")  # method and layer of the maps that are kept and judged
COLUMNS = (
    *("model", "seed", "trial", "metric", "score", "chance", "wrong", "untrained"),
    *("cases", "zero"),
)
IOU_METRICS = ("iou_at_area", "iou_at_half", "iou_best")
SHARED = ("study", "protocol", "recipe", "recipe_id", "data", "fingerprint", "method", "layer")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StudyScores:
    """What is known of one study's maps; the first six as in the records of the runs."""

    study: str
    protocol: str
    recipe: Mapping[str, Any]
    recipe_id: str
    data: str
    fingerprint: str
    method: str
    layer: str
    right: Mapping[int, int]  # images that every network classifies correctly, by seed
    # A row a model, seed, trial and metric, the columns of `COLUMNS`; wrong and untrained are NaN
    # in files of earlier versions.
    frame: pd.DataFrame

    def per_seed(self, model: str, trial: str, metric: str) -> dict[int, float]:
        """Scores by seed; empty where nothing was measured."""
        f = self.frame
        rows = f[(f["model"] == model) & (f["trial"] == trial) & (f["metric"] == metric)]
        return dict(zip(rows["seed"].tolist(), rows["score"].tolist(), strict=True))

    def table(self) -> pd.DataFrame:
        """Every network, trial and metric over the seeds.

        Returns:
            Columns trial, metric, model, n (seeds), mean, low and high (its t interval, NaN where
            there is none), chance, wrong and untrained (means over the seeds: what a uniform map
            scores, the same maps on a wrong region, maps of the untrained network), cases and zero
            (summed over the seeds).
        """
        groups = self.frame.groupby(["trial", "metric", "model"], sort=False)
        table = groups["score"].agg(n="size", mean="mean")
        ends = [interval(scores) or (np.nan, np.nan) for _, scores in groups["score"]]
        table[["low", "high"]] = np.array(ends).reshape(-1, 2)
        table = table.join(groups[["chance", "wrong", "untrained"]].mean())
        return table.join(groups[["cases", "zero"]].sum()).reset_index()


def write_scores(path: Path, compared: Compared, seed: int, frame: pd.DataFrame) -> None:
    """Write the scores of one seed's networks by the `USUAL` maps, a frame of `CamStudy.measure`,
    whole or not at all, to a path whose name should match `PATTERN`."""
    run, (method, layer) = compared.runs[0], USUAL
    known = {key: getattr(run, key) for key in SHARED[:5]}
    rows = [
        {key: value for key, value in row.items() if value == value}  # NaN is no JSON
        for row in frame.to_dict("records")
    ]
    write_json(path, {
        **known, "fingerprint": run.data_fingerprint, "seed": seed, "method": method,
        "layer": layer, "compared": [[r.network, r.seed] for r in compared.runs],
        "right": compared.right, "rows": rows,
    })  # fmt: skip


def read_scores(folder: str | Path, seeds: Collection[int] = ()) -> StudyScores | None:
    """The scores beside one report, of the seeds named or else of all, or None where there are
    none; RecordError where a file is unreadable, or the seeds' files are of different kinds."""
    wanted = [PATTERN.replace("*", str(seed)) for seed in seeds] or [PATTERN]
    paths = sorted(path for name in wanted for path in Path(folder).glob(name))
    contents = [read_json(path, (*SHARED, "seed", "right", "rows")) for path in paths]
    if not contents:
        return None
    cases = [sorted({(row["trial"], row["cases"]) for row in c["rows"]}) for c in contents]
    kinds = zip(cases, contents, strict=True)
    if len({(str(asked), *(str(c[key]) for key in (*SHARED, "right"))) for asked, c in kinds}) > 1:
        raise RecordError(
            f"the files {PATTERN} in {folder} are of different recipes, methods, images or numbers "
            "of cases: make them again alike, a seed after the other"
        )
    frames = [pd.DataFrame(c["rows"]).assign(seed=c["seed"]) for c in contents]
    return StudyScores(
        **{key: contents[0][key] for key in SHARED},
        right={c["seed"]: c["right"] for c in contents},
        frame=pd.concat(frames, ignore_index=True).reindex(columns=COLUMNS),
    )


def all_scores(*roots: str | Path) -> list[StudyScores]:
    """The scores of every study that has some; each recipe and data once, those of the most seeds,
    of equals those found first, and a warning in the place of those that cannot be read.
    Without `roots`, folders of reports, outputs/reports and then outputs/published/reports."""
    found: dict[tuple[str, str, str], StudyScores] = {}
    for root in roots or tuple(anchored(path) for path in REPORTS):
        for folder in sorted({path.parent for path in Path(root).glob(f"*/{PATTERN}")}):
            try:
                scores = read_scores(folder)
            except RecordError as error:  # one study's files keep no other from being judged
                log.warning("%s, so they are left out", error)
                continue
            if scores is not None:
                key = scores.study, scores.recipe_id, scores.fingerprint
                found[key] = max(found.get(key, scores), scores, key=lambda one: len(one.right))
    return list(found.values())


def metric_label(trial: str, metric: str) -> str:
    """A metric's name in tables; the mass in the region is called by what a trial's regions are."""
    if metric == "energy" and trial == "mosaic":
        return "Focus"
    if metric == "energy" and trial.startswith("grid"):
        return "grid pointing score"
    return FAITHFULNESS_LABELS.get(metric) or METRICS[metric].label
