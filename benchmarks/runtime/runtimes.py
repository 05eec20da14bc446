"""All runtimes of the comparison: those of `dcformat bench`, and LiteRT, ncnn and OpenVINO in int8, made here."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from dcformat_cli.bench.other_runtimes import RUNTIMES, Floats, RuntimeCall, UnsupportedError, openvino_network
from dcformat_interop.onnx_export import dense, to_onnx

from dcformat.graph import Conv, Flatten, Linear, MaxPool, Node, ReLU
from dcformat.model import Model


def _fused(nodes: tuple[Node, ...]) -> list[tuple[Node, bool]]:
    """Return a chain's operators without ReLU, each with a flag that says whether a ReLU follows it."""
    out: list[tuple[Node, bool]] = []
    for number, node in enumerate(nodes):
        if node.inputs != (number,):
            raise UnsupportedError("networks with branches")
        if isinstance(node, ReLU) and out and not isinstance(out[-1][0], MaxPool):
            out[-1] = (out[-1][0], True)
        elif isinstance(node, Linear | Conv | MaxPool | Flatten):
            out.append((node, False))
        else:
            raise UnsupportedError(node.kind)
    return out


class LiteRtFile:
    """A TensorFlow Lite model of a chain of layers, whose images are (height, width, channels)."""

    def __init__(self, model: Model) -> None:
        from ai_edge_litert import schema_py_generated as schema

        assert model.graph is not None
        self.schema, self.model = schema, model
        self.tensors: list[Any] = []
        self.buffers = [schema.BufferT()]
        self.operators: list[Any] = []
        self.codes: list[int] = []
        shape = model.graph.input_shape
        self.shape = shape if len(shape) == 1 else (*shape[1:], shape[0])
        self.last = self._tensor((1, *self.shape))
        for node, relu in _fused(model.graph.nodes):
            self._layer(node, relu)

    def pack(self) -> bytes:
        """Return the file's bytes."""
        import flatbuffers

        schema = self.schema
        graph = schema.SubGraphT(self.tensors, [0], [self.last], self.operators)
        codes = [schema.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code, version=1) for code in self.codes]
        whole = schema.ModelT(version=3, operatorCodes=codes, subgraphs=[graph], buffers=self.buffers)
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(whole.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _tensor(self, shape: tuple[int, ...], values: Any = None, kind: int = 0) -> int:
        buffer = 0
        if values is not None:
            buffer = len(self.buffers)
            self.buffers.append(self.schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8)))
        self.tensors.append(self.schema.TensorT(list(shape), kind, buffer, f"t{len(self.tensors)}"))
        return len(self.tensors) - 1

    def _operator(self, code: int, inputs: list[int], shape: tuple[int, ...], kind: int, options: Any) -> None:
        if code not in self.codes:
            self.codes.append(code)
        output = self._tensor((1, *shape))
        self.operators.append(self.schema.OperatorT(self.codes.index(code), inputs, [output], kind, options))
        self.shape, self.last = shape, output

    def _layer(self, node: Node, relu: bool) -> None:
        schema, codes, kinds = self.schema, self.schema.BuiltinOperator, self.schema.BuiltinOptions
        if isinstance(node, Linear):
            weight = dense(self.model.tensors[node.weight])
            if len(self.shape) == 3:  # a flattened image: reorder the columns
                height, width, channels = self.shape
                weight = weight.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(len(weight), -1)
            inputs = [self.last, *self._weights(weight, node.bias)]
            options = schema.FullyConnectedOptionsT(fusedActivationFunction=int(relu))
            self._operator(codes.FULLY_CONNECTED, inputs, (len(weight),), kinds.FullyConnectedOptions, options)
        elif isinstance(node, Conv):
            if node.padding != (0, 0) or node.groups != 1:
                raise UnsupportedError("padding or groups")
            weight = dense(self.model.tensors[node.weight]).transpose(0, 2, 3, 1)
            inputs = [self.last, *self._weights(weight, node.bias)]
            options = schema.Conv2DOptionsT(
                padding=schema.Padding.VALID, strideH=node.stride[0], strideW=node.stride[1],
                fusedActivationFunction=int(relu),
            )  # fmt: skip
            self._operator(codes.CONV_2D, inputs, self._windows(node, weight.shape[1:3], len(weight)),
                           kinds.Conv2DOptions, options)  # fmt: skip
        elif isinstance(node, MaxPool):
            options = schema.Pool2DOptionsT(
                padding=schema.Padding.VALID, strideH=node.stride[0], strideW=node.stride[1],
                filterHeight=node.kernel[0], filterWidth=node.kernel[1],
            )  # fmt: skip
            shape = self._windows(node, node.kernel, self.shape[2])
            self._operator(codes.MAX_POOL_2D, [self.last], shape, kinds.Pool2DOptions, options)

    def _windows(self, node: Any, kernel: tuple[int, ...], channels: int) -> tuple[int, ...]:
        return (*((self.shape[i] - kernel[i]) // node.stride[i] + 1 for i in (0, 1)), channels)

    def _weights(self, weight: Any, bias: str | None) -> list[int]:
        values = np.zeros(len(weight), np.float32) if bias is None else dense(self.model.tensors[bias])
        return [self._tensor(x.shape, np.ascontiguousarray(x)) for x in (weight, values)]


def litert(model: Model, threads: int) -> RuntimeCall:
    """Return LiteRT (TensorFlow Lite) with its XNNPACK kernels in float32."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=LiteRtFile(model).pack(), num_threads=threads)
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    shape: list[tuple[int, ...]] = [()]

    def run(x: Floats) -> Floats:
        if x.ndim == 4:  # a view for one channel
            x = x.reshape(len(x), *x.shape[2:], 1) if x.shape[1] == 1 else x.transpose(0, 2, 3, 1)
        if shape[0] != x.shape:
            interpreter.resize_tensor_input(source, x.shape)
            interpreter.allocate_tensors()
            shape[0] = x.shape
        interpreter.set_tensor(source, x)
        interpreter.invoke()
        return interpreter.get_tensor(target)  # type: ignore[no-any-return]

    return run


def ncnn_files(model: Model) -> tuple[str, bytes]:
    assert model.graph is not None
    lines, weights, current = ["Input in0 0 1 in0"], b"", "in0"
    chain = [pair for pair in _fused(model.graph.nodes) if not isinstance(pair[0], Flatten)]
    for number, (node, relu) in enumerate(chain):
        output = "out0" if number == len(chain) - 1 else f"v{number}"
        if isinstance(node, MaxPool):
            (kernel, _), (stride, _) = node.kernel, node.stride
            lines.append(f"Pooling p{number} 1 1 {current} {output} 0=0 1={kernel} 2={stride} 5=1")
        else:
            assert isinstance(node, Linear | Conv)
            weight = dense(model.tensors[node.weight])
            tail = f"{' 9=1' if relu else ''}"
            if isinstance(node, Linear):
                lines.append(f"InnerProduct l{number} 1 1 {current} {output} 0={len(weight)} 1=1 2={weight.size}{tail}")
            else:
                lines.append(
                    f"Convolution c{number} 1 1 {current} {output} 0={len(weight)} 1={weight.shape[3]} "
                    f"11={weight.shape[2]} 3={node.stride[1]} 13={node.stride[0]} 4={node.padding[1]} "
                    f"14={node.padding[0]} 5=1 6={weight.size}{tail}"
                )
            bias = np.zeros(len(weight), np.float32) if node.bias is None else dense(model.tensors[node.bias])
            weights += struct.pack("<I", 0) + weight.tobytes() + bias.tobytes()
        current = output
    return "\n".join(["7767517", f"{len(lines)} {len(lines)}", *lines]) + "\n", weights


def ncnn(model: Model, threads: int) -> RuntimeCall:
    """Return ncnn in float32. It has no batches: images are rows of a matrix, or come one by one."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads, net.opt.use_vulkan_compute = threads, False
    for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, name, False)
    text, weights = ncnn_files(model)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "net.param").write_text(text)
        Path(folder, "net.bin").write_bytes(weights)
        net.load_param(str(Path(folder, "net.param")))
        net.load_model(str(Path(folder, "net.bin")))

    def one(x: Floats) -> Floats:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(x))
        return np.array(extractor.extract("out0")[1])

    def run(x: Floats) -> Floats:
        if x.ndim == 2 and len(x) > 1:
            return one(x)
        return np.stack([one(image) for image in x])

    return run


