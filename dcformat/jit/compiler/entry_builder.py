"""The entry through which Python calls a kernel.

The entry is a C function that Python calls directly (`PyCFunction`, METH_FASTCALL). It checks that every array has the
dtype, rank and contiguity that the kernel was compiled for, takes the addresses from the arrays, and calls the kernel
with the GIL released. This costs a tenth of a call through `ctypes`, and no caller can skip the checks by mistake.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding as llvm
from llvmlite import ir
from numba.np.arrayobj import populate_array

from dcformat.jit import abi
from dcformat.jit.machine_code.loader import NDARRAY, REFUSE, dtype_symbol
from dcformat.jit.signature import Signature

ENTRY = "dcformat_entry"

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_PTR = ir.PointerType(_I8)


class EntryBuilder:
    """Builds the entry's LLVM module."""

    def __init__(self, context: Any, fndesc: Any, signature: Signature, argtypes: list[Any], restype: Any) -> None:
        self.context, self.signature, self.argtypes, self.restype = context, signature, argtypes, restype
        self.module = ir.Module("entry")
        self.module.triple = llvm.get_process_triple()
        self.module.data_layout = str(context.codegen().target_data)
        convention = context.call_conv.get_function_type(restype, argtypes)
        self.kernel = ir.Function(self.module, convention, fndesc.llvm_func_name)
        self.entry = ir.Function(self.module, ir.FunctionType(_PTR, [_PTR, _PTR.as_pointer(), _I64]), ENTRY)
        self.builder = ir.IRBuilder(self.entry.append_basic_block())
        self.refused = self.entry.append_basic_block("refused")
        self.failed = self.entry.append_basic_block("failed")

    def build(self) -> str:
        """Return the module as text."""
        b, (_, args, count) = self.builder, self.entry.args
        self._require(b.icmp_signed("==", count, _I64(len(self.argtypes))))
        objects = [b.load(b.gep(args, [_I64(i)])) for i in range(len(self.argtypes))]
        values: list[Any] = [None] * len(objects)
        # Convert scalars first: this may run Python code, which must not happen between an array's check and its use.
        order = sorted(range(len(objects)), key=lambda i: self.signature.arguments[i].ndim > 0)
        for i in order:
            values[i] = self._array(i, objects[i]) if self.signature.arguments[i].ndim else self._scalar(i, objects[i])
        saved = b.call(self._external("PyEval_SaveThread", _PTR, []), [])
        status, result = self.context.call_conv.call_function(b, self.kernel, self.restype, self.argtypes, values)
        b.call(self._external("PyEval_RestoreThread", ir.VoidType(), [_PTR]), [saved])
        self._require(b.not_(status.is_error))
        b.ret(self._boxed(result))
        b.position_at_end(self.refused)
        call = self._external("PyObject_Vectorcall", _PTR, [_PTR, _PTR.as_pointer(), _I64, _PTR])
        b.ret(b.call(call, [self._address(REFUSE), args, count, ir.Constant(_PTR, None)]))
        b.position_at_end(self.failed)
        b.ret(ir.Constant(_PTR, None))
        return str(self.module)

    def _require(self, condition: Any) -> None:
        """Continue if `condition` holds; otherwise let Python say what is wrong with the arguments."""
        good = self.entry.append_basic_block()
        self.builder.cbranch(condition, good, self.refused)
        self.builder.position_at_end(good)

    def _external(self, name: str, returns: Any, arguments: list[Any]) -> Any:
        if name not in self.module.globals:
            ir.Function(self.module, ir.FunctionType(returns, arguments), name)
        return self.module.globals[name]

    def _address(self, name: str) -> Any:
        """Return the address of an object that the loader provides under a name."""
        if name not in self.module.globals:
            ir.GlobalVariable(self.module, _I8, name)
        return self.builder.bitcast(self.module.globals[name], _PTR)

    def _field(self, base: Any, offset: int, kind: Any) -> Any:
        b = self.builder
        return b.load(b.bitcast(b.gep(base, [_I64(offset)]), kind.as_pointer()))

    def _scalar(self, index: int, value: Any) -> Any:
        b, kind = self.builder, self.signature.arguments[index].dtype
        if kind == "boolean":
            yes, no = self._address("_Py_TrueStruct"), self._address("_Py_FalseStruct")
            is_true = b.icmp_unsigned("==", value, yes)
            self._require(b.or_(is_true, b.icmp_unsigned("==", value, no)))
            return is_true
        if kind == "int64":
            number = b.call(self._external("PyLong_AsLongLong", _I64, [_PTR]), [value])
            self._check_converted(b.icmp_signed("==", number, _I64(-1)))
            return number
        double = ir.DoubleType()
        real = b.call(self._external("PyFloat_AsDouble", double, [_PTR]), [value])
        self._check_converted(b.fcmp_ordered("==", real, double(-1.0)))
        return real if kind == "float64" else b.fptrunc(real, ir.FloatType())

    def _check_converted(self, suspicious: Any) -> None:
        """Return with Python's error if a conversion returned -1 because of a failure."""
        b = self.builder
        with b.if_then(suspicious, likely=False):
            error = b.call(self._external("PyErr_Occurred", _PTR, []), [])
            fine = self.entry.append_basic_block()
            b.cbranch(b.icmp_unsigned("==", error, ir.Constant(_PTR, None)), fine, self.failed)
            b.position_at_end(fine)

    def _array(self, index: int, value: Any) -> Any:
        b, argument, kind = self.builder, self.signature.arguments[index], self.argtypes[index]
        self._require(b.icmp_unsigned("==", self._field(value, abi.ARRAY_TYPE, _PTR), self._address(NDARRAY)))
        dtype = self._address(dtype_symbol(argument.dtype))
        self._require(b.icmp_unsigned("==", self._field(value, abi.ARRAY_DTYPE, _PTR), dtype))
        self._require(b.icmp_signed("==", self._field(value, abi.ARRAY_NDIM, _I32), _I32(argument.ndim)))
        needed = abi.C_CONTIGUOUS | abi.ALIGNED | (0 if argument.const else abi.WRITEABLE)
        flags = b.and_(self._field(value, abi.ARRAY_FLAGS, _I32), _I32(needed))
        self._require(b.icmp_signed("==", flags, _I32(needed)))
        shape = self._field(value, abi.ARRAY_SHAPE, _PTR)
        sizes = [self._field(shape, 8 * axis, _I64) for axis in range(argument.ndim)]
        itemsize = np.dtype(argument.dtype).itemsize
        strides: list[Any] = []
        step = _I64(itemsize)
        for size in reversed(sizes):
            strides.insert(0, step)
            step = b.mul(step, size)
        array = self.context.make_array(kind)(self.context, b)
        data = b.bitcast(self._field(value, abi.ARRAY_DATA, _PTR), array.data.type)
        populate_array(array, data, sizes, strides, _I64(itemsize), None)
        return array._getvalue()

    def _boxed(self, result: Any) -> Any:
        b, kind = self.builder, self.signature.returns
        if kind == "void":
            none = self._address("_Py_NoneStruct")
            b.call(self._external("Py_IncRef", ir.VoidType(), [_PTR]), [none])
            return none
        if kind == "int64":
            return b.call(self._external("PyLong_FromLongLong", _PTR, [_I64]), [result])
        if kind == "float64":
            return b.call(self._external("PyFloat_FromDouble", _PTR, [ir.DoubleType()]), [result])
        return b.call(self._external("PyBool_FromLong", _PTR, [_I64]), [b.zext(result, _I64)])
