"""Packs safetensors checkpoints of any size tensor by tensor, in one process, in several, or on a cluster.

`shards` finds the files and reads their headers, `elements` reads data, `units` divides the work, `workers` and
`ray_engine` distribute it, `journal` keeps finished parts, and `pack` writes the output. `restore` writes the
safetensors files again.
"""
