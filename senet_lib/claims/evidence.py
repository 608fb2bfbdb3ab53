"""The runs that bear on a claim.

A run counts for a protocol if recipe and images are the protocol's, whatever its study is called.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from senet_lib.analysis.scores import USUAL, StudyScores
from senet_lib.claims.claim import Claim, load_protocol
from senet_lib.data.datasets import CIFAR10_FINGERPRINT
from senet_lib.files import anchored
from senet_lib.runs.published import PUBLISHED
from senet_lib.runs.records import DEFAULT_ROOT, RunRecord, copies, find_runs, look


def claim_runs(*roots: str | Path) -> list[RunRecord]:
    """Every finished run below some folders, by default outputs/runs and outputs/published/runs,
    without the damaged and the copies (`senet runs` names them)."""
    roots = roots or (DEFAULT_ROOT, anchored(PUBLISHED / "runs"))
    found = [look(folder)[0] for root in roots for folder in find_runs(root)]
    found = [run for run in found if run]
    copied = copies(found)
    return [run for run in found if run.path not in copied]


class Evidence:
    """The runs on CIFAR-10's test images, by recipe, model and seed; each seed counts once."""

    def __init__(self, runs: Sequence[RunRecord], scores: Sequence[StudyScores] = ()) -> None:
        claimed = (*USUAL, CIFAR10_FINGERPRINT)  # the claims are about these maps
        self.maps = [s for s in scores if (s.method, s.layer, s.fingerprint) == claimed]
        self.runs: dict[str, dict[str, dict[int, RunRecord]]] = {}
        for run in runs:
            if run.data_fingerprint != CIFAR10_FINGERPRINT or run.num_val or run.overrides:
                continue
            seeds = self.runs.setdefault(run.recipe_id, {}).setdefault(run.model, {})
            seeds.setdefault(run.seed, run)

    def of(self, model: str, protocol: str) -> dict[int, RunRecord]:
        """Runs of a model under a protocol, by seed, ascending."""
        runs = self.runs.get(load_protocol(protocol).recipe.id, {}).get(model, {})
        return dict(sorted(runs.items()))

    def shared(self, claim: Claim) -> list[int]:
        """Seeds that all models of a claim have runs of."""
        runs = [self.of(model, claim.protocol) for model in claim.models]
        return sorted(set.intersection(*(set(r) for r in runs)))

    def behind(self, claim: Claim) -> list[RunRecord]:
        """The runs of each model of a claim, one after the other, on the seeds that all have."""
        seeds = self.shared(claim)
        return [self.of(model, claim.protocol)[seed] for model in claim.models for seed in seeds]

    def missing(self, claim: Claim, wanted: int) -> list[tuple[str, int]]:
        """Model and seed of the runs without which the claim's models do not share as many seeds as
        wanted."""
        shared, planned = self.shared(claim), load_protocol(claim.protocol).seeds
        more = [s for s in (*planned, *range(100)) if s not in shared]
        seeds = list(dict.fromkeys(more))[: max(wanted - len(shared), 0)]
        return [(m, s) for m in claim.models for s in seeds if s not in self.of(m, claim.protocol)]

    def scores(self, claim: Claim, *, own: bool) -> list[StudyScores]:
        """What maps of the claim's protocol score, as far as their runs are here, or what those of
        all other recipes do."""
        recipe = load_protocol(claim.protocol).recipe.id
        if not own:
            return [one for one in self.maps if one.recipe_id != recipe]
        here = [(m, seed) for m, seeds in self.runs.get(recipe, {}).items() for seed in seeds]
        own = [one for one in self.maps if one.recipe_id == recipe]
        pairs = [pd.MultiIndex.from_frame(one.frame[["model", "seed"]]) for one in own]
        return [
            replace(one, frame=one.frame[pair.isin(here)])
            for one, pair in zip(own, pairs, strict=True)
        ]

    def elsewhere(self, claim: Claim) -> list[list[RunRecord]]:
        """Runs of all models of a claim on shared seeds under another recipe, a list a model;
        those that saw the most images. Empty if there are none."""
        own, best, most = load_protocol(claim.protocol).recipe.id, [], 0
        for recipe, models in self.runs.items():
            seeds = set.intersection(*(set(models.get(m, ())) for m in claim.models))
            if recipe == own or not seeds:
                continue
            runs = [[models[m][s] for s in sorted(seeds)] for m in claim.models]
            about = runs[0][0].recipe
            images = about["epochs"] * (about.get("train_images") or 50_000)
            if images > most:
                best, most = runs, images
        return best
