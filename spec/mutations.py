"""The small mistakes that `mutation_test.py` makes in the reference decoder, one at a time."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

SPEC = Path(__file__).parent
#: The modules, in the order in which they import each other.
MODULES = (
    "reader", "digest", "coders", "text", "mixing", "prediction", "planes", "packed", "deltas", "payloads", "shapes",
    "graph", "decoder",
)  # fmt: skip
#: The functions of the command line, which do not decode.
LEFT_OUT = {"main"}
#: Calls that make space for models: more space changes nothing, and less raises an error where it is used.
SIZES = {"fresh"}
NEIGHBOURS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip

Change = Callable[[], None]


@dataclass(frozen=True)
class Mutant:
    """One change: `number` is its index among the module's changes; it may affect the lines `first` to `last`."""

    module: str
    number: int
    text: str
    first: int
    last: int
    #: The name of the changed constant, if the change is in a constant of the module.
    constant: str = ""


def source(module: str) -> str:
    """Return a module's text."""
    return (SPEC / f"reference_{module}.py").read_text(encoding="utf-8")


def changes(tree: ast.Module) -> Iterator[tuple[ast.AST, str, Change]]:
    """Yield every possible change of a tree: the node, a description, and a function that makes the change."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in executed(tree):
        if isinstance(node, ast.Constant) and type(node.value) in (int, float) and id(node) not in docstrings:
            for step in (1, -1):
                yield node, f"{node.value} -> {node.value + step}", setting(node, "value", node.value + step)
        elif isinstance(node, ast.Compare):
            for i, op in enumerate(node.ops):
                if type(op) in NEIGHBOURS:
                    other = NEIGHBOURS[type(op)]()
                    ops = [*node.ops[:i], other, *node.ops[i + 1 :]]
                    yield node, f"{type(op).__name__} -> {type(other).__name__}", setting(node, "ops", ops)
        elif isinstance(node, ast.BoolOp):
            other_op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield node, f"{type(node.op).__name__} -> {type(other_op).__name__}", setting(node, "op", other_op)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield from changed_call(node, node.func.id)


def changed_call(node: ast.Call, name: str) -> Iterator[tuple[ast.AST, str, Change]]:
    """Yield the possible changes of a call: a check or a limit is dropped."""
    if name == "check":
        always = [ast.copy_location(ast.Constant(value=True), node.args[0]), *node.args[1:]]
        yield node, "check left out", setting(node, "args", always)
    elif name == "clamp":
        for i, (what, far) in enumerate((("lower", -(1 << 99)), ("upper", 1 << 99)), 1):
            args = list(node.args)
            args[i] = ast.copy_location(ast.Constant(value=far), node.args[i])
            yield node, f"no {what} limit", setting(node, "args", args)
    elif name in ("min", "max") and len(node.args) == 2:
        for i in (0, 1):
            yield node, f"{name}: argument {i + 1} alone", setting(node, "args", [node.args[i], node.args[i]])


def setting(node: ast.AST, field: str, value: object) -> Change:
    """Return a function that sets a node's field."""
    return lambda: setattr(node, field, value)


def executed(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the executed nodes of a tree in a fixed order, without annotations and skipped functions."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef) and child.name in LEFT_OUT:
            continue
        if isinstance(child, ast.arg) or (isinstance(child, ast.If) and ast.unparse(child.test).startswith("__name__")):
            continue
        if isinstance(tree, ast.AnnAssign | ast.FunctionDef) and child in (
            getattr(tree, "annotation", None), getattr(tree, "returns", None)
        ):  # fmt: skip
            continue
        if isinstance(child, ast.Call) and ast.unparse(child.func) in SIZES:
            continue
        yield child
        yield from executed(child)


def mutants(module: str) -> list[Mutant]:
    """Return the mutants of a module."""
    text = source(module)
    tree, lines = ast.parse(text), text.splitlines()
    statements = list(spans(tree))
    out, seen = [], {}
    for number, (node, what, _) in enumerate(changes(tree)):
        line = node.lineno  # type: ignore[attr-defined]
        where, first, last, constant = min(
            (each for each in statements if each[1] <= line <= each[2]), key=lambda each: each[2] - each[1]
        )
        description = f"{module}.{where}: {lines[line - 1].strip()} [{what}]"
        seen[description] = seen.get(description, 0) + 1
        again = f" #{seen[description]}" if seen[description] > 1 else ""
        out.append(Mutant(module, number, description + again, first, last, constant))
    return out


def spans(tree: ast.AST, where: str = "") -> Iterator[tuple[str, int, int, str]]:
    """Yield each statement's function, first and last line (of the head if it has a body), and the constant it sets."""
    for node in ast.iter_child_nodes(tree):
        name = where
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = f"{where}.{node.name}".lstrip(".")
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if isinstance(body, list) and body else node.end_lineno or node.lineno
            target = node.targets[0] if isinstance(node, ast.Assign) else None
            constant = target.id if not where and isinstance(target, ast.Name) else ""
            if isinstance(target, ast.Tuple) and not where:
                constant = "|".join(ast.unparse(each) for each in target.elts)
            if isinstance(tree, ast.ClassDef) and not isinstance(node, ast.FunctionDef):
                constant = tree.name
            yield name or "module", node.lineno, max(last, node.lineno), constant
        yield from spans(node, name)


def compiled(module: str, number: int = -1) -> CodeType:
    """Return a module's code with change `number` applied."""
    tree = ast.parse(source(module))
    for i, (_, _, change) in enumerate(changes(tree) if number >= 0 else ()):
        if i == number:
            change()
            break
    return compile(tree, str(SPEC / f"reference_{module}.py"), "exec")
