"""Print the traced example of `coders.md`, section 6.5: `python spec/trace_coder_3.py`.

The program codes the matrix of the worked example under coder 3, decodes it with the reference decoder, and prints the
inputs of the first decisions.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

from generator.modelled import Modelled
from reference_coders import CodeSymbols, Model, RangeDecoder, clamp, decode_codebook
from reference_mixing import ChunkDecoder, Column, Line, Mixer, squash

ROWS, COLUMNS, LAG = 4, 6, 2
#: The bit patterns of -0.25, 0.5 and 1, and their positions.
CODEBOOK = [0xBE800000, 0x3F000000, 0x3F800000]
ELEMENTS = {1: CODEBOOK[1], 5: CODEBOOK[0], 9: CODEBOOK[1], 18: CODEBOOK[1], 20: CODEBOOK[0], 23: CODEBOOK[2]}
DECISIONS = 12

HEADER = "where       models              x0    x1    x2    x3    x4  y, z           p code     range    bit"


class Traced(ChunkDecoder):
    """Decodes a chunk, and keeps a line of text for each decision."""

    def __init__(self, *given: object) -> None:
        super().__init__(*given)  # type: ignore[arg-type]
        self.trace: list[str] = []
        self.where = ""

    def cell(self, line: Line, j: int, lines_before: int, certain: bool) -> int | None:
        """Decode a cell."""
        self.where = f"cell {lines_before}, {j}"
        return super().cell(line, j, lines_before, certain)

    def symbol(self, line: Line, column: Column, s: int, pull: int) -> tuple[int, int, int]:
        """Decode a code symbol."""
        self.where = ""
        return super().symbol(line, column, s, pull)

    def mixed(self, mixers: list[Mixer], models: list[Model], inputs: list[int]) -> int:
        """Decode a bit, and record the inputs of the decision."""
        where, known = self.where, self.cell_models
        if not where:
            of_sign = mixers[0] is self.symbol_mixers[0]
            where, known = ("  sign", self.sign_models) if of_sign else ("  magnitude", self.trees)
        numbers = " ".join(str(next(i for i, each in enumerate(known) if each is model)) for model in models)
        made = [mixer.predict(inputs) for mixer in mixers]
        p = clamp(squash(sum(made) // len(made)), 32, 65504)
        code, width = self.coder.code, self.coder.range
        bit = super().mixed(mixers, models, inputs)
        values = "".join(f"{x:6}" for x in inputs)
        predictions = ", ".join(map(str, made))
        self.trace.append(f"{where:11} {numbers:15} {values}  {predictions:10} {p:5} {code:08x} {width:08x} {bit}")
        return bit


def traced() -> tuple[bytes, list[str], list[int], list[int]]:
    """Return the chunk's stream, a line for each decision, and the decoded positions and codes."""
    payload = Modelled((ROWS, COLUMNS), ELEMENTS, coder=3, lag=LAG).item().payload
    coder = RangeDecoder(payload[2:])
    codebook = decode_codebook(coder, "float32", len(CODEBOOK))
    assert codebook == CODEBOOK and coder.direct(8) == LAG and coder.direct(2) == 0
    negatives = sum(bits >> 31 for bits in codebook)
    everything = [list(range(n)) for n in (ROWS, COLUMNS)]
    decoder = Traced(coder, CodeSymbols(len(codebook), negatives), LAG, COLUMNS, *everything, len(ELEMENTS))
    places, codes = decoder.decode()
    coder.end()
    return payload[2:], decoder.trace, places, codes


def text() -> str:
    """Return the traced example, with the text of the specification."""
    stream, trace, places, _ = traced()
    block = "\n".join([HEADER, *trace[:DECISIONS], "..."])
    return f"""The chunk is the {len(stream)} bytes `{stream.hex(" ")}`. After the codebook, the lag (2) and
two direct bits (0) there are {len(trace)} decisions, of which these are the first {DECISIONS}. A line gives the cell
(line, column) or the part of its code symbol; the numbers of the bit models; the inputs; the
predictions, y and z for a cell, y for the others; p; code and range before the decision, in
hexadecimal; and the bit.

```
{block}
```

The alphabet is 3 and negatives is 1, so magnitude_bits is 1; the magnitude of a negative code
symbol can only be 0 and is not coded. A model of a magnitude has number 2 x tree + node. The
entries come out at positions {", ".join(map(str, places))}."""


if __name__ == "__main__":
    print(text())
