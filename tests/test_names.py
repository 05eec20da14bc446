"""One name for one thing, in all packages: CONTRIBUTING.md, rule 11."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("dcformat", "runtime", "interop", "cli", "pruning")

#: Folders for the same tasks in different formats, whose modules have the same names.
OPERATORS = {
    "dcformat/graph",
    "runtime/dcformat_runtime/numpy_backend",
    "interop/dcformat_interop/onnx_export/operators",
    "interop/dcformat_interop/onnx_import/operators",
    "interop/dcformat_interop/tflite_import/operators",
}
FORMATS = {
    f"interop/dcformat_interop/{name}" for name in ("onnx_export", "onnx_import", "tflite_import", "torch_import")
}

#: Aliases that modules of kernels and of arrays each define for their own element types, and type variables.
LOCAL = {"Array", "Arrays", "Bytes", "Counts", "Floats", "Ints", "F", "R", "T"}


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (path.relative_to(ROOT) for path in sorted((ROOT / package).rglob("*.py")))


def defined(tree: ast.Module) -> Iterator[str]:
    """Yield the names of public classes and types."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name[0].isupper() and not name.isupper():
                yield name


def test_public_classes_and_types_have_names_of_their_own():
    homes = defaultdict(list)
    for path in modules():
        for name in defined(ast.parse((ROOT / path).read_text())):
            if not name.startswith("_") and name not in LOCAL:
                homes[name].append(str(path))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def test_modules_have_names_of_their_own():
    homes = defaultdict(set)
    for path in modules():
        if path.stem == "__init__":
            homes[path.parent.name].add(str(path.parent.parent))
        elif path.stem != path.parent.name:
            homes[path.stem].add(str(path.parent))
    alike = {name: folders for name, folders in homes.items() if len(folders) > 1}
    assert {name: folders for name, folders in alike.items() if not (folders <= OPERATORS or folders <= FORMATS)} == {}
