"""A form for a notebook's parameters, for those who run it by hand."""

import dataclasses
import shlex
from typing import Any

import ipywidgets as widgets

from senet_lib.data.datasets import NAMES
from senet_lib.errors import SenetError
from senet_lib.explore.pictures import line
from senet_lib.models import list_models
from senet_lib.recipe import Recipe, Study
from senet_lib.report.parameters import check_parameters, describe_parameters
from senet_lib.training.progress import choose_mode

_chosen: dict[str, tuple[Any, Any]] = {}  # by name: what its cell says, and what was chosen instead


def form(values: dict[str, Any], notebook: str = "train") -> widgets.VBox | None:
    """A notebook's parameters to be chosen; a choice is the variable's value from then on.

    Choices outlive running the parameters cell again, until that cell says another value, and are
    shown as the command that does the same in a batch. The notebook itself stays as it is.

    Args:
        values: the notebook's variables, `globals()`.
        notebook: its name or path.
    Returns:
        The form; None in a batch, where nobody could use it.
    """
    if choose_mode("auto") != "live":
        return None
    parameters = describe_parameters(notebook)
    for name, (said, instead) in list(_chosen.items()):
        if values.get(name) in (said, instead):
            values[name] = instead
        else:
            del _chosen[name]
    below = widgets.HTML().add_class("senet-form-says")

    def say(problem: str = "") -> None:
        words = [f"-p {shlex.quote(f'{name}={value}')}" for name, (_, value) in _chosen.items()]
        batch = f"The same in a batch: senet notebook {notebook} --out my-{notebook}.ipynb "
        below.value = line(problem or batch + " ".join(words), problem=bool(problem))

    def choose(change: dict[str, Any]) -> None:
        name = change["owner"].description
        try:
            value = check_parameters(notebook, {name: change["new"]})[name]
        except SenetError as error:
            say(str(error))
            return
        said = _chosen.pop(name, (values[name], None))[0]
        if value != said:
            _chosen[name] = said, value
        values[name] = value
        say()

    fields = [_field(p.name, values.setdefault(p.name, p.default), p.help) for p in parameters]
    for field in fields:
        field.observe(choose, "value")
    say()
    grid = {"grid_template_columns": "repeat(auto-fill, minmax(17rem, 1fr))", "grid_gap": "0 1rem"}
    return widgets.VBox([widgets.GridBox(fields, layout=grid), below])


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
