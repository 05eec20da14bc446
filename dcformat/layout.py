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
#: This bit of the contents' length field is set when the text coder has packed them.
CONTENTS_PACKED = 1 << 31

# Section "Contents": ids of their sections; readers may ignore an unknown section whose id has the high bit.
SECTION_TENSORS = 1
SECTION_GRAPH = 2
SECTION_LABELS = 3
SECTION_METADATA = 4
SECTION_SELF_TEST = 5
SECTION_DELTA = 6
IGNORABLE = 128

# Section "Tensor table": a tensor's form and dtype.
FORM_CONSTANT = 0
FORM_DENSE = 1
FORM_DENSE_SHARED = 2
FORM_SPARSE = 3
FORM_SPARSE_SHARED = 4
FORM_COPY = 5
FORMS = 6
#: The kind of a tensor whose form and dtype are in a byte of their own.
FORM_EXTENDED = 7
#: Tensors of the first `KERNEL_DTYPES` dtypes may have a codebook, and are what networks compute with.
KERNEL_DTYPES = 4
DTYPES = (
    "float32", "float16", "bfloat16", "int8", "float64", "complex64", "uint8", "bool", "int16", "uint16", "int32",
    "uint32", "int64", "uint64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz",
    "float8_e8m0fnu",
)  # fmt: skip

# Section "Payloads": the first byte of a payload.
CODER_RAW = 0
CODER_HUFFMAN = 1
CODER_ADAPTIVE = 2
CODER_MIXING = 3
CODER_PLANES = 4
CODER_TABLES = 5
CODER_PREDICTION = 6
CODERS = 7
CODER_MASK = 15
CODING_TRANSPOSED = 16
CODING_EVERY_ELEMENT = 32
CODING_FILLERS = 64
CODING_BLOCKS = 128
#: From this many symbols on, a chunk has four Huffman streams instead of one.
INTERLEAVE_FROM = 4096
#: Width of the widest gap symbol in bits.
MAX_GAP_BITS = 8

# Section "Limits".
MAX_RANK = 7
MAX_ELEMENTS = 1 << 40
MAX_NAME_BYTES = 255
MAX_TENSORS = 1 << 16
MAX_CODEBOOK = 1 << 16
MAX_CONTENTS_BYTES = 1 << 24
MAX_NODES = 1 << 16
MAX_INPUTS = 64
MAX_PORTS = 256
MAX_ATTRIBUTE = 1 << 16
MAX_LABELS = 1 << 16
MAX_LABEL_BYTES = 1 << 10
MAX_METADATA_ENTRIES = 1 << 10
MAX_METADATA_BYTES = 1 << 16
MAX_SELF_TEST_SAMPLES = 1 << 10
MAX_PAYLOAD_BYTES = 1 << 41
#: Maximum number of bytes of a data block that several tensors share, so that reading one tensor never reads much else.
MAX_SHARED_BLOCK_BYTES = 1 << 16
#: A payload may have FREE_CHUNKS chunks, and one more for every CHUNK_LEAST entries and lines: a chunk takes only a
#: byte or two in a file, but much time to read.
FREE_CHUNKS = 16
CHUNK_LEAST = 1 << 12
#: A tensor whose every element is coded may have FREE_ELEMENTS elements, and ELEMENTS_EACH more for each entry, so that
#: the stored data bounds the cost of decoding it.
FREE_ELEMENTS = 1 << 16
ELEMENTS_EACH = 64
#: Coders 2 and 3 keep indices in 31 bits.
MAX_CONTEXT_LENGTH = (1 << 31) - 1
#: By coder, the most elements of a chunk that are coded one by one, and the most elements of its lines; coder 2 codes
#: runs beyond.
MOST_ELEMENTS = {CODER_ADAPTIVE: 1 << 28, CODER_MIXING: 1 << 26, CODER_PREDICTION: 1 << 26}
MOST_COLUMNS = 1 << 20
#: Default limit on the bytes that decoding may take; it is the reader's own bound and not part of the format.
DEFAULT_MAX_MEMORY = 4 << 30
#: Default limit on the steps that reading or running a file may take. A step is a symbol, a binary decision or a
#: multiplication: about a nanosecond of compiled code. This limit is not part of the format either.
DEFAULT_MAX_WORK = 1 << 40

#: The text that the text coder learns before the contents (section "Text coder"); it never changes within the format.
CONTENTS_PRESET = bytes.fromhex(
    "1166656174757265732e302e7765696768741066656174757265732e31302e6269617313636c61737369666965722e312e77656967687415"
    "6c61796572312e302e636f6e76312e776569676874136c61796572342e312e636f6e76322e6269617313646f776e73616d706c652e302e77"
    "65696768740f636f6e765f66696e616c2e626961731466697265322e73717565657a652e7765696768741666697265332e657870616e6431"
    "78312e7765696768741666697265342e657870616e643378332e776569676874020672656369706507636c61737369630473656564013002"
    "067265636970650764656661756c740473656564013139d6053e48bf9d3e000000000000803f019001080c636f6e76312e77656967687484"
    "14010505860207df010a636f6e76312e626961732114240c636f6e76322e7765696768748432140505ad6309e64b0a636f6e76322e626961"
    "7321323e0a6663312e77656967687444f403a006bfae0c09a6b409086663312e6269617321f403c8030a6663322e776569676874440af403"
    "cb1309ae0f086663322e62696173210a1a021e03011c1c01000000000000803f084200010442020304084104050341060703150a01300131"
    "0132013301340135013601370138013904160206726563697065067265636f7264047365656401320165060a6663312e77656967687444ac"
    "029006e2a60709efcc05086663312e6269617321ac0298020a6663322e7765696768744464ac02b47709e25b086663322e6269617321646a"
    "0a6663332e776569676874440a649504099e03086663332e62696173210a1a021801900601000000000000803f0541000103410203034104"
    "0503150a013001310132013301340135013601370138013904160206726563697065067265636f726404736565640131019001080c636f6e"
    "76312e7765696768748414010505870204d3010a636f6e76312e626961732114240c636f6e76322e7765696768748432140505ed6209944b"
    "0a636f6e76322e6269617321323e0a6663312e77656967687444f403a0068db00c09deae09086663312e6269617321f403c4030a6663322e"
    "776569676874440af403ea1309a80f086663322e62696173210a18021e03011c1c01000000000000803f0842000104420203040841040503"
    "41060703150a01300131013201330134013501360137013801390165060a6663312e77656967687444ac0290069ea50709d3c90508666331"
    "2e6269617321ac0294020a6663322e7765696768744464ac02af7709b65b086663322e6269617321646a0a6663332e776569676874440a64"
    "fb03059403086663332e62696173210a1a021801900601000000000000803f05410001034102030341040503150a01300131013201330134"
    "01350136013701380139"
)
