"""The facts of a report, collected from an open file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from dcformat.errors import FormatError, MemoryLimitError, WorkLimitError
from dcformat_cli.report.chips import ProgramEstimate, estimate
from dcformat_cli.report.first_layer import FirstLayer, first_layer
from dcformat_cli.report.published import architecture
from dcformat_cli.report.sizes import GeneralCompressors, OtherSize, plain_sizes
from dcformat_cli.report.tensor_facts import Examined, examine

if TYPE_CHECKING:
    from dcformat import DcfFile
    from dcformat.contents import TensorInfo

#: Steps (about a nanosecond each) that a report spends on decoding tensors, the largest payloads first.
_MAX_WORK = 1 << 34
#: Maximum number of tensors that are decoded.
_MAX_TENSORS = 1000

#: Parts of a file, in the order of legends.
PARTS = {
    "positions": "where the entries are",
    "values": "codes into the codebook, or values where there is none",
    "codebooks": "the shared values",
    "tables": "code lengths, tables of chunks and padding",
    "payload": "tensors that were not examined",
    "contents": "names, shapes, the network and metadata",
    "checks": "the file's head, checksums and digest",
}

#: Called with the number of finished steps, the number of all steps, and what comes next.
ReportProgress = Callable[[int, int, str], None]


class TensorFacts(NamedTuple):
    """A tensor: its entry in the table of contents, and its decoded facts, or None with the reason."""

    info: TensorInfo
    examined: Examined | None
    reason: str = ""

    @property
    def parts(self) -> dict[str, float]:
        """Bytes of the payload by the names in `PARTS`."""
        if self.examined is None:
            return {"payload": float(self.info.payload_bytes)}
        usage = self.examined.usage
        bits = {
            "positions": usage.index_bits,
            "values": usage.code_bits,
            "codebooks": usage.codebook_bits,
            "tables": usage.table_bits,
        }
        return {part: each / 8 for part, each in bits.items() if each > 0}


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of a report about a file.

    Attributes
    ----------
    name : str
        The file as the user named it.
    file : DcfFile
        For facts that need no decoding.
    tensors : sequence of TensorFacts
        All tensors, in the file's order.
    sizes : sequence of OtherSize
        The same tensors in other formats.
    picture : FirstLayer or None
    picture_reason : str
        Why there is no picture.
    architecture : str or None
        The published network that the file holds.
    program : ProgramEstimate or str
        The needs of the network on a microcontroller, or why they are unknown.
    """

    name: str
    file: DcfFile
    tensors: Sequence[TensorFacts]
    sizes: Sequence[OtherSize]
    picture: FirstLayer | None
    picture_reason: str
    architecture: str | None
    program: ProgramEstimate | str

    @property
    def parameters(self) -> int:
        """Number of elements of all tensors."""
        return sum(tensor.info.size for tensor in self.tensors)

    @property
    def entries(self) -> int:
        """Number of stored elements of all tensors."""
        return sum(tensor.info.stored for tensor in self.tensors)

    @property
    def parts(self) -> Mapping[str, float]:
        """Bytes of the file by the names in `PARTS`; they add up to its size."""
        parts = dict.fromkeys(PARTS, 0.0)
        for tensor in self.tensors:
            for part, size in tensor.parts.items():
                parts[part] += size
        payloads = sum(tensor.info.payload_bytes for tensor in self.tensors)
        contents = sum(row.bytes for row in self.file.ledger() if row.what.startswith("contents"))
        parts["contents"] = float(contents)
        parts["checks"] = float(self.file.size - payloads - contents)
        return {part: size for part, size in parts.items() if size > 0}


def gather(name: str, file: DcfFile, max_memory: int | None, progress: ReportProgress) -> Facts:
    """Examine a file.

    Tensors that would take too long or more than the file's limits are not decoded, and the facts say so.

    Parameters
    ----------
    name : str
        The file as the user named it.
    file : DcfFile
    max_memory : int or None
        The limit with which it was opened.
    progress : callable

    Raises
    ------
    FormatError
        A tensor is damaged.
    """
    infos = [file.info(each) for each in file.names]
    chosen, reasons = _chosen(file, infos)
    total = sum(info.nbytes for info in infos if info.copy_of is None)
    compressors, examined = GeneralCompressors(total), {}
    steps = len(chosen) + 3  # the first layer, microcontrollers, and the page that the caller makes
    for done, info in enumerate(chosen):
        progress(done, steps, info.name)
        examined[info.name] = _facts(file, info, compressors)
    tensors = [examined.get(info.name) or TensorFacts(info, None, reasons[info.name]) for info in infos]
    progress(len(chosen), steps, "the first layer")
    picture, why = _picture(file)
    progress(len(chosen) + 1, steps, "microcontrollers")
    program = estimate(file, max_memory)
    sizes = [*plain_sizes(file), *compressors.finish()]
    progress(steps - 1, steps, "the page")
    return Facts(name, file, tensors, sizes, picture, why, architecture(file), program)


def _chosen(file: DcfFile, infos: Sequence[TensorInfo]) -> tuple[list[TensorInfo], dict[str, str]]:
    """Return the tensors to decode, the largest payloads for which there is time, and the reasons for the others."""
    chosen, reasons, left = [], {}, _MAX_WORK
    for number, info in enumerate(sorted(infos, key=lambda info: -info.payload_bytes)):
        reasons[info.name] = f"{_MAX_TENSORS:,} others are larger"
        if number >= _MAX_TENSORS:
            continue
        try:
            work = 0 if info.copy_of else file.work(info.name)
        except (MemoryLimitError, WorkLimitError) as error:
            reasons[info.name] = _limit(error)
            continue
        reasons[info.name] = "decoding it would take too long"
        if work <= left:
            left -= work
            chosen.append(info)
    return chosen, reasons


def _limit(error: FormatError) -> str:
    return f"it {error.headline}: {error.got}, with a limit of {error.expected}"


def _facts(file: DcfFile, info: TensorInfo, compressors: GeneralCompressors) -> TensorFacts:
    feed = (lambda pieces: None) if info.copy_of else partial(compressors.feed, info)
    try:
        return TensorFacts(info, examine(file, info.name, feed))
    except (MemoryLimitError, WorkLimitError) as error:
        return TensorFacts(info, None, _limit(error))


def _picture(file: DcfFile) -> tuple[FirstLayer | None, str]:
    try:
        return first_layer(file), "The first layer is no picture, holds only zeros, or is too large for a picture."
    except (MemoryLimitError, WorkLimitError) as error:
        return None, f"The first layer {error.headline}."
