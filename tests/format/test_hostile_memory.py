"""Decoding takes no more memory than was allowed, and the prediction is not far above the memory taken."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import dcformat
from dcformat import errors, jit
from dcformat.codecs.memory import working_bytes
from dcformat.codecs.payload_layout import parse_payload
from tests.format import strategies
from tests.format.hostile import VECTORS, read
from tests.format.strategies import COMPILED
from tests.format.traced_memory import least_peak

NAMES = ["model-small", *(name for name in VECTORS if "float32" in name and "chunked" in name)]


# Tracing the memory of kernels that run as Python is slow.
@pytest.mark.parametrize("name", NAMES if COMPILED else NAMES[::8])
def test_what_decoding_takes_is_bounded_by_max_memory(name: str) -> None:
    """With the smallest `max_memory` that suffices, reading takes no more than that plus a constant."""
    least = 0
    while True:
        try:
            dcformat.load(VECTORS[name], max_memory=least)
            break
        except errors.MemoryLimitError as error:
            more = int(str(error.got).split()[0].replace(",", ""))
            assert more > least
            least = more
    assert 0 < least < 1 << 20
    with pytest.raises(errors.MemoryLimitError):
        dcformat.load(VECTORS[name], max_memory=least - 1)
    read(VECTORS[name], max_memory=least)


@pytest.mark.slow
@pytest.mark.skipif(not COMPILED, reason="kernels as Python take minutes")
@pytest.mark.parametrize("form", ["dense", "dense-shared", "sparse", "sparse-shared"])
def test_large_tensors_take_what_was_allowed(form: str) -> None:
    """The bound is close to the arrays' true size: measured memory stays just below it."""
    jit.warm(jit.kernels())  # the compiler's memory does not count
    random = np.random.default_rng(3)
    made = strategies.tensor(random, "t", (200, 300), "float32", form, codebook_size=17, grid=True)
    for way in strategies.ways(made, 30):
        data = strategies.dumps_as(dcformat.Model({"t": made}), way)
        with dcformat.open(data, max_memory=None) as file:
            file.tensor("t")
            info = file.info("t")
            peak = least_peak(partial(file.tensor, "t"))
        payload = strategies.payload(made, way)
        bound = working_bytes(parse_payload(info, np.frombuffer(payload, np.uint8)))
        assert peak <= bound + (1 << 17) + len(payload), str(way)
        assert bound <= 60 * info.decoded_bytes + (1 << 21), str(way)
