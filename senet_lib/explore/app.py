"""The explorer: a page of widgets on which trained networks are looked at, image by image.

It exists for notebooks: `explore.open(...)` as the last line of a cell shows it. What a widget
calls goes through `Explorer._guarded`, so that an error stands in the status line and is not lost.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from senet_lib.analysis.families import family, label
from senet_lib.data.sources import one_line
from senet_lib.errors import SenetError
from senet_lib.explore.answers import EVALUATED, TRAIN, Bench, map_layers
from senet_lib.explore.drawing import Drawing, Scene, offer
from senet_lib.explore.numbers import (
    OWN,
    PUBLISHED_ROOT,
    VERDICTS,
    choose_images,
    missing_data,
    offered_runs,
    own_picture,
)
from senet_lib.explore.page import MOST_NETWORKS, PAGE_SIZE, Page
from senet_lib.explore.parts import Column
from senet_lib.explore.reader import Reader
from senet_lib.runs.records import DEFAULT_ROOT, RunRecord
from senet_lib.wording import counted

ANY = -1

log = logging.getLogger(__name__)


def open(
    study: str = "",
    models: Sequence[str] = (),
    num_images: int = 500,
    runs_root: str | Path = DEFAULT_ROOT,
    published_root: str | Path = PUBLISHED_ROOT,
) -> "Explorer":
    """The explorer over the runs on disk and the published ones, for a notebook to display.

    Args:
        study: the study shown first; empty: the first one whose data is on this machine.
        models: the networks shown first, one to four; empty: one with attention and its plain one.
        num_images: images of a split that gates are read of, at least 1; of the training images
            these are all that is shown.
        runs_root: folder of the studies' folders; a relative path is seen from the clone's top.
        published_root: likewise, of published runs.
    """
    return Explorer(offered_runs(runs_root, published_root), study, models, num_images)


class Explorer:
    """The page and what happens on it; a mistake in what is asked for is said on the page.

    Args:
        offers: a study's name to its runs, as `offered_runs` gives them.
        study: as in `open`.
        models: as in `open`.
        num_images: as in `open`.

    Attributes:
        page: the widgets.
    """

    def __init__(
        self,
        offers: Mapping[str, Sequence[RunRecord]],
        study: str = "",
        models: Sequence[str] = (),
        num_images: int = 500,
    ) -> None:
        self._offers, self._bench, self._scene = offers, Bench(max(num_images, 1)), Scene()
        # JupyterLab handles what widgets send in a thread of its own, beside that of the cells.
        self._lock, self._muted = threading.RLock(), False
        guard = self._guarded
        self.page = Page(
            on_image=lambda index: guard(self._choose, index),
            on_cell=lambda true, said: guard(self._open_cell, true, said),
            on_network=lambda column: guard(self._network_chosen, column),
        )
        self._drawing = Drawing(self.page, self._bench, self._want)
        self._reader = Reader(guard, self._part_read, self._all_read)
        if not offers:
            self.page.show_status_alone()
            self._say("there is no finished run with its weights; `make study` trains some", True)
            return
        self._connect()
        guard(self._start, study, models, num_images)

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.page.widget)

    def wait(self) -> None:
        """Return when nothing is being read in the background any more."""
        self._reader.wait()

    # What widgets call

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do the work, one at a time, and show what goes wrong in the status line."""
        with self._lock:
            if self._muted:
                return
            self._muted = True  # what the work changes on the page is no question of the user's
            try:
                work(*arguments)
            except SenetError as error:
                self._say(str(error), True)
            except Exception as error:
                log.exception("the explorer failed")
                self._say(f"{type(error).__name__}: {one_line(error)}", True)
            finally:
                self._muted = False

    def _connect(self) -> None:
        """Every widget calls its work, through the guard."""
        page = self.page
        for widget, work in (
            (page.study, self._open_study),
            (page.split, self._filter),
            (page.label, self._filter),
            (page.said, self._filter),
            (page.verdict, self._filter),
            (page.count, self._networks_changed),
            (page.method, self._redraw),
            (page.layer, self._redraw),
            (page.target, self._redraw),
            (page.gate_layer, self._redraw),
            (page.index, lambda: self._choose(page.index.value)),
            (page.upload, self._uploaded),
        ):
            widget.observe(lambda change, work=work: self._guarded(work), "value")
        page.back.on_click(lambda button: self._guarded(self._turn, -1))
        page.on.on_click(lambda button: self._guarded(self._turn, 1))

    def _say(self, text: str, problem: bool = False) -> None:
        self.page.say(text, problem=problem)

    # Studies and networks

    @property
    def _chosen(self) -> list[RunRecord]:
        """The networks side by side; the first one leads."""
        return [column.run for column in self.page.columns[: self.page.count.value]]

    def _ready(self) -> list[str]:
        """The studies whose data is on this machine."""
        return [name for name, runs in self._offers.items() if not missing_data(runs[0].data)]

    def _start(self, study: str, models: Sequence[str], num_images: int) -> None:
        """Show the first study and networks; what was asked for and is not there is said."""
        names, ready = list(self._offers), self._ready()
        self.page.study.options = names
        self.page.study.value = study if study in names else [*ready, names[0]][0]
        known = {label(run) for run in self._offers[self.page.study.value]}
        problems = [f"{self.page.study.value} has no {m}" for m in models if m not in known]
        if num_images < 1:
            problems.append(f"num_images is {num_images}; it must be at least 1, so 1 is taken")
        if len(models) > MOST_NETWORKS:
            problems.append(f"of {len(models)} networks the first {MOST_NETWORKS} are shown")
        if study and study not in names:
            problems.insert(0, f"there is no study {study}; there are {', '.join(names)}")
        self._open_study([model for model in models if model in known])
        if problems:
            self._say("; ".join(problems), True)

    def _open_study(self, models: Sequence[str] = ()) -> None:
        """Show another study: its networks, classes and images."""
        self._say("Loading …")
        page, runs = self.page, self._offers[self.page.study.value]
        pair, others = _usual([label(run) for run in runs])
        shown = list(models)[:MOST_NETWORKS] or pair
        rest = [name for name in [*pair, *others] if name not in shown]
        page.count.value = len(shown)
        for column, name in zip(page.columns, [*shown, *rest, *shown * 4], strict=False):
            column.offer(runs, next(run for run in runs if label(run) == name))
        page.split.options = [(runs[0].evaluated_on, EVALUATED), (TRAIN, TRAIN)]
        page.split.value, page.verdict.value = EVALUATED, VERDICTS[0]
        for choice in (page.label, page.said):
            choice.options = [("any", ANY), *((c, k) for k, c in enumerate(runs[0].classes))]
            choice.value = ANY
        picture = self._scene.picture
        self._scene.runs = ()
        self._scene.picture = picture if picture is not None and picture.split == OWN else None
        self._networks_changed()

    def _network_chosen(self, column: Column) -> None:
        """Another network in a column; one that cannot be read is not taken."""
        before = column.run
        column.update()
        try:
            self._bench.network(column.run)
            self._bench.labels(column.run)
        except Exception:
            column.show(before)
            raise
        self._networks_changed()

    def _networks_changed(self) -> None:
        """Other networks: the layers they have in common, and the order of the images."""
        page = self.page
        page.show_columns(page.count.value)
        layers = map_layers([self._bench.network(run) for run in self._chosen])
        offer(page.layer, layers, "last")
        self._new_pool(keep=True)

    # Images

    def _filter(self) -> None:
        self._new_pool(keep=False)

    def _new_pool(self, keep: bool) -> None:
        """Choose the images anew; with `keep` the picture stays, if there is one."""
        page, scene = self.page, self._scene
        scene.runs, scene.split, scene.place, scene.problem = self._chosen, page.split.value, 0, ""
        try:
            labels = self._bench.images(scene.lead, scene.split)[1]
            page.index.max = len(labels) - 1
            scene.pool = choose_images(
                labels,
                self._bench.logits(scene.lead, scene.split),
                label=None if page.label.value == ANY else page.label.value,
                said=None if page.said.value == ANY else page.said.value,
                verdict=page.verdict.value,
            )
            stays = keep and scene.picture is not None
            stays = stays and scene.picture.split in (OWN, scene.split)
            if len(scene.pool) and not stays:
                first = int(scene.pool[0])
                scene.picture = self._bench.picture(scene.lead, scene.split, first)
        except SenetError as error:
            scene.pool, scene.problem = scene.pool[:0], str(error)
            ready = self._ready()
            if ready and self.page.study.value not in ready:
                scene.problem += f", and so can the study {', '.join(ready)}"
        self._redraw()

    def _choose(self, index: int) -> None:
        scene = self._scene
        scene.picture = self._bench.picture(scene.lead, scene.split, index)
        self._redraw()

    def _turn(self, by: int) -> None:
        """Another page of images; after the last comes the first."""
        scene = self._scene
        pages = max(-(-len(scene.pool) // PAGE_SIZE), 1)
        scene.place = (scene.place + by) % pages
        self._drawing.draw_pool(scene)

    def _open_cell(self, true: int, said: int) -> None:
        """The images of a cell of the confusion matrix."""
        page = self.page
        page.label.value, page.said.value, page.verdict.value = true, said, VERDICTS[0]
        self._new_pool(keep=False)

    def _uploaded(self) -> None:
        if not self.page.upload.value:
            return
        file = self.page.upload.value[0]
        self.page.upload.value = ()  # so that the same file can be chosen again
        self._scene.picture = own_picture(file["name"], bytes(file["content"]))
        self._redraw()
        self._say(f"Shown is {self._scene.picture.note}.")

    def _redraw(self) -> None:
        if self._scene.runs:
            self._drawing.draw(self._scene)

    # Reading in the background

    def _want(self, run: RunRecord, split: str) -> None:
        self._reader.want((run.path, split), lambda: self._bench.read(run, split))

    def _part_read(self, name: Any, share: float) -> None:
        images = counted(self._bench.num_images, "image")
        self.page.gates_text.value = f"Reading {images}: {100 * share:.0f} %"

    def _all_read(self, name: Any) -> None:
        """Show what was read, and leave standing what was said meanwhile."""
        said = self.page.status.value
        self.page.gates_text.value = ""
        if self._scene.split == TRAIN:  # whose predictions are known only now
            self._new_pool(keep=True)
        else:
            self._redraw()
        self.page.status.value = said


def _usual(models: Sequence[str]) -> tuple[list[str], list[str]]:
    """A network with attention and its plain one, or else the first two; and the others."""
    models = list(dict.fromkeys(models))
    pairs = ([m, family(m, models)] for m in models if family(m, models) != m)
    pair = next(pairs, models[:2])
    return pair, [model for model in models if model not in pair]
