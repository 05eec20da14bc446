"""Test by mutation whether the vectors reveal a decoder with one small mistake.

    python spec/mutation_test.py [--sample N] [--only TEXT] [--jobs N] [--state FILE]

Every mutant is the reference decoder with one change: a number one more or one less, a comparison turned into its
neighbour, a limit of a clamp, min or max dropped, `and` for `or`, or a check left out. Each mutant runs on the vectors
that reach the changed line until one gives a different result. A mutant survives if no vector tells it from the
decoder; `mutation_survivors.json` lists the mutants that may survive, with the reasons. The exit code is 0 if no other
mutant survives, 1 if any does, and 2 for wrong use.

It needs the standard library only. A whole run takes an hour or more, because a surviving mutant runs every vector that
may concern it. The state file keeps all results, so that an interrupted run continues where it stopped. `--sample`
takes mutants at random, `--only` those whose description contains a text.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import json
import multiprocessing
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

SPEC = Path(__file__).parent
VECTORS = SPEC / "vectors" / "v1"
SURVIVORS = SPEC / "mutation_survivors.json"
#: The modules, in the order in which they import each other.
MODULES = ("reader", "coders", "mixing", "payloads", "graph", "decoder")
#: The functions of the command line, which do not decode.
LEFT_OUT = {"main"}
#: Calls that make room for models: more room changes nothing, and less raises an error where it is used.
SIZES = {"fresh"}
NEIGHBOURS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
#: A mutant that takes this many times longer than the decoder, plus some seconds, is taken to run for ever.
PATIENCE, SECONDS = 10, 3
MEMORY = 3 << 30
#: Seconds from which a vector is slow. The lines that a slow vector reaches are not recorded. It runs last, and only
#: for mutants of constants and of these modules, which need long streams or large counts.
SLOW = 0.3
LONG_STREAMS = {"coders", "mixing"}

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


# ------------------------------------------------------------------------------------------------- mutants


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


# ------------------------------------------------------------------------------------------------- running


def compiled(module: str, number: int = -1) -> CodeType:
    """Return a module's code with change `number` applied."""
    tree = ast.parse(source(module))
    for i, (_, _, change) in enumerate(changes(tree) if number >= 0 else ()):
        if i == number:
            change()
            break
    return compile(tree, str(SPEC / f"reference_{module}.py"), "exec")


def load(codes: dict[str, CodeType]) -> ModuleType:
    """Return the decoder's module, loaded from these codes."""
    for name in MODULES:
        module = ModuleType(f"reference_{name}")
        module.__file__ = str(SPEC / f"reference_{name}.py")
        sys.modules[module.__name__] = module
        exec(codes[name], module.__dict__)
    return sys.modules["reference_decoder"]


@dataclass(frozen=True)
class Vector:
    """A vector: its bytes, and the expected result."""

    name: str
    data: bytes
    expected: Any

    def found(self, decoder: ModuleType) -> Any:
        """Return a decoder's result in the manifest's form: the summary, or the code of an error."""
        try:
            return json.loads(json.dumps(decoder.summary(decoder.decode(self.data))))
        except sys.modules["reference_reader"].DecodeError as error:
            return error.code


def vectors() -> list[Vector]:
    """Return all vectors."""
    manifest = json.loads((VECTORS / "manifest.json").read_text(encoding="utf-8"))
    out = []
    for folder, key in (("valid", "holds"), ("invalid", "code")):
        for name, entry in manifest[folder].items():
            out.append(Vector(f"{folder}/{name}", (VECTORS / folder / name).read_bytes(), entry[key]))
    return out


def reached(codes: dict[str, CodeType], vector: Vector) -> tuple[float, list[str]]:
    """Return the time that a vector takes and the lines that it reaches; its result must be the manifest's."""
    started = time.process_time()
    assert vector.found(load(codes)) == vector.expected, vector.name
    seconds = time.process_time() - started
    if seconds > SLOW:
        return seconds, []
    lines: set[str] = set()
    names = {str(SPEC / f"reference_{name}.py"): name for name in MODULES}
    left: dict[CodeType, set[int]] = {}

    def trace(frame: FrameType, _: str, __: object) -> Any:
        module = names.get(frame.f_code.co_filename)
        if module is None:
            return None
        todo = left.get(frame.f_code)
        if todo is None:
            todo = left[frame.f_code] = {line for *_, line in frame.f_code.co_lines() if line}
        if frame.f_lineno in todo:
            todo.discard(frame.f_lineno)
            lines.add(f"{module}:{frame.f_lineno}")
        return trace if todo else None

    decoder = load(codes)  # loaded again, so that functions that cache results reach their lines again
    sys.settrace(trace)
    try:
        vector.found(decoder)
    finally:
        sys.settrace(None)
    return seconds, sorted(lines)


class TooLongError(Exception):
    """A mutant takes much longer than the decoder."""


def too_long(*_: object) -> None:
    """Handle the alarm."""
    raise TooLongError


def killer(mutant: Mutant, names: list[str]) -> str:
    """Return the first vector that kills a mutant, or '' if it survives."""
    decoder = None
    with contextlib.suppress(Exception):
        decoder = load(CODES | {mutant.module: compiled(mutant.module, mutant.number)})
    if decoder is None:
        return "import"
    for name in names:
        signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE * TIMES[name] + SECONDS)
        try:
            if BY_NAME[name].found(decoder) != BY_NAME[name].expected:
                return name
        except (Exception, RecursionError):
            return name
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return ""


