"""Matches a checkpoint's tensors to those of an architecture."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from dcformat.architectures import ARCHITECTURES, Architecture
from dcformat.graph import Shape
from dcformat.layout import DTYPES, KERNEL_DTYPES
from dcformat.wording import counted
from dcformat_interop.refusals import UnfitError
from dcformat_interop.tensors import SKIPPED, Dense, count_not_finite

_PARTS = ("weight", "bias")

#: The prefixes that wrappers put before every name (DataParallel, torch.compile).
_PREFIX = re.compile(r"^(?:module\.|_orig_mod\.)+")


def match(
    path: object,
    architecture: Architecture,
    tensors: Mapping[str, Dense],
    left_out: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Return the checkpoint's names in the architecture's order.

    If the names are the architecture's own, apart from a wrapper's prefix, they decide. Otherwise the layers (the names
    before ``.weight`` and ``.bias``) are put in natural order (``2`` before ``10``), and each layer of the architecture
    gets the first remaining layer of its shape, because ``classifier`` may sort before ``features``.

    Parameters
    ----------
    path : path
        The file, for errors.
    architecture : Architecture
    tensors : mapping of str to Dense
    left_out : mapping of str to str
        `Checkpoint.left_out`. If it names weights or biases, the error says why they were left out.

    Raises
    ------
    UnfitError
        A tensor is missing or left over, or its shape fits nowhere. If the tensors fit another architecture better, the
        message names it.
    """
    unfit = dict(left_out)
    unfit |= {name: dense.dtype for name, dense in tensors.items() if dense.dtype not in DTYPES[:KERNEL_DTYPES]}
    unfit |= {
        name: f"NaN or infinity in {count:,} place{'s' * (count > 1)}"
        for name, dense in tensors.items()
        if name not in unfit and (count := count_not_finite(dense.values, dense.dtype))
    }
    tensors = {name: dense for name, dense in tensors.items() if name not in unfit}
    for name, reason in unfit.items():
        if name.rpartition(".")[2] in _PARTS and reason != SKIPPED:
            raise UnfitError(path, f"finite values of a dtype that {architecture.name} can use", reason, name)
    try:
        return _matched(path, architecture, tensors)
    except UnfitError as error:
        hint = _nearest(architecture, tensors)
        if not hint:
            raise
        raise UnfitError(path, error.expected, f"{error.found} ({hint})", error.what) from None


def _matched(path: object, architecture: Architecture, tensors: Mapping[str, Dense]) -> list[str]:
    by_name = {_PREFIX.sub("", name): name for name in tensors}
    if set(by_name) == set(architecture.shapes) and len(by_name) == len(tensors):
        names = [by_name[name] for name in architecture.shapes]
    else:
        names = _by_order(path, architecture, tensors)
    for wanted, name in zip(architecture.shapes, names, strict=True):
        found, expected = tensors[name].values.shape, architecture.shapes[wanted]
        if found != expected:
            what = name if name == wanted else f"{name} ({architecture.name}'s {wanted})"
            turned = f"{found}, transposed as Keras keeps it: transpose it" if _is_kernel(found, expected) else found
            raise UnfitError(path, f"shape {expected}", turned, what)
    return names


def _is_kernel(found: Shape, expected: Shape) -> bool:
    """Return whether `found` is `expected` in the order of Keras: (in, out), or (height, width, in, out)."""
    return (*found[:-3:-1], *found[:-2]) == expected


def _nearest(architecture: Architecture, tensors: Mapping[str, Dense]) -> str:
    """Return a hint at another architecture that matches more of the tensors' shapes, or an empty string."""
    shapes = Counter(dense.values.shape for dense in tensors.values())
    common = {name: (shapes & Counter(other.shapes.values())).total() for name, other in ARCHITECTURES.items()}
    best = max(common, key=lambda name: common[name])
    if common[best] <= common.get(architecture.name, 0):
        return ""
    return f"{common[best]} of {counted(len(tensors), 'tensor')} fit {best}: try --architecture {best}"


def _by_order(path: object, architecture: Architecture, tensors: Mapping[str, Dense]) -> list[str]:
    wanted = [name.removesuffix(".weight") for name in architecture.shapes if name.endswith(".weight")]
    stems = sorted({name.rpartition(".")[0] for name in tensors}, key=_natural)
    for name in tensors:
        if name.rpartition(".")[2] not in _PARTS:
            kernel = "kernel" in name.rpartition(".")[2]
            why = "a kernel as Keras calls it: transpose it and call it NAME.weight" if kernel else "leave it out"
            raise UnfitError(path, f"{architecture.name}'s weights and biases only", f"the tensor {name!r} ({why})")
    if len(stems) != len(wanted):
        expected = counted(len(wanted), "layer") + (f" ({', '.join(wanted)})" if len(wanted) < 9 else "")
        raise UnfitError(path, f"{expected} for {architecture.name}", f"{len(stems)} ({_shortened(stems)})")
    names: list[str] = []
    left = list(stems)
    for layer in wanted:
        shape = architecture.shapes[f"{layer}.weight"]
        fits = (s for s in left if f"{s}.weight" in tensors and tensors[f"{s}.weight"].values.shape == shape)
        # If none fits, take the next in order; the check of shapes then names it.
        stem = next(fits, left[0])
        left.remove(stem)
        for part in _PARTS:
            name = f"{stem}.{part}" if stem else part
            if name not in tensors:
                raise UnfitError(path, f"{name} (for {architecture.name}'s {layer}.{part})", "no such tensor")
            names.append(name)
    return names


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part) for part in parts]


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
