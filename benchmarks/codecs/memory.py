"""Measures the peak memory of writing and reading an AlexNet-like model tensor by tensor.

    python benchmarks/codecs/memory.py [--mode fast|small] [--out FILE.md]

Each step runs in its own process, and the figure is its peak resident memory minus that of an idle process. The
tensors come from a mapping that makes each on request, and are read one by one with `dcformat.open`.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from machine import describe

import dcformat
from dcformat.model import Model, Tensor
from models import ALEXNET, synthetic


class Lazy(Mapping[str, Tensor]):
    """The synthetic layers, each made anew on every request."""

    def __init__(self) -> None:
        self._layers = {f"{layer[0]}.weight": layer for layer in ALEXNET}

    def __getitem__(self, name: str) -> Tensor:
        return synthetic((self._layers[name],), 1).tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


def peak() -> int:
    """Return the process's peak resident memory in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def step(what: str, path: str, mode: str) -> None:
    """Run one step and print the rise of the peak; a small model goes first, so that kernels and code are loaded."""
    small = synthetic((("warm", (64, 256), 0.1, 32),), 1)
    dcformat.load(dcformat.dumps(small, mode=mode))  # type: ignore[arg-type]
    if what == "make":
        before = peak()
        Lazy()["fc6.weight"]
    elif what == "write":
        before = peak()
        dcformat.save(Model(Lazy()), path, mode=mode)  # type: ignore[arg-type]
    else:
        before = peak()
        with dcformat.open(path) as file:
            for name in file.names:
                file.tensor(name)
    print(peak() - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=("fast", "small"), default="fast")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step(*options.step, options.mode)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.dcf")

        def run(what: str) -> float:
            arguments = [sys.executable, __file__, "--mode", options.mode, "--step", what, path]
            return int(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout) / 2**20

        made, written, read = run("make"), run("write"), run("read")
        largest = Lazy()["fc6.weight"]
        arrays = [largest.data, largest.indices, largest.indptr]
        tensor = sum(array.nbytes for array in arrays if array is not None) / 2**20
    lines = [
        describe(),
        "",
        "| step | MiB over an idle process |",
        "|---|---|",
        f"| largest tensor's arrays (fc6, 37.7M weights, 9 % dense) | {tensor:.0f} |",
        f"| making that tensor | {made:.0f} |",
        f"| writing the model, {options.mode} (making its tensors included) | {written:.0f} |",
        f"| reading the model tensor by tensor | {read:.0f} |",
        "",
    ]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
