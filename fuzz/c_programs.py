"""Fuzzes the decoders of exported C: ``python fuzz/c_programs.py --runs 1000000``.

Updates may bring a damaged file, so a program must be bounded for any bytes of weights. Each program is compiled with
AddressSanitizer and UndefinedBehaviorSanitizer, and libFuzzer (Debian's clang) changes its weights. A finding stops the
run with a report; the input stays in the folder. With ``--model FILE``, which may be repeated, programs of these files
are fuzzed instead; large networks take a tenth of a second for a run, so ``--seconds`` bounds the time of each program.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dcformat_runtime.c_export.exporting import Exported, Form, NumberFormat

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("", "runtime", "cli", "pruning", "interop")]

#: Runs a model on an input that depends on its weights.
TARGET = """
#include <stddef.h>
#include <stdint.h>
#include "model.h"
static uint8_t fuzzed[MODEL_DATA_SIZE];
#define MODEL_DATA fuzzed
#include "model.c"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static model_input_t input[MODEL_INPUTS];
    static model_output_t output[MODEL_OUTPUTS];
    uint32_t state = 1;
    memset(fuzzed, 0, sizeof fuzzed);
    memcpy(fuzzed, bytes, size < sizeof fuzzed ? size : sizeof fuzzed);
    for (uint32_t i = 0; i < MODEL_INPUTS; i++) {
        state = state * 1664525u + 1013904223u + fuzzed[i % MODEL_DATA_SIZE];
        input[i] = (model_input_t)(state >> 31 ? INPUT_HIGH : INPUT_LOW);
    }
    model_run(input, output);
    return state >> 24 == 0 && model_check() > 1; /* a checksum takes longer than a run */
}
"""
FLAGS = ("-std=gnu11", "-O2", "-g", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")
EXTREMES = {"float32": ("1e3f", "-1e3f"), "int8": ("255", "0"), "int16": ("32767", "-32767")}


def main() -> int:
    """Build all programs and fuzz each of them; return the exit code."""
    parser = argparse.ArgumentParser(description="Fuzz the decoders of exported C.")
    parser.add_argument("--runs", type=int, default=100_000, help="executions of each program [100000]")
    parser.add_argument("--seconds", type=int, default=0, help="the most time for each program [0: no bound]")
    parser.add_argument("--model", type=Path, action="append", default=[], help="fuzz the programs of this .dcf file")
    parser.add_argument("--out", type=Path, default=ROOT / "fuzz" / "work" / "c", help="where programs and findings go")
    parser.add_argument("--only", default="", help="a regular expression for names of programs")
    options = parser.parse_args()
    total = 0
    programs = _of_files(options.model) if options.model else _of_examples()
    for name, folder in _built(options.out, [row for row in programs if re.search(options.only, row[0])]):
        # libFuzzer's timeout is in seconds of the clock, and a busy machine may let a fuzzer wait for many.
        done = subprocess.run(
            ["./dcformat-fuzzer", f"-runs={options.runs}", f"-max_total_time={options.seconds}", "-timeout=600",
             "-rss_limit_mb=512", "-print_final_stats=1", "corpus"],
            cwd=folder, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        found = re.search(r"stat::number_of_executed_units:\s+(\d+)", done.stderr)
        if done.returncode or found is None:
            print(done.stderr[-4000:])
            print(f"{name}: a finding in {folder}")
            return 1
        total += int(found[1])
        print(f"{name}: {int(found[1]):,} executions, no finding", flush=True)
    print(f"{total:,} executions, no finding")
    return 0


def _of_files(paths: list[Path]) -> list[tuple[str, Exported, str]]:
    """Export the networks of files, with float32 and both forms in which weights stay coded."""
    from dcformat_runtime.c_export import ExportOptions, export_c

    import dcformat

    forms: tuple[Form, ...] = ("fast", "small")
    return [
        (f"{path.stem}-float32-{form}", export_c(dcformat.load(path), ExportOptions("float32", form)), "float32")
        for path in paths
        for form in forms
    ]


def _of_examples() -> list[tuple[str, Exported, str]]:
    """Export small networks in all forms."""
    import numpy as np
    from dcformat_runtime.c_export import ExportOptions, export_c

    from tests.runtime.example_networks import Net, lenet, mlp
    from tests.runtime.test_c_export import elementwise, one_line, quantised

    networks = {"lenet": lenet(size=8), "one-line": one_line(), "mlp": mlp(8, 6, 5, 3)}
    forms: tuple[Form, ...] = ("fast", "small", "tables")
    choices: list[tuple[str, NumberFormat]] = [("lenet", "int8"), ("one-line", "float32"), ("mlp", "int16")]
    made = []
    for form in forms:
        for name, numbers in choices:
            net: Net = networks[name]
            x = np.random.default_rng(0).standard_normal((50, *net.shape), np.float32)
            made.append((f"{name}-{numbers}-{form}", export_c(net.model(), ExportOptions(numbers, form), x), numbers))
        made.append((f"quantised-int8-{form}", export_c(quantised(), ExportOptions("int8", form)), "int8"))
    made.append(("elementwise-float32", export_c(elementwise().model()), "float32"))
    return made


def _built(out: Path, programs: list[tuple[str, Exported, str]]) -> list[tuple[str, Path]]:
    """Compile programs; return their names and folders."""
    folders = []
    for name, program, numbers in programs:
        folder = out / name
        (folder / "corpus").mkdir(parents=True, exist_ok=True)
        for file, text in program.files.items():
            (folder / file).write_text(text)
        (folder / "target.c").write_text(TARGET)
        (folder / "corpus" / "weights").write_bytes(program.data)
        high, low = EXTREMES[numbers]
        command = [
            "clang",
            *FLAGS,
            f"-DINPUT_HIGH={high}",
            f"-DINPUT_LOW={low}",
            "-o",
            "dcformat-fuzzer",
            "target.c",
            "-lm",
        ]
        subprocess.run(command, cwd=folder, check=True)
        folders.append((name, folder))
    return folders


if __name__ == "__main__":
    os.nice(4)
    sys.exit(main())
