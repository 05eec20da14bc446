"""The knowledge of coders 2 and 3 about their code symbols."""

from __future__ import annotations

from typing import NamedTuple


class Alphabet(NamedTuple):
    """Code symbols 0 .. `size` - 1; the first `negatives` of them stand for negative values."""

    size: int
    negatives: int

    @property
    def positives(self) -> int:
        """The number of code symbols that do not stand for negative values."""
        return self.size - self.negatives

    @property
    def magnitude_bits(self) -> int:
        """Bits of the largest magnitude; magnitudes count code symbols from zero outwards."""
        return (max(self.negatives, self.positives) - 1).bit_length()


class Signed(NamedTuple):
    """An `Alphabet` as kernels take it: the bits of a magnitude, and the number of code symbols of each sign."""

    bits: int
    negatives: int
    positives: int
