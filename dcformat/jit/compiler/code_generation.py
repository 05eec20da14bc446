"""Makes a kernel's image: Numba lowers the function, LLVM optimises it together with its entry, and `elf` links it.

This uses private parts of Numba; pyproject.toml bounds the versions. If anything here fails, the kernel runs through
Numba's own dispatcher.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import FunctionType
from typing import Any

from llvmlite import binding as llvm
from numba.core import types
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.core.compiler import Flags, compile_extra
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from dcformat.jit.compiler import elf
from dcformat.jit.compiler.entry_builder import ENTRY, EntryBuilder
from dcformat.jit.machine_code.image import CodeImage
from dcformat.jit.machine_code.loader import provided
from dcformat.jit.machine_code.targets import Target
from dcformat.jit.signature import Signature

_machines: list[tuple[str, str]] = []


def machine_name() -> str:
    """Return LLVM's name of the target architecture, for helpers that differ by architecture."""
    triple = _machines[-1][0] if _machines else llvm.get_process_triple()
    return str(triple).partition("-")[0]


def machine_features() -> str:
    """Return LLVM's list of the target's features, for helpers that use one; empty if only its kind is known."""
    return _machines[-1][1] if _machines else str(cpu_target.target_context.codegen().magic_tuple()[2])


def numba_type(argument: Any) -> Any:
    """Return Numba's type for a parameter."""
    scalar = getattr(types, argument.dtype)
    return types.Array(scalar, argument.ndim, "C") if argument.ndim else scalar


def compile_image(
    function: FunctionType, signature: Signature, fastmath: Any, target: Target | None = None, *, unroll: bool = True
) -> CodeImage:
    """Compile a function, whose helpers are already compiled, to an image.

    Parameters
    ----------
    function : function
    signature : Signature
    fastmath : bool or set of str
        As for `numba.njit`.
    target : Target, optional
        The target; by default, this machine.
    unroll : bool
        Whether LLVM may unroll loops.

    Raises
    ------
    dcformat.jit.compiler.elf.LinkError
        The code needs something that an image cannot provide.
    """
    with global_compiler_lock, _only_lowering():
        machine, features = _host_machine() if target is None else (_machine_of(target), _features(target))
        _machines.append((machine.triple, features))
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


def _host_machine() -> tuple[llvm.TargetMachine, str]:
    """Return LLVM's description of this machine's CPU, as Numba would use it, and the list of its features."""
    _, name, features = cpu_target.target_context.codegen().magic_tuple()
    return _target_machine(llvm.get_process_triple(), name, features), str(features)


def _machine_of(target: Target) -> llvm.TargetMachine:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return _target_machine(target.triple, target.cpu, "")


def _features(target: Target) -> str:
    """Return the features that all machines of a target have, in LLVM's notation."""
    return ",".join(f"+{name}" for name in sorted(target.needs))


def _target_machine(triple: str, cpu: str, features: str) -> llvm.TargetMachine:
    target = llvm.Target.from_triple(triple)
    return target.create_target_machine(cpu=cpu, features=features, opt=3, reloc="pic", codemodel="small")


class _Library(JITCodeLibrary):  # type: ignore[misc]
    """A library of functions that are only linked into others, neither optimised nor made executable."""

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
    """Lets Numba lower functions to LLVM, but not optimise helpers, which are optimised with each caller."""
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
    wrapper = EntryBuilder(context, cres.fndesc, signature, argtypes, restype).build()
    module = library._final_module.clone()
    for linked in library._linking_libraries:
        module.link_in(linked._get_module_for_linking(), preserve=True)
    module = llvm.parse_assembly(_retarget(str(module), machine))
    module.link_in(llvm.parse_assembly(_retarget(wrapper, machine)))
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name != ENTRY:
            value.linkage = "internal"
    # After inlining, LLVM drops unused array fields and the code that reports errors.
    module.get_function(cres.fndesc.llvm_func_name).add_function_attribute("alwaysinline")
    return module


def _flags(fastmath: Any) -> Flags:
    flags = Flags()
    options = {"fastmath": fastmath, "error_model": "numpy", "boundscheck": False, "_nrt": False,
               "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "nopython": True}  # fmt: skip
    cpu_target.options.parse_as_flags(flags, options)
    # Numba must neither optimise nor emit the code: both happen here, once, together with the entry.
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
