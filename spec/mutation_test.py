"""Test by mutation whether the vectors reveal a decoder with one small mistake.

    python spec/mutation_test.py [--sample N] [--only TEXT] [--jobs N] [--state FILE]

Every mutant is the reference decoder with one change: a number one more or one less, a comparison turned into its
neighbour, a limit of a clamp, min or max dropped, `and` for `or`, or a check left out. Each mutant runs on the vectors
that reach the changed line until one gives a different result. A mutant survives if no vector distinguishes it from the
decoder; `mutation_survivors.json` lists the mutants that may survive, with the reasons. The exit code is 0 if no other
mutant survives, 1 if any does, and 2 for wrong use.

It needs the standard library only. A first whole run takes an hour or more, because a surviving mutant runs every
vector that may concern it. The state file keeps all results. An interrupted run continues where it stopped, a run after
vectors were added runs only the survivors, and only on the new vectors, and a run after the decoder was changed tries
for each mutant first the vector that killed it before. `--sample` takes mutants at random, `--only` those whose
description contains a text.
"""

from __future__ import annotations

import argparse
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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

from mutations import MODULES, SPEC, Mutant, compiled, mutants, source

VECTORS = SPEC / "vectors" / "v1"
SURVIVORS = SPEC / "mutation_survivors.json"
#: A mutant that takes this many times longer than the decoder, plus some seconds, counts as running for ever.
PATIENCE, SECONDS = 10, 1
MEMORY = 3 << 30
#: Seconds from which a vector is slow: it counts as reaching every line of the functions that it calls, and runs last.
SLOW = 0.3


# ------------------------------------------------------------------------------------------------- running


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
    """A vector: its bytes, those of its base if it is a delta that is applied, and the expected result."""

    name: str
    data: bytes
    expected: Any
    base: bytes | None = None

    def found(self, decoder: ModuleType) -> Any:
        """Return a decoder's result in the manifest's form: the summary, or the code of an error."""
        try:
            file = decoder.decode(self.data) if self.base is None else decoder.apply(self.data, self.base)
            return json.loads(json.dumps(decoder.summary(file)))
        except sys.modules["reference_reader"].DecodeError as error:
            return error.code


def vectors() -> list[Vector]:
    """Return all vectors."""
    manifest = json.loads((VECTORS / "manifest.json").read_text(encoding="utf-8"))
    out = []
    for folder, key in (("valid", "holds"), ("invalid", "code")):
        for name, entry in manifest[folder].items():
            out.append(Vector(f"{folder}/{name}", (VECTORS / folder / name).read_bytes(), entry[key]))
    for name, entry in manifest["deltas"].items():
        data, base = ((VECTORS / "deltas" / f"{kind}{name}").read_bytes() for kind in ("", "base_of_"))
        out.append(Vector(f"deltas/{name}", data, entry.get("holds", entry.get("code")), base))
    return out


def reached(codes: dict[str, CodeType], vector: Vector) -> tuple[float, list[str]]:
    """Return the time that a vector takes and the lines that it reaches; its result must be the manifest's."""
    started = time.process_time()
    assert vector.found(load(codes)) == vector.expected, vector.name
    seconds = time.process_time() - started
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
            if seconds > SLOW:
                lines.update(f"{module}:{line}" for line in todo)
                todo.clear()
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
    likely = [name for name in RECENT if name in names]
    for name in dict.fromkeys([*names[:1], *likely, *names]):
        signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE * TIMES[name] + SECONDS)
        try:
            killed = BY_NAME[name].found(decoder) != BY_NAME[name].expected
        except (Exception, RecursionError):
            killed = True
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        if killed:
            if TIMES[name] <= SLOW:
                RECENT[:] = [name, *(other for other in RECENT if other != name)][:30]
            return name
    return ""


