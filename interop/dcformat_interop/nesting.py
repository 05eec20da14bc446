"""The search for the state_dict in a training script's file: the only mapping of names to tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dcformat_interop.refusals import UnfitError

#: The text that joins the keys of a nested mapping to its name. The outermost mapping has no keys.
_BETWEEN = "."
_OUTERMOST = "."

_DEEPEST = 16

IsTensor = Callable[[Any], bool]


def find_state(path: str, loaded: Any, key: str | None, is_tensor: IsTensor) -> tuple[str, Mapping[Any, Any]]:
    """Return the name of the only mapping of names to tensors in `loaded` (empty for `loaded` itself), and the mapping.

    The states of optimizers do not count. Mappings whose tensors are all scalars or bytes (a loss, a random generator's
    state) count only if no mapping has other tensors.

    Parameters
    ----------
    path : str
        The file, for errors.
    loaded : object
        Mappings and lists, tensors, numbers, text.
    key : str or None
        The name of the mapping to take, such as ``model.state_dict``; ``.`` names the outermost one.
    is_tensor : callable

    Raises
    ------
    UnfitError
        No mapping has tensors, several have, or none is called `key`.
    """
    expected = "a mapping of names to tensors (model.state_dict())"
    if not isinstance(loaded, Mapping):
        raise UnfitError(path, expected, _what(loaded))
    mappings = dict(_mappings(loaded, (), set()))
    if key is not None:
        for keys, mapping in mappings.items():
            if _name(keys) == key:
                return key, mapping
        raise UnfitError(path, f"the key {key!r}", _listed([_name(keys) for keys in mappings]))
    candidates = {
        k: m for k, m in mappings.items() if not _of_optimizer(k, mappings) and any(map(is_tensor, m.values()))
    }
    weights = {k: m for k, m in candidates.items() if any(is_tensor(v) and _is_weight(v) for v in m.values())}
    chosen = weights or candidates
    if len(chosen) > 1:
        listed = _listed([_name(keys) for keys in chosen])
        raise UnfitError(path, "one mapping of names to tensors, or a key (--key) that chooses", listed)
    if not chosen:
        held = [f"{name}: {_what(value)}" for name, value in loaded.items()]
        raise UnfitError(path, expected, _listed(held) if held else "an empty mapping")
    ((keys, mapping),) = chosen.items()
    return _name(keys) if keys else "", mapping


def _mappings(
    value: Mapping[Any, Any], keys: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """Yield each mapping once, outer ones first."""
    seen.add(id(value))
    yield keys, value
    for key, inner in value.items():
        # A module may keep its own mapping of tensors beside its weights.
        kept = isinstance(inner, Mapping) and not str(key).endswith("_extra_state")
        if kept and id(inner) not in seen and len(keys) < _DEEPEST:
            yield from _mappings(inner, (*keys, str(key)), seen)


def _of_optimizer(keys: tuple[str, ...], mappings: Mapping[tuple[str, ...], Mapping[Any, Any]]) -> bool:
    around = (mappings[keys[:depth]] for depth in range(len(keys) + 1))
    return any(key.startswith("optim") for key in keys) or any({"state", "param_groups"} <= m.keys() for m in around)


def _is_weight(tensor: Any) -> bool:
    return bool(tensor.ndim > 0 and tensor.dtype.itemsize > 1)


def _name(keys: tuple[str, ...]) -> str:
    return _BETWEEN.join(keys) or _OUTERMOST


def _what(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {name}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
