"""Settings of the tests of documents."""

from __future__ import annotations

import pytest
from dcformat_runtime import switching


@pytest.fixture(scope="package", autouse=True)
def _compiled() -> None:
    """Compile the runtime's kernels: as long as they are missing, the command says so, which no page shows."""
    for kernel in switching.needed():
        kernel.resolve()
