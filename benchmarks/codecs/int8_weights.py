"""Prints the bytes of int8 weights with coder 6 and without it, and the time that each takes to decode.

    python benchmarks/codecs/int8_weights.py FOLDER

The folder has the int8 models of MLPerf Tiny (mlcommons/tiny).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from dcformat_interop import import_tflite

from dcformat.codecs.payload_layout import Coding, parse_payload
from dcformat.codecs.payload_reader import read_payload
from dcformat.codecs.payload_writer import write_payload
from dcformat.contents import TensorInfo
from dcformat.forms import forms, smallest
from dcformat.layout import CODER_PREDICTION
from dcformat.model import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from machine import describe

NAMES = ("ad_autoencoder_int8", "ic_resnet8_int8", "kws_dscnn_int8", "vww_mobilenet_int8")
ROUNDS = 5


def without(tensor: Tensor) -> tuple[Tensor, bytes]:
    """Return the smallest form and payload in `tiny` without coder 6."""
    made = [(form, write_payload(form, "tiny")) for form in forms(tensor, "tiny")]
    plain = [(form, write_payload(form, "small")) for form in forms(tensor, "small") if form.codebook is None]
    kept = [pair for pair in made if Coding.of(pair[1][0]).coder != CODER_PREDICTION]
    return min(kept + plain, key=lambda pair: len(pair[1]))


def decoding(form: Tensor, payload: bytes) -> Callable[[], object]:
    """Return a function that decodes a payload."""
    kind = "constant" if form.is_constant else "sparse" if form.is_sparse else "dense"
    size = 0 if form.codebook is None else len(form.codebook)
    info = TensorInfo(form.name, form.shape, form.dtype, kind, len(form.data), size, form.scale, len(payload), 0, 0)
    return lambda: read_payload(parse_payload(info, np.frombuffer(payload, np.uint8)))


def seconds(calls: list[Callable[[], Any]]) -> list[float]:
    """Return the least processor time of each call, taken in turns."""
    best = [float("inf")] * len(calls)
    for _ in range(ROUNDS):
        for number, call in enumerate(calls):
            start = process_time()
            call()
            best[number] = min(best[number], process_time() - start)
    return best


def main(folder: Path) -> None:
    """Print the table."""
    print(
        "| network | weights | bytes without coder 6 | with it | decode, ms | with it |\n|---|---:|---:|---:|---:|---:|"
    )
    sums = np.zeros(5)
    for name in NAMES:
        weights = [t for t in import_tflite(folder / f"{name}.tflite").model.tensors.values() if t.dtype == "int8"]
        row = np.zeros(5)
        for tensor in weights:
            pairs = [without(tensor), smallest(tensor, "tiny")]
            times = seconds([decoding(*pair) for pair in pairs])
            row += [tensor.size, *(len(payload) for _, payload in pairs), *(1000 * time for time in times)]
        sums += row
        print_row(name, row)
    print_row("together", sums)
    print(f"\n{describe()}")


def print_row(name: str, row: np.ndarray[Any, Any]) -> None:
    """Print a row of the table."""
    print(f"| {name} | {' | '.join(f'{value:,.0f}' for value in row[:3])} | {row[3]:.1f} | {row[4]:.1f} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
