"""Writes a network as C99 for microcontrollers: `export_c` returns the files and what is known of them.

A program is made in four steps. `steps` joins the nodes of a graph into steps; `fixed_point` chooses scales and makes
integers of the weights, unless the program computes in float32; `tensor_data` codes the weights; `source_writer` puts
the files together from `parts/`, which holds the C functions, and from what depends on the network.
"""

from dcformat_runtime.c_export.exporting import Exported, ExportOptions, export_c

__all__ = ["ExportOptions", "Exported", "export_c"]