CODES: dict[str, CodeType] = {}
BY_NAME: dict[str, Vector] = {}
TIMES: dict[str, float] = {}


def prepare(times: dict[str, float]) -> None:
    """Prepare a worker."""
    CODES.update({name: compiled(name) for name in MODULES})
    BY_NAME.update({vector.name: vector for vector in vectors()})
    TIMES.update(times)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGVTALRM, too_long)
    sys.setrecursionlimit(2000)


def run(job: tuple[Mutant, list[str]]) -> tuple[Mutant, str]:
    """Run one mutant in a worker."""
    return job[0], killer(*job)


# ------------------------------------------------------------------------------------------------- the whole


class State:
    """The results so far, kept as lines of JSON: the lines that vectors reach, and the fate of each mutant."""

    def __init__(self, path: Path) -> None:
        self.path = path
        texts = [source(name) for name in MODULES] + [(VECTORS / "manifest.json").read_text(encoding="utf-8")]
        self.key = hashlib.sha256("\0".join(texts).encode()).hexdigest()
        self.reach: dict[str, tuple[float, list[str]]] = {}
        self.killers: dict[str, str] = {}
        records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        if not records or records[0] != self.key:
            path.write_text(json.dumps(self.key) + "\n")
            records = []
        for kind, name, value in records[1:]:
            (self.reach if kind == "reach" else self.killers)[name] = value

    def keep(self, kind: str, name: str, value: Any) -> None:
        """Add a record."""
        (self.reach if kind == "reach" else self.killers)[name] = value
        with self.path.open("a") as out:
            out.write(json.dumps([kind, name, value]) + "\n")


def explained() -> dict[str, str]:
    """Return the mutants that may survive, and the reasons."""
    entries = json.loads(SURVIVORS.read_text(encoding="utf-8"))
    return {mutant: entry["reason"] for entry in entries for mutant in entry["mutants"]}


def plan(state: State, chosen: list[Mutant]) -> Iterator[tuple[Mutant, list[str]]]:
    """Yield mutants with the vectors to run: first the vectors that killed a neighbour, then the fast ones."""
    by_line: dict[str, set[str]] = {}
    for name, (_, lines) in state.reach.items():
        for line in lines:
            by_line.setdefault(line, set()).add(name)
    slow = {name for name, (seconds, _) in state.reach.items() if seconds > SLOW}
    users = {name: source(name).splitlines() for name in MODULES}
    for mutant in chosen:
        names: set[str] = set()
        if mutant.constant:
            for module, lines in users.items():
                for i, line in enumerate(lines, 1):
                    if any(constant in line for constant in mutant.constant.split("|")):
                        names |= by_line.get(f"{module}:{i}", set())
        else:
            for line in range(mutant.first, mutant.last + 1):
                names |= by_line.get(f"{mutant.module}:{line}", set())
        if mutant.module in LONG_STREAMS or mutant.constant:
            names |= slow
        yield mutant, sorted(names, key=lambda name: (state.reach[name][0], name))


def main() -> int:
    """Run mutants and list those that survive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, metavar="N", help="N mutants at random")
    parser.add_argument("--only", default="", metavar="TEXT", help="mutants whose description contains TEXT")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="worker processes (default 2)")
    parser.add_argument("--state", type=Path, default=Path(tempfile.gettempdir()) / "dcformat-mutants.jsonl")
    options = parser.parse_args()
    state = State(options.state)
    codes = {name: compiled(name) for name in MODULES}
    for vector in vectors():
        if vector.name not in state.reach:
            state.keep("reach", vector.name, reached(codes, vector))
    everything = [mutant for name in MODULES for mutant in mutants(name)]
    chosen = [mutant for mutant in everything if options.only in mutant.text]
    if options.sample is not None:
        chosen = random.sample(chosen, min(options.sample, len(chosen)))
    todo = [mutant for mutant in chosen if mutant.text not in state.killers]
    times = {name: seconds for name, (seconds, _) in state.reach.items()}
    print(f"{len(everything)} mutants, {len(chosen)} chosen, {len(todo)} to run", file=sys.stderr)
    with multiprocessing.get_context("fork").Pool(options.jobs, prepare, (times,), maxtasksperchild=50) as pool:
        for number, (mutant, name) in enumerate(pool.imap_unordered(run, plan(state, todo)), 1):
            state.keep("killer", mutant.text, name)
            if number % 100 == 0:
                print(f"{number} of {len(todo)}", file=sys.stderr)
    reasons = explained() if SURVIVORS.exists() else {}
    survivors = [mutant.text for mutant in chosen if not state.killers[mutant.text]]
    known = [text for text in survivors if text in reasons]
    stale = [text for text in reasons if text in {mutant.text for mutant in chosen} and text not in survivors]
    for text in survivors:
        if text not in reasons:
            print(text)
    for text in stale:
        print(f"no longer survives: {text}")
    print(f"{len(chosen) - len(survivors)} killed, {len(known)} survive for a known reason, "
          f"{len(survivors) - len(known)} for none", file=sys.stderr)  # fmt: skip
    return int(len(survivors) > len(known) or bool(stale))


if __name__ == "__main__":
    sys.exit(main())
