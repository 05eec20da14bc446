"""What makes a kernel's machine code. Only this folder needs Numba, and nothing imports it before compiling.

`lowering` compiles a kernel to an object file, with `entry` as its door from Python and its helpers prepared by
`inlining`; `elf` links the object into an image. `ir_writer` is the kit with which helpers are written in LLVM's IR.
"""
