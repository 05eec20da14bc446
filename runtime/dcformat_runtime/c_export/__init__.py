"""Writes a network as C99 for microcontrollers: `export_c` returns the files and their properties.

A program is made in four steps. `steps` joins the nodes of a graph into steps; `fixed_point` chooses scales and turns
the weights into integers, unless the program computes in float32; `tensor_data` codes the weights; `source_writer`
assembles the files from the C functions in `parts/` and from the parts that depend on the network.
"""

from dcformat_runtime.c_export.exporting import Exported, ExportOptions, export_c

__all__ = ["ExportOptions", "Exported", "export_c"]
