"""The parts of TensorFlow Lite's schema, version 3, that are needed: names of operators, dtypes, and options."""

from __future__ import annotations

from typing import NamedTuple

IDENTIFIER = b"TFL3"
VERSION = 3

_OPERATORS = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR
FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION LSTM
MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS
SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND
SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN
EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2
GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG
SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT
UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU
SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE
MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5
SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO
RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL
CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE
RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX
UNSORTED_SEGMENT_SUM ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT STABLEHLO_LOGISTIC STABLEHLO_ADD
STABLEHLO_DIVIDE STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE STABLEHLO_CLAMP STABLEHLO_CONCATENATE
STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE STABLEHLO_ABS
STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR STABLEHLO_LOG STABLEHLO_MINIMUM STABLEHLO_NEGATE
STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER STABLEHLO_RSQRT STABLEHLO_SELECT STABLEHLO_SUBTRACT STABLEHLO_TANH
STABLEHLO_SCATTER STABLEHLO_COMPARE STABLEHLO_CONVERT STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE
STABLEHLO_PAD STABLEHLO_IOTA STABLEHLO_DOT_GENERAL STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE
STABLEHLO_GATHER STABLEHLO_TRANSPOSE DILATE STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE
STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT STABLEHLO_CASE
"""

#: The names of operators; their numbers in a file are their places here.
OPERATORS = tuple(_OPERATORS.split())

CUSTOM = OPERATORS.index("CUSTOM")

_DTYPES = """
float32 float16 int32 uint8 int64 string bool int16 complex64 int8 float64 complex128 uint64 resource variant uint32
uint16 int4 bfloat16 int2 uint4 float8_e4m3fn float8_e5m2
"""

#: The names of dtypes; their numbers in a file are their places here.
DTYPES = tuple(_DTYPES.split())

#: The activations that other operators apply to their results.
ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")

#: The class of each operator's options, as a number, and the fields: NAME:FORM=DEFAULT, with ``*`` for a vector.
_OPTIONS = {
    "CONV_2D": (
        1, "padding:b stride_w:i stride_h:i activation:b dilation_w:i=1 dilation_h:i=1 quantized_bias_type:b"
    ),
    "DEPTHWISE_CONV_2D": (
        2, "padding:b stride_w:i stride_h:i depth_multiplier:i activation:b dilation_w:i=1 dilation_h:i=1"
    ),
    "AVERAGE_POOL_2D": (5, "padding:b stride_w:i stride_h:i filter_w:i filter_h:i activation:b"),
    "MAX_POOL_2D": (5, "padding:b stride_w:i stride_h:i filter_w:i filter_h:i activation:b"),
    "FULLY_CONNECTED": (
        8, "activation:b weights_format:b keep_num_dims:? asymmetric_quantize_inputs:? quantized_bias_type:b "
           "quant_spec:*B"
    ),
    "SOFTMAX": (9, "beta:f"),
    "CONCATENATION": (10, "axis:i activation:b"),
    "ADD": (11, "activation:b pot_scale_int16:?=1"),
    "L2_NORMALIZATION": (12, "activation:b"),
    "RESIZE_BILINEAR": (15, "new_height:i new_width:i align_corners:? half_pixel_centers:?"),
    "RESHAPE": (17, "new_shape:*i"),
    "SPACE_TO_DEPTH": (19, "block_size:i"),
    "MUL": (21, "activation:b"),
    "GATHER": (23, "axis:i batch_dims:i"),
    **dict.fromkeys(
        ("MEAN", "SUM", "REDUCE_PROD", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_ANY", "REDUCE_ALL"), (27, "keep_dims:?")
    ),
    "SUB": (28, "activation:b pot_scale_int16:?=1"),
    "DIV": (29, "activation:b"),
    "SQUEEZE": (30, "squeeze_dims:*i"),
    "STRIDED_SLICE": (
        32, "begin_mask:i end_mask:i ellipsis_mask:i new_axis_mask:i shrink_axis_mask:i offset:?"
    ),
    "SPLIT": (35, "num_splits:i"),
    "CAST": (37, "in_data_type:b out_data_type:b"),
    "ARG_MAX": (40, "output_type:b"),
    "TRANSPOSE_CONV": (49, "padding:b stride_w:i stride_h:i activation:b quantized_bias_type:b"),
    "SHAPE": (55, "out_type:b"),
    "ARG_MIN": (57, "output_type:b"),
    "PACK": (59, "values_count:i axis:i"),
    "ONE_HOT": (61, "axis:i"),
    "UNPACK": (64, "num:i axis:i"),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (
        71, "cell_activation:b cell_clip:f proj_clip:f time_major:? asymmetric_quantize_inputs:? "
            "diagonal_recurrent_tensors:?"
    ),
    "RESIZE_NEAREST_NEIGHBOR": (74, "align_corners:? half_pixel_centers:?"),
    "LEAKY_RELU": (75, "alpha:f"),
    "MIRROR_PAD": (77, "mode:b"),
    "SPLIT_V": (79, "num_splits:i"),
    "DEPTH_TO_SPACE": (94, "block_size:i"),
    "BATCH_MATMUL": (101, "adj_x:? adj_y:? asymmetric_quantize_inputs:?"),
    "GELU": (116, "approximate:?"),
}  # fmt: skip


class Field(NamedTuple):
    """A field of an operator's options; `form` is its format as `struct` has it."""

    name: str
    form: str
    default: int
    is_vector: bool


class BuiltinOptions(NamedTuple):
    """The schema of an operator's options: the number of their class, and their fields."""

    number: int
    fields: tuple[Field, ...]


def _field(text: str) -> Field:
    name, _, rest = text.partition(":")
    form, _, default = rest.partition("=")
    return Field(name, form.removeprefix("*"), int(default or 0), form.startswith("*"))


OPTIONS = {name: BuiltinOptions(number, tuple(map(_field, text.split()))) for name, (number, text) in _OPTIONS.items()}
