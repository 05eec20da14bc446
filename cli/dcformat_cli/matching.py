"""Which of a checkpoint's tensors is which of an architecture's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from dcformat.architectures import Architecture
from dcformat_cli.checkpoints import Dense
from dcformat_cli.failures import InputError

#: What wrappers put before every name (DataParallel, torch.compile).
_PREFIX = re.compile(r"^(?:module\.|_orig_mod\.)+")


def match(path: Path, architecture: Architecture, tensors: Mapping[str, Dense]) -> list[str]:
    """Return the checkpoint's names in the architecture's order.

    Names that are the architecture's own (but for a wrapper's prefix) decide. Otherwise layers, the parts of
    the names before ``.weight`` and ``.bias``, are taken in their natural order (``2`` before ``10``); each
    layer of the architecture gets the first that is left with its shape: ``classifier`` may sort before
    ``features``.

    Raises
    ------
    InputError
        A tensor is missing, left over, or has a shape that fits nowhere.
    """
    by_name = {_PREFIX.sub("", name): name for name in tensors}
    if set(by_name) == set(architecture.shapes) and len(by_name) == len(tensors):
        names = [by_name[name] for name in architecture.shapes]
    else:
        names = _by_order(path, architecture, tensors)
    for wanted, name in zip(architecture.shapes, names, strict=True):
        found, expected = tensors[name].values.shape, architecture.shapes[wanted]
        if found != expected:
            what = name if name == wanted else f"{name} ({architecture.name}'s {wanted})"
            raise InputError(path, f"shape {expected}", found, what)
    return names


def _by_order(path: Path, architecture: Architecture, tensors: Mapping[str, Dense]) -> list[str]:
    wanted = [name.removesuffix(".weight") for name in architecture.shapes if name.endswith(".weight")]
    stems = sorted({name.rpartition(".")[0] for name in tensors}, key=_natural)
    for name in tensors:
        if name.rpartition(".")[2] not in ("weight", "bias"):
            raise InputError(path, f"{architecture.name}'s weights and biases only", f"the tensor {name!r}")
    if len(stems) != len(wanted):
        expected = f"{len(wanted)} layers ({', '.join(wanted)})" if len(wanted) < 9 else f"{len(wanted)} layers"
        raise InputError(path, f"{expected} for {architecture.name}", f"{len(stems)} ({_shortened(stems)})")
    names: list[str] = []
    left = list(stems)
    for layer in wanted:
        shape = architecture.shapes[f"{layer}.weight"]
        fits = (s for s in left if f"{s}.weight" in tensors and tensors[f"{s}.weight"].values.shape == shape)
        # Where none fits, the next in order is taken, for the check of shapes to complain about by name.
        stem = next(fits, left[0])
        left.remove(stem)
        for part in ("weight", "bias"):
            name = f"{stem}.{part}" if stem else part
            if name not in tensors:
                raise InputError(path, f"{name} (for {architecture.name}'s {layer}.{part})", "no such tensor")
            names.append(name)
    return names


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part) for part in parts]


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
