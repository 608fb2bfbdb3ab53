"""Parts of the explorer's page: images and confusion matrix to click on, a network's column."""

# Legend: K classes.

from collections.abc import Callable, Sequence
from html import escape

import ipywidgets as widgets
import numpy as np

from senet_lib.analysis.families import label
from senet_lib.explore.pictures import png_uri
from senet_lib.runs.records import RunRecord

LARGEST_GRID = 20  # classes; beyond, the commonest confusions are listed instead
LISTED = 40


class Thumbnails:
    """Images as buttons, whose caption is the button's text.

    Args:
        name: distinguishes its style from that of others.
        count: buttons at most.
        on_choose: called with the key of the image that was clicked.
    """

    def __init__(self, name: str, count: int, on_choose: Callable[[int], None]) -> None:
        self._name, self._keys = name, [0] * count
        self._style = widgets.HTML()
        self._buttons = []
        for place in range(count):
            button = widgets.Button(layout=widgets.Layout(width="88px", display="none"))
            button.add_class("senet-thumb").add_class(f"senet-{name}-{place}")
            button.on_click(lambda _, place=place: on_choose(self._keys[place]))
            self._buttons.append(button)
        box = widgets.HBox(self._buttons, layout=widgets.Layout(flex_flow="row wrap"))
        self.widget = widgets.VBox([box, self._style])

    def show(
        self, items: Sequence[tuple[int, np.ndarray, str, str]], chosen: int | None = None
    ) -> None:
        """Show images in place of the earlier ones.

        Args:
            items: of each image its key, (H, W, 3) uint8, its caption and a longer description.
            chosen: key of the image that is marked.
        """
        rules = []
        for place, (key, pixels, _, _) in enumerate(items):
            mark = ""
            if key == chosen:
                mark = "outline:3px solid var(--jp-brand-color1,#1976d2);outline-offset:-3px;"
            rules.append(
                f".senet-app .senet-{self._name}-{place}.jupyter-button"
                f"{{background-image:url({png_uri(pixels)});{mark}}}"
            )
        self._style.value = f"<style>{''.join(rules)}</style>"
        for place, button in enumerate(self._buttons):
            shown = place < len(items)
            if shown:
                self._keys[place], _, button.description, button.tooltip = items[place]
            button.layout.display = "" if shown else "none"


class Confusions:
    """The confusion matrix as buttons; with many classes, its largest cells off the diagonal.

    Args:
        on_choose: called with the true and the predicted class of the cell that was clicked.
    """

    def __init__(self, on_choose: Callable[[int, int], None]) -> None:
        self._on_choose, self._classes = on_choose, ()
        self._cells: list[tuple[int, int]] = []
        self._buttons: list[widgets.Button] = []
        self._style = widgets.HTML()
        self.widget = widgets.VBox([])

    def show(self, matrix: np.ndarray, classes: Sequence[str]) -> None:
        """Show counts (K, K), row: true class, column: predicted class."""
        if len(classes) > LARGEST_GRID:
            self._show_list(matrix, classes)
        else:
            self._show_grid(matrix, classes)

    def _show_grid(self, matrix: np.ndarray, classes: Sequence[str]) -> None:
        if tuple(classes) != self._classes:
            self._build_grid(classes)
        rows = np.maximum(matrix.sum(1, keepdims=True), 1)
        rules = []
        for (true, said), button in zip(self._cells, self._buttons, strict=True):
            count = int(matrix[true, said])
            with button.hold_sync():
                button.description = str(count)
                button.tooltip = f"{classes[true]} taken for {classes[said]}: {count} images"
            strength = round(45 * (matrix[true, said] / rows[true, 0]) ** 0.5)
            hue = "var(--jp-brand-color1,#1976d2)" if true == said else "#D55E00"
            rules.append(
                f".senet-app .senet-cell-{true}-{said}.jupyter-button{{background:color-mix("
                f"in srgb,{hue} {strength}%,var(--jp-layout-color1,#fff))}}"
            )
        self._style.value = f"<style>{''.join(rules)}</style>"

    def _build_grid(self, classes: Sequence[str]) -> None:
        layout = widgets.Layout(width="auto")
        heads = [_head(name, name) for name in classes]
        self._classes, self._cells, self._buttons, children = tuple(classes), [], [], []
        children.append(_head("true \\ taken for", "rows: true class, columns: predicted class"))
        children += heads
        for true, name in enumerate(classes):
            children.append(_head(name, name))
            for said in range(len(classes)):
                button = widgets.Button(layout=layout)
                button.add_class("senet-cell").add_class(f"senet-cell-{true}-{said}")
                button.on_click(lambda _, cell=(true, said): self._on_choose(*cell))
                self._cells.append((true, said))
                self._buttons.append(button)
                children.append(button)
        grid = widgets.GridBox(
            children,
            layout=widgets.Layout(
                grid_template_columns=f"7.5em repeat({len(classes)}, minmax(0, 1fr))",
                grid_gap="2px",
                width="100%",
                max_width="900px",
            ),
        )
        self.widget.children = (grid, self._style)

    def _show_list(self, matrix: np.ndarray, classes: Sequence[str]) -> None:
        off = matrix - np.diag(np.diag(matrix))
        order = np.argsort(-off, axis=None, kind="stable")[:LISTED]
        cells = [divmod(int(i), len(classes)) for i in order if off.flat[i]]
        if tuple(classes) != self._classes:
            self._classes = tuple(classes)
            self._buttons = [
                widgets.Button(layout=widgets.Layout(width="auto")) for _ in range(LISTED)
            ]
            for place, button in enumerate(self._buttons):
                button.on_click(lambda _, place=place: self._on_choose(*self._cells[place]))
            self.widget.children = (
                widgets.HTML(
                    f"<p>The {LISTED} commonest confusions of {len(classes)} classes:</p>"
                ),
                widgets.HBox(self._buttons, layout=widgets.Layout(flex_flow="row wrap")),
            )
        self._cells = cells
        for place, button in enumerate(self._buttons):
            if place < len(cells):
                true, said = cells[place]
                button.description = f"{classes[true]} → {classes[said]}: {off[true, said]}"
                button.tooltip = f"images of {classes[true]} taken for {classes[said]}"
            button.layout.display = "" if place < len(cells) else "none"


