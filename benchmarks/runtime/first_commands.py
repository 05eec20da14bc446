"""Measures the first commands after an installation: the CPU seconds of `inspect`, `verify` and `run` for models/*.dcf.

    make edge
    python benchmarks/runtime/first_commands.py .venv-edge/bin/python --out docs/results/first-commands.md

Each command is a process of the given Python, into which a wheel is installed, with an empty folder for machine code:
no command finds code that another one compiled. `run` classifies ten inputs of zeros.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.machine import describe  # noqa: E402

VERBS = ("inspect", "verify", "run")
INPUTS = 10
#: The bytes of all installed packages but pip's own.
_SIZE = """
import pathlib, numpy
site = pathlib.Path(numpy.__file__).parents[1]
parts = [p for p in site.iterdir() if p.name.partition("-")[0] not in ("pip", "setuptools", "pkg_resources")]
files = [file for part in parts for file in ([part] if part.is_file() else part.rglob("*"))]
print(sum(file.stat().st_size for file in files if file.is_file()))
"""


def cpu_seconds(command: list[str], folder: Path) -> float:
    """Run a command, which must succeed and print no error, and return its CPU time."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("DCFORMAT_", "PYTHON"))}
    with tempfile.TemporaryDirectory(dir=folder) as cache, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=errors, cwd=folder, env=env | {"DCFORMAT_CACHE_DIR": cache}
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        if process.returncode or (printed := errors.read()):
            raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}, {printed.decode()}")
    return usage.ru_utime + usage.ru_stime


def measure(python: str, rounds: int) -> dict[str, Any]:
    """Return the medians of all commands for each model, and the bytes of the installation."""
    found: dict[str, Any] = {"bytes": int(subprocess.check_output([python, "-c", _SIZE])), "seconds": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in sorted((ROOT / "models").glob("*.dcf")):
            described = subprocess.check_output([python, "-m", "dcformat", "inspect", "--json", str(model)], cwd=folder)
            inputs = folder / f"{model.stem}.npy"
            np.save(inputs, np.zeros((INPUTS, *json.loads(described)["network"]["input_shape"]), np.float32))
            for verb in VERBS:
                extra = ["--input", str(inputs)] if verb == "run" else []
                command = [python, "-m", "dcformat", verb, str(model), *extra]
                times = [cpu_seconds(command, folder) for _ in range(rounds)]
                found["seconds"].setdefault(model.name, {})[verb] = [
                    round(statistics.median(times), 3),
                    round(max(times), 3),
                ]
    return found


def main() -> None:
    """Measure, and print and write Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", help="the Python of an environment with the wheel")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the table here, and the figures beside it as .json")
    options = parser.parse_args()
    found = measure(os.path.abspath(options.python), options.rounds)  # noqa: PTH100 - a link must stay one
    lines = [
        "# The first commands after an installation", "",
        f"CPU seconds, medians of {options.rounds} processes (and the longest), each with an empty folder for machine",
        f"code. Made by `python benchmarks/runtime/first_commands.py` on {describe()}.", "",
        f"| file | {' | '.join(VERBS)} |", "|---|" + "---|" * len(VERBS),
    ]  # fmt: skip
    for model, times in found["seconds"].items():
        cells = [f"{median:.2f} ({longest:.2f})" for median, longest in (times[verb] for verb in VERBS)]
        lines.append(f"| `{model}` | {' | '.join(cells)} |")
    lines += ["", f"All packages of the installation together take {found['bytes'] / 1e6:.0f} MB.", ""]
    print("\n".join(lines))
    if options.out is not None:
        options.out.write_text("\n".join(lines))
        options.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
