"""The units of work that packing is divided into, and their results; both travel between processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from dcformat.codecs import Mode
from dcformat.codecs.payload_layout import parse_payload
from dcformat.codecs.payload_reader import read_payload
from dcformat.contents import TensorInfo, parse_entry
from dcformat.contents_writer import EntryHead
from dcformat.dense import from_dense
from dcformat.digest import tensor_digest
from dcformat.floats import bit_patterns
from dcformat.forms import has_many_zeros, smallest
from dcformat.model import Tensor
from dcformat.piecewise import PIECES_FROM, CodedChunk, Survey, code_chunk, survey
from dcformat.read_back import ReadBackError
from dcformat_interop.packing.elements import FileElements, Findings
from dcformat_interop.tensors import Array

#: Small tensors are coded together, up to this number and these bytes, because sending a unit takes time.
_TOGETHER, _TOGETHER_BYTES = 256, 1 << 22

#: Bytes of memory that coding a whole tensor takes for each of its elements, and for each of their bytes.
_WORKING, _HELD = 40, 3


@dataclass(frozen=True, slots=True)
class WholeTensors:
    """Tensors that are coded whole, each as `dcformat.save` would."""

    elements: tuple[FileElements, ...]
    mode: Mode


@dataclass(frozen=True, slots=True)
class SurveyOfTensor:
    """The first look at a tensor that is coded in pieces."""

    elements: FileElements
    mode: Mode


@dataclass(frozen=True, slots=True, eq=False)
class ChunkOfTensor:
    """A chunk of a surveyed tensor."""

    elements: FileElements
    survey: Survey
    number: int


Unit = WholeTensors | SurveyOfTensor | ChunkOfTensor


@dataclass(frozen=True, slots=True, eq=False)
class CodedWhole:
    """A tensor that was coded whole: the beginning of its table entry, its digest, and its payload."""

    name: str
    head: bytes
    digest: bytes
    payload: bytes
    findings: Findings


@dataclass(frozen=True, slots=True, eq=False)
class Surveyed:
    """A survey, and the findings on the way; the elements are those from which chunks are made."""

    elements: FileElements
    survey: Survey
    findings: Findings


UnitResult = list[CodedWhole] | Surveyed | CodedChunk


def is_large(elements: FileElements) -> bool:
    """Return whether a tensor is coded in pieces."""
    return elements.size > PIECES_FROM


def working_bytes(elements: FileElements) -> int:
    """Return the bytes of memory that it takes to code a tensor whole."""
    return _HELD * elements.nbytes + _WORKING * elements.size


def divided(elements: Sequence[FileElements], mode: Mode) -> Iterator[Unit]:
    """Yield the first units of work on tensors, in their order."""
    together: list[FileElements] = []
    held = 0
    for each in elements:
        if together and (len(together) == _TOGETHER or held + each.nbytes > _TOGETHER_BYTES or is_large(each)):
            yield WholeTensors(tuple(together), mode)
            together, held = [], 0
        if is_large(each):
            yield SurveyOfTensor(each, mode)
            continue
        together.append(each)
        held += each.nbytes
    if together:
        yield WholeTensors(tuple(together), mode)


def run(unit: Unit) -> UnitResult:
    """Do a unit of work.

    Raises
    ------
    UnfitError, OSError
        The file cannot be read, or has changed.
    FormatError
        A tensor is beyond a limit of the format.
    ReadBackError
        The coded data do not decode to the same values.
    """
    if isinstance(unit, WholeTensors):
        return [_code(each, unit.mode) for each in unit.elements]
    if isinstance(unit, SurveyOfTensor):
        findings, elements = Findings(), unit.elements.decided()
        return Surveyed(elements, survey(elements, unit.mode, elements.pieces(findings)), findings)
    return code_chunk(unit.elements, unit.survey, unit.number)


def _code(elements: FileElements, mode: Mode) -> CodedWhole:
    findings, elements = Findings(), elements.decided()
    pieces = list(elements.pieces(findings))
    values = np.concatenate(pieces) if len(pieces) > 1 else pieces[0] if pieces else elements.read(0, 0)
    given = Tensor(elements.name, elements.shape, elements.dtype, values, scale=elements.scale)
    if has_many_zeros(given):
        given = from_dense(given.name, values.reshape(given.shape), given.dtype, given.scale, exact=True)
    stored, payload = smallest(given, mode)
    head = bytes(EntryHead.of(stored))
    _compare(head, payload, values)
    return CodedWhole(elements.name, head, tensor_digest(given), payload, findings)


def _compare(head: bytes, payload: bytes, values: Array) -> None:
    """Raise unless a payload decodes to the values."""
    info: TensorInfo = parse_entry(head, len(payload))
    made: Tensor = read_payload(parse_payload(info, np.frombuffer(payload, np.uint8)))
    flat = made.to_dense(max_memory=None).reshape(-1)
    if len(flat) != prod(info.shape) or not np.array_equal(bit_patterns(flat), bit_patterns(values)):
        raise ReadBackError(f"{info.name}: expected the checkpoint's values when read back, found others")