class Column:
    """One network: which, and what it makes of the image.

    Args:
        place: from 1.
        on_change: called with the column when another network or seed is chosen in it.

    Attributes:
        run: the run that is shown; `update` makes it the one that is chosen.
        output: what the network makes of the image.
        widget: all of it.
    """

    def __init__(self, place: int, on_change: Callable[["Column"], None]) -> None:
        wide = widgets.Layout(width="auto", height="auto", flex="5 1 0", min_width="0")
        self.run: RunRecord | None = None
        self._runs: list[RunRecord] = []
        self._model = widgets.Dropdown(description=f"Network {place}", layout=wide)
        self._seed = widgets.Dropdown(
            description=f"Seed {place}",
            layout=widgets.Layout(width="auto", height="auto", flex="2 1 0", min_width="0"),
        )
        for choice in (self._model, self._seed):
            choice.add_class("senet-stacked")
        self.output = widgets.HTML()
        choices = widgets.HBox([self._model, self._seed])
        self.widget = widgets.VBox(
            [choices, self.output],
            layout=widgets.Layout(min_width="0", padding="0 6px"),
        )
        self.widget.add_class("senet-column").add_class(f"senet-column-{place}")
        for choice in (self._model, self._seed):
            choice.observe(lambda change: on_change(self), "value")

    def offer(self, runs: Sequence[RunRecord], chosen: RunRecord) -> None:
        """Offer these runs and show one of them."""
        self._runs = list(runs)
        self._model.options = list(dict.fromkeys(label(run) for run in runs))
        self.show(chosen)

    def show(self, chosen: RunRecord) -> None:
        """Show one of the runs on offer."""
        self._model.value = label(chosen)
        self._offer_seeds(chosen.seed)

    def update(self) -> None:
        """Make `run` what is chosen, with the same seed if the network has a run of it."""
        self._offer_seeds(self._seed.value)

    def _offer_seeds(self, wanted: int) -> None:
        of_seed = {run.seed: run for run in self._runs if label(run) == self._model.value}
        if list(self._seed.options) != list(of_seed):
            self._seed.options = list(of_seed)
        self._seed.value = wanted if wanted in of_seed else next(iter(of_seed))
        self.run = of_seed[self._seed.value]


def _head(text: str, tooltip: str) -> widgets.HTML:
    head = widgets.HTML(f'<div class="senet-head" title="{escape(tooltip)}">{escape(text)}</div>')
    return head.add_class("senet-head-cell")
