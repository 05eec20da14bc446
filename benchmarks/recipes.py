"""Measures the recipes for several seeds (size, ratio, validation and test error), and compares runtime and PyTorch.

    python benchmarks/recipes.py --out docs/results        # hours for `record`, minutes for the others

Each network is trained by `dcformat_pruning.compress_architecture`, written, loaded by the runtime and run on all test
images; its predictions must equal PyTorch's, and its logits must be within 1e-4 of PyTorch's. Each run is timed in its
own process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), *(str(Path(__file__).parents[1] / p) for p in ("", "runtime", "pruning"))]

#: The bytes of float32 weights and biases, the numerator of the ratio.
DENSE_BYTES = {"lenet-300-100": 4 * 266_610, "lenet-5": 4 * 431_080}
#: The limits in bytes and in percent of test error (the baselines of Han et al. 2015).
LIMITS = {
    ("lenet-300-100", "classic"): (27_000, 1.64),
    ("lenet-5", "classic"): (44_000, 0.80),
    ("lenet-300-100", "default"): (13_330, 1.64),
    ("lenet-5", "default"): (21_554, 0.80),
    ("lenet-300-100", "record"): (6_000, 1.64),
    ("lenet-5", "record"): (4_500, 0.80),
    ("lenet-300-100", "extreme"): (2_133, 4.17),
}
LOGITS_WITHIN = 1e-4


def one(
    architecture: str, recipe: str, seed: int, threads: int, data: str | None, path: Path, stages: Path | None
) -> dict[str, Any]:
    """Train one network (or resume from `stages`), write it to `path`, and measure the file."""
    import dcformat_runtime
    import numpy as np
    import torch
    from dcformat_pruning import compress_architecture
    from dcformat_pruning.data import PREPROCESSING

    import dcformat
    from dcformat.datasets import load_split

    assert PREPROCESSING.mean == (0.0,) and PREPROCESSING.std == (1.0,)
    torch.set_num_threads(threads)
    started = time.perf_counter()
    result = compress_architecture(architecture, recipe, seed=seed, device="cpu", data=data, resume_dir=stages)
    seconds = max(time.perf_counter() - started, sum(s.seconds for s in result.stages))
    # The command does the same: `classic` is the paper as published, with its relative index.
    dcformat.save(result.model, path, mode=result.mode, relative_index="filler" if recipe == "classic" else "escape")
    split = load_split("test", data)
    images = split.images[:, None].astype(np.float32) / np.float32(255)
    with torch.no_grad():
        expected = np.concatenate(
            [result.module(torch.from_numpy(images[i : i + 1000])).numpy() for i in range(0, len(images), 1000)]
        )
    session = dcformat_runtime.load(path)
    found = session(images.reshape(len(images), *session.input_shape))
    same = int((found.argmax(1) == expected.argmax(1)).sum())
    return {
        "architecture": architecture,
        "recipe": recipe,
        "seed": seed,
        "mode": result.mode,
        "bytes": path.stat().st_size,
        "ratio": DENSE_BYTES[architecture] / path.stat().st_size,
        "weights": result.stages[-1].weights,
        "validation_error": 100 * (1 - result.stages[-1].metric),
        "test_error": 100 * float((found.argmax(1) != split.labels).mean()),
        "same_predictions": same,
        "images": len(images),
        "largest_logit_difference": float(np.abs(found - expected).max()),
        "seconds": seconds,
        "threads": threads,
        "stages": [[s.stage, 100 * (1 - s.metric), s.weights, s.seconds] for s in result.stages],
    }


def markdown(runs: list[dict[str, Any]], machine: str) -> str:
    """Return a table of all runs, their means, and the widest difference between PyTorch and the packed file."""
    lines = [
        "| network | recipe | seed | bytes | ratio | weights | validation error % | test error % | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for key in dict.fromkeys((r["architecture"], r["recipe"]) for r in runs):
        group = [r for r in runs if (r["architecture"], r["recipe"]) == key]
        lines += [_row(r, str(r["seed"])) for r in group]
        if len(group) > 1:
            lines.append(_summary(group))
    agree = all(r["same_predictions"] == r["images"] for r in runs)
    widest = max(r["largest_logit_difference"] for r in runs)
    lines += [
        "",
        f"Run from the packed file, predictions were {'all' if agree else 'NOT all'} those of PyTorch on the "
        f"{runs[0]['images']:,} test images; logits differed by at most {widest:.1e}. "
        f"Training used {runs[0]['threads']} thread{'s' if runs[0]['threads'] > 1 else ''}.",
        "",
        f"Measured with `benchmarks/recipes.py` on {machine}.",
    ]
    return "\n".join(lines) + "\n"


def _row(run: dict[str, Any], seed: str) -> str:
    return (
        f"| {run['architecture']} | {run['recipe']} | {seed} | {run['bytes']:,} | {run['ratio']:.1f} | "
        f"{run['weights']:,} | {run['validation_error']:.2f} | {run['test_error']:.2f} | {run['seconds']:.0f} |"
    )


def _summary(group: list[dict[str, Any]]) -> str:
    def cell(field: str, form: str) -> str:
        values = [float(r[field]) for r in group]
        return f"{statistics.mean(values):{form}} ± {statistics.stdev(values):{form}}"

    cells = [
        cell("bytes", ",.0f"),
        cell("ratio", ".1f"),
        cell("weights", ",.0f"),
        cell("validation_error", ".2f"),
        cell("test_error", ".2f"),
        cell("seconds", ".0f"),
    ]
    return f"| {group[0]['architecture']} | {group[0]['recipe']} | mean ± sd | " + " | ".join(cells) + " |"


def broken(run: dict[str, Any]) -> list[str]:
    """Return the limits that a run exceeds."""
    most, error = LIMITS[run["architecture"], run["recipe"]]
    name = f"{run['architecture']} {run['recipe']} seed {run['seed']}"
    faults = []
    if run["bytes"] > most:
        faults.append(f"{name}: expected at most {most} bytes, found {run['bytes']}")
    if run["test_error"] > error + 1e-9:
        faults.append(f"{name}: expected a test error of at most {error} %, found {run['test_error']:.2f} %")
    if run["same_predictions"] != run["images"] or run["largest_logit_difference"] > LOGITS_WITHIN:
        faults.append(
            f"{name}: expected PyTorch's predictions and logits, found {run['images'] - run['same_predictions']} "
            f"others and a difference of {run['largest_logit_difference']:.1e}"
        )
    return faults


def _in_a_process(architecture: str, recipe: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", architecture, recipe, str(seed), "--threads", str(options.threads)]
    if options.data is not None:
        command += ["--data", options.data]
    for name in ("keep", "stages"):
        if getattr(options, name) is not None:
            command += [f"--{name}", getattr(options, name)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    run: dict[str, Any] = json.loads(done.stdout)
    print(_row(run, str(seed)), file=sys.stderr, flush=True)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=["classic", "default"])
    parser.add_argument("--architectures", nargs="+", default=list(DENSE_BYTES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", help="the directory with MNIST; default: the checkout's")
    parser.add_argument("--keep", help="a directory for the files themselves")
    parser.add_argument("--stages", help="a directory to save stages in, and to continue from after an interruption")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/results"), help="the directory for recipes.json and recipes.md"
    )
    parser.add_argument("--one", nargs=3, metavar=("ARCHITECTURE", "RECIPE", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        architecture, recipe, seed = options.one
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(options.keep or scratch)
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{architecture}-{recipe}-{seed}.dcf"
            stages = Path(options.stages) / path.stem if options.stages is not None else None
            print(json.dumps(one(architecture, recipe, int(seed), options.threads, options.data, path, stages)))
        return
    from machine import describe

    runs = [
        _in_a_process(architecture, recipe, seed, options)
        for architecture in options.architectures
        for recipe in options.recipes
        for seed in options.seeds
    ]
    machine = describe("torch")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "recipes.json").write_text(json.dumps({"machine": machine, "runs": runs}, indent=1) + "\n")
    (options.out / "recipes.md").write_text(markdown(runs, machine))
    faults = [fault for run in runs for fault in broken(run)]
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
