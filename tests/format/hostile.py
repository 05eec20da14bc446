"""Reading of hostile files through every entry point, with the memory that it takes."""

from __future__ import annotations

import tracemalloc
from functools import cache

import dcformat
from dcformat.errors import FormatError
from tests.format.strategies import vectors

VECTORS = dict(vectors())
MEMORY = 1 << 20
#: The memory that reading any file takes: objects, tables, one copy of the contents.
CONSTANT_MEMORY = 2 << 20


@cache
def kernels_ready() -> None:
    """Load or compile the kernels that reading needs, which takes memory once, independent of any file."""
    for name, data in VECTORS.items():
        if name.startswith(("float32", "model")):
            dcformat.verify(data)


def read(data: bytes, *, max_memory: int = MEMORY) -> FormatError | None:
    """Read a file in every way, check that it takes little memory, and return the first error."""
    kernels_ready()
    tracemalloc.start()
    try:
        with dcformat.open(data, max_memory=max_memory) as file:
            for name in file.names:
                file.tensor(name)
                file.usage(name)
            file.model()
            file.verify()
    except FormatError as error:
        return error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= max_memory + 32 * len(data) + CONSTANT_MEMORY, f"{peak} bytes for a file of {len(data)}"
    return None
