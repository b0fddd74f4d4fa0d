"""Graphs in the ONNX format, as bytes that ONNX Runtime loads.

The format is a Protocol Buffers message (onnx.proto, onnx.ai). Only what the engine's graphs use is
written. The library `onnx` does the same, but importing it takes as long as making a song's first
notes; the tests check these graphs with it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

IR_VERSION = 10
OPSET = 21  # of the standard operators
CONTRIBUTED = "com.microsoft"  # ONNX Runtime's own operators
CONTRIBUTED_OPSET = 1

# Numbers of the fields in onnx.proto.
MODEL_IR_VERSION = 1
MODEL_GRAPH = 7
MODEL_OPSET = 8
OPSET_DOMAIN = 1
OPSET_VERSION = 2
GRAPH_NODE = 1
GRAPH_NAME = 2
GRAPH_INITIALIZER = 5
GRAPH_INPUT = 11
GRAPH_OUTPUT = 12
NODE_INPUT = 1
NODE_OUTPUT = 2
NODE_OP_TYPE = 4
NODE_ATTRIBUTE = 5
NODE_DOMAIN = 7
ATTRIBUTE_NAME = 1
ATTRIBUTE_FLOAT = 2
ATTRIBUTE_INT = 3
ATTRIBUTE_INTS = 8
ATTRIBUTE_TYPE = 20
TENSOR_DIMS = 1
TENSOR_DATA_TYPE = 2
TENSOR_NAME = 8
TENSOR_RAW_DATA = 9
VALUE_NAME = 1
VALUE_TYPE = 2
TYPE_TENSOR = 1
TENSOR_TYPE_ELEMENT = 1
TENSOR_TYPE_SHAPE = 2
SHAPE_DIM = 1
DIM_VALUE = 1
DIM_NAME = 2

FLOAT_ATTRIBUTE = 1
INT_ATTRIBUTE = 2
INTS_ATTRIBUTE = 7
DATA_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7}  # of elements

# ---------------------------------------------------------------- the wire format

VARINT = 0
LENGTH_DELIMITED = 2
FOUR_BYTES = 5
SEVEN_BITS = 0x7F
MORE_FOLLOWS = 0x80


def varint(number: int) -> bytes:
    """A number of 64 bits, seven of them a byte, lowest first; -1 is the highest."""
    number %= 1 << 64
    parts = bytearray()
    while number > SEVEN_BITS:
        parts.append(number & SEVEN_BITS | MORE_FOLLOWS)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def field(number: int, content: bytes | str | int | float) -> bytes:
    """One field of a message."""
    if isinstance(content, int):
        return varint(number << 3 | VARINT) + varint(content)
    if isinstance(content, float):
        return varint(number << 3 | FOUR_BYTES) + struct.pack("<f", content)
    data = content.encode() if isinstance(content, str) else content
    return head(number, len(data)) + data


def head(number: int, n_bytes: int) -> bytes:
    """What stands before the content of a field of `n_bytes`."""
    return varint(number << 3 | LENGTH_DELIMITED) + varint(n_bytes)


# ---------------------------------------------------------------- graphs


class Graph:
    """A graph as it grows: nodes in the order in which they run.

    Values go by names. Shapes name what is open, such as "B".
    """

    def __init__(self, name: str) -> None:
        # The fields of the graph's message. Weights are copied once, when all is joined.
        self._parts: list[bytes | memoryview] = [field(GRAPH_NAME, name)]
        self._n_values = 0

    def input(self, name: str, shape: Sequence[int | str], dtype: str = "float32") -> str:
        """A value that is given to the graph."""
        self._parts.append(field(GRAPH_INPUT, _value(name, shape, dtype)))
        return name

    def output(self, name: str, value: str, shape: Sequence[int | str]) -> None:
        """Give `value`, of floats, out as `name`."""
        self._node("Identity", [value], [name], "", {})
        self._parts.append(field(GRAPH_OUTPUT, _value(name, shape, "float32")))

    def cache(self, name: str, shape: Sequence[int | str]) -> tuple[str, str]:
        """Names of a value that comes in and of the same value, changed, that goes out."""
        after = f"{name}_after"
        self._parts.append(field(GRAPH_INPUT, _value(name, shape, "float32")))
        self._parts.append(field(GRAPH_OUTPUT, _value(after, shape, "float32")))
        return name, after

    def constant(self, array: np.ndarray) -> str:
        """A value that stays the same."""
        name = self._new_name()
        dims = b"".join(field(TENSOR_DIMS, size) for size in array.shape)
        about = (dims
                 + field(TENSOR_DATA_TYPE, DATA_TYPES[array.dtype.name])
                 + field(TENSOR_NAME, name)
                 + head(TENSOR_RAW_DATA, array.nbytes))
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        self._parts += [head(GRAPH_INITIALIZER, len(about) + array.nbytes), about, content]
        return name

    def node(self, op_type: str, *inputs: str, domain: str = "", **attributes: Attribute) -> str:
        """The output of an operator with one output; "" stands for an input left out."""
        return self.nodes(1, op_type, *inputs, domain=domain, **attributes)[0]

    def nodes(self,
              n_outputs: int,
              op_type: str,
              *inputs: str,
              domain: str = "",
              **attributes: Attribute) -> list[str]:
        """The first outputs of an operator."""
        outputs = [self._new_name() for _ in range(n_outputs)]
        self._node(op_type, inputs, outputs, domain, attributes)
        return outputs

    def normed_sum(self,
                   x: str,
                   y: str,
                   bias: str,
                   norm: tuple[str, str],
                   epsilon: float) -> tuple[str, str]:
        """A layer norm, by its scale and shift, of `x + y + bias`, and that sum; "" for no bias."""
        normed = self._new_name()
        total = self._new_name()
        self._node("SkipLayerNormalization", [x, y, *norm, bias],
                   [normed, "", "", total], CONTRIBUTED, {"epsilon": epsilon})
        return normed, total

    def attention(self,
                  new: Sequence[str],
                  cache: Sequence[tuple[str, str]],
                  lengths: Sequence[str],
                  n_heads: int) -> str:
        """Attention to the notes in `cache`, which takes in the new keys and values.

        Args:
            new: queries, keys and values of the new notes, (B, T, D) each.
            cache: of keys and of values, from `Graph.cache`.
            lengths: each song's last place, and the most places of all.
        """
        out = self._new_name()
        (keys, keys_after), (values, values_after) = cache
        self._node("GroupQueryAttention", [*new, keys, values, *lengths],
                   [out, keys_after, values_after], CONTRIBUTED,
                   {"num_heads": n_heads, "kv_num_heads": n_heads})
        return out

    def _node(self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], domain: str,
              attributes: dict[str, Attribute]) -> None:
        message = b"".join(field(NODE_INPUT, name) for name in inputs)
        message += b"".join(field(NODE_OUTPUT, name) for name in outputs)
        message += field(NODE_OP_TYPE, op_type)
        message += field(NODE_DOMAIN, domain)
        for name, value in attributes.items():
            message += field(NODE_ATTRIBUTE, _attribute(name, value))
        self._parts.append(field(GRAPH_NODE, message))

    def _new_name(self) -> str:
        self._n_values += 1
        return f"v{self._n_values}"

    def to_bytes(self) -> bytes:
        """A model file with this graph."""
        n_bytes = sum(len(part) for part in self._parts)
        start = (field(MODEL_IR_VERSION, IR_VERSION)
                 + field(MODEL_OPSET, _opset("", OPSET))
                 + field(MODEL_OPSET, _opset(CONTRIBUTED, CONTRIBUTED_OPSET))
                 + head(MODEL_GRAPH, n_bytes))
        return b"".join([start, *self._parts])


Attribute = int | float | Sequence[int]


def _opset(domain: str, version: int) -> bytes:
    return field(OPSET_DOMAIN, domain) + field(OPSET_VERSION, version)


def _attribute(name: str, value: Attribute) -> bytes:
    message = field(ATTRIBUTE_NAME, name)
    if isinstance(value, int):
        return message + field(ATTRIBUTE_INT, value) + field(ATTRIBUTE_TYPE, INT_ATTRIBUTE)
    if isinstance(value, float):
        return message + field(ATTRIBUTE_FLOAT, value) + field(ATTRIBUTE_TYPE, FLOAT_ATTRIBUTE)
    numbers = b"".join(field(ATTRIBUTE_INTS, number) for number in value)
    return message + numbers + field(ATTRIBUTE_TYPE, INTS_ATTRIBUTE)


def _value(name: str, shape: Sequence[int | str], dtype: str) -> bytes:
    dims = b""
    for size in shape:
        number = DIM_VALUE if isinstance(size, int) else DIM_NAME
        dims += field(SHAPE_DIM, field(number, size))
    tensor = (field(TENSOR_TYPE_ELEMENT, DATA_TYPES[dtype])
              + field(TENSOR_TYPE_SHAPE, dims))
    return field(VALUE_NAME, name) + field(VALUE_TYPE, field(TYPE_TENSOR, tensor))
