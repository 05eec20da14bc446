"""Packs TensorFlow Lite models and writes a table of their differences from LiteRT, and of their sizes.

    python benchmarks/interop/tflite_models.py FOLDER docs/results/tflite-models.md

The folder has the models of MLPerf Tiny (mlcommons/tiny), and their keyword samples as kws_samples.npz: x and labels y.
"""

from __future__ import annotations

import lzma
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import dcformat_runtime
import numpy as np
import numpy.typing as npt
from dcformat_interop import import_tflite
from dcformat_interop.tflite_import.litert import litert_version, run_litert

import dcformat

sys.path.insert(0, str(Path(__file__).parents[1]))
from machine import describe

Array = npt.NDArray[Any]

INPUTS = 1000

#: The scale and zero point of the keyword samples, which are int8.
_SAMPLES = (np.float32(0.5847029), 83)


class Samples(NamedTuple):
    """Inputs, and their labels if there are any."""

    x: Array
    labels: Array | None = None


def samples(folder: Path, name: str, port: dcformat.graph.Port) -> Samples:
    """Return the keyword samples for their networks, and random inputs for others."""
    if name.startswith("kws"):
        with np.load(folder / "kws_samples.npz") as file:
            x, labels = file["x"], file["y"]
        scale, zero_point = _SAMPLES
        return Samples(x if port.dtype == "int8" else (x.astype(np.float32) - zero_point) * scale, labels)
    random, shape = np.random.default_rng(0), (INPUTS, *port.shape)
    if port.dtype == "int8":
        return Samples(random.integers(-128, 128, shape).astype(np.int8))
    return Samples(random.standard_normal(shape).astype(np.float32))


def row(path: Path, folder: Path) -> str:
    """Import, pack, read back and run a model, and return a line of the table."""
    imported = import_tflite(path)
    graph = imported.model.graph
    assert graph is not None
    given = samples(folder, path.stem, graph.inputs[0])
    with tempfile.TemporaryDirectory() as temporary:
        packed = Path(temporary) / "model.dcf"
        dcformat.save(imported.model, packed, mode="small")
        size = packed.stat().st_size
        found = np.asarray(dcformat_runtime.load(packed, max_memory=None)(given.x))
    wanted = run_litert(str(path), imported.runnable(), [given.x[:, None]])[0][:, 0]
    apart = np.abs(found.astype(np.float64) - wanted)
    difference = f"{apart.max() / np.abs(wanted).max():.1e}"
    if wanted.dtype.kind == "i":
        difference = f"{apart.max():.0f} steps; 0 for {np.mean(apart == 0):.2%} of the numbers"
    same = f"{np.mean(found.argmax(1) == wanted.argmax(1)):.1%}"
    if given.labels is not None:
        right = [np.count_nonzero(outputs.argmax(1) == given.labels) for outputs in (found, wanted)]
        same += f"; {right[0]} right, LiteRT {right[1]}"
    parameters = imported.model.elements
    content = path.read_bytes()
    smaller = len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    return f"| {path.stem} | {parameters:,} | {len(content):,} | {smaller:,} | {size:,} | {difference} | {same} |"


def main() -> None:
    """Write the table to the file that the command line names."""
    folder = Path(sys.argv[1])
    lines = [
        "# TensorFlow Lite models",
        "",
        "`benchmarks/interop/tflite_models.py` wrote this page. Each model of MLPerf Tiny was packed",
        f"(`--mode small`), read back, and compared with LiteRT {litert_version()} on {INPUTS:,} random inputs",
        "or on the keyword samples. Differences are relative to the largest output, or steps of rounding",
        "for int8 models; the last column says for how many inputs the same output is largest.",
        "`kws_dscnn_float` has int8 weights: LiteRT ran it with the same weights in float32, as it would",
        "round the inputs of the layers otherwise.",
        "",
        "| model | parameters | .tflite, bytes | .tflite.xz | .dcf | difference | same largest output |",
        "|---|---:|---:|---:|---:|---|---|",
        *(row(path, folder) for path in sorted(folder.glob("*.tflite"))),
        "",
        f"{describe('ai-edge-litert')}.",
    ]
    Path(sys.argv[2]).write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
