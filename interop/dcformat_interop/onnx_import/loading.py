"""Loads ONNX files: the protobuf, its tensors, and external data, all of which is checked before it is read."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat_interop.refusals import UnfitError
from dcformat_interop.tensors import Budget

Array = npt.NDArray[Any]

#: The oldest operator set that is read.
LEAST_OPSET = 7


def load_model(path: str, data: bytes) -> Any:
    """Parse a ModelProto. Raises `UnfitError` if the bytes are not one, or have no graph or operator set."""
    if not data:
        raise UnfitError(path, "an ONNX model", "an empty file")
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, ValueError) as error:
        raise UnfitError(path, "an ONNX model", f"truncated or damaged bytes ({error})") from None
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise UnfitError(path, "an ONNX model", "one without a graph")
    versions = opset_versions(model)
    if "" not in versions:
        raise UnfitError(path, "an operator set of ONNX", "none")
    newest = onnx.defs.onnx_opset_version()
    if not LEAST_OPSET <= versions[""] <= newest:
        expected = f"ONNX operator set {LEAST_OPSET} to {newest}"
        raise UnfitError(path, expected, f"{versions['']} (convert it: onnx.version_converter.convert_version)")
    return model


def opset_versions(proto: Any) -> dict[str, int]:
    """Return the version of each domain that a model or function imports."""
    return {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in proto.opset_import}


class TensorLoader:
    """Turns TensorProtos into arrays.

    Parameters
    ----------
    path : str
        The model, for errors.
    folder : Path or None
        The folder that external data must be in; None refuses external data.
    budget : Budget
        Counts the bytes of all tensors.
    """

    def __init__(self, path: str, folder: Path | None, budget: Budget) -> None:
        self._path, self._folder, self._budget = path, folder, budget

    def array(self, tensor: Any, name: str = "") -> Array:
        """Return a tensor's values."""
        import onnx
        from onnx import numpy_helper

        what = f"tensor {tensor.name or name!r}"
        if any(size < 0 for size in tensor.dims):
            raise UnfitError(self._path, "dimensions of at least 0", tuple(tensor.dims), what)
        if tensor.data_type == onnx.TensorProto.STRING:
            strings: Array = np.array(list(tensor.string_data), object)
            return strings
        if tensor.data_type not in onnx.TensorProto.DataType.values() or not tensor.data_type:
            raise UnfitError(self._path, "a dtype of ONNX", f"number {tensor.data_type}", what)
        try:
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                return self._external(tensor, dtype, what)
            self._budget.take(tensor.ByteSize(), what)
            loaded: Array = numpy_helper.to_array(tensor)
        except UnfitError:
            raise
        except (ValueError, TypeError, KeyError) as error:
            reason = str(error).partition("\n")[0]
            raise UnfitError(self._path, f"the {prod(tensor.dims):,} values of its shape", reason, what) from None
        return loaded

    def sparse(self, tensor: Any) -> Array:
        """Return a sparse tensor's values in dense form."""
        what = f"sparse tensor {tensor.values.name!r}"
        shape = tuple(tensor.dims)
        values, indices = self.array(tensor.values), self.array(tensor.indices)
        size = prod(shape)
        if any(length < 1 for length in shape) or values.ndim != 1:
            raise UnfitError(self._path, "a shape without 0 and a list of values", (shape, values.shape), what)
        self._budget.take(size * values.itemsize, what)
        if indices.shape == (len(values), len(shape)) and indices.ndim == 2:
            if (indices < 0).any() or (indices >= np.array(shape)).any():
                raise UnfitError(self._path, f"indices inside {shape}", "others", what)
            flat = np.ravel_multi_index(tuple(indices.T), shape)
        elif indices.shape == values.shape:
            flat = indices
            if (flat < 0).any() or (flat >= size).any():
                raise UnfitError(self._path, f"indices below {size}", "others", what)
        else:
            raise UnfitError(self._path, "an index for each value", f"shape {indices.shape}", what)
        if len(np.unique(flat)) != len(flat):
            raise UnfitError(self._path, "different indices", "one that appears again", what)
        dense = np.zeros(size, values.dtype)
        dense[flat] = values
        return dense.reshape(shape)

    def _external(self, tensor: Any, dtype: np.dtype[Any], what: str) -> Array:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        file = self._external_file(entries.get("location", ""), what)
        count = prod(tensor.dims)
        bits = 4 if dtype.name in ("int4", "uint4", "float4_e2m1fn") else 8 * dtype.itemsize
        need, size = (count * bits + 7) // 8, file.stat().st_size
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", need))
        except ValueError:
            raise UnfitError(self._path, "numbers as offset and length", entries, what) from None
        if offset < 0 or length != need or offset > size - length:
            found = f"{length:,} from {offset:,} of a file of {size:,}"
            raise UnfitError(self._path, f"{need:,} bytes of external data", found, what)
        if bits == 4:
            raise UnfitError(self._path, "numbers of at least 8 bits as external data", dtype.name, what)
        self._budget.take(length, what)
        with file.open("rb") as opened:
            opened.seek(offset)
            values = np.frombuffer(opened.read(length), dtype.newbyteorder("<") if dtype.kind in "iuf" else dtype)
        return values.reshape(tuple(tensor.dims))

    def _external_file(self, location: str, what: str) -> Path:
        """Return the file with external data; neither its name nor a link may lead out of the folder."""
        if self._folder is None:
            raise UnfitError(
                self._path, "tensors inside the model, which is not read from a file", repr(location), what
            )
        parts = Path(location).parts
        if not location or Path(location).is_absolute() or ".." in parts or "\\" in location or "\0" in location:
            raise UnfitError(self._path, "external data in the model's folder", repr(location), what)
        folder = self._folder.resolve()
        file = (folder / location).resolve()
        if not file.is_relative_to(folder):
            raise UnfitError(self._path, "external data in the model's folder", f"{location!r}, a link out of it", what)
        if not file.is_file():
            raise UnfitError(self._path, "external data in a file", f"{location!r}, which is none", what)
        return file
