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
    | {"sweep", "lab", "served"},
)
PLACE = {name: place for place, names in enumerate(LAYERS) for name in names}


@cache
def _trees() -> dict[str, ast.Module]:
    """Each module's code by its name within the library."""
    library, found = ROOT / "senet_lib", {}
    for path in library.rglob("*.py"):
        name = ".".join(path.relative_to(library).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


@cache
def _imports() -> dict[str, set[str]]:
    """What each module imports from the library; types for checkers alone do not count."""
    found = {}
    for module, tree in _trees().items():
        nodes = list(ast.walk(tree))
        checks = [n for n in nodes if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
        typing = {node for check in checks for node in ast.walk(check)}
        targets = {
            f"{node.module}.{alias.name}".removeprefix("senet_lib.")
            for node in nodes
            if isinstance(node, ast.ImportFrom) and node not in typing
            and (node.module or "").partition(".")[0] == "senet_lib"
            for alias in node.names
        }  # fmt: skip
        found[module] = {t if t in _trees() else t.rpartition(".")[0] for t in targets} - {""}
    return {name: targets for name, targets in found.items() if name != "__init__"}


def test_imports_go_one_way():
    upward = set()
    for module, targets in _imports().items():
        for target in targets:
            here, there = module.partition(".")[0], target.partition(".")[0]
            if PLACE[there] > PLACE[here] or {here, there} == {"training", "analysis"}:
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
    for module, tree in _trees().items():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.startswith("senet_lib") for name in names), module
            assert not (isinstance(node, ast.ImportFrom) and node.level), module
