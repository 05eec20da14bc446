"""Measures a fresh process up to its first prediction: the seconds until the parent reads it, and the peak memory.

    python benchmarks/runtime/cold_start.py --out docs/results/cold-start.md

Each runtime loads the same network from its own kind of file, written beforehand, and classifies one image. Processes
alternate; files are in the page cache. Kernels are compiled first, unless --kernels names a folder that has them. Every
program of dcformat is the same; its first process with a file decodes it, the second saves the network too, and later
ones take what was saved. Each of these has a cache of its own. Peak memory is VmHWM, which a new program resets.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOTS = [str(HERE.parents[1] / folder) for folder in ("cli", "runtime", "interop", "")]
sys.path[:0] = [str(HERE), *ROOTS, str(HERE.parent)]

_END = """
with open("/proc/self/status") as status:
    peak = [line.split()[1] for line in status if line.startswith("VmHWM")][0]
print(y, peak, flush=True)
"""

_OURS = """
import dcformat_runtime
session = dcformat_runtime.load(sys.argv[1], threads=1)
y = session(x).argmax()
"""

#: The program that makes one prediction, for each runtime. Its arguments are the file and the shape of the input.
PROGRAMS = {
    "import numpy alone": "y = 0",
    "dcformat, first process with a file": _OURS
    + """
assert session.backend == "numba" and "numba" not in sys.modules and "dcformat.reader" in sys.modules
""",
    "dcformat, second process": _OURS
    + """
assert session.backend == "numba" and "dcformat_runtime.preparing" in sys.modules
""",
    "dcformat, third and later processes": _OURS
    + """
assert session.backend == "numba" and "dcformat.reader" not in sys.modules
""",
    "dcformat, no kernels saved": _OURS
    + """
assert "numba" not in sys.modules
""",
    "onnxruntime": """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
y = session.run(None, {session.get_inputs()[0].name: x})[0].argmax()
""",
    "litert": """
from ai_edge_litert.interpreter import Interpreter
session = Interpreter(sys.argv[1], num_threads=1)
session.allocate_tensors()
source, target = session.get_input_details()[0]["index"], session.get_output_details()[0]["index"]
session.set_tensor(source, x.reshape(session.get_input_details()[0]["shape"]))
session.invoke()
y = session.get_tensor(target).argmax()
""",
    "openvino f32": """
import openvino
core = openvino.Core()
network = core.read_model(sys.argv[1])
network.reshape(list(x.shape))
settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
session = core.compile_model(network, "CPU", settings).create_infer_request()
y = next(iter(session.infer({0: x}).values())).argmax()
""",
    "ncnn": """
import ncnn
net = ncnn.Net()
net.opt.num_threads, net.opt.use_vulkan_compute = 1, False
net.load_param(sys.argv[1])
net.load_model(sys.argv[1].replace(".param", ".bin"))
session = net.create_extractor()
session.input("in0", ncnn.Mat(x[0]))
y = np.array(session.extract("out0")[1]).argmax()
""",
}
_START = """
import sys
import numpy as np
x = np.ones([int(n) for n in sys.argv[2].split(",")], np.float32)
"""


def prepare(network: str, folder: Path) -> tuple[dict[str, str], str]:
    """Write the network for every runtime; return the file of each runtime that can load it, and the input's shape."""
    import networks
    import runtimes
    from dcformat_interop.onnx_export import to_onnx

    import dcformat

    model = networks.load(network)
    assert model.graph is not None
    dcformat.save(model, folder / "net.dcf", mode="fast")
    (folder / "net.onnx").write_bytes(to_onnx(model))
    files = {name: str(folder / "net.dcf") for name in PROGRAMS if name.startswith(("dcformat", "import"))}
    files |= dict.fromkeys(("onnxruntime", "openvino f32"), str(folder / "net.onnx"))
    try:
        text, weights = runtimes.ncnn_files(model)
        (folder / "net.param").write_text(text)
        (folder / "net.bin").write_bytes(weights)
        files["ncnn"] = str(folder / "net.param")
        (folder / "net.tflite").write_bytes(runtimes.LiteRtFile(model).pack())
        files["litert"] = str(folder / "net.tflite")
    except (runtimes.UnsupportedError, ImportError) as error:
        print(f"note: {error}", file=sys.stderr)
    return files, ",".join(map(str, (1, *model.graph.input_shape)))


