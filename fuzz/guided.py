"""Fuzzes the reader with atheris, which keeps inputs that reach new branches.

Run it by ``python fuzz/guided.py [libFuzzer options]``. Its mutations are those of `mutators.py`. With
``NUMBA_DISABLE_JIT=1`` kernels are Python, and their branches count too; otherwise they run as machine code, and only
the code around them counts, because the compiler cannot read instrumented functions.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from random import Random

import atheris

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("", "runtime", "cli", "pruning", "interop")]

_KERNELS = (
    "adaptive_kernels", "codebooks", "grid", "huffman", "index", "mixer", "mixing_kernels", "nonempty_kernels",
    "prediction_kernels", "rangecoder", "values", "words",
)  # fmt: skip
_python = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
_exclude = ["dcformat.jit", *(() if _python else (f"dcformat.codecs.{name}" for name in _KERNELS))]

with atheris.instrument_imports(include=["dcformat"], exclude=_exclude):
    from fuzz import container, mutators
    from fuzz.doors import all_doors
    from fuzz.guard import Guard
    from fuzz.seeds import seeds

_NAMES = ("load", "open", "usage", "verify", "predict")
_raw, _files = seeds()


def _mutated(data: bytes, max_size: int, seed: int) -> bytes:
    random = Random(seed)
    try:
        changed = mutators.mutate(random, container.parse(data), _files)
    except (container.ParseError, IndexError):
        changed = atheris.Mutate(data, max_size)
    return changed if len(changed) <= max_size else data


def main() -> None:
    """Fuzz until libFuzzer's limits are reached; it sees a finding as a crash."""
    known, guard = all_doors(), Guard(60.0 if _python else 1.0)
    doors = [known[name] for name in _NAMES]

    def given(data: bytes) -> None:
        for door in doors:
            _, finding = guard.run(door, data)
            if finding is not None:
                raise AssertionError(f"{finding.door}: {finding.kind}: {finding.reason}")

    corpus = ROOT / "fuzz" / "work" / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(_raw):
        (corpus / f"seed-{number}").write_bytes(data)
    atheris.Setup([*sys.argv, str(corpus)], given, custom_mutator=_mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
