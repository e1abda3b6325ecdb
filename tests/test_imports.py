"""The order of the rooms: who imports whom."""

import ast
import sys
from pathlib import Path

import pytest

import sklearn_ewc

PACKAGE = Path(sklearn_ewc.__file__).parent
# each floor may import those before it, and itself only within one sub-package
FLOORS = (
    {"arguments", "tensors", "snapshot", "wrapped", "copying"},
    {"rollback", "progress"},
    {"data", "curvature", "evaluate"},
    {"memory"},
    {"saving", "display"},
    {"training"},
    {"continual"},
    {"regressor", "pipeline", "target"},
    {"selection"},
    {"__init__"},
)
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path):
    """Return the part of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor(name):
    (found,) = (number for number, names in enumerate(FLOORS) if name in names)
    return found


def imports(path):
    """Yield (level, module, inside a function) of every import in a file."""
    tree = ast.parse(path.read_text())
    inside = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield 0, alias.name, node in inside
        elif isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [alias.name for alias in node.names]
            for name in names:
                yield node.level, name, node in inside


def imported_rooms(path):
    """Yield the parts of the package that a file imports, its own not counted."""
    depth = len(path.relative_to(PACKAGE).parts)
    for level, module, _ in imports(path):
        assert not module.startswith("sklearn_ewc"), f"{path}: an absolute import of {module}"
        if level == depth:
            yield module.split(".")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    own = room(path)
    for other in imported_rooms(path):
        assert floor(other) < floor(own), f"{own} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_what_is_optional_is_imported_inside_functions(path):
    optional = {"matplotlib", "pandas", "safetensors"}
    within = {module.split(".")[0] for _, module, inside in imports(path) if inside}
    assert within <= optional


@pytest.mark.parametrize("name", ["curvature", "memory"])
def test_the_numerics_know_torch_alone(name):
    known = {"torch", "typing_extensions"}
    for path in [PACKAGE / "tensors.py", *(PACKAGE / name).rglob("*.py")]:
        outside = {module.split(".")[0] for level, module, _ in imports(path) if level == 0}
        assert outside - sys.stdlib_module_names <= known, path
        assert set(imported_rooms(path)) <= {"arguments", "tensors", "snapshot", "curvature"} - {
            name
        }, path


def test_files_of_one_room_import_each_other_without_a_circle():
    for name in sorted({room(path) for path in FILES}):
        files = {path.stem: path for path in FILES if room(path) == name}
        order = {
            stem: {
                module.split(".")[0] for level, module, _ in imports(path) if level == 1
            }.intersection(files)
            for stem, path in files.items()
        }
        while order:
            free = [stem for stem, needs in order.items() if not needs & order.keys()]
            assert free, f"{name}: a circle among {sorted(order)}"
            for stem in free:
                del order[stem]
