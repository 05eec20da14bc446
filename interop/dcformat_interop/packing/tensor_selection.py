"""Selects the tensors of a checkpoint to pack: all that a file can hold, without skipped ones, with masks folded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dcformat_interop.packing.elements import FileElements
from dcformat_interop.packing.shards import Shard, Shards
from dcformat_interop.refusals import UnfitError
from dcformat_interop.safetensors import DTYPES, HeaderEntry
from dcformat_interop.skipping import SkippedNames
from dcformat_interop.tensors import SKIPPED


@dataclass(slots=True)
class Selection:
    """The tensors that are packed, and the reasons why others are not.

    Attributes
    ----------
    elements : list of FileElements
    left_out : dict of str to str
        A dtype, or a note that the user asked for it.
    folded : int
        Number of pruning masks that were folded into their weights.
    """

    elements: list[FileElements] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    folded: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether the elements are complete, so that the files can be restored."""
        return not self.left_out and not self.folded


def select(shards: Shards, skip: Sequence[str], exact: bool | None) -> Selection:
    """Return the selection of a checkpoint's tensors.

    Parameters
    ----------
    shards : Shards
    skip : sequence of str
        Names of tensors to leave out, or patterns with ``*`` and ``?``.
    exact : bool or None
        Whether negative zeros stay negative; None to decide for each tensor (`FileElements.decided`).

    Raises
    ------
    UnfitError
        A pattern matches nothing, a mask does not fit its weights, or nothing is left.
    """
    skipped, found = SkippedNames(skip), Selection()
    there: dict[str, tuple[Shard, HeaderEntry]] = {}
    for shard in shards.shards:
        for entry in shard.layout.entries:
            if skipped(entry.name):
                found.left_out[entry.name] = SKIPPED
            elif entry.code not in DTYPES:
                found.left_out[entry.name] = entry.code
            else:
                there[entry.name] = (shard, entry)
    for pattern in skipped.unused():
        raise UnfitError(shards.path, f"an entry to skip that is called {pattern!r}", "none")
    for name in there:
        if name.endswith("_mask") and _has(name.removesuffix("_mask") + "_orig", there, found):
            continue
        stem = name.removesuffix("_orig")
        mask = f"{stem}_mask"
        if stem == name or not _has(mask, there, found):
            found.elements.append(_elements(name, *there[name], exact=exact))
            continue
        found.elements.append(_folded(stem, there, found, exact))
        found.folded += 1
    return found


def _has(name: str, there: dict[str, tuple[Shard, HeaderEntry]], found: Selection) -> bool:
    return name in there or found.left_out.get(name, SKIPPED) != SKIPPED


def _folded(
    stem: str, there: dict[str, tuple[Shard, HeaderEntry]], found: Selection, exact: bool | None
) -> FileElements:
    """Return NAME_orig under its mask, as NAME."""
    name, mask = f"{stem}_orig", f"{stem}_mask"
    shard, entry = there[name]
    if stem in there or stem in found.left_out:
        raise UnfitError(shard.path, f"no {stem!r} beside it", "one", name)
    if mask in found.left_out:
        raise UnfitError(shard.path, "a mask of zeros and ones", found.left_out[mask], mask)
    if there[mask][1].shape != entry.shape:
        expected = f"a mask of shape {tuple(entry.shape)}"
        raise UnfitError(there[mask][0].path, expected, tuple(there[mask][1].shape), mask)
    return _elements(stem, shard, entry, exact=exact, mask=_elements(mask, *there[mask], exact=True))


def _elements(
    name: str, shard: Shard, entry: HeaderEntry, *, exact: bool | None, mask: FileElements | None = None
) -> FileElements:
    return FileElements(
        path=shard.path,
        stamp=shard.stamp,
        offset=shard.layout.start + entry.begin,
        name=name,
        dtype=DTYPES[entry.code],
        shape=tuple(entry.shape),
        scale=shard.layout.scales.get(entry.name, 1.0),
        exact=exact,
        mask=mask,
    )
