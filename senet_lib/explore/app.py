"""The explorer: a page of widgets on which trained networks are looked at, image by image.

Every widget changes what is chosen and draws the page anew; what is as before is not sent again.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np

from senet_lib.analysis.cam import METHOD_NAMES, METHODS
from senet_lib.analysis.confusion import choose_images, commonest, confusion_matrix
from senet_lib.errors import SenetError, counted, one_line, unknown
from senet_lib.evaluation import probabilities, probability_text
from senet_lib.explore import answers, pictures
from senet_lib.explore.answers import PUBLISHED_ROOT, Picture, Trained
from senet_lib.runs.records import DEFAULT_ROOT

MOST_NETWORKS, PAGE_SIZE, MOST_CELLS = 4, 10, 60
WIDE = {"description_width": "initial"}
BREATH_SECONDS = 0.005  # between two parts of the reading, for questions that wait

log = logging.getLogger(__name__)


def open(
    study: str = "",
    models: Sequence[str] = (),
    num_images: int = 300,
    runs_root: str | Path = DEFAULT_ROOT,
    published_root: str | Path = PUBLISHED_ROOT,
) -> "Explorer":
    """The explorer over the runs on disk and the published ones, for a notebook to display.

    Args:
        study, models: the study and the one to four networks shown first, of which a single one
            may be a string; empty: see `usual_study` and `usual_pair`.
        num_images: how many images gates are read of, at least 1.
        runs_root, published_root: folders of the studies' folders, as in `offered_runs`.
    """
    if num_images < 1:
        raise SenetError(f"num_images is {num_images}; it must be at least 1")
    return Explorer(answers.offered_runs(runs_root, published_root, num_images), study, models)


class Explorer:
    """The page and what happens on it; a mistake in what is asked for is said on the page. It shows
    what `offered_runs` gives, first what `open` says.

    Attributes:
        widget: the page.
        picture: the image looked at; None where there is none.
        pool: indices of the images that fit what is chosen, in the order in which they are shown.
    """

    def __init__(
        self, offers: Mapping[str, Sequence[Trained]], study: str = "", models: Sequence[str] = ()
    ) -> None:
        self._offers, self.picture, self.pool = offers, None, np.zeros(0, int)
        self._place, self._problem = 0, ""
        # JupyterLab handles what widgets send in a thread of its own, beside that of the cells.
        self._lock, self._muted = threading.RLock(), False
        self._tasks: dict[Trained, asyncio.Task] = {}
        self._drawn: dict[tuple, str] = {}  # figures, which take longer than all else
        self._make_widgets()
        self.widget = widgets.VBox(self._rows() if offers else [self.status]).add_class("senet-app")
        if offers:
            self._connect()
            self._guarded(self._start, study, models)
        else:
            self._say("there is no finished run with its weights; `make study` trains some", True)

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget)

    # The page

    def _make_widgets(self) -> None:
        methods = [(METHOD_NAMES[key], key) for key in METHODS]
        targets = [("the predicted class", False), ("the true class", True)]
        self.study, self.cell = _choice("Study"), _choice("Confusion")
        self.label, self.said = _choice("True class"), _choice("Taken for")
        self.count = _choice("Side by side", range(1, MOST_NETWORKS + 1))
        self.method, self.layer = _choice("CAM method", methods), _choice("Layer")
        self.target, self.gate_layer = _choice("Map for", targets), _choice("Gates of")
        self.columns = [_choice(f"Network {k + 1}") for k in range(MOST_NETWORKS)]
        self.maps = [_html(f"map-{k + 1}") for k in range(MOST_NETWORKS)]
        self.thumbs, self.near = (
            Thumbnails(lambda index: self._guarded(self._choose, index)) for _ in range(2)
        )
        self.back, self.on = map(_button, ("◀ previous", "next ▶"))
        self.index = widgets.BoundedIntText(description="Image number", style=WIDE)
        self.index.layout.width = "180px"
        self.upload = widgets.FileUpload(
            accept="image/*", description="Your own picture", layout={"width": "auto"}
        )
        self.status, self.pool_text, self.large = map(_html, ("status", "pool", "picture"))
        self.gates, self.near_text, self.matrix = map(_html, ("gates", "near", "matrix"))
        self.side_by_side = _grid("140px repeat(auto-fit, minmax(190px, 1fr))", "12px")

    def _rows(self) -> list[widgets.Widget]:
        turn = _row(self.pool_text, self.back, self.on, self.index, self.upload)
        images = widgets.VBox([turn, self.thumbs.widget])
        matrix = widgets.VBox([self.cell, self.matrix])
        images.layout.flex, matrix.layout.flex = "1 1 560px", "1 1 360px"
        return [
            _row(self.study, self.label, self.said),
            self.status,
            _row(images, matrix),
            widgets.HTML("<h2>Maps</h2>"),
            _row(self.count, self.method, self.layer, self.target, widgets.HTML(pictures.scale())),
            self.side_by_side,
            widgets.HTML("<h2>Gates</h2>"),
            _row(self.gate_layer),
            self.gates,
            self.near_text,
            self.near.widget,
        ]

    def _connect(self) -> None:
        """Every widget calls its work, through the guard."""
        redrawn = (self.method, self.layer, self.target, self.gate_layer)
        for widget, work in (
            (self.study, self._open_study),
            *((choice, self._new_pool) for choice in (self.label, self.said)),
            (self.cell, self._cell_chosen),
            (self.count, self._networks_changed),
            (self.index, lambda: self._choose(self.index.value)),
            (self.upload, self._uploaded),
            *((choice, self._redraw) for choice in redrawn),
        ):
            widget.observe(lambda change, work=work: self._guarded(work), "value")
        for column in self.columns:
            column.observe(lambda change: self._guarded(self._network_chosen, change), "value")
        for button, by in ((self.back, -1), (self.on, 1)):
            button.on_click(lambda _, by=by: self._guarded(self._turn, by))

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do the work, one at a time, and show what goes wrong in the status line."""
        with self._lock:
            if self._muted:
                return
            self._muted = True  # what the work changes on the page is no question of the user's
            try:
                self._say("Working …")
                work(*arguments)
            except SenetError as error:
                self._say(str(error), True)
            except Exception as error:
                log.exception("the explorer failed")
                self._say(f"{type(error).__name__}: {one_line(error)}", True)
            finally:
                self._muted = False

    def _say(self, text: str, problem: bool = False) -> None:
        self.status.value = pictures.line(text, problem=problem)

    # What is chosen

    @property
    def networks(self) -> list[Trained]:
        """The networks side by side; the first one leads."""
        chosen = self.columns[: self.count.value] if self._offers else []
        return [column.value for column in chosen]

    def _start(self, study: str, models: Sequence[str]) -> None:
        """Show the first study and networks; what was asked for and is not there is said."""
        models = [models] if models and isinstance(models, str) else models
        meant = [name for name, (one, *_) in self._offers.items() if one.run.study == study]
        if study not in self._offers and len(meant) == 1:
            study = meant[0]
        self.study.options = list(self._offers)
        self.study.value = study if study in self._offers else answers.usual_study(self._offers)
        known = {one.run.network for one in self._offers[self.study.value]}
        self._open_study([model for model in models if model in known])
        if study and study not in self._offers:
            raise unknown("study", study, self._offers)
        for model in models:
            if model not in known:
                raise unknown("network", model, known)
        if len(models) > MOST_NETWORKS:
            raise SenetError(f"{len(models)} networks were asked for; {MOST_NETWORKS} fit")

    def _open_study(self, models: Sequence[str] = ()) -> None:
        """Show another study: its networks, classes and images."""
        networks = self._offers[self.study.value]
        first = {one.run.network: one for one in reversed(networks)}
        shown = [first[name] for name in models][:MOST_NETWORKS] or answers.usual_pair(networks)
        places = [*shown, *(one for one in networks if one not in shown), *MOST_NETWORKS * shown]
        for column, one in zip(self.columns, places, strict=False):
            column.options = [(other.name, other) for other in networks]
            column.value = one
        self.count.value = len(shown)
        classes = [(name, k) for k, name in enumerate(shown[0].run.classes)]
        self.label.options = [("any", ""), *classes]
        verdicts = [("its class (right)", "right"), ("another (wrong)", "wrong")]
        self.said.options = [("any", ""), *verdicts, *classes]
        self.label.value = self.said.value = ""
        if self.picture is not None and self.picture.index is not None:
            self.picture = None  # another study may have other images
        self._networks_changed()

    def _network_chosen(self, change: Mapping[str, Any]) -> None:
        """Another network in a column; one that cannot be read is not taken."""
        try:
            _ = change["new"].network, change["new"].evaluated
        except Exception:
            change["owner"].value = change["old"]
            raise
        self._networks_changed()

    def _networks_changed(self) -> None:
        """Other networks: the layers they have in common, and the order of the images."""
        columns = [widgets.VBox(pair) for pair in zip(self.columns, self.maps, strict=True)]
        self.side_by_side.children = [self.large, *columns[: self.count.value]]
        first, *others = (one.layers for one in self.networks)
        _offer(self.layer, [name for name in first if all(name in other for other in others)])
        self._new_pool(keep=True)

    def _new_pool(self, keep: bool = False) -> None:
        """Choose the images anew; with `keep` the picture stays, if there is one."""
        lead = self.networks[0]
        self._place, self._problem, self.index.max = 0, "", len(lead.evaluated[1]) - 1
        self.pool = choose_images(*lead.evaluated, self.label.value, self.said.value)
        try:
            if len(self.pool) and not (keep and self.picture):
                self.picture = lead.picture(int(self.pool[0]))
            _ = lead.images  # whose absence is said, even with a picture of one's own
        except SenetError as error:
            self.pool, self._problem = self.pool[:0], str(error)
        self._redraw()

    def _choose(self, index: int) -> None:
        self.picture = self.networks[0].picture(index)
        self._redraw()

    def _turn(self, by: int) -> None:
        """Another page of images; after the last comes the first."""
        self._place = (self._place + by) % max(-(-len(self.pool) // PAGE_SIZE), 1)
        self._redraw()

    def _cell_chosen(self) -> None:
        """The images of a cell of the confusion matrix."""
        self.label.value, self.said.value = self.cell.value or ("", "")
        self._new_pool()

    def _uploaded(self) -> None:
        if self.upload.value:
            file = self.upload.value[0]
            self.upload.value = ()  # so that the same file can be chosen again
            self.picture = answers.own_picture(file["name"], bytes(file["content"]))
            self._redraw()
            self._say(f"Shown is {self.picture.note}.")

    # Drawing: from what is chosen to what the widgets show

    def _redraw(self) -> None:
        """Bring the page up to what is chosen, the maps first."""
        lead = self.networks[0]
        if self.picture is not None:
            self._draw_maps(self.picture)
        else:
            for output in (self.large, *self.maps):
                output.value = ""
        self._draw_pool(lead)
        self._draw_gates(self.picture)
        self._draw_matrix(lead)
        run, total, right = lead.run, len(lead.evaluated[1]), 1 - lead.run.test_error
        images = f"{total:,} {run.evaluated_on} images of {Path(run.data).name}"
        done = f"{lead.name}: {round(right * total):,} of {images} right ({100 * right:.2f} %)."
        self._say(self._problem or done, bool(self._problem))

    def _draw_maps(self, picture: Picture) -> None:
        self.large.value = pictures.picture_html(picture, self.networks[0].run.classes)
        if picture.index is not None:
            self.index.value = picture.index
        target = picture.label if self.target.value else None
        for one, output in zip(self.networks, self.maps, strict=False):
            try:
                maps = one.maps(picture, self.method.value, self.layer.value, target)
                output.value = pictures.map_html(maps, picture, one.run.classes, one.name)
            except SenetError as error:
                output.value = pictures.line(str(error), problem=True)

    def _draw_pool(self, lead: Trained) -> None:
        first = self._place * PAGE_SIZE
        shown = self.pool[first : first + PAGE_SIZE]
        place = f", {first + 1} to {first + len(shown)}" if len(shown) else ""
        self.pool_text.value = f"<strong>{counted(len(self.pool), 'image')}</strong>{place}"
        said = [
            (lead.picture(int(i)), lead.run.classes[p.argmax()], probability_text(p.max()))
            for i, p in zip(shown, probabilities(lead.evaluated[0][shown]), strict=True)
        ]
        self.thumbs.show(said, self.picture)

    def _draw_gates(self, picture: Picture | None) -> None:
        """The gates of the first network that has any, and the images whose gates are nearest."""
        one = next((o for o in self.networks if picture and o.has_gates), None)
        if one is None:
            self.gates.value = ""
            self.near_text.value = "None of these networks has gates." if picture else ""
            self.near.show([])
            return
        gates, classes, mean, count = one.gates(picture), one.run.classes, {}, 0
        layers = [(pictures.short(path), path) for path in gates.layers]
        _offer(self.gate_layer, [("all layers", ""), *layers])
        layer, true = self.gate_layer.value, picture.label
        if true is None:  # what the network takes it for
            true = int(one.maps(picture).targets[0])
        if self._problem:
            self.near.show([])
            self.near_text.value = ""
        elif self._has_read(one):
            mean, count = one.class_gates(true)
            near = [(one.picture(i), away) for i, away in one.nearest(picture, PAGE_SIZE, layer)]
            self.near.show([(two, classes[two.label], f"{away:.3f}") for two, away in near])
            self.near_text.value = (
                f"Most similar gates of the first {counted(one.num_surveyed, 'image')}, with the "
                "root mean square difference:"
            )
        names = one.name, f"mean of {counted(count, 'image')} of {classes[true]}"
        shown = (layer,) if layer else tuple((one.survey or gates).ends)
        self.gates.value = self._once(
            (one, picture.pixels.tobytes(), shown, count),
            pictures.gates_html, gates, mean, shown, names,
        )  # fmt: skip

    def _has_read(self, one: Trained) -> bool:
        """Whether the gates of many images are known; else they are read in the kernel's loop, part
        by part, so that questions in between are answered."""
        if one.survey is None and one not in self._tasks:
            try:
                self._tasks[one] = asyncio.get_running_loop().create_task(self._read(one))
            except RuntimeError:  # outside a notebook there is none
                one.read_all()
        return one.survey is not None

    async def _read(self, one: Trained) -> None:
        for share in one.read():
            if one.survey is not None:  # a cell of the notebook has read them meanwhile
                break
            if one in self.networks:
                self.near_text.value = f"Reading the gates of many images: {100 * share:.0f} %"
            await asyncio.sleep(BREATH_SECONDS)
        self._guarded(self._redraw)

    def _draw_matrix(self, lead: Trained) -> None:
        """The confusion matrix, and its cells to choose from, the commonest confusion first."""
        matrix, classes = confusion_matrix(*lead.evaluated), lead.run.classes
        cells = commonest(matrix)[:MOST_CELLS]
        texts = [f"{classes[t]} taken for {classes[s]}: {matrix[t, s]:,}" for t, s in cells]
        _offer(self.cell, [("choose a cell", ""), *zip(texts, cells, strict=True)])
        chosen = (self.label.value, self.said.value)
        self.cell.value = chosen if chosen in cells else ""
        self.matrix.value = self._once((lead,), pictures.confusion_html, matrix, classes)

    def _once(self, key: tuple, draw: Callable[..., str], *shown: Any) -> str:
        if key not in self._drawn:
            self._drawn[key] = draw(*shown)
        return self._drawn[key]


class Thumbnails:
    """Small images, each above a button that calls `on_choose` with the image's index."""

    def __init__(self, on_choose: Callable[[int], None]) -> None:
        self.indices: list[int] = []
        self._cells = [widgets.VBox([widgets.HTML(), _button("")]) for _ in range(PAGE_SIZE)]
        self.widget = _grid("repeat(auto-fill, minmax(104px, 1fr))")
        for place, cell in enumerate(self._cells):
            cell.children[1].on_click(lambda _, place=place: on_choose(self.indices[place]))

    def show(
        self, shown: Sequence[tuple[Picture, str, str]], chosen: Picture | None = None
    ) -> None:
        """Show images, `PAGE_SIZE` at most, in place of the earlier ones, with what stands on the
        button of each and above it; the chosen one is marked."""
        self.indices = [one.index for one, _, _ in shown]
        for cell, (one, name, value) in zip(self._cells, shown, strict=False):
            image, button = cell.children
            image.value = pictures.img(one.pixels, f"{one.note}: {name}", "64px") + value
            mark = "✓ " if chosen is not None and one.index == chosen.index else ""
            with button.hold_sync():
                button.description, button.tooltip = mark + name, f"{one.note}, {value}"
        if len(shown) != len(self.widget.children):
            self.widget.children = self._cells[: len(shown)]


def _html(name: str) -> widgets.HTML:
    """Text or pictures, with a name by which a page's script or a test finds it."""
    return widgets.HTML().add_class(f"senet-{name}")


def _button(text: str) -> widgets.Button:
    return widgets.Button(description=text, layout={"width": "auto"})


def _choice(text: str, options: Sequence = ()) -> widgets.Dropdown:
    """A labelled list to choose from, as wide as it need be."""
    return widgets.Dropdown(
        description=text, options=list(options), style=WIDE, layout={"width": "auto"}
    )


def _grid(columns: str, gap: str = "0") -> widgets.GridBox:
    return widgets.GridBox(layout={"grid_template_columns": columns, "grid_gap": gap})


def _row(*parts: widgets.Widget) -> widgets.HBox:
    """Side by side, as many as fit; the rest below."""
    return widgets.HBox(parts, layout={"flex_flow": "row wrap", "grid_gap": "2px 12px"})


def _offer(choice: widgets.Dropdown, options: Sequence) -> None:
    """Offer these options; what was chosen stays chosen where it is still among them."""
    if list(choice.options) != list(options):
        before = choice.value
        choice.options = options
        values = [option[1] if isinstance(option, tuple) else option for option in options]
        choice.value = before if before in values else values[0]
