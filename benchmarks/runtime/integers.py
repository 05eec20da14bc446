"""Times networks of integers on this runtime and on LiteRT, and writes a table of that and of the sizes of the files.

    python benchmarks/runtime/integers.py FOLDER docs/results/integer-speed.md

The folder has the int8 models of MLPerf Tiny (mlcommons/tiny). Calls have one input and run on one thread; a call to
LiteRT sets the input, invokes the interpreter and gets the output. Rounds of both alternate in one process. The ratio
is the median of the ratios of the rounds, which stay similar even if the machine has other work.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import dcformat_runtime
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from dcformat_interop import import_tflite
from dcformat_interop.tflite_import.litert import litert_version

import dcformat

sys.path.insert(0, str(Path(__file__).parents[1]))
from machine import describe

NAMES = ("kws_dscnn_int8", "ic_resnet8_int8", "ad_autoencoder_int8", "vww_mobilenet_int8")
MODES = ("fast", "small", "tiny")
ROUNDS, CALLS, INPUTS = 100, 20, 1000


class Result(NamedTuple):
    """A network's bytes in each mode, the microseconds of both runtimes, and the agreement of their results."""

    sizes: list[int]
    ours: float
    theirs: float
    ratio: float
    same: float
    steps: int
    agreement: float


def litert(path: Path) -> Callable[[Any], Any]:
    """Return a call of LiteRT on one thread."""
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    given, made = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(x: Any) -> Any:
        interpreter.set_tensor(given, x)
        interpreter.invoke()
        return interpreter.get_tensor(made)

    return run


def seconds(run: Callable[[Any], Any], x: Any) -> float:
    """Return the time of a call."""
    start = perf_counter()
    for _ in range(CALLS):
        run(x)
    return (perf_counter() - start) / CALLS


def measure(path: Path) -> Result:
    """Pack a model in each mode, and run the smallest file and LiteRT side by side."""
    model = import_tflite(path).model
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{mode}.dcf" for mode in MODES]
        for file, mode in zip(files, MODES, strict=True):
            dcformat.save(model, file, mode=mode)
        sizes = [file.stat().st_size for file in files]
        session = dcformat_runtime.load(files[-1], threads=1, backend="numba")
    other = litert(path)
    x = np.random.default_rng(0).integers(-128, 128, (INPUTS, *session.input_shape)).astype(np.int8)
    found = session(x).reshape(INPUTS, -1)
    wanted = np.concatenate([other(x[k : k + 1]).reshape(1, -1).copy() for k in range(INPUTS)])
    apart = np.abs(found.astype(int) - wanted)
    times = np.array([[seconds(session, x[:1]), seconds(other, x[:1])] for _ in range(ROUNDS)])
    ours, theirs = np.median(times, axis=0) * 1e6
    ratio = float(np.median(times[:, 1] / times[:, 0]))
    agreement = float((found.argmax(1) == wanted.argmax(1)).mean())
    return Result(sizes, float(ours), float(theirs), ratio, float((apart == 0).mean()), int(apart.max()), agreement)


def table(folder: Path) -> str:
    """Return the page."""
    results = {name: measure(folder / f"{name}.tflite") for name in NAMES}
    lines = [
        "# Networks of integers",
        "",
        "`benchmarks/runtime/integers.py` wrote this page. The int8 models of MLPerf Tiny run from their `.dcf` files",
        f"and on LiteRT {litert_version()} (XNNPACK), with one input a call and one thread. Results are compared on",
        f"{INPUTS:,} random inputs. The second table has the bytes of the files.",
        "",
        "| network | dcformat, us | LiteRT, us | times as fast | equal results | difference | same largest output |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, found in results.items():
        times = f"{found.ours:.1f} | {found.theirs:.1f} | {found.ratio:.2f}"
        lines.append(f"| {name} | {times} | {found.same:.2%} | {found.steps} steps | {found.agreement:.1%} |")
    lines += ["", f"| network | .tflite | {' | '.join(MODES)} |", "|---|---:|---:|---:|---:|"]
    rows = {name: [(folder / f"{name}.tflite").stat().st_size, *found.sizes] for name, found in results.items()}
    rows["together"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    lines += [f"| {name} | {' | '.join(f'{size:,}' for size in row)} |" for name, row in rows.items()]
    return "\n".join([*lines, "", f"{describe('ai-edge-litert')}.", ""])


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(table(Path(sys.argv[1])), encoding="utf-8")
