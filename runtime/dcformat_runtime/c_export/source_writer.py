"""Assembles the files of a program: ``model.c``, ``model.h`` and ``test_model.c``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat_runtime.c_export.element_steps import MATH_FUNCTIONS
from dcformat_runtime.c_export.step_context import Written

_LINE = 100
#: The fields of a tensor that each form's decoder needs, and how a constant gives them.
_CODERS = {
    "fast": ("offset_t gap_table, code_table;", "a, b"),
    "small": ("uint8_t magnitude_bits; uint16_t limit;", "c, d"),
    "tables": ("", ""),
}
_DECODERS = {"fast": "huffman", "small": "adaptive", "tables": "tables"}


class SourceProgram(NamedTuple):
    """The parts of a program besides its steps.

    Attributes
    ----------
    title : str
        The first comment's description of the network.
    numbers : {'float32', 'int8', 'int16'}
    form : {'fast', 'small', 'tables'}
    written : Written
    data : bytes
        The weights with their checksum.
    arena : int
        Elements of all values.
    inputs, outputs : int
        Elements of the input and of the output.
    input_place : str or None
        The C expression for the input, if the model owns it.
    wide : bool
        Whether indices of values need 32 bits.
    header : sequence of str
        Lines of the header about scales.
    """

    title: str
    numbers: str
    form: str
    written: Written
    data: bytes
    arena: int
    inputs: int
    outputs: int
    input_place: str | None
    wide: bool
    header: Sequence[str]

    @property
    def input_type(self) -> str:
        """The C type of an element of the input, and of every value."""
        return {"float32": "float", "int8": "uint8_t", "int16": "int16_t"}[self.numbers]

    @property
    def output_type(self) -> str:
        """The C type of an element of the output."""
        return "int32_t" if self.written.sums_out else self.input_type


def header(program: SourceProgram) -> str:
    """Return ``model.h``."""
    static = program.input_place is not None
    functions = (
        [
            "/* The input and the output belong to the model; write the input before each run. */",
            "model_input_t *model_input(void);",
            "const model_output_t *model_output(void);",
            "",
            "/* Compute the output. */",
            "void model_run(void);",
        ]
        if static
        else [
            "/* Compute MODEL_OUTPUTS numbers from MODEL_INPUTS. */",
            "void model_run(const model_input_t *input, model_output_t *output);",
        ]
    )
    return "\n".join([
        f"/* {program.title} */",
        "#ifndef MODEL_H",
        "#define MODEL_H",
        "",
        "#include <stdint.h>",
        "",
        f"#define MODEL_INPUTS {program.inputs}",
        f"#define MODEL_OUTPUTS {program.outputs}",
        f"#define MODEL_DATA_SIZE {len(program.data)}u",
        "",
        *program.header,
        f"typedef {program.input_type} model_input_t;",
        f"typedef {program.output_type} model_output_t;",
        "",
        "/* Return 1 if the weights have their checksum (CRC-32C), else 0. */",
        "int model_check(void);",
        "",
        *functions,
        "",
        "#endif",
        "",
    ])  # fmt: skip


def source(program: SourceProgram) -> str:
    """Return ``model.c``."""
    written = program.written
    middle = "\n".join([*written.constants, "", *_run(program), ""])
    names = ["data"]
    layers = "linear" in written.parts or "conv" in written.parts
    if layers:
        names += [_DECODERS[program.form]]
        names += ["float_numbers" if program.numbers == "float32" else "fixed_numbers", "reader"]
    if program.numbers != "float32":
        scaled = not {"conv", "linear_values"}.isdisjoint(written.parts)
        names += ["fixed_limits"] if scaled or "fixed_add" in written.parts else []
        names += ["fixed_scales"] if scaled else []
    names += [name for name in _ORDER if name in written.parts]
    text = "\n".join(_part(name) for name in names)
    math = [name for name in MATH_FUNCTIONS if f"{name}(" in text + middle]
    return "\n".join([*_preamble(program, layers, math), _bytes(program), text, middle])


#: The order of the parts that steps need; each uses those before it.
_ORDER = (
    "float_table", "functions", "sigmoid", "hyperbolic_tangent", "rounded", "quantized", "quotient", "linear",
    "linear_values", "linear_sums", "conv", "pool", "max_pool", "mean_pool", "row_sums", "row_means", "row_extremes",
    "fixed_means", "global_mean", "ordered_softmax", "row_softmax", "fixed_softmax", "fixed_add",
)  # fmt: skip


def _preamble(program: SourceProgram, layers: bool, math: Sequence[str]) -> list[str]:
    written = program.written
    floats = program.numbers == "float32"
    fields, used = _CODERS[program.form]
    offset = "uint16_t" if len(program.data) <= 65535 and written.entries <= 65535 else "uint32_t"
    lines = [
        f"/* {program.title} */",
        "",
        '#include "model.h"',
        "",
        "#include <float.h>" if floats else None,
        f"#include <math.h> /* {', '.join(math)} */" if math else None,
        "#include <string.h> /* memcpy */",
        "",
        *(_CONTRACTION if floats else []),
        f"#define FLOATS {int(floats)}",
        f"#define PADDED {int(written.padded)}",
        f"#define ROW_ENTRIES {written.row_entries}" if written.row_entries else None,
        "",
        "/* Weights lie in flash; on AVR, flash has addresses of its own. */",
        "#ifdef __AVR__",
        "#include <avr/pgmspace.h>",
        "#define FLASH PROGMEM",
        "#define FLASH_BYTE(address) pgm_read_byte(address)",
        "#else",
        "#define FLASH",
        "#define FLASH_BYTE(address) (*(address))",
        "#endif",
        "",
        "typedef model_input_t value_t;",
        f"typedef {offset} offset_t; /* a place in model_data */",
        f"typedef {'uint32_t' if program.wide else 'uint16_t'} index_t; /* a place in a value */",
        f"#define CODER_FIELDS {fields}",
        f"#define CODER(a, b, c, d) {', ' + used if used else ''}",
    ]
    if layers:
        small = program.form == "small"
        lines += [
            f"#define BIT_MODELS {max(written.weight_models + written.bias_models, 1)}" if small else None,
            f"#define WEIGHT_MODELS {'models' if small else '0'}",
            f"#define BIAS_MODELS {f'models + {written.weight_models}' if small else '0'}",
        ]
    return [line for line in lines if line is not None]


#: Fused multiply-adds would change the last bits of sums. GCC ignores the standard's pragma.
_CONTRACTION = [
    "#if defined(__GNUC__) && !defined(__clang__)",
    '#pragma GCC optimize("fp-contract=off")',
    "#else",
    "#pragma STDC FP_CONTRACT OFF",
    "#endif",
    "",
]


def _part(name: str) -> str:
    return resources.files(__package__).joinpath("parts", f"{name}.c").read_text("utf-8").strip("\n") + "\n"


def _bytes(program: SourceProgram) -> str:
    rows = [program.data[i : i + 20] for i in range(0, len(program.data), 20)]
    return "\n".join([
        "",
        "/* An array elsewhere may take the place of this one, such as a part of flash that updates replace. */",
        "#ifndef MODEL_DATA",
        "#define MODEL_DATA model_data",
        "static const uint8_t model_data[MODEL_DATA_SIZE] FLASH = {",
        *("    " + " ".join(f"{b}," for b in row) for row in rows),
        "};",
        "#endif",
        "",
    ])  # fmt: skip


def _run(program: SourceProgram) -> list[str]:
    static = program.input_place is not None
    lines = []
    if program.arena:
        lines += [f"static value_t arena[{program.arena}];", ""]
    if static:
        lines += [
            f"static model_output_t output[{program.outputs}];",
            "",
            "model_input_t *model_input(void)",
            "{",
            f"    return {program.input_place};",
            "}",
            "",
            "const model_output_t *model_output(void)",
            "{",
            "    return output;",
            "}",
            "",
            "void model_run(void)",
        ]
    else:
        lines += ["void model_run(const model_input_t *input, model_output_t *output)"]
    return [*lines, "{", *(f"    {line}" for line in program.written.statements), "}"]


def test_source(program: SourceProgram, inputs: npt.NDArray[np.generic], outputs: npt.NDArray[np.generic]) -> str:
    """Return ``test_model.c``, which compares outputs of the program with those of the runtime.

    `inputs` and `outputs` have the C types of the program, a row for each input.
    """
    text = _part("test")
    arrays = []
    for name, array in (("test_inputs", inputs), ("test_outputs", outputs)):
        raw = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
        rows = [raw[i : i + 20] for i in range(0, len(raw), 20)]
        arrays += [
            f"static const uint8_t {name}[{len(raw)}] FLASH = {{",
            *("    " + " ".join(f"{b}," for b in row) for row in rows),
            "};",
            "",
        ]
    static = "1" if program.input_place is not None else "0"
    values = {"@COUNT@": str(len(inputs)), "@ARRAYS@": "\n".join(arrays), "@STATIC@": static, "@TITLE@": program.title}
    for key, value in values.items():
        text = text.replace(key, value)
    return text
