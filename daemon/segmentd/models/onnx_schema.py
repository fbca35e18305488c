"""The part of ONNX that an imported network may use: fields of the file, and operators.

Field numbers are those of `onnx.proto`. Left out, and so refused: training information, functions, device
configurations, sparse tensors, segments, strings as tensors, and types other than tensors and sequences.
External data and its location are read only to be refused with a reason.
"""

from __future__ import annotations

from segmentd.models.protobuf import FieldRule, Kind, Schema


def _many(name: str, kind: Kind | str) -> FieldRule:
    return FieldRule(name, kind, repeated=True)


SCHEMA: Schema = {
    "ModelProto": {
        1: FieldRule("ir_version", Kind.INT),
        2: FieldRule("producer_name", Kind.TEXT),
        3: FieldRule("producer_version", Kind.TEXT),
        4: FieldRule("domain", Kind.TEXT),
        5: FieldRule("model_version", Kind.INT),
        6: FieldRule("doc_string", Kind.TEXT),
        7: FieldRule("graph", "GraphProto"),
        8: _many("opset_import", "OperatorSetIdProto"),
        14: _many("metadata_props", "StringStringEntryProto"),
        25: _many("functions", Kind.BYTES),
    },
    "OperatorSetIdProto": {1: FieldRule("domain", Kind.TEXT), 2: FieldRule("version", Kind.INT)},
    "StringStringEntryProto": {1: FieldRule("key", Kind.TEXT), 2: FieldRule("value", Kind.TEXT)},
    "GraphProto": {
        1: _many("node", "NodeProto"),
        2: FieldRule("name", Kind.TEXT),
        5: _many("initializer", "TensorProto"),
        10: FieldRule("doc_string", Kind.TEXT),
        11: _many("input", "ValueInfoProto"),
        12: _many("output", "ValueInfoProto"),
        13: _many("value_info", "ValueInfoProto"),
        14: _many("quantization_annotation", "TensorAnnotation"),
        16: _many("metadata_props", "StringStringEntryProto"),
    },
    "TensorAnnotation": {
        1: FieldRule("tensor_name", Kind.TEXT),
        2: _many("quant_parameter_tensor_names", "StringStringEntryProto"),
    },
    "NodeProto": {
        1: _many("input", Kind.TEXT),
        2: _many("output", Kind.TEXT),
        3: FieldRule("name", Kind.TEXT),
        4: FieldRule("op_type", Kind.TEXT),
        5: _many("attribute", "AttributeProto"),
        6: FieldRule("doc_string", Kind.TEXT),
        7: FieldRule("domain", Kind.TEXT),
        9: _many("metadata_props", "StringStringEntryProto"),
    },
    "AttributeProto": {
        1: FieldRule("name", Kind.TEXT),
        2: FieldRule("f", Kind.FLOAT),
        3: FieldRule("i", Kind.INT),
        4: FieldRule("s", Kind.BYTES),
        5: FieldRule("t", "TensorProto"),
        6: FieldRule("g", "GraphProto"),
        7: FieldRule("floats", Kind.COUNT_FIXED32),
        8: FieldRule("ints", Kind.INTS),
        9: _many("strings", Kind.BYTES),
        10: _many("tensors", "TensorProto"),
        11: _many("graphs", "GraphProto"),
        13: FieldRule("doc_string", Kind.TEXT),
        20: FieldRule("type", Kind.INT),
    },
    "TensorProto": {
        1: FieldRule("dims", Kind.INTS),
        2: FieldRule("data_type", Kind.INT),
        4: FieldRule("float_data", Kind.COUNT_FIXED32),
        5: FieldRule("int32_data", Kind.COUNT_VARINTS),
        7: FieldRule("int64_data", Kind.COUNT_VARINTS),
        8: FieldRule("name", Kind.TEXT),
        9: FieldRule("raw_data", Kind.BYTES),
        10: FieldRule("double_data", Kind.COUNT_FIXED64),
        11: FieldRule("uint64_data", Kind.COUNT_VARINTS),
        12: FieldRule("doc_string", Kind.TEXT),
        13: _many("external_data", Kind.BYTES),
        14: FieldRule("data_location", Kind.INT),
        16: _many("metadata_props", "StringStringEntryProto"),
    },
    "ValueInfoProto": {
        1: FieldRule("name", Kind.TEXT),
        2: FieldRule("type", "TypeProto"),
        3: FieldRule("doc_string", Kind.TEXT),
        4: _many("metadata_props", "StringStringEntryProto"),
    },
    "TypeProto": {
        1: FieldRule("tensor_type", "TypeProto.Tensor"),
        4: FieldRule("sequence_type", "TypeProto.Sequence"),
        6: FieldRule("denotation", Kind.TEXT),
    },
    "TypeProto.Tensor": {1: FieldRule("elem_type", Kind.INT), 2: FieldRule("shape", "TensorShapeProto")},
    "TypeProto.Sequence": {1: FieldRule("elem_type", "TypeProto")},
    "TensorShapeProto": {1: _many("dim", "TensorShapeProto.Dimension")},
    "TensorShapeProto.Dimension": {
        1: FieldRule("dim_value", Kind.INT),
        2: FieldRule("dim_param", Kind.TEXT),
        3: FieldRule("denotation", Kind.TEXT),
    },
}

FLOAT = 1
# data_type of a tensor: bytes of an element in raw_data, and the field that else holds the elements.
ELEMENTS = {
    1: (4, "float_data"),
    2: (1, "int32_data"),  # uint8
    3: (1, "int32_data"),  # int8
    4: (2, "int32_data"),  # uint16
    5: (2, "int32_data"),  # int16
    6: (4, "int32_data"),
    7: (8, "int64_data"),
    9: (1, "int32_data"),  # bool
    10: (2, "int32_data"),  # float16
    11: (8, "double_data"),
    12: (4, "uint64_data"),  # uint32
    13: (8, "uint64_data"),
    16: (2, "int32_data"),  # bfloat16
}

# Deterministic arithmetic on tensors, and control flow. Left out: random numbers, decoders of images,
# text, training losses, optional values.
_OPERATORS = """
    Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool
    BatchNormalization BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu
    CenterCropPad Clip Compress Concat ConcatFromSequence Constant ConstantOfShape Conv ConvInteger
    ConvTranspose Cos Cosh CumSum DFT DeformConv DepthToSpace DequantizeLinear Div Dropout
    DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements
    GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool GRU Greater GreaterOrEqual GridSample
    GroupNormalization HardSigmoid HardSwish Hardmax Identity If InstanceNormalization IsInf IsNaN LRN LSTM
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul
    MatMulInteger Max MaxPool MaxUnpool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonZero Not
    OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization RNN Range Reciprocal
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Reshape Resize ReverseSequence RotaryEmbedding Round Scan Scatter ScatterElements
    ScatterND Selu SequenceAt SequenceConstruct SequenceEmpty SequenceInsert SequenceLength Shape Shrink
    Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split SplitToSequence Sqrt
    Squeeze Sub Sum Swish Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""
OPERATORS = frozenset(_OPERATORS.split())
