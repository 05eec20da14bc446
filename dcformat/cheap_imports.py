"""Partial imports of packages whose full import is the slowest step of a short process.

A process that loads and runs a small file takes little longer than an import of NumPy; see docs/cold-start.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from types import ModuleType
from typing import cast


def load_crc32c() -> Callable[..., int]:
    """Return `crc32c.crc32c` from its extension module.

    The package itself looks up its own version, which imports 60 modules and takes 30 to 50 ms.
    """
    module = sys.modules.get("crc32c") or extension_module("crc32c", "_crc32c")
    if module is None:
        import crc32c

        module = crc32c
    return cast(Callable[..., int], module.crc32c)


def extension_module(package: str, name: str) -> ModuleType | None:
    """Load a package's extension module without the package; return None if the package is laid out differently."""
    folder = PathFinder.find_spec(package)
    spec = None if folder is None else PathFinder.find_spec(name, folder.submodule_search_locations)
    if spec is None or spec.loader is None:
        return None
    try:
        module = spec.loader.create_module(spec)
        if module is not None:
            spec.loader.exec_module(module)
    except ImportError:
        return None
    return module
