"""Other runtimes under one interface, for `dcformat bench` and the benchmarks: each becomes a function of an array.

Each maker imports its library, and raises ImportError if the library is missing. `threads` is the maximum number of
threads; idle threads are told to sleep rather than spin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from dcformat_interop.onnx_export import dense, to_onnx

from dcformat import graph
from dcformat.model import Model

Floats = npt.NDArray[np.float32]
RuntimeCall = Callable[[Floats], Floats]


class UnsupportedError(ValueError):
    """The runtime cannot run this network."""


def dcformat_session(model: Model, threads: int) -> RuntimeCall:
    """Return this package's own runtime with its compiled kernels."""
    from dcformat_runtime import Session

    return Session.from_model(model, threads=threads, backend="numba")


def reference(model: Model, x: Any) -> Any:
    """Return the outputs that all runtimes must match: those of the NumPy backend, which uses no kernels."""
    from dcformat_runtime import Session

    return Session.from_model(model, backend="numpy")(x)


def onnxruntime(model: Model, threads: int) -> RuntimeCall:
    """Return ONNX Runtime's CPU provider in float32."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(to_onnx(model), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {session.get_inputs()[0].name: x})[0]


def openvino_f32(model: Model, threads: int) -> RuntimeCall:
    """Return OpenVINO in float32, compiled for each batch size that it sees."""
    return openvino_network(to_onnx(model), threads, INFERENCE_PRECISION_HINT="f32")


def openvino_default(model: Model, threads: int) -> RuntimeCall:
    """Return OpenVINO with its defaults: on a CPU with bfloat16 units it silently computes in bfloat16."""
    return openvino_network(to_onnx(model), threads)


def openvino_network(network: bytes, threads: int, **options: Any) -> RuntimeCall:
    """Return OpenVINO for a network in ONNX form."""
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, **options}
    requests: dict[tuple[int, ...], Any] = {}

    def run(x: Floats) -> Floats:
        request = requests.get(x.shape)
        if request is None:
            read = core.read_model(network)
            read.reshape(list(x.shape))
            request = requests[x.shape] = core.compile_model(read, "CPU", settings).create_infer_request()
        results = request.infer({0: x}, share_inputs=True, share_outputs=False)
        return next(iter(results.values()))

    return run


def torch(model: Model, threads: int) -> RuntimeCall:
    """Return PyTorch in eager mode, with dense weights."""
    import torch

    torch.set_num_threads(threads)
    assert model.graph is not None
    steps = [(node, _torch_step(torch, node, model)) for node in model.graph.nodes]

    def run(x: Floats) -> Floats:
        with torch.inference_mode():
            values = [torch.from_numpy(x)]
            for node, step in steps:
                values.append(step(*(values[i] for i in node.values)))
            return values[-1].numpy()

    return run


#: The operators that the steps of PyTorch and of the matrices know.
_KNOWN = (
    graph.Linear, graph.Conv, graph.MaxPool, graph.AvgPool, graph.ReLU, graph.Flatten, graph.Softmax, graph.Add,
    graph.Concat, graph.Reduce,
)  # fmt: skip


def _check(node: graph.Node) -> None:
    """Refuse an operator that the steps of PyTorch and of the matrices do not know, or not in this form."""
    known = isinstance(node, _KNOWN) and len(node.values) == len(node.inputs)
    if isinstance(node, graph.Conv | graph.MaxPool | graph.AvgPool):
        known = known and len(node.stride) == 2 and node.padding == node.padding_end
    if isinstance(node, graph.Reduce):
        known = known and node.function in ("mean", "max") and node.axes == (1, 2)
    if not known:
        raise UnsupportedError(f"{node.kind} in this form")


def _torch_step(torch: Any, node: graph.Node, model: Model) -> Callable[..., Any]:
    _check(node)
    f = torch.nn.functional
    weights = [torch.from_numpy(dense(model.tensors[name])) for name in node.tensors]
    if isinstance(node, graph.Linear):
        return lambda x: f.linear(x, *weights)
    if isinstance(node, graph.Conv):
        bias = weights[1] if len(weights) > 1 else None
        return lambda x: f.conv2d(x, weights[0], bias, node.stride, node.padding, node.dilation, node.groups)
    if isinstance(node, graph.MaxPool):
        return lambda x: f.max_pool2d(x, node.kernel, node.stride, node.padding, ceil_mode=node.ceil_mode)
    if isinstance(node, graph.AvgPool):
        return lambda x: f.avg_pool2d(x, node.kernel, node.stride, node.padding, node.ceil_mode, node.count_include_pad)
    plain: dict[type[graph.Node], Callable[..., Any]] = {
        graph.ReLU: f.relu,
        graph.Flatten: lambda x: torch.flatten(x, 1),
        graph.Softmax: lambda x: torch.softmax(x, 1),
        graph.Add: lambda *x: sum(x[1:], x[0]),
        graph.Concat: lambda *x: torch.cat(x, 1),
        graph.Reduce: lambda x: x.mean((2, 3)) if _is_mean(node) else x.amax((2, 3)),
    }
    return plain[type(node)]


def scipy_csr(model: Model, threads: int) -> RuntimeCall:
    """Return SciPy's sparse matrix product on one thread; convolutions are products with all windows."""
    import scipy.sparse

    return _matrices(model, scipy.sparse.csr_matrix)