def once(name: str, file: str, shape: str, cache: Path) -> tuple[float, float, str]:
    """Return the seconds, the peak MiB and the prediction of one process."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(ROOTS), "DCFORMAT_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1",
           "OPENBLAS_NUM_THREADS": "1"}  # fmt: skip
    env.pop("DCFORMAT_CACHE", None)
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # the other packages' bytecode was written at their installation
    program = _START + PROGRAMS[name] + _END
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", program, file, shape], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, env=env, text=True)  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    seconds = time.perf_counter() - start
    process.wait()
    if not line:
        raise RuntimeError("no prediction")
    prediction, peak = line.split()
    return seconds, int(peak) / 1024, prediction


def warmup(cache: Path) -> None:
    """Compile the kernels into a folder."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(ROOTS), "DCFORMAT_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", "from dcformat_cli.main import main; main()", "warmup"]
    subprocess.run(command, env=env, check=True)


def as_before(name: str, cache: Path) -> None:
    """Remove from a runtime's cache what its earlier processes left, if its next one is to be such a process again."""
    if name.endswith("no kernels saved"):
        shutil.rmtree(cache, ignore_errors=True)
    elif name.endswith(("first process with a file", "second process")):
        for path in (cache / "kernels").glob("*.network"):
            path.unlink()
        if "first" in name:
            (cache / "kernels" / "loads").unlink(missing_ok=True)


def measure(network: str, rounds: int, kernels: Path) -> dict[str, Any]:
    """Return, for each runtime, the medians of seconds and MiB, or the reason why there are none."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files, shape = prepare(network, folder)
        caches = {name: kernels if "dcformat" not in name else folder / name for name in files}
        for name, cache in caches.items():
            if cache != kernels and not name.endswith("no kernels saved"):
                ignored = shutil.ignore_patterns("*.network", "loads")
                shutil.copytree(kernels / "kernels", cache / "kernels", ignore=ignored)
        found: dict[str, list[tuple[float, float, str]]] = {name: [] for name in files}
        failed: dict[str, Any] = {}
        for number in range(-1, rounds + 1):
            for runtime in files:
                if runtime in failed:
                    continue
                as_before(runtime, caches[runtime])
                try:
                    result = once(runtime, files[runtime], shape, caches[runtime])
                except RuntimeError as error:
                    if number > 0:
                        failed[runtime] = str(error)
                    continue
                if number > 0:  # earlier rounds fill the page cache, and are the first and the second process
                    found[runtime].append(result)
    out: dict[str, Any] = {
        "failed": failed,
        "predictions": sorted({r[-1][2] for n, r in found.items() if r and "alone" not in n}),
    }
    for runtime, results in found.items():
        if results:
            out[runtime] = {
                "seconds": round(statistics.median(r[0] for r in results), 4),
                "mib": round(statistics.median(r[1] for r in results), 1),
            }
    return out


def main() -> None:
    """Measure, and print and write Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--network", action="append", help="as for speed.py (default: lenet-300-100/han and lenet-5/han)"
    )
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--kernels", type=Path, help="where compiled kernels are kept (default: a temporary folder)")
    parser.add_argument("--out", type=Path, help="write the tables here, and the figures beside it as .json")
    options = parser.parse_args()
    from machine import describe

    lines = [
        "# Fresh process to first prediction", "",
        f"Medians of {options.rounds} processes each, in turn. Made by `python benchmarks/runtime/cold_start.py` on",
        f"{describe('onnxruntime', 'ai-edge-litert', 'openvino', 'ncnn')}.", "",
    ]  # fmt: skip
    figures = {}
    temporary = tempfile.TemporaryDirectory()
    kernels = options.kernels or Path(temporary.name)
    if options.kernels is None:
        warmup(kernels)
    for network in options.network or ("lenet-300-100/han", "lenet-5/han"):
        found = figures[network] = measure(network, options.rounds, kernels)
        base = found["import numpy alone"]["seconds"]
        part = [f"### {network}", "", "| | seconds | times `import numpy` | peak MiB |", "|---|---|---|---|"]
        for name in PROGRAMS:
            if name in found:
                row = found[name]
                part.append(f"| {name} | {row['seconds']:.3f} | {row['seconds'] / base:.2f} | {row['mib']:.1f} |")
        part += [f"- {name}: {why}" for name, why in found["failed"].items()]
        part += ["", f"All predict class {' and '.join(found['predictions'])}.", ""]
        print("\n".join(part), flush=True)
        lines += part
    if options.out is not None:
        options.out.write_text("\n".join(lines))
        options.out.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
