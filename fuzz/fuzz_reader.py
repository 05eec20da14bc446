"""The reader under atheris: ``python fuzz/fuzz_reader.py [--repair] [libFuzzer options] CORPUS``.

Without `--repair` a custom mutator changes contents and payloads and makes checksums right, and the target reads what
it is given. With it the mutations are libFuzzer's own, and the target makes checksums right before it reads.

With ``NUMBA_DISABLE_JIT=1`` the kernels are Python and their branches are seen too; else they run as machine code, and
only the code around them is seen: the compiler cannot read instrumented functions.
"""

from __future__ import annotations

import os
import sys

import atheris
import numpy as np

#: Modules of kernels.
_KERNELS = ("adaptive", "huffman", "index", "mixing", "rangecoder", "values", "words")
_python = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
_exclude = ["dcformat.jit", "dcformat.native", *(() if _python else (f"dcformat.codecs.{name}" for name in _KERNELS))]

with atheris.instrument_imports(include=["dcformat"], exclude=_exclude):
    import target

    from dcformat import layout
    from dcformat.codecs import huffman


def _mutated(data: bytes, max_size: int, seed: int) -> bytes:
    changed = target.mutate(data, seed, lambda part: atheris.Mutate(part, len(part) + 16) if part else part)
    return changed if len(changed) <= max_size else data


def _given(data: bytes) -> None:
    # To write takes many times as long as to read, and without machine code a hundred times that.
    target.exercise(data, thorough=not sum(data[-8:]) & (255 if _python else 7))


def _repaired(data: bytes) -> None:
    _given(target.repair(data))


def _fill_tables(codes: np.ndarray, lengths: np.ndarray, single: np.ndarray, multi: np.ndarray) -> None:  # type: ignore[type-arg]
    """Do what `huffman._fill_tables` does, whole arrays at a time: as Python it would take nine tenths of a run."""
    for symbol in np.flatnonzero(lengths != huffman.UNUSED):
        single[codes[symbol] :: 1 << lengths[symbol]] = lengths[symbol] << 8 | symbol
    slots = np.arange(len(multi))
    used, count, symbols = np.zeros_like(slots), np.zeros_like(slots), np.zeros_like(slots)
    going = np.ones(len(multi), bool)
    for place in range(3):
        entry = single[slots >> used].astype(np.int64)
        going &= used + (entry >> 8) <= huffman.LIMIT
        symbols |= np.where(going, (entry & 255) << 8 * place, 0)
        used += np.where(going, entry >> 8, 0)
        count += going
    multi[:] = symbols << 8 | count << 6 | used


def main() -> None:
    """Fuzz until libFuzzer's limits are reached."""
    # What is packed is unpacked in Python, whatever the variant: 64 KiB of it take a second.
    layout.MAX_PACKED_BYTES = 1 << 11
    if _python:
        huffman._fill_tables = _fill_tables  # type: ignore[assignment]
    arguments = [argument for argument in sys.argv if argument != "--repair"]
    if len(arguments) < len(sys.argv):
        atheris.Setup(arguments, _repaired)
    else:
        atheris.Setup(arguments, _given, custom_mutator=_mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
