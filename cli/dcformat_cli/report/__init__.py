"""`dcformat report`: a page of HTML that shows what a file holds and what its bytes are for.

`facts` collects the facts of the page from an open file, a tensor at a time (`tensor_facts`), with the sizes of other
formats (`sizes`) and the microcontrollers that the network fits (`chips`). `page` fills the template in `templates/`
with texts, tables and pictures. `treemap` and `first_layer` lay out the pictures of `charts` and `page`, and `pictures`
turns figures into SVG.
"""
