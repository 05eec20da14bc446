"""Products of matrices: Gemm, MatMul, and Einsum."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.graph import Linear, MatMul
from dcformat_interop.graph_builder import BuilderOperand, GraphBuilder, Value
from dcformat_interop.lowering.unsupported import Unsupported
from dcformat_interop.onnx_import.items import OnnxCall, lowers

Array = npt.NDArray[Any]


def product(
    b: GraphBuilder, x: BuilderOperand, y: BuilderOperand, names: Sequence[str] = ("constant", "constant")
) -> Value:
    """Return ``x @ y`` as in NumPy; a constant matrix on the right becomes a linear layer."""
    a_rank, b_rank = len(x.shape), len(y.shape)  # type: ignore[union-attr]
    if min(a_rank, b_rank) < 1:
        raise ValueError("operands: expected at least one dimension, found a scalar")
    if not isinstance(y, Value) and b_rank <= 2 and isinstance(x, Value):
        weight = np.asarray(y).reshape(np.shape(y)[0], -1).T
        result = b.emit(Linear, (x,), weight=b.tensor(weight, names[1]))
        return b.reshape(result, result.shape[:-1]) if b_rank == 1 else result
    left = _reshaped(b, x, (1, *x.shape)) if a_rank == 1 else x  # type: ignore[union-attr]
    right = _reshaped(b, y, (*y.shape, 1)) if b_rank == 1 else y  # type: ignore[union-attr]
    result = b.emit(MatMul, (left, right), names[0] if not isinstance(x, Value) else names[1])
    shape = list(result.shape)
    if b_rank == 1:
        del shape[-1]
    if a_rank == 1:
        del shape[len(shape) - (1 if b_rank == 1 else 2)]
    return b.reshape(result, shape)


def _reshaped(b: GraphBuilder, operand: BuilderOperand, shape: Sequence[int]) -> BuilderOperand:
    return b.reshape(operand, shape) if isinstance(operand, Value) else np.reshape(operand, shape)


def turned(b: GraphBuilder, operand: BuilderOperand) -> BuilderOperand:
    """Return an operand with its last two dimensions exchanged."""
    rank = len(operand.shape)  # type: ignore[union-attr]
    order = [*range(rank - 2), rank - 1, rank - 2]
    return b.transpose(operand, order) if isinstance(operand, Value) else np.transpose(operand, order)


@lowers("MatMul")
def _matmul(call: OnnxCall) -> Value:
    names = (call.tensor_name(0), call.tensor_name(1))
    return product(call.builder, call.operand(0), call.operand(1), names)


@lowers("FusedMatMul", domain="com.microsoft")
def _fused_matmul(call: OnnxCall) -> Value:
    if call.attr("transBatchA", 0) or call.attr("transBatchB", 0):
        raise Unsupported("with transposed batches")
    b, x, y = call.builder, call.operand(0), call.operand(1)
    x, y = turned(b, x) if call.attr("transA", 0) else x, turned(b, y) if call.attr("transB", 0) else y
    result = product(b, x, y, (call.tensor_name(0), call.tensor_name(1)))
    alpha = call.attr("alpha", 1.0)
    return result if alpha == 1 else b.binary("mul", result, alpha)


@lowers("Gemm")
def _gemm(call: OnnxCall) -> Value:
    b, x, y = call.builder, call.operand(0), call.operand(1)
    alpha, beta = call.attr("alpha", 1.0), call.attr("beta", 1.0)
    if len(call.shape(0)) != 2 or len(call.shape(1)) != 2:
        raise ValueError(f"operands: expected two matrices, found {call.shape(0)} and {call.shape(1)}")
    x = turned(b, x) if call.attr("transA", 0) else x
    y = turned(b, y) if call.attr("transB", 0) else y
    if not isinstance(y, Value) and alpha != 1:
        y, alpha = np.asarray(y) * np.float32(alpha), 1.0
    result = product(b, x, y, (call.tensor_name(0), call.tensor_name(1)))
    if alpha != 1:
        result = b.binary("mul", result, alpha)
    if not call.has(2) or beta == 0:
        return result
    shift = call.operand(2)
    if beta != 1:
        shift = b.binary("mul", shift, beta) if isinstance(shift, Value) else np.asarray(shift) * np.float32(beta)
    if np.broadcast_shapes(result.shape, shift.shape) != result.shape:  # type: ignore[union-attr]
        raise ValueError(f"C: expected a shape that broadcasts to {result.shape}, found {call.shape(2)}")
    return b.add(result, shift, name=call.tensor_name(2))


@lowers("Einsum")
def _einsum(call: OnnxCall) -> Value:
    equation = call.attr("equation").replace(" ", "")
    ranks = [len(call.shape(number)) for number in range(len(call.inputs))]
    terms, output = _terms(equation, ranks)
    operands: list[tuple[str, BuilderOperand]] = [
        _diagonal(call, term, call.operand(number)) for number, term in enumerate(terms)
    ]
    label, result = operands[0]
    for number, (other, operand) in enumerate(operands[1:], 1):
        later = set(output).union(*(set(term) for term, _ in operands[number + 1 :]))
        label, result = _contracted(call, (label, result), (other, operand), later)
    value = result if isinstance(result, Value) else call.builder.materialize(result)
    summed = [axis for axis, letter in enumerate(label) if letter not in output]
    value = call.builder.reduce("sum", value, summed)
    label = "".join(letter for letter in label if letter in output)
    return call.builder.transpose(value, [label.index(letter) for letter in output])


def _terms(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Return the letters of each operand and of the result; capital letters from Z on stand for the ellipsis."""
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise ValueError(f"equation: expected {len(ranks)} terms, found {equation!r}")
    width = max((rank - len(term) + 3 for term, rank in zip(terms, ranks, strict=True) if "..." in term), default=0)
    dots = "".join(chr(0x391 + place) for place in range(max(width, 0)))
    expanded = []
    for term, rank in zip(terms, ranks, strict=True):
        count = rank - len(term) + 3
        expanded.append(term.replace("...", dots[len(dots) - count :]) if "..." in term else term)
        if len(expanded[-1]) != rank:
            raise ValueError(f"equation: expected {rank} letters, found {term!r}")
    if not arrow:
        letters = "".join(terms).replace(".", "")
        right = ("..." if dots else "") + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    return expanded, right.replace("...", dots)


