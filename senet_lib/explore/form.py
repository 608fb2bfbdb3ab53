"""A form for a notebook's parameters, for those who run it by hand."""

import dataclasses
import json
import uuid
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from senet_lib.data.datasets import NAMES
from senet_lib.errors import SenetError
from senet_lib.explore.pictures import line
from senet_lib.models import list_models
from senet_lib.recipe import Recipe, Study
from senet_lib.report.parameters import check_parameters, describe_parameters
from senet_lib.training.progress import choose_mode

WRITE = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")


def form(values: dict[str, Any], notebook: str = "train") -> widgets.VBox | None:
    """A notebook's parameters to be chosen; a choice is the variable's value at once.

    In a JupyterLab started by `senet lab` it is written into the notebook's parameters cell too;
    elsewhere a line says what to write there.

    Args:
        values: the notebook's variables, `globals()`.
        notebook: its name or path.
    Returns:
        The form; None in a batch, where nobody could use it.
    """
    if choose_mode("auto") != "live":
        return None
    problem, writes = widgets.HTML().add_class("senet-form-says"), widgets.Output()

    def choose(change: dict[str, Any]) -> None:
        name = change["owner"].description
        try:
            value = check_parameters(notebook, {name: change["new"]})[name]
        except SenetError as error:
            problem.value = line(str(error), problem=True)
            return
        problem.value, values[name], writes.outputs = "", value, ()
        writes.append_display_data(_write(name, value))

    parameters = describe_parameters(notebook)
    fields = [_field(p.name, values.setdefault(p.name, p.default), p.help) for p in parameters]
    for field in fields:
        field.observe(choose, "value")
    grid = {"grid_template_columns": "repeat(auto-fill, minmax(17rem, 1fr))", "grid_gap": "0 1rem"}
    return widgets.VBox([widgets.GridBox(fields, layout=grid), problem, writes])


def _write(name: str, value: Any) -> Any:
    """What makes JupyterLab write a value, in Python, into the parameters cell."""
    from ipykernel.connect import get_connection_file
    from IPython.display import Javascript

    kernel = Path(get_connection_file()).stem.removeprefix("kernel-")
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
    given = json.dumps([uuid.uuid4().hex, kernel, name, text])
    return Javascript(f"const [once, kernel, name, value] = {given};\n{WRITE}")


def _field(name: str, value: Any, help: str) -> widgets.Widget:
    """What one parameter is chosen by."""
    specs = (*dataclasses.fields(Recipe), *dataclasses.fields(Study))
    choices = {spec.name: spec.metadata.get("choices", ()) for spec in specs}
    known = {"model": list_models(), "data": NAMES}
    look = {"description": name, "tooltip": help, "layout": {"width": "auto"}}
    look["style"] = {"description_width": "7.5rem"}
    if isinstance(value, bool):
        return widgets.Checkbox(value, **look)
    if value in choices.get(name, ()):
        return widgets.Dropdown(options=choices[name], value=value, **look)
    look |= {"value": str(value), "continuous_update": False}
    return widgets.Combobox(options=known[name], **look) if name in known else widgets.Text(**look)
