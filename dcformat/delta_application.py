"""Applying a delta to its base (specification, section 15): all tensors together, or one after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from dcformat.assembly import write_file
from dcformat.codecs import Mode
from dcformat.codecs.differences import PIECE_BYTES, apply_difference
from dcformat.codecs.value_blocks import require_bools
from dcformat.contents import TensorInfo, parse_sections
from dcformat.cursor import Cursor
from dcformat.delta_codec import whole_sections
from dcformat.digest import ContentDigest, tensor_digest
from dcformat.errors import BaseError, ChecksumError, DeltaError, DuplicateError, EncodingError, FormatError
from dcformat.graph import Graph
from dcformat.limits import memory_counts, require_memory
from dcformat.model import Extension, Model, Origin, SelfTest, Tensor
from dcformat.reader import DcfFile
from dcformat.validate import check_weight, weight_names
from dcformat.writer import SPOOL_BYTES, Encode, code_tensors

Array = npt.NDArray[Any]
Sections = list[tuple[int, bytes]]
E = TypeVar("E", bound=FormatError)


class _Step(NamedTuple):
    """Tensors that are made together.

    Attributes
    ----------
    names : tuple of str
    infos : tuple of TensorInfo
        Entries of either file that have their shapes and their dtype.
    make : callable
        Yields the tensors.
    dense_bytes : int
        Bytes of the dense forms if a difference makes them, or else 0.
    """

    names: tuple[str, ...]
    infos: tuple[TensorInfo, ...]
    make: Callable[[], Iterable[Tensor]]
    dense_bytes: int = 0


class Application:
    """A delta and the base to which it is applied.

    Parameters
    ----------
    change, base : DcfFile
        The open delta and the open base.
    max_memory, max_work : int or None
        As in `dcformat.apply`.

    Raises
    ------
    BaseError, DeltaError
        As in `dcformat.apply`.
    """

    def __init__(self, change: DcfFile, base: DcfFile, max_memory: int | None, max_work: int | None) -> None:
        if change.delta is None:
            raise _of(change, DeltaError("file", got="one that stands alone", expected="a delta"))
        self.change, self.base, self.delta = change, base, change.delta
        self._max_memory, self._max_work = max_memory, max_work
        if base.delta is not None or base.digest != self.delta.base:
            found = "a delta" if base.delta is not None else f"content digest {base.digest.hex()}"
            expected = f"the delta's base, of content digest {self.delta.base.hex()}"
            raise _of(base, BaseError("base", got=found, expected=expected))
        self._steps = list(self._made())
        self._step_of: dict[str, _Step] = {}
        for step in self._steps:
            for name in step.names:
                if name in self._step_of:
                    raise _of(change, DuplicateError("tensor name", got=repr(name), expected="each once"))
                self._step_of[name] = step
        if self.delta.in_place and (unknown := self._step_of.keys() - set(base.names)):
            expected = "a name of the base"
            raise _of(base, BaseError("tensor of the base", got=repr(sorted(unknown)[0]), expected=expected))

    @property
    def infos(self) -> dict[str, TensorInfo]:
        """The shape and the dtype of each tensor of the new file, in its order, in an entry of either file."""
        made = {name: info for step in self._steps for name, info in zip(step.names, step.infos, strict=True)}
        if not self.delta.in_place:
            return made
        return {name: made.get(name) or self.base.info(name) for name in self.base.names}

    def model(self) -> Model:
        """Return the new model. Raises `ChecksumError` if it is not the one from which the delta was made."""
        self._require_memory(at_once=True)
        tensors = {tensor.name: tensor for tensor in self._tensors()}
        sections = self._sections()
        model = Model(tensors, *self._parsed(sections))
        self._check(sections, ((name, tensor_digest(tensor)) for name, tensor in tensors.items()))
        return model

    def write(self, file: BinaryIO, mode: Mode, encode: Encode) -> int:
        """Write the new file, as `dcformat.save` writes the new model, and return its size.

        Only the tensors that a step makes together are in memory at a time; coded tensors wait in a temporary file.
        Nothing is written before the content digest of all of them has been checked.

        Parameters
        ----------
        file : binary file object
        mode : {'fast', 'small', 'tiny'}
        encode : callable
            As in `writer.write`.

        Raises
        ------
        FormatError
            Either file is damaged, or needs more memory or work than allowed.
        """
        self._require_memory(at_once=False)
        sections = self._sections()
        graph = self._parsed(sections)[0]
        weights = {} if graph is None else weight_names(graph)

        def checked() -> Iterator[Tensor]:
            for tensor in self._tensors():
                if tensor.name in weights:
                    check_weight(tensor.name, tensor)
                yield tensor

        with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
            coded = code_tensors(((tensor.name, tensor) for tensor in checked()), spool, encode)
            self._check(sections, ((tensor.name, tensor.digest) for tensor in coded))
            return write_file(coded, sections, mode, file)

    def _tensors(self) -> Iterator[Tensor]:
        """Yield the tensors of the new file in its order."""
        if not self.delta.in_place:
            for step in self._steps:
                yield from step.make()
            return
        waiting: dict[str, Tensor] = {}
        for name in self.base.names:
            if name in self._step_of and name not in waiting:
                waiting |= {tensor.name: tensor for tensor in self._step_of[name].make()}
            yield waiting.pop(name) if name in waiting else self.base.tensor(name)

    def _sections(self) -> Sections:
        sections = whole_sections(self.delta, dict(self.base.sections()))
        if sections is None:
            missing = BaseError("base", got="a missing section", expected="the sections that the delta keeps")
            raise _of(self.base, missing)
        return sections

    def _parsed(
        self, sections: Sections
    ) -> tuple[Graph | None, tuple[str, ...], dict[str, str], SelfTest | None, tuple[Extension, ...]]:
        """Return the arguments of `Model` that sections hold."""
        infos = self.infos
        cursors = {kind: Cursor(body) for kind, body in sections}
        shapes = {name: info.shape for name, info in infos.items()}
        return parse_sections(cursors, shapes, {name: info.dtype for name, info in infos.items()})

    def _check(self, sections: Sections, digests: Iterable[tuple[str, bytes]]) -> None:
        """Raise unless sections, and tensors with these digests, make the content digest of the new file."""
        digest = ContentDigest(sections)
        for name, each in digests:
            digest.add(name, each)
        if (found := digest.take()) != self.delta.result:
            expected = self.delta.result.hex()
            raise _of(self.change, ChecksumError("content digest of the new file", got=found.hex(), expected=expected))

    def _made(self) -> Iterator[_Step]:
        own = iter(self.change.names)
        for step in self.delta.steps:
            if step.kind == "kept":
                for number in range(step.first, step.first + step.count):
                    yield _alone(self.base, self._origin(number).name)
            elif step.kind == "new":
                for name in islice(own, step.count):
                    yield _alone(self.change, name)
            else:
                infos = tuple(self._origin(origin.number) for origin in step.origins)
                names = tuple(origin.name or info.name for origin, info in zip(step.origins, infos, strict=True))
                dense_bytes = sum(info.nbytes for info in infos)
                yield _Step(names, infos, partial(self._changed, next(own), step.origins), dense_bytes)

    def _changed(self, name: str, origins: tuple[Origin, ...]) -> Iterator[Tensor]:
        """Yield the tensors that a difference makes."""
        infos = [self._origin(origin.number) for origin in origins]
        dtype, field = infos[0].dtype, f"difference {name!r}"
        for info, origin in zip(infos, origins, strict=True):
            if info.dtype != dtype:
                raise _of(self.change, EncodingError(f"origins of {field}", got=info.dtype, expected=dtype))
            if origin.scale is not None and dtype != "int8":
                raise _of(self.change, EncodingError(f"scale of {field}", got=dtype, expected="an int8"))
        string = self.change.tensor(name).to_dense(max_memory=self._max_memory)
        with memory_counts(field, self._max_memory):
            elements = np.concatenate([elements_of(self.base.tensor(info.name)) for info in infos])
            try:
                data = apply_difference(string, elements, dtype, field, self._max_work)
                require_bools(data, dtype, field)
            except FormatError as error:
                raise _of(self.change, error) from None
        start = 0
        for info, origin in zip(infos, origins, strict=True):
            scale = info.scale if origin.scale is None else origin.scale
            yield Tensor(origin.name or info.name, info.shape, dtype, data[start : start + info.size], scale=scale)
            start += info.size

    def _origin(self, number: int) -> TensorInfo:
        names = self.base.names
        if number >= len(names):
            expected = f"a tensor of the base, which has {len(names)}"
            raise _of(self.base, BaseError("tensor of the base", got=f"number {number}", expected=expected))
        return self.base.info(names[number])

    def _require_memory(self, *, at_once: bool) -> None:
        """Count the new tensors, or the largest; the largest pair of dense forms; and the piece in progress."""
        kept = [info.decoded_bytes for step in self._steps if not step.dense_bytes for info in step.infos]
        if self.delta.in_place:
            kept += [self.base.info(name).decoded_bytes for name in self.base.names]
        largest = max((step.dense_bytes for step in self._steps), default=0)
        if at_once:
            held = sum(kept) + sum(step.dense_bytes for step in self._steps)
        else:
            held = max((*kept, largest))
            if self.delta.in_place:  # The tensors of a shared difference wait for their turns.
                held += sum(step.dense_bytes for step in self._steps if len(step.names) > 1)
        need = held + 5 * largest + min(PIECE_BYTES, 80 * largest)
        require_memory("applying the delta", need, self._max_memory)


def _alone(file: DcfFile, name: str) -> _Step:
    """Return the step that keeps a tensor."""
    return _Step((name,), (file.info(name),), lambda: [file.tensor(name)])


def elements_of(tensor: Tensor) -> Array:
    """Return all elements of a tensor as a vector, between which a difference is made and applied."""
    return np.ascontiguousarray(tensor.to_dense(max_memory=None)).reshape(-1)


def _of(file: DcfFile, error: E) -> E:
    """Return an error with the name of its file."""
    error.path = error.path or file.path
    return error
