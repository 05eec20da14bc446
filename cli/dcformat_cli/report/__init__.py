"""`dcformat report`: a page of HTML that shows what a file holds and what its bytes are for.

`facts` collects everything that the page tells from an open file, a tensor at a time (`tensors`), with the sizes of
other formats (`sizes`) and the microcontrollers that the network fits (`chips`). `page` fills the template in
`templates/` with texts, tables and pictures. `treemap` and `first_layer` lay out what `charts` and `page` show, and
`pictures` makes SVG of figures.
"""
