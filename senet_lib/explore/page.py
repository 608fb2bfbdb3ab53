"""The explorer's page: every widget, and where it stands. What they do is in `explore`."""

from collections.abc import Callable, Sequence

import ipywidgets as widgets

from senet_lib.analysis.cam import METHODS
from senet_lib.explore.numbers import VERDICTS
from senet_lib.explore.parts import Column, Confusions, Thumbnails
from senet_lib.explore.pictures import STYLE, status_html
from senet_lib.report.gallery import METHOD_NAMES

MOST_NETWORKS, PAGE_SIZE, NEIGHBOURS = 4, 10, 5
PREDICTED, TRUE = "predicted", "true"
ALL_LAYERS = ""


class Page:
    """The widgets; `widget` holds them all.

    Args:
        on_image: called with the index of an image whose button was clicked.
        on_cell: called with the true and the predicted class of a cell that was clicked.
        on_network: called with a column in which another network was chosen.
    """

    def __init__(
        self,
        on_image: Callable[[int], None],
        on_cell: Callable[[int, int], None],
        on_network: Callable[[Column], None],
    ) -> None:
        slow = {"scorecam": " (seconds)"}
        methods = [(name + slow.get(key, ""), key) for key, name in METHOD_NAMES.items()]
        self.status = widgets.HTML()
        self.study = _choice("Study", 200)
        self.split = _choice("Images", 140)
        self.label = _choice("True class", 190)
        self.said = _choice("Taken for", 190)
        self.verdict = _choice("Prediction", 170, VERDICTS)
        self.count = _choice("Networks side by side", 210, range(1, MOST_NETWORKS + 1))
        self.method = _choice("CAM method", 250, [m for m in methods if m[1] in METHODS])
        self.layer = _choice("Layer", 160)
        targets = [("the predicted class", PREDICTED), ("the true class", TRUE)]
        self.target = _choice("Map for", 220, targets)
        self.gate_layer = _choice("Gates of", 220)
        self.index = widgets.BoundedIntText(
            description="Image number",
            layout=widgets.Layout(width="190px"),
            style={"description_width": "initial"},
        )
        narrow = widgets.Layout(width="auto")
        self.back = widgets.Button(description="◀ previous", layout=narrow)
        self.on = widgets.Button(description="next ▶", layout=narrow)
        self.upload = widgets.FileUpload(
            accept="image/*",
            description="Your own picture, up to 10 MB",
            tooltip="Its centre is shown to the networks, at 32x32 pixels",
            layout=narrow,
        )
        self.pool_text, self.picture = widgets.HTML(), widgets.HTML()
        self.gates, self.gates_text, self.matrix_text = (widgets.HTML() for _ in range(3))
        self.pool = Thumbnails("pool", PAGE_SIZE, on_image)
        self.near = Thumbnails("near", NEIGHBOURS, on_image)
        self.far = Thumbnails("far", NEIGHBOURS, on_image)
        self.near_text, self.far_text = widgets.HTML(), widgets.HTML()
        self.confusions = Confusions(on_cell)
        self.columns = [Column(place, on_network) for place in range(1, MOST_NETWORKS + 1)]
        self.widget = widgets.VBox(self._rows())
        self.widget.add_class("senet-app")
        self.picture.add_class("senet-picture")

    def say(self, text: str, *, problem: bool = False) -> None:
        """Show a line where the page says what it does."""
        self.status.value = status_html(text, problem=problem)

    def show_status_alone(self) -> None:
        """Take everything else away."""
        self.widget.children = (self.widget.children[0], self.status)

    def show_columns(self, count: int) -> None:
        """Show that many networks side by side."""
        for place, column in enumerate(self.columns):
            column.widget.layout.display = "" if place < count else "none"

    def _rows(self) -> list[widgets.Widget]:
        beside = widgets.VBox(
            [self.picture], layout=widgets.Layout(flex="0 0 150px", padding="0 6px 0 0")
        )
        columns = widgets.GridBox(
            [column.widget for column in self.columns],
            layout=widgets.Layout(
                grid_template_columns="repeat(auto-fit, minmax(180px, 1fr))", flex="1 1 0"
            ),
        )
        neighbours = [
            widgets.VBox([text, thumbnails.widget], layout=widgets.Layout(margin="0 16px 0 0"))
            for text, thumbnails in ((self.near_text, self.near), (self.far_text, self.far))
        ]
        return [
            widgets.HTML(STYLE),
            _row(self.study, self.split, self.label, self.said, self.verdict),
            self.status,
            _row(self.pool_text, self.back, self.on, self.index, self.upload),
            self.pool.widget,
            widgets.HTML("<h2>Maps</h2>"),
            _row(self.count, self.method, self.layer, self.target),
            widgets.HBox([beside, columns], layout=widgets.Layout(align_items="flex-start")),
            widgets.HTML("<h2>Gates</h2>"),
            _row(self.gate_layer, self.gates_text),
            self.gates,
            widgets.HBox(neighbours, layout=widgets.Layout(flex_flow="row wrap")),
            widgets.HTML("<h2>Confusion matrix</h2>"),
            self.matrix_text,
            self.confusions.widget,
        ]


def _choice(text: str, width: int, options: Sequence = ()) -> widgets.Dropdown:
    """A labelled list to choose from, that many pixels wide."""
    return widgets.Dropdown(
        description=text,
        options=list(options),
        layout=widgets.Layout(width=f"{width}px"),
        style={"description_width": "initial"},
    )


def _row(*parts: widgets.Widget) -> widgets.HBox:
    """Side by side, as many as fit; the rest below."""
    row = widgets.HBox(parts, layout=widgets.Layout(flex_flow="row wrap", align_items="center"))
    return row.add_class("senet-row")
