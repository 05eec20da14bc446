"""Reading a user's checkpoint: names, dtypes and values as they are, or a clear refusal.

Nothing that is read here can run code: NumPy's pickles are refused, PyTorch files are loaded with
``weights_only``.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.model import STORAGE
from dcformat_cli.failures import InputError, require_torch
from dcformat_cli.terminal import note, warn

Array = npt.NDArray[Any]

#: What a `.dcf` file can hold, for messages.
_EXPECTED = "float32, float16, bfloat16 or int8"

_SAFETENSORS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "|i1", "F64": "<f8"}

#: Where the scale of a scaled int8 tensor is among a safetensors file's metadata: the tensor's name and this.
SCALE_SUFFIX = ".dcformat_scale"

#: Where training scripts put the state_dict among other things.
_NESTED = ("state_dict", "model_state_dict", "model", "net")


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """A tensor of a checkpoint: `values` in ``STORAGE[dtype]``, of its shape; `scale` is for int8."""

    dtype: str
    values: Array
    scale: float = 1.0


def read_checkpoint(path: Path) -> dict[str, Dense]:
    """Read a state_dict from ``.safetensors``, ``.npz``, ``.pt`` or ``.pth``, pruning masks folded.

    Raises
    ------
    InputError
        Another kind of file, a damaged one, a tensor of a dtype that cannot be kept, NaN or infinite values.
    OSError
        The file cannot be read.
    """
    readers = {".safetensors": _read_safetensors, ".npz": _read_npz, ".pt": _read_torch, ".pth": _read_torch}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(path, f"a checkpoint ending in {', '.join(readers)} or .net", path.suffix or "no extension")
    with path.open("rb"):  # a missing file is one error for all kinds
        pass
    raw: dict[str, Dense] = {}
    for name, dense in reader(path):
        if name.endswith("num_batches_tracked"):
            note(f"{name} left out: a counter that only training uses")
            continue
        raw[name] = _checked(path, name, dense)
    if not raw:
        raise InputError(path, "at least one tensor", "none")
    return _fold_masks(path, raw)


def _read_safetensors(path: Path) -> Iterator[tuple[str, Dense]]:
    from safetensors import SafetensorError, deserialize

    raw = path.read_bytes()
    try:
        entries = deserialize(raw)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise InputError(path, "a safetensors file", f"a damaged or different one ({error})") from None
    scales = _scales(path, raw)
    for name, entry in entries:
        code = _SAFETENSORS.get(entry["dtype"])
        if code is None:
            raise InputError(path, _EXPECTED, entry["dtype"], name)
        dtype = "bfloat16" if entry["dtype"] == "BF16" else np.dtype(code).name
        values = np.frombuffer(entry["data"], code).reshape(entry["shape"])
        yield name, Dense(dtype, values, scales.get(name, 1.0) if dtype == "int8" else 1.0)


def _scales(path: Path, raw: bytes) -> dict[str, float]:
    """Return the scales of int8 tensors that `dcformat unpack` left in the metadata of a valid file."""
    start = 8 + int.from_bytes(raw[:8], "little")
    metadata = json.loads(raw[8:start]).get("__metadata__") or {}
    scales = {}
    for key, value in metadata.items():
        if key.endswith(SCALE_SUFFIX):
            try:
                scales[key.removesuffix(SCALE_SUFFIX)] = float(value)
            except ValueError:
                raise InputError(path, "a number", repr(value), key) from None
    return scales


def _read_npz(path: Path) -> Iterator[tuple[str, Dense]]:
    try:
        # Opened here: where np.load fails, it leaves a file that it opened itself open.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise TypeError("a single array")
            for name in archive.files:
                values = archive[name]
                if not isinstance(values, np.ndarray):
                    raise TypeError(f"{name!r}, which is not an array")
                yield name, Dense(values.dtype.name, values)
    except (MemoryError, InputError):
        raise
    except Exception as error:  # zipfile, zlib and NumPy's header parser raise whatever they meet
        raise InputError(path, "a NumPy .npz archive of plain arrays", str(error) or type(error).__name__) from None


def _read_torch(path: Path) -> Iterator[tuple[str, Dense]]:
    require_torch(f"{path}: reading a {path.suffix} file")
    import torch

    try:
        with warnings.catch_warnings():  # of a pickle protocol that it does not know: it may still be read
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        found = "a file that would run code or is damaged (save model.state_dict())"
        raise InputError(path, "a PyTorch state_dict that loads with weights_only=True", found) from None
    except (RuntimeError, EOFError, KeyError, ValueError, AttributeError, OSError) as error:
        found = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(path, "a PyTorch state_dict", f"a damaged or different file ({found})") from None
    state = _nested(loaded)
    if not isinstance(state, Mapping):
        raise InputError(path, "a state_dict (names to tensors)", type(state).__name__)
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor):
            raise InputError(path, "a tensor", type(tensor).__name__, str(name))
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_complex():
            raise InputError(path, "a dense, real tensor", f"{tensor.layout}, {tensor.dtype}", str(name))
        plain = tensor.detach().contiguous()
        if plain.dtype is torch.bfloat16:
            yield str(name), Dense("bfloat16", plain.view(torch.int16).numpy().view("<u2"))
        else:
            yield str(name), Dense(str(plain.dtype).removeprefix("torch."), plain.numpy())


def _nested(loaded: Any) -> Any:
    """Return the state_dict within a training checkpoint, or what was loaded if it is one itself."""
    if isinstance(loaded, Mapping):
        for key in _NESTED:
            if isinstance(loaded.get(key), Mapping):
                note(f"the state_dict was found under {key!r}")
                return loaded[key]
    return loaded


def _checked(path: Path, name: str, dense: Dense) -> Dense:
    dtype, values = dense.dtype, dense.values
    if dtype == "float64":
        single = values.astype("<f4")
        if np.isfinite(values).all() and not np.array_equal(single.astype("<f8"), values):
            raise InputError(path, f"{_EXPECTED}", "float64 values that float32 cannot hold exactly", name)
        dtype, values = "float32", single
    if dtype not in STORAGE:
        raise InputError(path, _EXPECTED, dtype, name)
    values = np.ascontiguousarray(values, STORAGE[dtype]).reshape(values.shape)
    finite = (values & 0x7F80) != 0x7F80 if dtype == "bfloat16" else np.isfinite(values)
    if not finite.all():
        raise InputError(path, "finite values", f"NaN or infinity in {int((~finite).sum())} places", name)
    return Dense(dtype, values, dense.scale)


def _fold_masks(path: Path, tensors: Mapping[str, Dense]) -> dict[str, Dense]:
    """Fold what `torch.nn.utils.prune` leaves behind: NAME_orig where NAME_mask is 1, else zero."""
    out: dict[str, Dense] = {}
    folded = 0
    for name, dense in tensors.items():
        stem = name.removesuffix("_orig")
        mask = tensors.get(f"{stem}_mask") if stem != name else None
        if mask is not None:
            if stem in tensors:
                raise InputError(path, "one of the two", f"also {stem!r}", name)
            out[stem] = Dense(dense.dtype, _masked(path, stem, dense.values, mask.values))
            folded += 1
        elif not (name.endswith("_mask") and f"{name.removesuffix('_mask')}_orig" in tensors):
            out[name] = dense
    if folded:
        note(f"{folded} pruning mask{'s' * (folded > 1)} (NAME_orig, NAME_mask) folded into the weights")
    for name, dense in out.items():
        if name.endswith("mask") and np.isin(dense.values, (0, 1)).all():
            warn(f"{name} looks like a pruning mask that was left in: it takes room and is not applied")
    return out


def _masked(path: Path, name: str, values: Array, mask: Array) -> Array:
    if mask.shape != values.shape:
        raise InputError(path, f"a mask of shape {values.shape}", mask.shape, f"{name}_mask")
    if not np.isin(mask, (0, 1)).all():
        raise InputError(path, "a mask of zeros and ones", "other values", f"{name}_mask")
    return np.where(mask != 0, values, values.dtype.type(0))
