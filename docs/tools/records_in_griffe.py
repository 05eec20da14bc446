"""An extension of Griffe, which reads the sources for the pages of the API: a record is a kind of dataclass."""

from __future__ import annotations

from typing import Any

import griffe


class _Dataclass(griffe.ExprName):
    canonical_path = "dataclasses.dataclass"


class RecordsExtension(griffe.Extension):
    """Marks classes decorated with `dcformat.records.record` as dataclasses, so that Griffe knows their parameters."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Add the decorator that Griffe knows."""
        for decorator in list(cls.decorators):
            if decorator.callable_path == "dcformat.records.record":
                cls.decorators.append(griffe.Decorator(_Dataclass("dataclass"), lineno=None, endlineno=None))
