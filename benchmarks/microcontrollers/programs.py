"""Sizes and lengths of exported C: ``python benchmarks/microcontrollers/programs.py``.

Each network is exported in each form, compiled for Cortex-M3 and an AVR with -Os, and run in QEMU and simavr with -O2,
beside a plain dense program of the same network. The tables go to docs/results/microcontrollers.md, the figures to
microcontrollers.json.

Needs gcc, and Debian's gcc-arm-none-eabi, qemu-system-arm, gcc-avr, avr-libc and simavr. For more networks,
--mlperf gives a folder of the int8 models of MLPerf Tiny, and --calibration a folder of inputs for the two files of
models/ that compress its networks: ds-cnn-keywords.npy (sounds of benchmarks/calibration) and resnet-8.npy (images of
the training set).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("", "runtime", "cli", "interop")]

from dcformat_cli.report.chips import CHIPS, OTHER_FLASH, OTHER_RAM  # noqa: E402
from dcformat_runtime import Session  # noqa: E402
from dcformat_runtime.c_export import Exported, ExportOptions, export_c  # noqa: E402
from dcformat_runtime.c_export.exporting import Form, NumberFormat  # noqa: E402
from dcformat_runtime.c_export.toolchains import TARGETS, ToolchainError, emulate, measure, missing  # noqa: E402

import dcformat  # noqa: E402
from benchmarks.machine import describe  # noqa: E402
from benchmarks.microcontrollers.dense_c import dense_program  # noqa: E402
from dcformat.datasets import load_split  # noqa: E402
from dcformat.model import Model  # noqa: E402
from tests.runtime.c_programs import run_on  # noqa: E402

FORMS: tuple[Form, ...] = ("fast", "small", "tables")
FORM_NAMES = {"fast": "resident, fast", "small": "resident, small", "tables": "sparse"}
MNIST = ("lenet-5", "lenet-300-100", "lenet-300-100-extreme")
MLPERF = ("kws_dscnn_int8", "ic_resnet8_int8")
#: Compressed networks of MLPerf Tiny, and the sizes of its int8 TFLite models.
COMPRESSED = {"ds-cnn-keywords": 53_936, "resnet-8": 98_496}
_COLUMNS = (
    "numbers", "form", "M3 code", "M3 constants", "M3 flash", "M3 memory", "M3 run", "AVR flash", "AVR memory",
    "AVR run", "accuracy",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mlperf", type=Path, help="folder of MLPerf Tiny's int8 models and of kws_samples.npz")
    parser.add_argument("--calibration", type=Path, help="folder of ds-cnn-keywords.npy and resnet-8.npy")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results", help="folder of the results")
    parser.add_argument("--resume", action="store_true", help="keep the networks that the results already have")
    options = parser.parse_args()
    path = options.out / "microcontrollers.json"
    networks = json.loads(path.read_text())["networks"] if options.resume else []
    makers = {name: partial(_mnist, name) for name in MNIST}
    if options.mlperf is not None:
        makers |= {name: partial(_mlperf, options.mlperf, name) for name in MLPERF}
    if options.calibration is not None:
        makers |= {name: partial(_compressed, options.calibration, name) for name in COMPRESSED}
    for name, make in makers.items():
        if not any(network["name"] == name for network in networks):
            networks.append(make())
        found = {"machine": describe(), "tools": _tools(), "networks": networks}
        path.write_text(json.dumps(found, indent=1) + "\n")
        path.with_suffix(".md").write_text(_document(found))


def _mnist(name: str) -> dict[str, Any]:
    model = dcformat.load(ROOT / "models" / f"{name}.dcf")
    train, test = (load_split(part, ROOT / "data" / "mnist") for part in ("train", "test"))
    expected = Session.from_model(model)(test.images)
    numbers: tuple[NumberFormat, ...] = ("int8", "int16", "float32")
    rows = []
    for kind in numbers:
        for form in FORMS:
            if kind != "int8" and form == "small":
                continue
            made = _export(model, kind, form, train.images[:1000])
            row = _measured(name, kind, form, made)
            if kind != "float32":
                free = export_c(model, ExportOptions(kind, form), train.images[:1000])
                output = _outputs(free, _stored(free, test.images), "<i4").argmax(axis=1)
                row["same_argmax"] = float(np.mean(output == expected.argmax(axis=1)))
                row["accuracy"] = float(np.mean(output == test.labels))
            rows.append(row)
    inputs = (train.images[:1000].astype(np.float32) / 255).reshape(-1, *_shape(model))
    accuracy = float(np.mean(expected.argmax(axis=1) == test.labels))
    return _network(name, model, rows, inputs, (ROOT / "models" / f"{name}.dcf").stat().st_size) | {
        "accuracy": accuracy
    }


def _mlperf(folder: Path, name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        packed = Path(temporary) / "model.dcf"
        command = [sys.executable, "-m", "dcformat", "pack", str(folder / f"{name}.tflite"), "-o", str(packed)]
        environment = {**os.environ, "PYTHONPATH": ":".join(sys.path[:4])}
        subprocess.run([*command, "--mode", "small"], check=True, capture_output=True, env=environment)
        model, size = dcformat.load(packed), packed.stat().st_size
    rows = []
    for form in FORMS:
        made = _export(model, "int8", form, None)
        row = _measured(name, "int8", form, made)
        if name.startswith("kws"):
            samples = np.load(folder / "kws_samples.npz")
            row["correct"] = _correct(export_c(model, ExportOptions("int8", form)), samples)
        rows.append(row)
    return _network(name, model, rows, None, size) | {"tflite": (folder / f"{name}.tflite").stat().st_size}


def _compressed(folder: Path, name: str) -> dict[str, Any]:
    path = ROOT / "models" / f"{name}.dcf"
    model, inputs = dcformat.load(path), np.load(folder / f"{name}.npy")
    rows = []
    for form in FORMS:
        made = _export(model, "int8", form, inputs)
        assert made.error is not None
        rows.append(_measured(name, "int8", form, made) | {"same_argmax": made.error.same_argmax})
    floats = inputs.astype(np.float32) / 255 if inputs.dtype == "uint8" else inputs
    return _network(name, model, rows, floats, path.stat().st_size) | {"tflite": COMPRESSED[name]}


def _correct(made: Exported, samples: Any) -> list[int]:
    inputs, labels = (samples[key] for key in samples.files[:2])
    stored = (inputs.astype(np.int16) + 128).astype(np.uint8)
    found = _outputs(made, stored.reshape(len(labels), -1), "u1").argmax(axis=1)
    return [int(np.sum(found == labels)), len(labels)]


def _network(name: str, model: Model, rows: list[dict[str, Any]], inputs: Any, size: int) -> dict[str, Any]:
    made = export_c(model, ExportOptions("int8"), inputs)
    files = dense_program(model, made.files, inputs)
    dense: dict[str, Any] = {}
    for target in ("cortex-m3", "atmega1284p"):
        if missing(target, emulator=True) is None and (target == "cortex-m3" or name == "lenet-5"):
            try:
                dense[target] = {**measure(files, target, warnings=False)._asdict(), **emulate(files, target)._asdict()}
            except RuntimeError as error:
                dense[target] = {"failed": str(error)[-200:]}
    return {"name": name, "dcf": size, "programs": rows, "dense": dense}


def _export(model: Model, numbers: NumberFormat, form: Form, inputs: Any) -> Exported:
    return export_c(model, ExportOptions(numbers, form, static_inputs=True, tests=1), inputs)


def _measured(name: str, numbers: str, form: str, made: Exported) -> dict[str, Any]:
    row: dict[str, Any] = {"numbers": numbers, "form": form, "data": len(made.data), "targets": {}}
    for target in TARGETS:
        if missing(target) is not None:
            continue
        try:
            sizes = measure(made.files, target)
        except ToolchainError as error:
            if "too large" in str(error):  # no array of an AVR has more than 32,767 bytes
                continue
            raise
        found: dict[str, Any] = {**sizes._asdict(), "flash": sizes.flash, "memory": sizes.ram + sizes.stack}
        chip = {"atmega328p": (32, 2), "atmega1284p": (128, 16)}.get(target, (4096, 4096))
        fits = found["flash"] + 1024 <= chip[0] * 1024 and found["memory"] <= chip[1] * 1024
        runs = target == "cortex-m3" or (target.startswith("atmega") and numbers == "int8")
        if fits and runs and missing(target, emulator=True) is None:
            ran = emulate(made.files, target)
            if ran.failed or not ran.checked:
                raise RuntimeError(f"{name} {numbers} {form}: {ran.failed} outputs differ on {target}")
            found |= {"length": ran.length, "unit": ran.unit}
        row["targets"][target] = found
        print(name, numbers, form, target, found, flush=True)
    return row


def _shape(model: Model) -> tuple[int, ...]:
    assert model.graph is not None
    return model.graph.input_shape


def _stored(made: Exported, pixels: Any) -> Any:
    if "uint8_t model_input_t" in made.files["model.h"]:
        return pixels
    scale = float(made.files["model.h"].split("MODEL_INPUT_SCALE ")[1].split()[0])
    return np.rint(pixels.astype(np.float64) / 255 / scale).astype(np.int16)


def _outputs(made: Exported, inputs: Any, dtype: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return run_on(Path(folder), made.files, inputs, dtype)


def _tools() -> list[str]:
    found = []
    for command in ("arm-none-eabi-gcc", "qemu-system-arm", "avr-gcc"):
        done = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
        found.append(done.stdout.splitlines()[0])
    return found


def _document(found: dict[str, Any]) -> str:
    lines = [
        "# Exported C", "",
        "`benchmarks/microcontrollers/programs.py` made these tables.", "",
        f"Machine: {found['machine']}; {'; '.join(found['tools'])}.", "",
        "Sizes are bytes of programs linked with `-Os`. Memory is that of all variables, the input included, and the",
        "bound of the stack. A run (`-O2`) counts in instructions under QEMU (M3) or cycles under simavr (AVR).", "",
    ]  # fmt: skip
    for network in found["networks"]:
        lines += _table(network)
    lines += _fitting(found["networks"])
    return "\n".join(lines)


def _table(network: dict[str, Any]) -> list[str]:
    title = f"{network['name']}: a file of {network['dcf']:,} bytes"
    title += f", {network['tflite']:,} as int8 TFLite" if "tflite" in network else ""
    lines = [
        f"## {title}", "",
        f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS),
    ]  # fmt: skip
    dense = network["dense"].get("cortex-m3", {}).get("length")
    for row in network["programs"]:
        m3, avr = row["targets"].get("cortex-m3", {}), row["targets"].get("atmega1284p", {})
        run = f"{m3['length'] / 1e6:.2f} M" + (
            f" ({m3['length'] / dense:.2f} of dense)" if dense and row["numbers"] == "int8" else ""
        )
        accuracy = (
            f"{100 * row['accuracy']:.2f} %, the same class for {100 * row['same_argmax']:.2f} %"
            if "accuracy" in row
            else ""
        )
        if "same_argmax" in row and not accuracy:
            accuracy = f"the same class for {100 * row['same_argmax']:.1f} % of the calibration inputs"
        if "correct" in row:
            accuracy = f"{row['correct'][0]:,} of {row['correct'][1]:,}"
        if row["numbers"] == "float32":
            accuracy = f"{100 * network['accuracy']:.2f} %" if "accuracy" in network else ""
        cycles = f"{avr['length'] / 1e6:.1f} M" if "length" in avr else ""
        avr_sizes = f"{avr['flash']:,} | {avr['memory']:,}" if avr else "too large | "
        lines.append(
            f"| {row['numbers']} | {FORM_NAMES[row['form']]} | {m3['text']:,} | {m3['rodata']:,} | {m3['flash']:,} "
            f"| {m3['memory']:,} | {run} | {avr_sizes} | {cycles} | {accuracy} |"
        )
    lines.append("")
    for target, size in network["dense"].items():
        if "length" in size:
            lines.append(
                f"Plain dense C with int8 weights on {target}: flash {size['text'] + size['rodata']:,}, memory "
                f"{size['ram'] + size['stack']:,}, {size['length'] / 1e6:.1f} M {size['unit']}."
            )
    return [*lines, ""]


def _fitting(networks: list[dict[str, Any]]) -> list[str]:
    names = [network["name"] for network in networks]
    lines = [
        "## What fits", "",
        "Fixed point in 8 bits, in any form, beside 1 KB of flash and 256 bytes of RAM for the rest of a program.", "",
        "| chip | flash, KB | RAM, KB | " + " | ".join(names) + " |", "|---|---|---|" + "---|" * len(names),
    ]  # fmt: skip
    for name, chip in CHIPS.items():
        cells = []
        for network in networks:
            rows = [row["targets"].get(chip.processor) for row in network["programs"] if row["numbers"] == "int8"]
            fits = any(
                row["flash"] + OTHER_FLASH <= 1024 * chip.flash and row["memory"] + OTHER_RAM <= 1024 * chip.ram
                for row in rows
                if row
            )
            cells.append("fits" if fits else "no")
        lines.append(f"| {name} | {chip.flash:,} | {chip.ram} | " + " | ".join(cells) + " |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
