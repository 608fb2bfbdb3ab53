"""The explorer's drawing: from what is chosen to what the widgets show."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from senet_lib.analysis.families import label
from senet_lib.errors import SenetError
from senet_lib.explore.answers import EVALUATED, Bench, Survey, has_gates
from senet_lib.explore.numbers import (
    Picture,
    compare_with_class,
    data_name,
    extremes,
    gate_distances,
    gate_vectors,
    probabilities,
)
from senet_lib.explore.page import ALL_LAYERS, NEIGHBOURS, PAGE_SIZE, TRUE, Page
from senet_lib.explore.pictures import (
    gates_html,
    map_html,
    picture_html,
    probability_text,
    status_html,
)
from senet_lib.report.diagnosis import confusion_matrix
from senet_lib.runs.records import RunRecord
from senet_lib.wording import counted, percent


@dataclass(kw_only=True)
class Scene:
    """What is chosen."""

    runs: Sequence[RunRecord] = ()
    """The networks side by side; the first one leads."""
    split: str = EVALUATED
    """"evaluated" or "train"."""
    picture: Picture | None = None
    """The image looked at."""
    pool: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    """Indices of the images that fit, in the order in which they are shown."""
    place: int = 0
    """Which page of them is shown, from 0."""
    problem: str = ""
    """Why there are no images, if there are none."""

    @property
    def lead(self) -> RunRecord:
        """The first network."""
        return self.runs[0]

    @property
    def index(self) -> int | None:
        """The picture's place in the split, if it is from there."""
        inside = self.picture is not None and self.picture.split == self.split
        return self.picture.index if inside else None


