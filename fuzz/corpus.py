"""Write the fuzzer's seeds: ``python fuzz/corpus.py FOLDER``. A small file for each feature, and the spec's vectors."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from tests.format.strategies import large_vectors, vectors

#: Larger files make mutations rare where they matter.
_LARGEST = 8192


def main(folder: Path) -> None:
    """Write one file for each seed, named by its content."""
    folder.mkdir(parents=True, exist_ok=True)
    frozen = sorted((Path(__file__).parent.parent / "spec" / "vectors").rglob("*.dcf"))
    seeds = [data for _, data in (*vectors(), *large_vectors())] + [path.read_bytes() for path in frozen]
    for data in seeds:
        if len(data) <= _LARGEST:
            (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
