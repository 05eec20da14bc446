"""Deltas: what changes from one file, the base, to another (specification, section 15)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs import Mode
from dcformat.codecs.difference_writer import write_difference
from dcformat.contents_writer import small_sections
from dcformat.delta_application import Application, elements_of
from dcformat.digest import ContentDigest, tensor_digest
from dcformat.errors import DeltaError
from dcformat.forms import smallest
from dcformat.model import Delta, Model, Origin, Step, Tensor, require_no_delta
from dcformat.opening import open_file
from dcformat.reader import DcfFile
from dcformat.records import replace
from dcformat.source import Source

Array = npt.NDArray[Any]

#: A larger tensor that changes is stored whole.
_LARGEST = 1 << 30
#: A difference of at most this share of the elements' bytes is taken without trying the whole tensor.
_CLEARLY = 8
#: Consecutive tensors share a difference as long as they have at most this many elements together.
_TOGETHER = 1 << 19
#: Bytes that a separate difference costs beside its string: the name, the table entry, the length of the piece.
_ENTRY = 24


def delta(new: Model, base: Source | DcfFile, *, mode: Mode = "fast") -> Model:
    """Return the delta that leads from a base to `new`.

    Save it like any other model; `apply` restores `new` from the delta and the base.

    Parameters
    ----------
    new : Model
    base : path, URL, bytes-like, binary file object or DcfFile
        The file from which `new` differs. Tensors are compared by name, or by content if the base lacks the name.
    mode : {'fast', 'small', 'tiny'}
        The mode in which you will save the delta. It decides which tensors are stored whole instead of as differences.

    Returns
    -------
    Model
        A model whose attribute `delta` is set. It holds the tensors that are new or stored whole, and the differences.

    Raises
    ------
    DeltaError
        `new` or the base is a delta itself.
    FormatError
        The base is damaged.
    OSError
        The base cannot be read.
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
    """Return the model that a delta makes from its base.

    Parameters
    ----------
    delta, base : path, URL, bytes-like, binary file object or DcfFile
        The delta, and the file that it was made from.
    max_memory, max_work : int or None
        Maximum number of bytes and of steps, as in `load`; an open file also keeps the limits with which it was opened.

    Returns
    -------
    Model
        The model that `delta` was given: its tensors (bit for bit), graph, labels, metadata, self-test and content
        digest are the same.

    Raises
    ------
    BaseError
        The delta belongs to another base.
    DeltaError
        `delta` is not a delta.
    FormatError
        Either file is damaged, or needs more memory or work than allowed.
    OSError
        Either file cannot be read.
    """
    with _opened(delta, max_memory, max_work) as change, _opened(base, max_memory, max_work) as file:
        return Application(change, file, max_memory, max_work).model()


@contextmanager
def _opened(source: Source | DcfFile, max_memory: int | None = None, max_work: int | None = None) -> Iterator[DcfFile]:
    if isinstance(source, DcfFile):
        yield source
        return
    with open_file(source, max_memory=max_memory, max_work=max_work) as file:
        yield file


@contextmanager
def application(
    delta: Source | DcfFile,
    base: Source | DcfFile,
    *,
    max_memory: int | None = layout.DEFAULT_MAX_MEMORY,
    max_work: int | None = layout.DEFAULT_MAX_WORK,
) -> Iterator[Application]:
    """Open a delta and its base, to write the new file tensor by tensor; parameters and errors are those of `apply`."""
    with _opened(delta, max_memory, max_work) as change, _opened(base, max_memory, max_work) as file:
        yield Application(change, file, max_memory, max_work)


# --- making ---------------------------------------------------------------------------------------------------------


def _delta(new: Model, base: DcfFile, mode: Mode) -> Model:
    require_no_delta(base.delta, base.path)
    known = {name: (number, tensor_digest(base.tensor(name))) for number, name in enumerate(base.names)}
    places = {digest: number for number, digest in reversed(known.values())}
    sections = small_sections(new)
    digest = ContentDigest(sections)
    writer = _Writer(list(new.tensors) == list(base.names))
    for name, tensor in new.tensors.items():
        content = tensor_digest(tensor)
        digest.add(name, content)
        if name in known and known[name][1] == content:
            writer.keep(known[name][0])
            continue
        number = places.get(content, known[name][0] if name in known else None)
        change = None if number is None else _change(tensor, base, number, mode)
        if change is None:
            writer.add(tensor)
        else:
            writer.change(change)
    there = dict(base.sections())
    kept = tuple((kind, None if there.get(kind) == body else body) for kind, body in sections)
    delta = Delta(base.digest, digest.take(), kept, writer.finish(), writer.in_place)
    return Model(writer.tensors, delta=delta)