class Drawing:
    """Draws scenes; what has not changed sends nothing to the browser.

    Args:
        page: what is drawn on.
        bench: whom the numbers come from.
        want: called with a run and a split whose survey is needed and yet to be read.
    """

    def __init__(self, page: Page, bench: Bench, want: Callable[[RunRecord, str], None]) -> None:
        self._page, self._bench, self._want = page, bench, want

    def draw(self, scene: Scene) -> None:
        """Bring the whole page up to the scene."""
        self._draw_maps(scene)
        self.draw_pool(scene)
        self._draw_gates(scene)
        self._draw_matrix(scene)
        lead, problem = scene.lead, scene.problem
        total = len(self._bench.labels(lead))
        right = round((1 - lead.test_error) * total)
        done = (
            f"{label(lead)}, seed {lead.seed}: {right:,} of {total:,} {lead.evaluated_on} images "
            f"of {data_name(lead.data)} right ({percent(1 - lead.test_error)} %)."
        )
        self._page.say(problem or done, problem=bool(problem))

    def _draw_maps(self, scene: Scene) -> None:
        page, picture, runs = self._page, scene.picture, scene.runs
        page.picture.value = "" if picture is None else picture_html(picture, runs[0].classes)
        for run, column in zip(runs, page.columns, strict=False):
            column.output.value = "" if picture is None else self._map_of(run, picture)
        if picture is not None and picture.index is not None:
            page.index.value = picture.index

    def _map_of(self, run: RunRecord, picture: Picture) -> str:
        """A network's map of the picture; where there is none, why."""
        page = self._page
        target = picture.label if page.target.value == TRUE else None
        ask = functools.partial(self._bench.maps, run, picture, page.method.value)
        try:
            if page.method.value == "scorecam":
                self._page.say("Score-CAM runs a network once for every channel of the layer …")
            return map_html(ask(page.layer.value, target), picture, run.classes, label(run))
        except SenetError as error:
            return status_html(str(error), problem=True)

    def draw_pool(self, scene: Scene) -> None:
        """Bring the choice of images up to the scene."""
        page, lead, first = self._page, scene.lead, scene.place * PAGE_SIZE
        shown = [int(i) for i in scene.pool[first : first + PAGE_SIZE]]
        place = f", {first + 1} to {first + len(shown)}" if shown else ""
        page.pool_text.value = f"<strong>{counted(len(scene.pool), 'image')}</strong>{place}"
        if not shown:
            page.pool.show([])
            return
        images, labels = self._bench.images(lead, scene.split)
        logits = self._bench.logits(lead, scene.split)
        items = []
        for i in shown:
            caption = lead.classes[labels[i]]
            text = f"image {i}: {caption}"
            if logits is not None:
                share = probabilities(logits[i])
                caption = f"{lead.classes[int(share.argmax())]} {probability_text(share.max())}"
                text += f", taken for {caption}"
            items.append((i, images[i], caption, text))
        page.pool.show(items, scene.index)

    def _draw_gates(self, scene: Scene) -> None:
        """The gates of the first network that has any."""
        page, picture = self._page, scene.picture
        run = next((r for r in scene.runs if has_gates(self._bench.network(r))), None)
        if run is None or picture is None:
            page.gates.value = ""
            none = "None of these networks has gates; choose one with attention."
            page.gates_text.value = none if run is None else ""
            self._show_neighbours([], [])
            return
        one = self._bench.gates(run, picture)
        options = [("all layers", ALL_LAYERS)]
        options += [(path.removesuffix(".attention"), path) for path in one.layers]
        offer(page.gate_layer, options, ALL_LAYERS)
        layer, of_class = page.gate_layer.value, picture.label
        if of_class is None:  # what the network takes it for
            of_class = int(self._bench.maps(run, picture, "gradcam", "last").targets[0])
        compared, near, far = compare_with_class(one), [], []
        survey = None if scene.problem else self._survey(run, scene.split)
        if survey is not None:
            page.gates_text.value = ""
            images, labels = self._bench.images(run, scene.split)
            members = labels[: len(survey.logits)] == of_class
            compared = compare_with_class(one, survey.gates, members)
            distances = gate_distances(
                gate_vectors(survey.gates, layer), gate_vectors(one, layer)[0]
            )
            near, far = (
                [(i, images[i], f"{run.classes[labels[i]]} {distances[i]:.3f}", f"image {i}")
                 for i in found]
                for found in extremes(distances, NEIGHBOURS, scene.index)
            )  # fmt: skip
        drawn = [layer] if layer else one.ends
        page.gates.value = gates_html(compared, drawn, label(run), run.classes[of_class])
        self._show_neighbours(near, far)

    def _show_neighbours(self, near: list, far: list) -> None:
        """Both rows of images, or neither; a difference is a root mean square over the gates."""
        page = self._page
        among = f"of the first {counted(self._bench.num_images, 'image')}"
        kinds = (("similar", near, page.near_text), ("different", far, page.far_text))
        for word, found, text in kinds:
            shown = f"<strong>Most {word} gates</strong> {among}, with the difference"
            text.value = shown if found else ""
        page.near.show(near)
        page.far.show(far)

    def _draw_matrix(self, scene: Scene) -> None:
        page, lead = self._page, scene.lead
        if scene.split == EVALUATED:
            logits, labels = self._bench.logits(lead, EVALUATED), self._bench.labels(lead)
        elif scene.problem or (survey := self._survey(lead, scene.split)) is None:
            return
        else:
            logits, labels = survey.logits, self._bench.images(lead, scene.split)[1]
        text = f"{label(lead)}, seed {lead.seed}: {counted(len(labels), 'image')}. "
        page.matrix_text.value = escape(f"{text}A click shows a cell's images above.", quote=False)
        page.confusions.show(confusion_matrix(logits, labels), lead.classes)

    def _survey(self, run: RunRecord, split: str) -> Survey | None:
        """The survey; None while it is being read."""
        survey = self._bench.survey(run, split)
        if survey is None:
            self._want(run, split)
        return survey


def offer(choice: Any, options: Sequence, default: str) -> None:
    """Offer these options; what was chosen stays chosen where it is still among them."""
    values = [option[1] if isinstance(option, tuple) else option for option in options]
    before = choice.value
    if list(choice.options) != list(options):
        choice.options = options
        choice.value = before if before in values else default
