"""The network in a file: a list of operators in execution order.

`node` has what operators share, `graph` the network as a whole, and the other modules the operators.
"""

from dcformat.graph.elementwise import BINARY, UNARY, Add, Binary, Quantize, ReLU, Requantize, Unary, Where
from dcformat.graph.graph import Graph, Output, Port, Preprocessing, with_batch
from dcformat.graph.node import Node, Operand, Pair, Shape
from dcformat.graph.rearranging import Concat, Flatten, Gather, Pad, Reshape, Resize, Slice, Tile, Transpose
from dcformat.graph.recurrent import GRU, LSTM
from dcformat.graph.reducing import REDUCTIONS, Normalize, Reduce, Softmax
from dcformat.graph.weighted import Conv, ConvTranspose, Linear, MatMul
from dcformat.graph.windows import AvgPool, MaxPool

__all__ = [
    "BINARY", "GRU", "LSTM", "REDUCTIONS", "UNARY", "Add", "AvgPool", "Binary", "Concat", "Conv", "ConvTranspose",
    "Flatten", "Gather", "Graph", "Linear", "MatMul", "MaxPool", "Node", "Normalize", "Operand", "Output", "Pad",
    "Pair", "Port", "Preprocessing", "Quantize", "ReLU", "Reduce", "Requantize", "Reshape", "Resize", "Shape", "Slice",
    "Softmax", "Tile", "Transpose", "Unary", "Where", "with_batch",
]  # fmt: skip