CODES: dict[str, CodeType] = {}
BY_NAME: dict[str, Vector] = {}
TIMES: dict[str, float] = {}
#: The vectors that killed the last mutants of this worker: they are likely to kill the neighbours of those too.
RECENT: list[str] = []


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
    """The results so far, kept as lines of JSON.

    A line begins a run of the program, or gives the time of a vector and the lines that it reaches, or a mutant's fate:
    the vector that killed it, or an empty string.
    """

    def __init__(self, path: Path, vectors: list[Vector]) -> None:
        self.path = path
        decoder = hashlib.sha256("\0".join(map(source, MODULES)).encode()).hexdigest()
        now = {vector.name: hashlib.sha256(vector.data).hexdigest() for vector in vectors}
        self.reach: dict[str, tuple[float, list[str]]] = {}
        self.killers: dict[str, str] = {}
        #: The results of earlier runs: vectors that killed a mutant of the same description, and vectors that did not.
        self.hints: dict[str, str] = {}
        self.survived: dict[str, set[str]] = {}
        same, unchanged = False, set[str]()
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            kind, name, value = json.loads(line)
            if kind == "run":
                same, unchanged = name == decoder, {vector for vector in value if value[vector] == now.get(vector)}
            elif kind == "killer" and value:
                self.hints[name] = value
            if same and kind == "reach" and name in unchanged:
                self.reach[name] = value
            elif same and kind == "killer" and value in unchanged | {"import"}:
                self.killers[name] = value
            elif same and kind == "killer" and not value:
                self.survived[name] = unchanged
        self.write("run", decoder, now)

    def write(self, kind: str, name: str, value: Any) -> None:
        """Add a line."""
        with self.path.open("a", encoding="utf-8") as out:
            out.write(json.dumps([kind, name, value]) + "\n")

    def keep(self, kind: str, name: str, value: Any) -> None:
        """Add a result."""
        (self.reach if kind == "reach" else self.killers)[name] = value
        self.write(kind, name, value)


def explained() -> dict[str, str]:
    """Return the mutants that may survive, and the reasons."""
    entries = json.loads(SURVIVORS.read_text(encoding="utf-8"))
    return {mutant: entry["reason"] for entry in entries for mutant in entry["mutants"]}


def plan(state: State, chosen: list[Mutant]) -> Iterator[tuple[Mutant, list[str]]]:
    """Yield mutants with the vectors to run: first the one that killed it in an earlier run, then the fast ones."""
    by_line: dict[str, set[str]] = {}
    for name, (_, lines) in state.reach.items():
        for line in lines:
            by_line.setdefault(line, set()).add(name)
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
        names -= state.survived.get(mutant.text, set())
        hint = state.hints.get(mutant.text)
        if hint in state.reach:
            names.add(hint)
        yield mutant, sorted(names, key=lambda name: (name != hint, state.reach[name][0], name))


def main() -> int:
    """Run mutants and list those that survive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, metavar="N", help="N mutants at random")
    parser.add_argument("--only", default="", metavar="TEXT", help="mutants whose description contains TEXT")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="worker processes (default 2)")
    parser.add_argument("--state", type=Path, default=Path(tempfile.gettempdir()) / "dcformat-mutants.jsonl")
    options = parser.parse_args()
    known_vectors = vectors()
    state = State(options.state, known_vectors)
    codes = {name: compiled(name) for name in MODULES}
    for vector in known_vectors:
        if vector.name not in state.reach:
            state.keep("reach", vector.name, reached(codes, vector))
    everything = [mutant for name in MODULES for mutant in mutants(name)]
    chosen = [mutant for mutant in everything if options.only in mutant.text]
    if options.sample is not None:
        chosen = random.sample(chosen, min(options.sample, len(chosen)))
    reasons = explained()
    todo = [mutant for mutant in chosen if mutant.text not in state.killers]
    todo.sort(key=lambda mutant: mutant.text in reasons)  # mutants that may survive take longest and tell least
    times = {name: seconds for name, (seconds, _) in state.reach.items()}
    print(f"{len(everything)} mutants, {len(chosen)} chosen, {len(todo)} to run", file=sys.stderr)
    with multiprocessing.get_context("fork").Pool(options.jobs, prepare, (times,), maxtasksperchild=50) as pool:
        for number, (mutant, name) in enumerate(pool.imap_unordered(run, plan(state, todo)), 1):
            state.keep("killer", mutant.text, name)
            if number % 100 == 0:
                print(f"{number} of {len(todo)}", file=sys.stderr)
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
