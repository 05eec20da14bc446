"""Input files, `-` for stdin among them."""

from __future__ import annotations

import sys
from pathlib import Path

#: What a user can give as FILE: a path for a regular file, bytes for anything that can be read only once.
Source = Path | bytes


def source(name: str) -> tuple[Source, str]:
    """Return what to read and what to call it; ``-``, pipes and devices are read to their end.

    Raises
    ------
    OSError
        Nothing there, or not readable.
    """
    if name == "-":
        return sys.stdin.buffer.read(), "stdin"
    path = Path(name)
    if path.exists() and not path.is_file() and not path.is_dir():
        return path.read_bytes(), name
    return path, name
