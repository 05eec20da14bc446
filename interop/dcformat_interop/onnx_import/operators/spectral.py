"""Fourier transforms of a fixed length, which are products with constant matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.graph import Conv, Linear
from dcformat_interop.graph_builder import Value
from dcformat_interop.lowering.unsupported import Unsupported
from dcformat_interop.onnx_import.items import OnnxCall, lowers

Array = npt.NDArray[Any]


@lowers("DFT")
def _dft(call: OnnxCall) -> Value:
    b, x, rank = call.builder, call.value(), call.rank
    if call.opset >= 20:
        axis = call.axis(int(call.const(2, "an axis").reshape(())) if call.has(2) else -2)
    else:
        axis = call.axis(call.attr("axis", 1))
    inverse, onesided = bool(call.attr("inverse", 0)), bool(call.attr("onesided", 0))
    size = 2 * (x.shape[axis] - 1) if inverse and onesided else x.shape[axis]
    length = int(call.const(1, "a length").reshape(())) if call.has(1) else size
    order = [i for i in range(rank - 1) if i != axis] + [axis, rank - 1]
    turned = b.transpose(x, order)
    parts, kept = turned.shape[-1], min(turned.shape[-2], length)
    turned = b.slice(turned, rank - 2, 0, kept)
    call.take(4 * kept * parts * length)
    matrix = _matrix(kept, parts, length, inverse, onesided)
    flat = b.reshape(turned, (*turned.shape[:-2], kept * parts))
    made = b.emit(Linear, (flat,), weight=call.tensor(matrix, f"{call.name}.transform"))
    # An inverse onesided transform gives real numbers, and others complex ones.
    shape = (*turned.shape[:-2], len(matrix), 1) if inverse and onesided else (*turned.shape[:-2], len(matrix) // 2, 2)
    return b.transpose(b.reshape(made, shape), np.argsort(order).tolist())


def _matrix(size: int, parts: int, length: int, inverse: bool, onesided: bool) -> Array:
    """Return the matrix from the real and imaginary parts of a signal to those of its transform."""
    units = np.eye(size * parts).reshape(size * parts, size, parts)
    signal = units[..., 0] + (1j * units[..., 1] if parts == 2 else 0)
    if inverse and onesided:
        return np.fft.irfft(signal, length).T
    spectrum = np.fft.ifft(signal, length) if inverse else np.fft.fft(signal, length)
    if onesided:
        spectrum = spectrum[:, : length // 2 + 1]
    stacked: Array = np.stack([spectrum.real, spectrum.imag], -1).reshape(size * parts, -1).T
    return stacked


@lowers("STFT")
def _stft(call: OnnxCall) -> Value:
    """Lower to a convolution whose kernels are the waves, multiplied by the window."""
    b, x = call.builder, call.value()
    if x.shape[-1] != 1 and call.rank == 3:
        raise Unsupported("of a complex signal")
    samples, length = x.shape[:2]
    step = int(call.const(1, "a step").reshape(()))
    window = call.const(2, "a window") if call.has(2) else None
    size = int(call.const(3, "a length").reshape(())) if call.has(3) else len(window) if window is not None else 0
    if not 1 <= size <= length or step < 1 or (window is not None and len(window) > size):
        raise ValueError(f"frame_length: expected 1 to {length}, found {size}")
    call.take(4 * size * size)
    matrix = _matrix(size, 1, size, False, bool(call.attr("onesided", 1)))
    if window is not None:
        matrix = matrix * np.pad(window, (0, size - len(window)))
    kernel = call.tensor(matrix[:, None, :], f"{call.name}.waves")
    zero, one = (0,), (1,)
    made = b.emit(
        Conv, (b.reshape(x, (samples, 1, length)),), weight=kernel, stride=(step,), padding=zero, padding_end=zero,
        dilation=one,
    )  # fmt: skip
    frames = made.shape[2]
    return b.reshape(b.transpose(made, (0, 2, 1)), (samples, frames, matrix.shape[0] // 2, 2))