def _diagonal(call: OnnxCall, term: str, operand: BuilderOperand) -> tuple[str, BuilderOperand]:
    """Return an operand without repeated letters: they choose its diagonal."""
    letters = "".join(dict.fromkeys(term))
    if letters == term:
        return term, operand
    shape = operand.shape  # type: ignore[union-attr]
    call.take(prod(shape))
    all_places = np.arange(prod(shape)).reshape(shape)
    places = np.einsum(all_places, [letters.index(c) for c in term], list(range(len(letters))))
    if not isinstance(operand, Value):
        return letters, np.reshape(operand, -1)[places]
    from dcformat_interop.onnx_import.operators.gathering import taken

    return letters, taken(call, operand, places)


def _contracted(
    call: OnnxCall, first: tuple[str, BuilderOperand], second: tuple[str, BuilderOperand], later: set[str]
) -> tuple[str, BuilderOperand]:
    """Return the product of two operands, summed over the letters that nothing reads later."""
    (a, x), (c, y) = first, second
    if not isinstance(x, Value) and not isinstance(y, Value):
        raise Unsupported("of two constants")
    b = call.builder
    x, y = _summed(b, a, x, later | set(c)), _summed(b, c, y, later | set(a))
    a, c = "".join(i for i in a if i in later or i in c), "".join(i for i in c if i in later or i in a)
    both = [i for i in a if i in c]
    shared, inner = [i for i in both if i in later], [i for i in both if i not in later]
    rows, columns = [i for i in a if i not in c], [i for i in c if i not in a]
    sizes = {**dict(zip(c, y.shape, strict=True)), **dict(zip(a, x.shape, strict=True))}  # type: ignore[union-attr]
    left = _ordered(b, a, x, [shared, rows, inner], sizes)
    right = _ordered(b, c, y, [shared, inner, columns], sizes)
    if not shared:
        left, right = (_reshaped(b, o, o.shape[1:]) for o in (left, right))  # type: ignore[union-attr]
    result = product(b, left, right, (call.tensor_name(0), call.tensor_name(1)))
    label = "".join(shared + rows + columns)
    return label, b.reshape(result, [sizes[letter] for letter in label])


def _summed(b: GraphBuilder, label: str, operand: BuilderOperand, kept: set[str]) -> BuilderOperand:
    axes = [axis for axis, letter in enumerate(label) if letter not in kept]
    if not axes:
        return operand
    return b.reduce("sum", operand, axes) if isinstance(operand, Value) else np.sum(operand, tuple(axes))


def _ordered(
    b: GraphBuilder, label: str, operand: BuilderOperand, groups: Sequence[Sequence[str]], sizes: dict[str, int]
) -> BuilderOperand:
    """Return an operand as three dimensions, each with the letters of a group."""
    order = [label.index(letter) for group in groups for letter in group]
    shape = [prod(sizes[letter] for letter in group) for group in groups]
    turned = b.transpose(operand, order) if isinstance(operand, Value) else np.transpose(operand, order)
    return _reshaped(b, turned, shape)
