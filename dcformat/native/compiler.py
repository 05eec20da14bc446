"""Make a kernel's image: Numba lowers the function, LLVM optimises it together with its entry, `elf` links it.

The entry is a C function that Python can call as it is (`PyCFunction`, METH_FASTCALL): it checks that every array is of
the dtype, rank and contiguity that the kernel was compiled for, takes the addresses out of the arrays, and calls the
kernel with the GIL released. That costs a tenth of a call through `ctypes` and cannot be skipped by mistake.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import FunctionType
from typing import Any

import numpy as np
from llvmlite import binding as llvm
from llvmlite import ir
from numba.core import types
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.core.compiler import Flags, compile_extra
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.np.arrayobj import populate_array

from dcformat.native import elf
from dcformat.native.image import Image
from dcformat.native.keys import Target
from dcformat.native.loader import NDARRAY, REFUSE, dtype_symbol, provided
from dcformat.native.signature import Signature

ENTRY = "dcformat_entry"

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_PTR = ir.PointerType(_I8)

#: Where NumPy keeps these in an array object; `loader.layout_known` proves it before any entry is used.
_TYPE, _DATA, _NDIM, _SHAPE, _DTYPE, _FLAGS = 8, 16, 24, 32, 56, 64
_C_CONTIGUOUS, _ALIGNED, _WRITEABLE = 0x1, 0x100, 0x400


_machines: list[str] = []


def machine_name() -> str:
    """Return LLVM's name of the architecture that is compiled for; helpers that differ by architecture ask for it."""
    triple = _machines[-1] if _machines else llvm.get_process_triple()
    return str(triple).partition("-")[0]


def numba_type(argument: Any) -> Any:
    """Return Numba's type for a parameter."""
    scalar = getattr(types, argument.dtype)
    return types.Array(scalar, argument.ndim, "C") if argument.ndim else scalar


def compile_image(
    function: FunctionType, signature: Signature, fastmath: Any, target: Target | None = None, *, unroll: bool = True
) -> Image:
    """Compile a function (device functions among its globals compiled already) to an image.

    Parameters
    ----------
    function : function
    signature : Signature
    fastmath : bool or set of str
        As for `numba.njit`.
    target : Target, optional
        By default, this machine.
    unroll : bool
        Whether LLVM may unroll loops.

    Raises
    ------
    dcformat.native.elf.LinkError
        The code needs something that an image cannot have.
    """
    with global_compiler_lock, _only_lowering():
        machine = _host_machine() if target is None else _machine_of(target)
        _machines.append(machine.triple)
        try:
            module = _lower(function, signature, fastmath, machine)
        finally:
            _machines.pop()
        _optimise(module, machine, unroll)
        image = elf.link(machine.emit_object(module), ENTRY)
    for _, symbol in image.imports:
        if not provided(symbol):
            raise elf.LinkError(f"it calls {symbol}")
    return image


def _host_machine() -> llvm.TargetMachine:
    """Return LLVM's description of this machine's CPU, as Numba would use it."""
    _, name, features = cpu_target.target_context.codegen().magic_tuple()
    return _target_machine(llvm.get_process_triple(), name, features)


def _machine_of(target: Target) -> llvm.TargetMachine:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return _target_machine(target.triple, target.cpu, "")


def _target_machine(triple: str, cpu: str, features: str) -> llvm.TargetMachine:
    target = llvm.Target.from_triple(triple)
    return target.create_target_machine(cpu=cpu, features=features, opt=3, reloc="pic", codemodel="small")


class _Library(JITCodeLibrary):  # type: ignore[misc]
    """A library of functions that are only ever linked into others: neither optimised nor made executable."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        return 0


class _Codegen(JITCPUCodegen):  # type: ignore[misc]
    _library_class = _Library

    def set_env(self, env_name: str, env: Any) -> None:
        pass


@cache
def _codegen() -> _Codegen:
    return _Codegen("dcformat")


@contextmanager
def _only_lowering() -> Iterator[None]:
    """Let Numba make LLVM's form of functions and go no further: helpers would be optimised again with each caller."""
    context = cpu_target.target_context
    context.refresh()
    before, context._internal_codegen = context._internal_codegen, _codegen()
    try:
        yield
    finally:
        context._internal_codegen = before


