"""How each operator is written as ONNX."""

from dcformat import graph as ops
from dcformat.graph import Node
from dcformat_interop.onnx_export.graph_writer import Convert
from dcformat_interop.onnx_export.operators import elementwise, rearranging, recurrent, weighted

CONVERTERS: dict[type[Node], Convert] = {
    ops.Linear: weighted.linear, ops.Conv: weighted.conv, ops.ConvTranspose: weighted.conv_transpose,
    ops.MatMul: weighted.matmul, ops.MaxPool: weighted.max_pool, ops.AvgPool: weighted.avg_pool,
    ops.LSTM: recurrent.lstm, ops.GRU: recurrent.gru,
    ops.ReLU: elementwise.relu, ops.Unary: elementwise.unary, ops.Add: elementwise.add, ops.Binary: elementwise.binary,
    ops.Where: elementwise.where, ops.Quantize: elementwise.quantize, ops.Requantize: elementwise.requantize,
    ops.Softmax: elementwise.softmax, ops.Reduce: elementwise.reduce, ops.Normalize: elementwise.normalize,
    ops.Flatten: rearranging.reshape, ops.Reshape: rearranging.reshape, ops.Transpose: rearranging.transpose,
    ops.Slice: rearranging.slice_, ops.Pad: rearranging.pad, ops.Tile: rearranging.tile,
    ops.Concat: rearranging.concat, ops.Gather: rearranging.gather, ops.Resize: rearranging.resize,
}  # fmt: skip
