"""Deltas: what changes from one file, the base, to another (spec, "Deltas")."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs import Mode
from dcformat.codecs.difference_writer import write_difference
from dcformat.codecs.differences import PIECE_BYTES, apply_difference
from dcformat.codecs.value_blocks import require_bools
from dcformat.contents import TensorInfo, parse_sections, small_sections
from dcformat.cursor import Cursor
from dcformat.delta_codec import whole_sections
from dcformat.digest import ContentDigest, tensor_digest
from dcformat.errors import BaseError, ChecksumError, DeltaError, DuplicateError, EncodingError, FormatError
from dcformat.forms import smallest
from dcformat.limits import memory_counts, require_memory
from dcformat.model import STORAGE, Delta, Model, Origin, Step, Tensor, require_no_delta
from dcformat.reader import DcfFile, open_file
from dcformat.records import replace
from dcformat.source import Source

Array = npt.NDArray[Any]
E = TypeVar("E", bound=FormatError)

#: A larger tensor that changes is stored whole.
_LARGEST = 1 << 30
#: A difference of at most this share of the elements' bytes is taken without trying the whole tensor.
_CLEARLY = 8


def delta(new: Model, base: Source | DcfFile, *, mode: Mode = "fast") -> Model:
    """Return the delta that makes `new` of a base; `save` it like any model, and `apply` makes `new` of it again.

    Parameters
    ----------
    new : Model
    base : path, bytes-like, binary file object or DcfFile
        Its tensors are compared with those of `new` by name, and by content if the name is not there.
    mode : {'fast', 'small', 'tiny'}
        The mode in which the delta will be saved, for the choice between differences and whole tensors.

    Raises
    ------
    DeltaError
        One of the two is a delta itself.
    FormatError
        The base is damaged.
    """
    if new.delta is not None:
        raise DeltaError("new model", got="a delta", expected="a model (apply the delta first)")
    with _opened(base) as file:
        return _delta(new, file, mode)


def apply(
    delta: Source | DcfFile,
    base: Source | DcfFile,
    *,
    max_memory: int | None = layout.DEFAULT_MAX_MEMORY,
    max_work: int | None = layout.DEFAULT_MAX_WORK,
) -> Model:
    """Return the model that a delta makes of its base.

    Parameters
    ----------
    delta, base : path, bytes-like, binary file object or DcfFile
    max_memory, max_work : int or None
        As in `load`; an open file also has the limits with which it was opened.

    Returns
    -------
    Model
        Equal to the model of which the delta was made in its tensors (bit for bit), graph, labels, metadata, self-test
        and content digest.

    Raises
    ------
    BaseError
        The delta belongs to another base.
    DeltaError
        `delta` is no delta.
    FormatError
        Either file is damaged, or needs more memory or work than allowed.
    """
    with _opened(delta, max_memory, max_work) as change, _opened(base, max_memory, max_work) as file:
        return _Application(change, file, max_memory, max_work).model()


@contextmanager
def _opened(source: Source | DcfFile, max_memory: int | None = None, max_work: int | None = None) -> Iterator[DcfFile]:
    if isinstance(source, DcfFile):
        yield source
        return
    with open_file(source, max_memory=max_memory, max_work=max_work) as file:
        yield file


# --- making ---------------------------------------------------------------------------------------------------------


def _delta(new: Model, base: DcfFile, mode: Mode) -> Model:
    require_no_delta(base.delta, base.path)
    known = {name: (number, tensor_digest(base.tensor(name))) for number, name in enumerate(base.names)}
    places = {digest: number for number, digest in reversed(known.values())}
    sections = small_sections(new)
    digest = ContentDigest(sections)
    tensors: dict[str, Tensor] = {}
    steps: list[Step] = []
    for name, tensor in new.tensors.items():
        content = tensor_digest(tensor)
        digest.add(name, content)
        if name in known and known[name][1] == content:
            _extend(steps, Step("kept", 1, known[name][0]))
            continue
        number = places.get(content, known[name][0] if name in known else None)
        made = None if number is None else _difference(tensor, base, number, mode)
        if made is None or number is None:
            tensors[name] = tensor
            _extend(steps, Step("new", 1))
        else:
            tensors[name] = made
            scale = tensor.scale if tensor.scale != base.info(base.names[number]).scale else None
            _extend(steps, Step("changed", 1, 0, (Origin(number, scale),)))
    there = dict(base.sections())
    kept = tuple((kind, None if there.get(kind) == body else body) for kind, body in sections)
    return Model(tensors, delta=Delta(base.digest, digest.take(), kept, tuple(steps)))


def _extend(steps: list[Step], step: Step) -> None:
    """Append a step of one tensor; it becomes a part of the last step if that goes on with it."""
    last = steps[-1] if steps else None
    if last is None or last.kind != step.kind or (step.kind == "kept" and last.first + last.count != step.first):
        steps.append(step)
    else:
        steps[-1] = replace(last, count=last.count + 1, origins=last.origins + step.origins)


def _difference(tensor: Tensor, base: DcfFile, number: int, mode: Mode) -> Tensor | None:
    """Return a tensor's difference from one of the base, or None if they are not alike or the tensor is smaller."""
    name = base.names[number]
    info = base.info(name)
    if (info.dtype, info.shape) != (tensor.dtype, tensor.shape) or tensor.size > _LARGEST:
        return None
    origin = _elements(base.tensor(name))
    made = write_difference(_elements(tensor), origin, tensor.dtype, tensor.shape)
    if len(made) * _CLEARLY > tensor.nbytes and len(made) > len(smallest(tensor, mode)[1]):
        return None
    return Tensor(tensor.name, (len(made),), "uint8", np.frombuffer(made, np.uint8))


