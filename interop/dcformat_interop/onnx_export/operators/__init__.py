"""How each operator is written as ONNX."""

from dcformat.graph import (
    GRU,
    LSTM,
    Add,
    AvgPool,
    Binary,
    Concat,
    Conv,
    ConvTranspose,
    Flatten,
    Gather,
    Linear,
    MatMul,
    MaxPool,
    Node,
    Normalize,
    Pad,
    Quantize,
    Reduce,
    ReLU,
    Requantize,
    Reshape,
    Resize,
    Slice,
    Softmax,
    Tile,
    Transpose,
    Unary,
    Where,
)
from dcformat_interop.onnx_export.graph_writer import Convert
from dcformat_interop.onnx_export.operators import elementwise, rearranging, recurrent, weighted

CONVERTERS: dict[type[Node], Convert] = {
    Linear: weighted.linear, Conv: weighted.conv, ConvTranspose: weighted.conv_transpose, MatMul: weighted.matmul,
    MaxPool: weighted.max_pool, AvgPool: weighted.avg_pool, LSTM: recurrent.lstm, GRU: recurrent.gru,
    ReLU: elementwise.relu, Unary: elementwise.unary, Add: elementwise.add, Binary: elementwise.binary,
    Where: elementwise.where, Quantize: elementwise.quantize, Requantize: elementwise.requantize,
    Softmax: elementwise.softmax,
    Reduce: elementwise.reduce, Normalize: elementwise.normalize, Flatten: rearranging.reshape,
    Reshape: rearranging.reshape, Transpose: rearranging.transpose, Slice: rearranging.slice_, Pad: rearranging.pad,
    Tile: rearranging.tile, Concat: rearranging.concat, Gather: rearranging.gather, Resize: rearranging.resize,
}  # fmt: skip
