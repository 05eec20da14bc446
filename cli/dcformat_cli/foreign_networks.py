"""Networks from other formats for `dcformat pack`: recognition, options, and the check of the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
from dcformat_interop.kinds import HEAD, is_program, looks_like

from dcformat.layout import DEFAULT_MAX_MEMORY
from dcformat_cli.array_files import read_arrays
from dcformat_cli.failures import UnfitError, misuse, require_onnx, require_onnxscript, require_torch

if TYPE_CHECKING:
    from dcformat_interop.onnx_import import Comparison, OnnxImport
    from dcformat_interop.tflite_import import LiteRTComparison, TfliteImport

_SUFFIXES = {".onnx": "ONNX", ".tflite": "TFLite", ".pt2": "PyTorch"}

#: The name of each kind in messages.
_NAMES = {"ONNX": "an ONNX model", "TFLite": "a TFLite model", "PyTorch": "a PyTorch program"}


def network_kind(path: Path) -> str | None:
    """Return ``ONNX``, ``TFLite`` or ``PyTorch`` for such a model, by its name or content, else None.

    Raises `OSError`.
    """
    kind = _SUFFIXES.get(path.suffix.lower())
    if kind is not None or not path.is_file():
        return kind
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith(b"PK") and is_program(path):
        return "PyTorch"
    kind = looks_like(head)
    return kind if kind in _SUFFIXES.values() else None


def is_piped_network(stream: BinaryIO) -> bool:
    """Return whether a stream begins like a network, or like an archive that may be one; nothing is consumed."""
    peek = getattr(stream, "peek", None)
    head = b"" if peek is None else peek(HEAD)[:HEAD]
    return head.startswith(b"PK") or looks_like(head) in _SUFFIXES.values()


def network_name(path: Path) -> str:
    """Return the name in messages of a model that has a kind."""
    return _NAMES[network_kind(path) or ""]


def read_network(
    path: Path,
    dims: Sequence[str],
    values: Sequence[str],
    single: bool = False,
    exact: bool = False,
    max_memory: int | None = DEFAULT_MAX_MEMORY,
) -> OnnxImport | TfliteImport:
    """Read an ONNX or TFLite model or a PyTorch program, with the values of the options."""
    kind, name = network_kind(path), network_name(path)
    if kind == "TFLite":
        from dcformat_interop import import_tflite

        if values:
            raise misuse("--set needs an ONNX model or a PyTorch program")
        return import_tflite(path, dims=_dims(dims), exact=exact, max_memory=max_memory)
    given, fixed = _dims(dims), _values(values, max_memory)
    if kind == "PyTorch":
        require_torch(name)
        require_onnxscript(name)
        from dcformat_interop import import_pt2

        return import_pt2(path, dims=given, values=fixed, single=single, exact=exact, max_memory=max_memory)
    require_onnx(name)
    from dcformat_interop import import_onnx

    return import_onnx(path, dims=given, values=fixed, single=single, exact=exact, max_memory=max_memory)


def check(
    imported: OnnxImport | TfliteImport, packed: bytes, max_memory: int | None = DEFAULT_MAX_MEMORY
) -> Comparison | LiteRTComparison | None:
    """Run a packed network and the model from which it was read; raise `UnfitError` if they differ.

    The result is None if nothing is installed that runs the model.
    """
    import dcformat_runtime

    session = dcformat_runtime.load(packed, max_memory=max_memory)
    return imported.check(session)


def describe(comparison: Comparison | LiteRTComparison | None) -> str:
    """Return the result of a check in a line."""
    if comparison is None:
        return "not checked, as LiteRT is not installed: pip install 'dcformat[tflite]'"
    return comparison.describe()


def _pairs(option: str, items: Sequence[str]) -> Mapping[str, str]:
    pairs: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not key or not equals or key in pairs:
            raise misuse(f"{option}: expected NAME=VALUE, each name once, found {item!r}")
        pairs[key] = value
    return pairs


def _dims(items: Sequence[str]) -> dict[str, int]:
    out = {}
    for name, size in _pairs("--dim", items).items():
        if not size.isascii() or not size.isdigit() or not 1 <= int(size) < 1 << 31:
            raise misuse(f"--dim {name}: expected a size of at least 1, found {size!r}")
        out[name] = int(size)
    return out


def _values(items: Sequence[str], max_memory: int | None) -> dict[str, npt.NDArray[Any]]:
    return {name: _value(name, text, max_memory) for name, text in _pairs("--set", items).items()}


def _value(name: str, text: str, max_memory: int | None) -> npt.NDArray[Any]:
    """Return the array that a text stands for: a number, numbers separated by commas, or @FILE in NumPy's format."""
    if text.startswith("@"):
        loaded = read_arrays(text[1:], max_memory)
        if isinstance(loaded, dict):
            raise UnfitError(text[1:], "a NumPy .npy array of numbers", "an .npz archive")
        return loaded
    try:
        numbers = [float(part) if set(part) & set(".en") else int(part) for part in text.split(",")]
    except ValueError:
        raise misuse(f"--set {name}: expected numbers separated by commas or @FILE, found {text!r}") from None
    return np.array(numbers if "," in text else numbers[0])
