"""Compares decoding speed on one thread with zstd, bitarray's Huffman and NNCodec: medians, interleaved in one run.

    python benchmarks/codecs/speed.py [--nncodec PYTHON] [--rounds N] [--model alexnet|fc6] [--out FILE.md]

All coders decode the same synthetic layers from bytes in memory: ours to CSR; zstd -19 (one byte for each gap and one
for each code) to CSR too, without the biases and codebooks that ours holds; NNCodec to its dense integers. `--nncodec`
is the interpreter of an environment with nncodec, which needs an older NumPy than ours; it runs as a process that is
stopped while others are timed. Times are processor time: each coder has one thread, so on a quiet machine they equal
the clock's, and on a shared one they can still be compared.
"""

from __future__ import annotations

import argparse
import os
import pickle
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from machine import describe

import dcformat
from dcformat.codecs import huffman, packed
from dcformat.codecs.csr_view import CsrView
from dcformat.model import Model
from models import ALEXNET, FC6, synthetic

Decode = Callable[[], object]

#: The program of the other process: it reads integers, encodes them once, and then decodes whenever it reads a line.
_NNCODEC = """
import contextlib, io, pickle, sys, time
import torch; torch.set_num_threads(1)
from nncodec.nn import encode, decode
out = sys.stdout; sys.stdout = sys.stderr
tensors = pickle.load(open(sys.argv[1], 'rb'))
start = time.process_time()
with contextlib.redirect_stdout(io.StringIO()):
    data = encode(tensors, dict(verbose=False, results=sys.argv[2]))
print(len(data), time.process_time() - start, file=out, flush=True)
for line in sys.stdin:
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        back = decode(data)
    print(time.process_time() - start, file=out, flush=True)
"""


