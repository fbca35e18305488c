"""The part of a TensorFlow SavedModel that an imported network may use: fields of its files, and operators.

Field numbers are those of `saved_model.proto`, `meta_graph.proto`, `graph.proto` and what they import. What
is `Kind.BYTES` here and not looked into by `tf_saved_model` never gets to TensorFlow. Left out, and so
refused: complex numbers, resources and variants as values.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segmentd.models.protobuf import FieldRule, Kind, Schema


def _many(name: str, kind: Kind | str) -> FieldRule:
    return FieldRule(name, kind, repeated=True)


SCHEMA: Schema = {
    "SavedModel": {
        1: FieldRule("schema_version", Kind.INT),
        2: _many("meta_graphs", "MetaGraphDef"),
    },
    "MetaGraphDef": {
        1: FieldRule("meta_info_def", Kind.BYTES),
        2: FieldRule("graph_def", "GraphDef"),
        3: FieldRule("saver_def", "SaverDef"),
        4: _many("collection_def", Kind.BYTES),
        5: _many("signature_def", "SignatureEntry"),
        6: _many("asset_file_def", Kind.BYTES),
        7: FieldRule("object_graph_def", Kind.BYTES),
    },
    "SaverDef": {
        1: FieldRule("filename_tensor_name", Kind.TEXT),
        2: FieldRule("save_tensor_name", Kind.TEXT),
        3: FieldRule("restore_op_name", Kind.TEXT),
        4: FieldRule("max_to_keep", Kind.INT),
        5: FieldRule("sharded", Kind.INT),
        6: FieldRule("keep_checkpoint_every_n_hours", Kind.FLOAT),
        7: FieldRule("version", Kind.INT),
    },
    "SignatureEntry": {1: FieldRule("key", Kind.TEXT), 2: FieldRule("value", "SignatureDef")},
    "SignatureDef": {
        1: _many("inputs", "TensorInfoEntry"),
        2: _many("outputs", "TensorInfoEntry"),
        3: FieldRule("method_name", Kind.TEXT),
        4: _many("defaults", Kind.BYTES),
    },
    "TensorInfoEntry": {1: FieldRule("key", Kind.TEXT), 2: FieldRule("value", "TensorInfo")},
    "TensorInfo": {
        1: FieldRule("name", Kind.TEXT),
        2: FieldRule("dtype", Kind.INT),
        3: FieldRule("tensor_shape", "TensorShapeProto"),
    },
    "TensorShapeProto": {2: _many("dim", "Dim"), 3: FieldRule("unknown_rank", Kind.INT)},
    "Dim": {1: FieldRule("size", Kind.INT), 2: FieldRule("name", Kind.TEXT)},
    "GraphDef": {
        1: _many("node", "NodeDef"),
        2: FieldRule("library", "FunctionDefLibrary"),
        3: FieldRule("version", Kind.INT),
        4: FieldRule("versions", Kind.BYTES),
        5: FieldRule("debug_info", Kind.BYTES),
    },
    "NodeDef": {
        1: FieldRule("name", Kind.TEXT),
        2: FieldRule("op", Kind.TEXT),
        3: _many("input", Kind.TEXT),
        4: FieldRule("device", Kind.TEXT),
        5: _many("attr", Kind.BYTES),  # each an AttrEntry
        6: FieldRule("experimental_debug_info", Kind.BYTES),
        7: FieldRule("experimental_type", Kind.BYTES),
    },
    "AttrEntry": {1: FieldRule("key", Kind.TEXT), 2: FieldRule("value", "AttrValue")},
    "AttrValue": {
        1: FieldRule("list", "AttrValue.ListValue"),
        2: FieldRule("s", Kind.BYTES),
        3: FieldRule("i", Kind.INT),
        4: FieldRule("f", Kind.FLOAT),
        5: FieldRule("b", Kind.INT),
        6: FieldRule("type", Kind.INT),
        7: FieldRule("shape", "TensorShapeProto"),
        8: FieldRule("tensor", "TensorProto"),
        10: FieldRule("func", "NameAttrList"),
    },
    "AttrValue.ListValue": {
        2: _many("s", Kind.BYTES),
        3: FieldRule("i", Kind.INTS),
        4: FieldRule("f", Kind.COUNT_FIXED32),
        5: FieldRule("b", Kind.INTS),
        6: FieldRule("type", Kind.INTS),
        7: _many("shape", "TensorShapeProto"),
    },
    "NameAttrList": {1: FieldRule("name", Kind.TEXT)},
    "TensorProto": {
        1: FieldRule("dtype", Kind.INT),
        2: FieldRule("tensor_shape", "TensorShapeProto"),
        3: FieldRule("version_number", Kind.INT),
        4: FieldRule("tensor_content", Kind.BYTES),
        5: FieldRule("float_val", Kind.COUNT_FIXED32),
        6: FieldRule("double_val", Kind.COUNT_FIXED64),
        7: FieldRule("int_val", Kind.COUNT_VARINTS),
        8: _many("string_val", Kind.BYTES),
        10: FieldRule("int64_val", Kind.COUNT_VARINTS),
        11: FieldRule("bool_val", Kind.COUNT_VARINTS),
        13: FieldRule("half_val", Kind.COUNT_VARINTS),
    },
    "FunctionDefLibrary": {
        1: _many("function", "FunctionDef"),
        2: _many("gradient", Kind.BYTES),
        3: _many("registered_gradients", Kind.BYTES),
    },
    "FunctionDef": {
        1: FieldRule("signature", "OpDef"),
        3: _many("node_def", "NodeDef"),
        4: _many("ret", "StringEntry"),
        5: _many("attr", Kind.BYTES),
        6: _many("control_ret", "StringEntry"),
        7: _many("arg_attr", Kind.BYTES),
        8: _many("resource_arg_unique_id", Kind.BYTES),
    },
    "StringEntry": {1: FieldRule("key", Kind.TEXT), 2: FieldRule("value", Kind.TEXT)},
    "OpDef": {
        1: FieldRule("name", Kind.TEXT),
        2: _many("input_arg", "ArgDef"),
        3: _many("output_arg", "ArgDef"),
        5: FieldRule("summary", Kind.TEXT),
        6: FieldRule("description", Kind.TEXT),
        16: FieldRule("is_aggregate", Kind.INT),
        17: FieldRule("is_stateful", Kind.INT),
        18: FieldRule("is_commutative", Kind.INT),
        20: _many("control_output", Kind.TEXT),
    },
    "ArgDef": {
        1: FieldRule("name", Kind.TEXT),
        2: FieldRule("description", Kind.TEXT),
        3: FieldRule("type", Kind.INT),
        7: _many("handle_data", Kind.BYTES),
        17: FieldRule("experimental_full_type", Kind.BYTES),
    },
    # Of the checkpoint beside the graph.
    "BundleHeaderProto": {
        1: FieldRule("num_shards", Kind.INT),
        2: FieldRule("endianness", Kind.INT),
        3: FieldRule("version", Kind.BYTES),
    },
    "BundleEntryProto": {
        1: FieldRule("dtype", Kind.INT),
        2: FieldRule("shape", "TensorShapeProto"),
        3: FieldRule("shard_id", Kind.INT),
        4: FieldRule("offset", Kind.INT),
        5: FieldRule("size", Kind.INT),
        6: FieldRule("crc32c", Kind.FLOAT),
    },
}

FLOAT = 1
STRING = 7
RESOURCE = 20
# Types of numbers: bytes of an element, and the field that else holds the elements.
ELEMENTS: dict[int, tuple[npt.DTypeLike, str]] = {
    1: (np.float32, "float_val"),
    2: (np.float64, "double_val"),
    3: (np.int32, "int_val"),
    4: (np.uint8, "int_val"),
    9: (np.int64, "int64_val"),
    10: (np.bool_, "bool_val"),
    19: (np.float16, "half_val"),
}
CALLS = frozenset(("PartitionedCall", "StatefulPartitionedCall"))
PLACEHOLDER, VARIABLE, CONSTANT, IDENTITY = "Placeholder", "VarHandleOp", "Const", "Identity"

# Deterministic arithmetic on tensors. Left out: whatever reads or writes files, runs other programs or
# Python, handles text, draws random numbers, decodes images, changes variables, or repeats (loops).
_OPERATORS = """
    Abs Add AddN AddV2 All Any ArgMax ArgMin AvgPool AvgPool3D BatchMatMul BatchMatMulV2 BatchMatMulV3
    BatchToSpaceND BiasAdd BroadcastArgs BroadcastTo Cast Ceil ClipByValue Concat ConcatV2 Const Conv2D
    Conv2DBackpropInput Conv2DBackpropInputV2 Conv3D Conv3DBackpropInputV2 Cos Cumsum DepthToSpace
    DepthwiseConv2dNative Div DivNoNan Einsum Elu Equal Erf Exp ExpandDims Expm1 Fill Floor FloorDiv FloorMod
    FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 Gather GatherNd GatherV2 Greater GreaterEqual Identity
    IdentityN Inv LRN LeakyRelu Less LessEqual Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr MatMul Max
    MaxPool MaxPool3D MaxPoolV2 Maximum Mean Min Minimum MirrorPad Mod Mul MulNoNan Neg NoOp NotEqual OneHot
    OnesLike Pack Pad PadV2 Pow Prod Range Rank ReadVariableOp RealDiv Reciprocal Relu Relu6 Reshape
    ResizeBicubic ResizeBilinear ResizeNearestNeighbor ReverseV2 Round Rsqrt Select SelectV2 Selu Shape ShapeN
    Sigmoid Sign Sin Size Slice Softmax Softplus Softsign SpaceToBatchND SpaceToDepth Split SplitV Sqrt Square
    SquaredDifference Squeeze StopGradient StridedSlice Sub Sum Tan Tanh Tile Transpose TruncateDiv Unpack
    Where Xdivy ZerosLike
"""
OPERATORS = frozenset(_OPERATORS.split())
