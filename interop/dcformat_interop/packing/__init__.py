"""Packing of safetensors files of any size, one or many, tensor by tensor, in one process, several, or on a cluster.

`shards` finds the files and reads their headers, `elements` reads data, `units` divides the work, `workers` and
`ray_engine` spread it, `journal` keeps what is finished, and `pack` puts it together. `restore` gives the files back.
"""
