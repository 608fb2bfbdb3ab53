"""A notebook's cells in this process: quicker than a kernel, and its variables can be looked at."""

import ast
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def run_cells(name: str, until: str = "", **parameters: Any) -> dict[str, Any]:
    """Run the code cells of one of the repository's notebooks, with other parameters.

    Args:
        name: of the notebook.
        until: id of the first cell that is left out with all that follow; empty: none is.
        parameters: by name.
    Returns:
        The variables; under "outputs" the value of each cell that ends in one, and what was given
        to `display`.
    """
    content = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    outputs: list[Any] = []
    names: dict[str, Any] = {"display": outputs.append}
    for cell in (cell for cell in content["cells"] if cell["cell_type"] == "code"):
        if cell["id"] == until:
            break
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), names)
        if last is not None:
            outputs.append(eval(compile(ast.Expression(last.value), name, "eval"), names))
        if "parameters" in cell["metadata"].get("tags", []):
            names.update(parameters)
    return {**names, "outputs": outputs}