def numpy_dense(model: Model, threads: int) -> RuntimeCall:
    """Return NumPy's dense matrix product; convolutions are products with all windows.

    Its BLAS reads its number of threads from OPENBLAS_NUM_THREADS and similar variables when it is loaded.
    """
    return _matrices(model, lambda weight: weight)


def _matrices(model: Model, convert: Callable[[Floats], Any]) -> RuntimeCall:
    """Run layers as ``matrix @ columns``, with features first and images last."""
    assert model.graph is not None
    steps = [(node.values, _matrix_step(node, model, convert)) for node in model.graph.nodes]

    def run(x: Floats) -> Floats:
        values = [np.ascontiguousarray(np.moveaxis(x, 0, -1))]
        for inputs, step in steps:
            values.append(step(*(values[i] for i in inputs)))
        return np.moveaxis(values[-1], -1, 0)

    return run


def _matrix_step(node: graph.Node, model: Model, convert: Callable[[Floats], Any]) -> Callable[..., Any]:
    _check(node)
    if isinstance(node, graph.Linear | graph.Conv):
        weight = dense(model.tensors[node.weight])
        matrix = convert(weight.reshape(len(weight), -1))
        bias = 0 if node.bias is None else dense(model.tensors[node.bias])[:, None]
        if isinstance(node, graph.Linear):
            return lambda x: _product(matrix, x, bias)
        if node.groups != 1 or node.dilation != (1, 1):
            raise UnsupportedError("convolutions with groups or dilation")
        return lambda x: _convolve(matrix, bias, x, weight.shape[2:], node)
    if isinstance(node, graph.MaxPool | graph.AvgPool):
        if node.padding != (0, 0) or node.ceil_mode:
            raise UnsupportedError("pooling with padding or ceil mode")
        reduce = np.max if isinstance(node, graph.MaxPool) else np.mean
        return lambda x: _pooled(x, node, reduce)
    plain: dict[type[graph.Node], Callable[..., Any]] = {
        graph.ReLU: lambda x: np.maximum(x, 0),
        graph.Flatten: lambda x: x.reshape(-1, x.shape[-1]),
        graph.Softmax: _softmax,
        graph.Add: lambda *x: sum(x[1:], x[0]),
        graph.Concat: lambda *x: np.concatenate(x),
        graph.Reduce: lambda x: x.mean((1, 2)) if _is_mean(node) else x.max((1, 2)),
    }
    return plain[type(node)]


def _is_mean(node: graph.Node) -> bool:
    return isinstance(node, graph.Reduce) and node.function == "mean"


def _product(matrix: Any, x: Floats, bias: Any) -> Floats:
    out: Floats = matrix @ x
    out += bias
    return out


def _windows(x: Floats, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Floats:
    """Return a view of all windows: ``(channels, out_h, out_w, images, kernel_h, kernel_w)``."""
    view = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(1, 2))
    return view[:, :: stride[0], :: stride[1]]


def _convolve(matrix: Any, bias: Any, x: Floats, kernel: tuple[int, ...], node: graph.Conv) -> Floats:
    (top, left), images = node.padding, x.shape[-1]
    if top or left:
        x = np.pad(x, ((0, 0), (top, top), (left, left), (0, 0)))
    view = _windows(x, kernel, node.stride)
    columns = view.transpose(0, 4, 5, 1, 2, 3).reshape(matrix.shape[1], -1)
    return _product(matrix, columns, bias).reshape(matrix.shape[0], *view.shape[1:3], images)


def _pooled(x: Floats, node: graph.MaxPool | graph.AvgPool, reduce: Any) -> Floats:
    (rows, columns), (down, right) = node.kernel, node.stride
    height, width = (x.shape[1] - rows) // down + 1, (x.shape[2] - columns) // right + 1
    parts = [
        x[:, r : r + (height - 1) * down + 1 : down, c : c + (width - 1) * right + 1 : right]
        for r in range(rows) for c in range(columns)
    ]  # fmt: skip
    if reduce is np.max:
        out = parts[0]
        for part in parts[1:]:
            out = np.maximum(out, part)
        return out
    return np.mean(parts, axis=0, dtype=np.float32)  # type: ignore[no-any-return]


def _softmax(x: Floats) -> Floats:
    out = np.exp(x - x.max(0))
    return out / out.sum(0)  # type: ignore[no-any-return]


#: Name -> maker. The others are compared with the first.
RUNTIMES: Mapping[str, Callable[[Model, int], RuntimeCall]] = MappingProxyType(
    {
        "dcformat": dcformat_session,
        "onnxruntime": onnxruntime,
        "openvino f32": openvino_f32,
        "openvino default": openvino_default,
        "torch": torch,
        "scipy csr": scipy_csr,
        "numpy dense": numpy_dense,
    }
)
