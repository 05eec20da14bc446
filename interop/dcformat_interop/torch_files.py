"""Reads torch.save's files with PyTorch's own reader for tensors only (``weights_only``), which runs no code.

Objects that the reader does not know (hyperparameters, NumPy scalars, whole modules) become inert placeholders: they
are left out, and the tensors beside them can be read.
"""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from typing import TYPE_CHECKING, Any, BinaryIO

from dcformat.limits import is_array_shape
from dcformat.model import STORAGE
from dcformat.source import ClippedFile
from dcformat_interop.nesting import find_state
from dcformat_interop.refusals import MissingTorchError, UnfitError
from dcformat_interop.tensors import SKIPPED, Budget, Dense, Raw, Skip

if TYPE_CHECKING:
    import torch

#: Before this version, a file could make ``weights_only`` run code (CVE-2025-32434).
_SAFE_SINCE = (2, 6)

_EXPECTED = "a state_dict saved by torch.save"

#: The attribute that marks a directory for PyTorch's zip reader, which then returns no data.
_IS_DIRECTORY = 0x10

#: Number of entries beside a state_dict that a note names.
_NAMED = 8

#: Number of bytes of an archive that are checked at a time.
_PART = 1 << 20


class _Inert:
    """A placeholder for an object whose class is not loaded: it takes any arguments and state, and keeps none."""

    def __new__(cls, *args: object, **kwargs: object) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    @classmethod
    def of(cls, name: str) -> type[_Inert]:
        """Return the placeholder for the class called ``module.name``."""
        module, _, own = name.rpartition(".")
        return type(own, (cls,), {"__module__": module})


def read_torch(path: str, file: BinaryIO, zipped: bool, key: str | None, skip: Skip, budget: Budget) -> Raw:
    """Read the state_dict in a file that torch.save wrote.

    Parameters
    ----------
    path : str
        The file, for errors.
    file : binary file object
    zipped : bool
        Whether the file is a zip archive, which PyTorch has written since version 1.6.
    key : str or None
        The mapping to take from the file; needed if several hold tensors.
    skip : callable
    budget : Budget

    Raises
    ------
    UnfitError
        The file is damaged, has no mapping of tensors or several, or has two keys of one name; a tensor has no plain
        array of elements (sparse, quantized, nested, meta); or the bytes exceed the budget.
    MissingTorchError
        PyTorch is missing or too old.
    """
    torch = _torch(path)
    if zipped:
        _check_archive(path, file, budget)
    else:
        budget.take(file.seek(0, os.SEEK_END))
    loaded = _load(path, file, zipped)
    place, state = find_state(path, loaded, key, lambda v: isinstance(v, torch.Tensor))
    raw = Raw(notes=[_found(place, loaded)] if place else [])
    keys: dict[str, Any] = {}
    for own, value in state.items():
        if not isinstance(own, str | int) or isinstance(own, bool):
            raise UnfitError(path, "text or integers as names", repr(own))
        name = str(own)
        if name in keys:
            raise UnfitError(path, "one tensor of each name", f"the keys {keys[name]!r} and {own!r}", name)
        keys[name] = own
        found = SKIPPED if skip(name) else _dense(path, name, value, budget)
        if isinstance(found, str):
            raw.left_out[name] = found
        else:
            raw.entries[name] = found
    return raw


def _torch(path: str) -> Any:
    why = f"{path}: reading a PyTorch file needs PyTorch {'.'.join(map(str, _SAFE_SINCE))} or newer"
    try:
        import torch
    except ImportError as error:
        raise MissingTorchError(f"{why}: pip install 'dcformat[pruning]' ({error})") from None
    version = str(torch.__version__)
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < _SAFE_SINCE:
        raise MissingTorchError(f"{why}, because older versions can be made to run code; found {version}")
    return torch