def openvino_int8(model: Model, threads: int) -> RuntimeCall:
    """Return OpenVINO for the network that ONNX Runtime's tool quantises to int8, with a scale per output channel."""
    import networks
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [{"x": networks.inputs(model, 64)[0]}]

        def get_next(self) -> dict[str, Floats] | None:
            return self.left.pop() if self.left else None

    with tempfile.TemporaryDirectory() as folder:
        plain, quantised = Path(folder, "plain.onnx"), Path(folder, "int8.onnx")
        plain.write_bytes(to_onnx(model))
        quantize_static(
            str(plain), str(quantised), Images(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        return openvino_network(quantised.read_bytes(), threads)


#: The maker of each runtime; it computes in float32 unless the name says otherwise.
RUNTIMES = {**RUNTIMES, "openvino int8": openvino_int8, "litert": litert, "ncnn": ncnn}
#: The package whose version identifies a runtime.
PACKAGES = {
    "onnxruntime": "onnxruntime", "openvino f32": "openvino", "openvino default": "openvino",
    "openvino int8": "openvino", "torch": "torch", "scipy csr": "scipy", "numpy dense": "numpy",
    "litert": "ai-edge-litert", "ncnn": "ncnn",
}  # fmt: skip
#: The runtimes that compute in float32; the best of them is the peer to beat.
FLOAT32 = ("onnxruntime", "openvino f32", "litert", "ncnn", "torch", "scipy csr", "numpy dense")
