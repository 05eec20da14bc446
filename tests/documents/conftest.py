"""Settings of the tests of documents."""

from __future__ import annotations

import pytest
from dcformat_runtime import switching


@pytest.fixture(scope="package", autouse=True)
def _compiled() -> None:
    """Compile the runtime's kernels, because the command reports missing ones, and no page shows this."""
    for kernel in switching.needed():
        kernel.resolve()