def _check_archive(path: str, file: BinaryIO, budget: Budget) -> None:
    """Check the checksums of the members, because PyTorch does not: it would silently return wrong values."""
    try:
        with zipfile.ZipFile(file) as archive:
            budget.take(sum(info.file_size for info in archive.infolist()))
            for info in archive.infolist():
                if info.external_attr & _IS_DIRECTORY:
                    raise UnfitError(path, _EXPECTED, f"a damaged archive ({info.filename} is a directory)")
                if info.CRC:  # PyTorch writes zero if its user has switched checksums off.
                    with archive.open(info) as member:
                        while member.read(_PART):
                            pass
    except UnfitError:
        raise
    except Exception as error:  # zipfile and zlib raise many classes of errors.
        found = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnfitError(path, _EXPECTED, f"a damaged archive ({found})") from None


def _found(place: str, loaded: Any) -> str:
    """Return a note on the place of the state_dict, and on the other entries of a training script's file."""
    others = [str(name) for name in loaded if not f"{place}.".startswith(f"{name}.")]
    named = ", ".join(map(repr, others[:_NAMED])) + (", ..." if len(others) > _NAMED else "")
    return f"the state_dict was found under {place!r}{f'; left out: {named}' if others else ''}"


def _load(path: str, file: BinaryIO, zipped: bool) -> Any:
    from torch import load, serialization

    try:
        with (
            warnings.catch_warnings()
        ):  # The warnings are about unknown pickle protocols, which PyTorch may still read.
            warnings.simplefilter("ignore")
            clipped: Any = ClippedFile(file)
            unknown = serialization.get_unsafe_globals_in_checkpoint(clipped) if zipped else []
            inert = [(_Inert.of(name), name) for name in unknown]
            clipped.seek(0)
            with serialization.safe_globals(inert):  # type: ignore[arg-type]
                return load(clipped, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # PyTorch raises many classes of errors, and suggests unsafe loading.
        found = f"one that holds other objects or is damaged ({type(error).__name__}): save model.state_dict()"
        raise UnfitError(path, _EXPECTED, found) from None


def _dense(path: str, name: str, value: Any, budget: Budget) -> Dense | str:
    """Return a tensor's values, or a description of the value if NumPy cannot express it."""
    import torch

    if not isinstance(value, torch.Tensor | _Inert):
        return "None" if value is None else type(value).__name__
    odd = _odd(value)
    if odd:
        raise UnfitError(path, "a plain, dense tensor", f"{odd} (make it dense before saving, or skip it)", name)
    if isinstance(value, _Inert):
        kind = f"{type(value).__module__}.{type(value).__name__}"
        return "a NumPy object" if kind.startswith("numpy.") else kind
    if not value.is_contiguous() or value.is_neg() or value.is_conj():
        budget.take(value.numel() * value.element_size(), name)
    plain = value.detach().resolve_conj().resolve_neg().contiguous()
    if plain.dtype is torch.bfloat16:
        return Dense("bfloat16", plain.view(torch.int16).numpy().view("<u2"))
    dtype = str(plain.dtype).removeprefix("torch.")
    if dtype.startswith("float8") and dtype in STORAGE:
        return Dense(dtype, plain.view(torch.uint8).numpy())
    try:
        return Dense(dtype, plain.numpy())
    except TypeError:  # NumPy lacks the dtype.
        return dtype


def _odd(value: torch.Tensor | _Inert) -> str:
    """Return why a tensor is not a plain array of elements, or an empty string if it is one."""
    import torch

    if isinstance(value, _Inert):  # PyTorch's own tensors of other kinds, not the user's objects
        own = type(value).__module__.partition(".")[0] == "torch"
        return f"a {type(value).__module__}.{type(value).__name__}" if own else ""
    if type(value) not in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer):
        return f"a {type(value).__name__}"
    if value.is_nested:
        return "a nested one"
    if value.is_quantized:
        return "a quantized one"
    if value.layout is not torch.strided:
        return "a sparse one"
    if not is_array_shape(value.shape, value.element_size()):
        return f"one of shape {tuple(value.shape)}, which NumPy does not support,"
    return "one without data (meta)" if value.is_meta else ""
