"""The sizes of the same tensors in other formats: plain, compressed with general compressors, and in eight bits."""

from __future__ import annotations

import importlib
import lzma
import zlib
from collections.abc import Iterable
from contextlib import suppress
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from dcformat.model import STORAGE

if TYPE_CHECKING:
    from dcformat import DcfFile
    from dcformat.contents import TensorInfo

Array = npt.NDArray[Any]

#: Maximum number of bytes of dense tensors that are compressed; beyond that, sizes are estimated from their beginnings.
_SAMPLE = 8 << 20


class OtherSize(NamedTuple):
    """The size of the tensors in another format; `exact` is false for an estimate from a sample."""

    name: str
    bytes: int
    exact: bool = True


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class GeneralCompressors:
    """Compresses the dense form of tensors with zlib, xz and, if it is installed, Zstandard.

    Parameters
    ----------
    total : int
        Bytes of the dense form of all tensors.
    """

    def __init__(self, total: int) -> None:
        self._total, self._fed = total, 0
        self._share = min(1.0, _SAMPLE / total) if total else 1.0
        self._compressors = _compressors()
        self._sizes = dict.fromkeys(self._compressors, 0)

    def feed(self, info: TensorInfo, pieces: Iterable[Array]) -> None:
        """Compress a tensor, or its beginning if all tensors together are too large."""
        item = STORAGE[info.dtype].itemsize
        left = ceil(self._share * info.size)
        for piece in pieces:
            part = np.ascontiguousarray(piece[:left]).tobytes()
            self._fed, left = self._fed + len(part), left - len(part) // item
            for name, compressor in self._compressors.items():
                self._sizes[name] += len(compressor.compress(part))
            if left <= 0:
                return

    def finish(self) -> list[OtherSize]:
        """Return the sizes, scaled from what was fed to all tensors; none if nothing was fed."""
        if not self._fed:
            return []
        found = []
        for name, compressor in self._compressors.items():
            size = self._sizes[name] + len(compressor.flush())
            found.append(OtherSize(name, round(size * self._total / self._fed), self._fed == self._total))
        return found


def _compressors() -> dict[str, _Compressor]:
    found: dict[str, _Compressor] = {"zlib -9": zlib.compressobj(9), "xz -6": lzma.LZMACompressor(preset=6)}
    with suppress(ImportError):
        found["zstd -19"] = importlib.import_module("zstandard").ZstdCompressor(level=19).compressobj()
    return found


def plain_sizes(file: DcfFile) -> list[OtherSize]:
    """Return the sizes that follow from the table of contents: safetensors, CSR, and eight bits for each weight."""
    from dcformat_interop.archives import safetensors_header

    infos = [file.info(name) for name in file.names]
    header, names = safetensors_header("safetensors", file)
    dense = sum(info.nbytes for info in map(file.info, names))
    found = [OtherSize("safetensors, same dtypes", len(header) + dense)]
    if any(info.form == "sparse" for info in infos):
        found.append(OtherSize("sparse rows (CSR), 4 bytes an index and a value", sum(map(_csr_bytes, infos))))
    if infos and all(info.dtype in ("float32", "float16", "bfloat16") for info in infos):
        found.append(OtherSize("dense int8, a scale for each tensor", sum(info.size + 4 for info in infos)))
    return found


def _csr_bytes(info: TensorInfo) -> int:
    if info.form != "sparse":
        return info.nbytes
    return 8 * info.stored + 4 * (info.rows + 1)
