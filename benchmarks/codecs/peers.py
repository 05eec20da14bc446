"""Compares sizes and decoding speed with lmzip and ZipNN, which run in a separate Python.

    python benchmarks/codecs/peers.py FILE --python PYTHON [--rounds N] [--out FILE.md]

FILE is a checkpoint of float32 tensors, which are packed unchanged, rounded to bfloat16, and pruned by magnitude.
PYTHON has lmzip and zipnn; each may be missing. Everything runs on one thread. dcformat decodes a file in memory to
dense arrays; lmzip decodes a file in memory (/dev/shm) to another one, because it cannot do otherwise; ZipNN decodes
bytes to bytes. Times are processor time, the least of several rounds in which all take turns.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dcformat_interop import write_safetensors
from floats import Arrays, changed, read, seconds
from machine import describe

import dcformat
from dcformat.dense import from_dense
from dcformat.model import Model

#: Prints the compressed size of a file, then the seconds to decode it, each time it reads a line.
_WORKERS = {
    "lmzip": """
import os, sys, time, lmz
source, folder = sys.argv[1:3]
packed, out = os.path.join(folder, "a.lmz"), os.path.join(folder, "out")
lmz.compress(source, packed, level=9, workers=1)
print(os.path.getsize(packed), flush=True)
for _ in sys.stdin:
    start = time.process_time()
    lmz.decompress(packed, out, workers=1, overwrite=True)
    print(time.process_time() - start, flush=True)
""",
    "ZipNN": """
import sys, time
from zipnn import ZipNN
raw, kind = open(sys.argv[3], "rb").read(), sys.argv[4]
coder = ZipNN(bytearray_dtype=kind, input_format="byte", threads=1)
packed = coder.compress(bytearray(raw))
print(len(packed), flush=True)
for _ in sys.stdin:
    start = time.process_time()
    found = coder.decompress(packed)
    print(time.process_time() - start, flush=True)
assert bytes(found) == raw
""",
}


class Worker:
    """Another compressor in its own process."""

    def __init__(self, name: str, python: str, folder: Path, kind: str) -> None:
        names = [folder / "a.safetensors", folder, folder / "raw"]
        arguments = [python, "-c", _WORKERS[name], *map(str, names), kind]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=environment,
        )  # fmt: skip
        self.size = int(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise OSError("the process ended")
        return line

    def seconds(self) -> float:
        """Decode once."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def rows(name: str, arrays: Arrays, dtype: str, options: argparse.Namespace) -> list[str]:
    """Return a line of the table for each compressor."""
    model = Model({key: from_dense(key, array, dtype, exact=True) for key, array in arrays.items()})
    raw, weights = sum(array.nbytes for array in arrays.values()), sum(array.size for array in arrays.values())
    files = {f"dcformat {mode}": dcformat.dumps(model, mode=mode) for mode in ("fast", "small")}
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as made:
        folder = Path(made)
        with (folder / "a.safetensors").open("wb") as out, dcformat.open(files["dcformat fast"]) as file:
            write_safetensors("a", file, out)
        (folder / "raw").write_bytes(b"".join(array.tobytes() for array in arrays.values()))
        workers = {}
        for peer in _WORKERS:
            try:
                workers[peer] = Worker(peer, options.python, folder, dtype)
            except (OSError, ValueError) as error:
                print(f"{peer}: skipped ({error})", file=sys.stderr)
        times: dict[str, list[float]] = {key: [] for key in (*files, *workers)}
        for _ in range(options.rounds):
            for key, data in files.items():
                times[key].append(seconds(data))
            for key, worker in workers.items():
                times[key].append(worker.seconds())
        for worker in workers.values():
            worker.close()
    sizes = {**{key: len(data) for key, data in files.items()}, **{key: made.size for key, made in workers.items()}}
    return [
        f"| {name} | {key} | {size:,} | {8 * size / weights:.2f} | {raw / min(times[key]) / 1e6:,.0f} |"
        for key, size in sizes.items()
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--python", required=True, help="a Python that has lmzip and zipnn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = read(options.file)
    lines = ["| values | coder | bytes | bits a weight | decode, MB/s |", "|---|---|---|---|---|"]
    for name, share, brain in (
        ("bfloat16", 0.0, True), ("bfloat16, 50 % pruned", 0.5, True), ("bfloat16, 90 % pruned", 0.9, True),
        ("float32", 0.0, False),
    ):  # fmt: skip
        made = rows(name, changed(found, share, brain), "bfloat16" if brain else "float32", options)
        print("\n".join(made), file=sys.stderr, flush=True)
        lines += made
    text = "\n".join([*lines, "", describe()]) + "\n"
    print(text)
    if options.out is not None:
        options.out.write_text(text)


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
