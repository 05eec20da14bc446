"""Every magic number, width, limit and id of the format, each with its section of `spec/dcformat.md`."""

from __future__ import annotations

# Section "File": magic (4), major (1), minor (1), contents length and form (4), contents, CRC-32C (4), data blocks,
# each with its CRC-32C, content digest (8).
MAGIC = b"\x89DCF"
MAJOR = 1
MINOR = 0
PREFIX_BYTES = 10
CRC_BYTES = 4
DIGEST_BYTES = 8
#: Set in the contents' length field when they are coded by the text coder.
CONTENTS_PACKED = 1 << 31

# Section "Contents": ids of their sections; a section whose id has the high bit may be ignored by who does not know it.
SECTION_TENSORS = 1
SECTION_GRAPH = 2
SECTION_LABELS = 3
SECTION_METADATA = 4
SECTION_SELF_TEST = 5
IGNORABLE = 128

# Section "Tensor table": a tensor's form and dtype.
FORM_CONSTANT = 0
FORM_DENSE = 1
FORM_DENSE_SHARED = 2
FORM_SPARSE = 3
FORM_SPARSE_SHARED = 4
FORMS = 5
DTYPES = ("float32", "float16", "bfloat16", "int8")
#: The rank field's value that says that a varint follows.
RANK_ESCAPE = 7

# Section "Payloads": the first byte of a payload.
CODER_RAW = 0
CODER_HUFFMAN = 1
CODER_ADAPTIVE = 2
CODER_MIXING = 3
CODERS = 4
CODER_MASK = 15
CODING_TRANSPOSED = 16
CODING_EVERY_ELEMENT = 32
CODING_FILLERS = 64
CODING_RESERVED = 128
#: A chunk with fewer symbols than this has one Huffman stream for them, else four.
INTERLEAVE_FROM = 4096
#: Widest gap symbol in bits; widest code into a codebook in bits.
MAX_GAP_BITS = 8

# Section "Limits".
MAX_RANK = 8
MAX_ELEMENTS = 1 << 40
MAX_NAME_BYTES = 255
MAX_TENSORS = 1 << 16
MAX_CODEBOOK = 1 << 16
MAX_CONTENTS_BYTES = 1 << 24
#: Longer contents are never coded: the text coder is slow.
MAX_PACKED_BYTES = 1 << 16
MAX_NODES = 1 << 16
MAX_INPUTS = 64
MAX_ATTRIBUTE = 1 << 16
MAX_LABELS = 1 << 16
MAX_LABEL_BYTES = 1 << 10
MAX_METADATA_ENTRIES = 1 << 10
MAX_METADATA_BYTES = 1 << 16
MAX_SELF_TEST_SAMPLES = 1 << 10
MAX_PAYLOAD_BYTES = 1 << 41
#: What decoding may take unless the caller says otherwise. Not part of the format: a reader's own bound.
DEFAULT_MAX_MEMORY = 4 << 30

#: What the text coder has read before the contents (section "Text coder"); part of the format, so never changed.
CONTENTS_PRESET = b""
