"""The library's layers: imports go one way, and no file imports itself through others."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A file may import from its own layer and from those before it.
LAYERS = (
    {"errors", "files", "strict_yaml", "plugins"},
    {"models", "data", "recipe", "device", "evaluation", "profiling", "kernels", "export"},
    {"runs"},
    {"training", "analysis"},  # neighbours: neither imports the other
    {"claims", "report"},
    {"figures", "explore", "cli", "listing", "options", "tensorboard", "workflow", "__main__"}
    | {"sweep", "lab", "served", "explore_numbers"},
)
PLACE = {name: place for place, names in enumerate(LAYERS) for name in names}


@cache
def _imports() -> dict[str, set[str]]:
    """What each module imports from the library; types for checkers alone do not count."""
    library = ROOT / "senet_lib"
    names = {
        ".".join(path.relative_to(library).with_suffix("").parts).removesuffix(".__init__"): path
        for path in library.rglob("*.py")
    }
    found = {}
    for name, path in names.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        typing = {
            child
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for child in ast.walk(node)
        }
        found[name] = {
            f"{target}.{alias.name}".strip(".")
            if f"{target}.{alias.name}".strip(".") in names
            else target
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            and node not in typing
            and (node.module or "").partition(".")[0] == "senet_lib"
            for target in [node.module.removeprefix("senet_lib").strip(".")]
            for alias in node.names
        } - {""}
    return {name: targets for name, targets in found.items() if name != "__init__"}


def _layer(module: str) -> int:
    return PLACE[module.partition(".")[0]]


def test_imports_go_one_way():
    upward = set()
    for module, targets in _imports().items():
        for target in targets:
            here, there = module.partition(".")[0], target.partition(".")[0]
            neighbours = {here, there} == {"training", "analysis"}
            if _layer(target) > _layer(module) or neighbours:
                upward.add((module, target))
    assert not upward


def test_no_file_imports_itself_through_others():
    TopologicalSorter(_imports()).prepare()  # raises CycleError, which names the circle


def test_models_know_nothing_of_kernels():
    found = {t for m, targets in _imports().items() if m.startswith("models.") for t in targets}
    assert found
    assert not {name for name in found if name.partition(".")[0] == "kernels"}


def test_the_library_is_imported_by_its_full_names():
    """The one form that the tests above read."""
    other = [
        f"{path.name}:{node.lineno}"
        for path in sorted((ROOT / "senet_lib").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and node.level)
        or (
            isinstance(node, ast.Import) and any(a.name.startswith("senet_lib") for a in node.names)
        )
    ]
    assert not other