def _elements(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.to_dense(max_memory=None)).reshape(-1)


def _of(file: DcfFile, error: E) -> E:
    """Return an error with the name of its file."""
    error.path = error.path or file.path
    return error


# --- applying -------------------------------------------------------------------------------------------------------


class _Application:
    """A delta and the base to which it is applied."""

    def __init__(self, change: DcfFile, base: DcfFile, max_memory: int | None, max_work: int | None) -> None:
        if change.delta is None:
            raise _of(change, DeltaError("file", got="one that stands alone", expected="a delta"))
        self.change, self.base, self.delta = change, base, change.delta
        self.max_memory, self.max_work = max_memory, max_work
        if base.delta is not None or base.digest != self.delta.base:
            found = "a delta" if base.delta is not None else f"content digest {base.digest.hex()}"
            expected = f"the delta's base, of content digest {self.delta.base.hex()}"
            raise _of(base, BaseError("base", got=found, expected=expected))

    def model(self) -> Model:
        """Make the new model, and check its digest."""
        self._require_memory()
        tensors: dict[str, Tensor] = {}
        for tensor in self._tensors():
            if tensor.name in tensors:
                raise _of(self.change, DuplicateError("tensor name", got=repr(tensor.name), expected="each once"))
            tensors[tensor.name] = tensor
        sections = whole_sections(self.delta, dict(self.base.sections()))
        if sections is None:
            missing = BaseError("base", got="a missing section", expected="the sections that the delta keeps")
            raise _of(self.base, missing)
        cursors = {kind: Cursor(body) for kind, body in sections}
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        parsed = parse_sections(cursors, shapes, {name: tensor.dtype for name, tensor in tensors.items()})
        digest = ContentDigest(sections)
        for name, tensor in tensors.items():
            digest.add(name, tensor_digest(tensor))
        if (found := digest.take()) != self.delta.result:
            expected = self.delta.result.hex()
            raise _of(self.change, ChecksumError("content digest of the new file", got=found.hex(), expected=expected))
        return Model(tensors, *parsed)

    def _tensors(self) -> Iterator[Tensor]:
        own = iter(self.change.names)
        for step in self.delta.steps:
            if step.kind == "kept":
                for number in range(step.first, step.first + step.count):
                    yield self.base.tensor(self._origin(number).name)
            elif step.kind == "new":
                for _ in range(step.count):
                    yield self.change.tensor(next(own))
            else:
                for origin in step.origins:
                    yield self._changed(next(own), origin)

    def _changed(self, name: str, origin: Origin) -> Tensor:
        info = self._origin(origin.number)
        scale = info.scale if origin.scale is None else origin.scale
        field = f"difference {name!r}"
        if origin.scale is not None and info.dtype != "int8":
            raise _of(self.change, EncodingError(f"scale of {field}", got=info.dtype, expected="an int8"))
        string = self.change.tensor(name).to_dense(max_memory=self.max_memory)
        elements = _elements(self.base.tensor(info.name))
        try:
            with memory_counts(field, self.max_memory):
                data = apply_difference(string, elements, info.dtype, field, self.max_work)
            require_bools(data.view(np.uint8), info.dtype, field)
        except FormatError as error:
            raise _of(self.change, error) from None
        return Tensor(name, info.shape, info.dtype, data, scale=scale)

    def _origin(self, number: int) -> TensorInfo:
        names = self.base.names
        if number >= len(names):
            expected = f"a tensor of the base, which has {len(names)}"
            raise _of(self.base, BaseError("tensor of the base", got=f"number {number}", expected=expected))
        return self.base.info(names[number])

    def _require_memory(self) -> None:
        """Count the new tensors, the largest pair of dense forms, and a piece that is worked on."""
        numbers = [
            n for step in self.delta.steps for n in range(step.first, step.first + step.count) if step.kind == "kept"
        ]
        kept = sum(self._origin(number).decoded_bytes for number in numbers)
        dense = [
            self._origin(origin.number).size * STORAGE[self._origin(origin.number).dtype].itemsize
            for step in self.delta.steps for origin in step.origins
        ]  # fmt: skip
        need = kept + self.change.decoded_bytes + sum(dense) + 4 * max(dense, default=0)
        need += min(PIECE_BYTES, 80 * max(dense, default=0))
        require_memory("applying the delta", need, self.max_memory)


def counts(delta: Delta) -> dict[str, int]:
    """Return how many tensors of the new file are kept, new and changed."""
    return {kind: sum(step.count for step in delta.steps if step.kind == kind) for kind in ("kept", "new", "changed")}
