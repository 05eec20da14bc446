"""The compiler of kernels. Only this folder needs Numba, and nothing imports it before compilation.

`lowering` compiles a kernel to an object file, with `entry` as its entry from Python and with helpers that `inlining`
prepared; `elf` links the object into an image. `ir_writer` is the kit for helpers written in LLVM's IR.
"""