class _Change(NamedTuple):
    """A tensor that changes: its elements and those of its origin, and its difference if it has one of its own."""

    tensor: Tensor
    origin: Origin
    new: Array
    old: Array
    difference: bytes


def _change(tensor: Tensor, base: DcfFile, number: int, mode: Mode) -> _Change | None:
    """Return how a tensor is made from one of the base; None if the two do not match, or the tensor is smaller."""
    info = base.info(base.names[number])
    if (info.dtype, info.shape) != (tensor.dtype, tensor.shape) or tensor.size > _LARGEST:
        return None
    new, old = elements_of(tensor), elements_of(base.tensor(info.name))
    made = write_difference(new, old, tensor.dtype, tensor.shape)
    if len(made) * _CLEARLY > tensor.nbytes and len(made) > len(smallest(tensor, mode)[1]):
        return None
    name = tensor.name if tensor.name != info.name else None
    scale = tensor.scale if tensor.scale != info.scale else None
    return _Change(tensor, Origin(number, name, scale), new, old, made)


class _Writer:
    """Collects the steps and the tensors of a delta.

    Small tensors share a difference, because heads and tables cost more than what changes in them. They have to follow
    each other, unless the new file has the names of the base in their order (`in_place`).
    """

    def __init__(self, in_place: bool) -> None:
        self.in_place = in_place
        self.tensors: dict[str, Tensor] = {}
        self._steps: list[Step] = []
        self._together: dict[str, list[_Change]] = {}

    def keep(self, number: int) -> None:
        """Take a tensor of the base."""
        if self.in_place:
            return
        self._flush()
        last = self._steps[-1] if self._steps else None
        if last is not None and last.kind == "kept" and last.first + last.count == number:
            self._steps[-1] = replace(last, count=last.count + 1)
        else:
            self._steps.append(Step("kept", 1, number))

    def add(self, tensor: Tensor) -> None:
        """Store a new tensor."""
        if not self.in_place:
            self._flush()
        self.tensors[tensor.name] = tensor
        if self._steps and self._steps[-1].kind == "new":
            self._steps[-1] = replace(self._steps[-1], count=self._steps[-1].count + 1)
        else:
            self._steps.append(Step("new", 1))

    def change(self, change: _Change) -> None:
        """Store a difference, together with others if they are small."""
        dtype = change.tensor.dtype
        if self._together.keys() - {dtype} and not self.in_place:
            self._flush()
        together = self._together.setdefault(dtype, [])
        if sum(len(each.new) for each in (*together, change)) > _TOGETHER:
            self._flush_group(together)
            together.clear()
        together.append(change)

    def finish(self) -> tuple[Step, ...]:
        """Return the steps."""
        self._flush()
        return tuple(self._steps)

    def _flush(self) -> None:
        for together in self._together.values():
            self._flush_group(together)
        self._together.clear()

    def _flush_group(self, together: list[_Change]) -> None:
        if len(together) > 1:
            new, old = (np.concatenate(parts) for parts in zip(*((c.new, c.old) for c in together), strict=True))
            made = write_difference(new, old, together[0].tensor.dtype, (len(new),))
            if len(made) < sum(len(change.difference) + _ENTRY for change in together):
                self._put(together, made)
                return
        for change in together:
            self._put([change], change.difference)

    def _put(self, changes: list[_Change], made: bytes) -> None:
        name = changes[0].tensor.name
        self.tensors[name] = Tensor(name, (len(made),), "uint8", np.frombuffer(made, np.uint8))
        self._steps.append(Step("changed", len(changes), 0, tuple(change.origin for change in changes)))


def counts(delta: Delta) -> dict[str, int | None]:
    """Return how many of the new file's tensors are kept, changed and new; those kept in place are not counted."""
    found: dict[str, int | None] = {
        kind: sum(step.count for step in delta.steps if step.kind == kind) for kind in ("kept", "changed", "new")
    }
    return found | {"kept": None} if delta.in_place else found