def _lower(function: FunctionType, signature: Signature, fastmath: Any, machine: llvm.TargetMachine) -> Any:
    """Return an LLVM module with the kernel, everything it calls, and its entry; only the entry is visible."""
    context, argtypes = cpu_target.target_context, [numba_type(a) for a in signature.arguments]
    library = context.codegen().create_library(function.__name__)
    restype = getattr(types, signature.returns)
    flags = _flags(fastmath)
    cres = compile_extra(cpu_target.typing_context, context, function, argtypes, restype, flags, {}, library)
    wrapper = _Entry(context, cres.fndesc, signature, argtypes, restype).build()
    module = library._final_module.clone()
    for linked in library._linking_libraries:
        module.link_in(linked._get_module_for_linking(), preserve=True)
    module = llvm.parse_assembly(_retarget(str(module), machine))
    module.link_in(llvm.parse_assembly(_retarget(wrapper, machine)))
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name != ENTRY:
            value.linkage = "internal"
    # Then the parts of arrays that it does not use, and its ways to report errors, are not computed at all.
    module.get_function(cres.fndesc.llvm_func_name).add_function_attribute("alwaysinline")
    return module


def _flags(fastmath: Any) -> Flags:
    flags = Flags()
    options = {"fastmath": fastmath, "error_model": "numpy", "boundscheck": False, "_nrt": False,
               "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "nopython": True}  # fmt: skip
    cpu_target.options.parse_as_flags(flags, options)
    # Numba must neither optimise nor emit this: that happens here, once, together with the entry.
    flags.no_compile = True
    return flags


def _retarget(text: str, machine: llvm.TargetMachine) -> str:
    lines = []
    for line in text.splitlines():
        if line.startswith("target triple"):
            line = f'target triple = "{machine.triple}"'
        elif line.startswith("target datalayout"):
            line = f'target datalayout = "{machine.target_data}"'
        lines.append(line)
    return "\n".join(lines)


def _optimise(module: Any, machine: llvm.TargetMachine, unroll: bool) -> None:
    tuning = llvm.create_pipeline_tuning_options()
    tuning.speed_level = 3
    tuning.loop_vectorization = True
    tuning.slp_vectorization = False
    tuning.loop_unrolling = unroll
    passes = llvm.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(module, passes)


class _Entry:
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
        # Scalars first: converting one may run Python code, which must not happen between an array's check and its use.
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
        """Go on if `condition` holds, else leave it to Python to say what is wrong with the arguments."""
        good = self.entry.append_basic_block()
        self.builder.cbranch(condition, good, self.refused)
        self.builder.position_at_end(good)

    def _external(self, name: str, returns: Any, arguments: list[Any]) -> Any:
        if name not in self.module.globals:
            ir.Function(self.module, ir.FunctionType(returns, arguments), name)
        return self.module.globals[name]

    def _address(self, name: str) -> Any:
        """Return the address of an object that the loader knows by name."""
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
        """Leave with Python's error if a conversion returned -1 because it failed."""
        b = self.builder
        with b.if_then(suspicious, likely=False):
            error = b.call(self._external("PyErr_Occurred", _PTR, []), [])
            fine = self.entry.append_basic_block()
            b.cbranch(b.icmp_unsigned("==", error, ir.Constant(_PTR, None)), fine, self.failed)
            b.position_at_end(fine)

    def _array(self, index: int, value: Any) -> Any:
        b, argument, kind = self.builder, self.signature.arguments[index], self.argtypes[index]
        self._require(b.icmp_unsigned("==", self._field(value, _TYPE, _PTR), self._address(NDARRAY)))
        dtype = self._address(dtype_symbol(argument.dtype))
        self._require(b.icmp_unsigned("==", self._field(value, _DTYPE, _PTR), dtype))
        self._require(b.icmp_signed("==", self._field(value, _NDIM, _I32), _I32(argument.ndim)))
        needed = _C_CONTIGUOUS | _ALIGNED | (0 if argument.const else _WRITEABLE)
        flags = b.and_(self._field(value, _FLAGS, _I32), _I32(needed))
        self._require(b.icmp_signed("==", flags, _I32(needed)))
        shape = self._field(value, _SHAPE, _PTR)
        sizes = [self._field(shape, 8 * axis, _I64) for axis in range(argument.ndim)]
        itemsize = np.dtype(argument.dtype).itemsize
        strides: list[Any] = []
        step = _I64(itemsize)
        for size in reversed(sizes):
            strides.insert(0, step)
            step = b.mul(step, size)
        array = self.context.make_array(kind)(self.context, b)
        data = b.bitcast(self._field(value, _DATA, _PTR), array.data.type)
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