class NNCodec:
    """NNCodec in its own process, stopped while it is not timed."""

    def __init__(self, python: str, model: Model) -> None:
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "tensors"
        # Its integer mode needs signed ranks around zero. The file is ours, and our own child reads it.
        ranks = {t.name: _signed(t) for t in model.tensors.values() if t.is_sparse}
        path.write_bytes(pickle.dumps(ranks))
        self._child = subprocess.Popen(
            [python, "-c", _NNCODEC, str(path), self._folder.name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self._child.stdout is not None
        size, seconds = self._child.stdout.readline().split()
        self.size, self.encode_seconds = int(size), float(seconds)
        self._child.send_signal(signal.SIGSTOP)

    def seconds(self) -> float:
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.send_signal(signal.SIGCONT)
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        took = float(self._child.stdout.readline())
        self._child.send_signal(signal.SIGSTOP)
        return took

    def close(self) -> None:
        self._child.send_signal(signal.SIGCONT)
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()
        self._folder.cleanup()


def _signed(tensor: Any) -> Any:
    negatives = int((tensor.codebook < 0).sum())
    codes = tensor.data.astype(np.int32) - negatives
    values = np.where(codes >= 0, codes + 1, codes).astype(np.int32)
    out = np.zeros((tensor.rows, tensor.columns), np.int32)
    out[np.repeat(np.arange(tensor.rows), np.diff(tensor.indptr)), tensor.indices] = values
    return out.reshape(tensor.shape)


def zstd(model: Model) -> tuple[int, float, Decode, Decode]:
    """Return the size, the seconds to encode and two decoders of zstd -19 over gaps and codes, with escapes of 255.

    It writes checksums, as zstd's own tool does. The first decoder makes rows with NumPy, the second with our kernel.
    """
    import zstandard

    start = time.process_time()
    frames = []
    for tensor in model.tensors.values():
        if tensor.is_sparse:
            view = CsrView.of(tensor)
            gaps = packed.escaped(packed.runs_of(view), 8)
            level = zstandard.ZstdCompressor(level=19, write_checksum=True)
            frames.append((view, level.compress(gaps.tobytes()), level.compress(view.codes.tobytes())))
    seconds = time.process_time() - start
    plan = packed.Plan(8, False, np.empty(0, np.int64), ())
    reader = zstandard.ZstdDecompressor()

    def by(rebuild: Callable[[CsrView, Any], object]) -> Decode:
        def decode() -> object:
            out = []
            for view, gaps, codes in frames:
                symbols = np.frombuffer(reader.decompress(gaps), np.uint8)
                out.append((rebuild(view, symbols), np.frombuffer(reader.decompress(codes), np.uint8)))
            return out

        return decode

    def kernel(view: CsrView, symbols: Any) -> object:
        return packed.place(plan, symbols, None, packed.PlaceShape(view.lines, view.length, view.nnz))

    return sum(len(g) + len(v) for _, g, v in frames), seconds, by(_rows), by(kernel)


def _rows(view: CsrView, symbols: Any) -> object:
    entry = symbols != 255
    positions = np.cumsum(symbols, dtype=np.int64)
    positions += np.cumsum(entry, dtype=np.int64)
    positions = positions[entry] - 1
    lines = positions // view.length
    return np.searchsorted(lines, np.arange(view.lines + 1)), (positions - lines * view.length).astype(np.int32)


def symbols_per_second(rounds: int) -> list[tuple[str, float]]:
    """Return millions of decoded symbols per second of our Huffman streams, the machine's zstd and bitarray."""
    import zstandard
    from bitarray import bitarray
    from bitarray.util import canonical_decode, canonical_huffman

    tensor = synthetic((("fc", (4096, 4096), 0.09, 32),), 5).tensors["fc.weight"]
    codes = tensor.data[: 1 << 20].astype(np.uint8)
    lengths = huffman.code_lengths(np.bincount(codes, minlength=32))
    plan = packed.Plan(0, False, np.empty(0, np.int64), (lengths,))
    chunk = np.frombuffer(packed.write_chunk(plan, None, [codes]), np.uint8)
    reader = packed.StreamReader(plan)
    frame, zreader = zstandard.ZstdCompressor(level=19).compress(codes.tobytes()), zstandard.ZstdDecompressor()
    few = codes[: 1 << 17]
    code, counts, symbols = canonical_huffman({int(i): int(c) for i, c in enumerate(np.bincount(few)) if c})
    bits = bitarray()
    bits.encode(code, few.tolist())
    runners: dict[str, tuple[int, Decode]] = {
        "dcformat, four streams": (len(codes), lambda: reader.read(chunk, len(codes), max_gaps=0)),
        "zstd -19": (len(codes), lambda: zreader.decompress(frame)),
        "bitarray canonical_decode": (len(few), lambda: list(canonical_decode(bits, counts, symbols))),
    }
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, (_, run) in runners.items():
            run()
            times[name].append(_timed(run))
    return [(name, runners[name][0] / statistics.median(times[name]) / 1e6) for name in runners]


def _timed(run: Decode) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nncodec", help="python with nncodec installed")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", choices=("alexnet", "fc6"), default="alexnet")
    parser.add_argument("--modes", default="fast,small")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    model = synthetic(ALEXNET if options.model == "alexnet" else FC6, 3)
    runners: dict[str, tuple[int, float, Callable[[], float]]] = {}

    def ours(mode: Any) -> None:
        dcformat.dumps(model, mode=mode)  # compile
        start = time.process_time()
        data = dcformat.dumps(model, mode=mode)
        seconds = time.process_time() - start
        runners[f"dcformat {mode}"] = (len(data), seconds, lambda: _timed(lambda: dcformat.load(data)))

    for mode in options.modes.split(","):
        ours(mode)
    size, seconds, by_numpy, by_kernel = zstd(model)
    runners["zstd -19, rows by NumPy"] = (size, seconds, lambda: _timed(by_numpy))
    runners["zstd -19, rows by our kernel"] = (size, seconds, lambda: _timed(by_kernel))
    other = NNCodec(options.nncodec, model) if options.nncodec else None
    if other is not None:
        runners["NNCodec"] = (other.size, other.encode_seconds, other.seconds)
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(options.rounds):
        for name, (_, _, run) in runners.items():
            run()  # not counted: the other coders have evicted its data from the caches
            times[name].append(run())
    if other is not None:
        other.close()
    first = statistics.median(times["dcformat fast"]) if "dcformat fast" in times else None
    lines = ["| coder | bytes | encode, s | decode, ms (median) | against dcformat fast |", "|---|---|---|---|---|"]
    for name, (size, seconds, _) in runners.items():
        median = statistics.median(times[name])
        ratio = f"{median / first:.1f}x" if first else ""
        lines.append(f"| {name} | {size:,} | {seconds:.2f} | {1000 * median:.0f} | {ratio} |")
    lines += ["", "| symbols | million a second |", "|---|---|"]
    lines += [f"| {name} | {speed:,.0f} |" for name, speed in symbols_per_second(max(options.rounds, 20))]
    text = "\n".join([describe("zstandard", "bitarray"), "", *lines, ""])
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
