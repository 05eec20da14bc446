"""The list of all operators of a graph that cannot be imported, and the nearest way out for each."""

from __future__ import annotations

from collections.abc import Mapping

from dcformat_interop.refusals import UnfitError, printable

#: Maximum number of operators, and of nodes of each, that a message names.
_LISTED, _NODES = 40, 3


class Unsupported(Exception):
    """An operator, or a variant of it, cannot be imported; the message says which, and the way out."""


class UnsupportedOperatorsError(UnfitError):
    """A network has operators that cannot be imported; the message names all of them.

    Attributes
    ----------
    operators : dict of str to list of str
        The nodes of each operator that cannot be imported.
    reasons : list of str
        The operators, with the reason if only some variants cannot be imported.
    """

    def __init__(
        self, path: str, found: dict[tuple[str, str], list[str]], ways: Mapping[str, str], otherwise: str
    ) -> None:
        super().__init__(path, "operators that can be imported", "others")
        self.operators: dict[str, list[str]] = {}
        self.reasons = [f"{op_type} {reason}".rstrip() for op_type, reason in found]
        parts = []
        for (op_type, reason), nodes in found.items():
            self.operators.setdefault(op_type, []).extend(nodes)
            more = f" and {len(nodes) - _NODES} more" if len(nodes) > _NODES else ""
            named = f"{op_type}{f' {reason}' if reason else ''} (node{'s' * (len(nodes) > 1)} "
            named += f"{', '.join(map(repr, nodes[:_NODES]))}{more})"
            parts.append(f"{named}: {ways.get(op_type, otherwise)}")
        count = len(self.operators)
        hidden = f"; and {len(parts) - _LISTED} more" if len(parts) > _LISTED else ""
        cannot = f"{count} operator{'s' * (count != 1)} cannot be imported"
        self.args = (f"{path}: {cannot}: {printable('; '.join(parts[:_LISTED]))}{hidden}",)


class UnsupportedOperators:
    """Collects operators that cannot be imported, so that one message names them all.

    Parameters
    ----------
    path : str
        The model, for errors.
    ways : mapping of str to str
        The nearest way out for some operators.
    otherwise : str
        The nearest way out for all others.
    """

    def __init__(self, path: str, ways: Mapping[str, str], otherwise: str) -> None:
        self._path, self._ways, self._otherwise = path, ways, otherwise
        self._found: dict[tuple[str, str], list[str]] = {}

    def add(self, op_type: str, node: str, reason: str) -> None:
        """Note a node of an operator that cannot be imported at all, or not for a `reason`."""
        self._found.setdefault((op_type, reason), []).append(node)

    def check(self) -> None:
        """Raise `UnsupportedOperatorsError` if anything was noted."""
        if self._found:
            raise UnsupportedOperatorsError(self._path, self._found, self._ways, self._otherwise)
