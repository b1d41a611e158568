"""As much of the ONNX file format as it takes to read a model's weights and to write a small graph.

ONNX files are protocol buffers; field numbers are from onnx.proto3 (IR version 8). With this, the environment needs
onnxruntime alone, not the `onnx` package.
"""

from __future__ import annotations

from typing import Iterator, Mapping, NamedTuple, Sequence, Union

import numpy as np
import numpy.typing as npt

_IR_VERSION = 8
_OPSET = 16
_FLOAT, _INT64 = 1, 7
_VARINT, _WIDE, _BYTES, _NARROW = 0, 1, 2, 5

Array = npt.NDArray[np.generic]
Dimension = Union[int, str]
"""A fixed size, or the name of one that varies."""


class Node(NamedTuple):
    """One operation: its type, the names of what it takes and gives, and its whole-number attributes."""

    operation: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: Mapping[str, int] = {}


# -- reading


def fields(message: memoryview) -> Iterator[tuple[int, Union[int, memoryview]]]:
    """(field number, value) of a message. Raises ValueError if it is not one."""
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, position = _read_varint(message, position)
            yield number, value
            continue
        if wire == _BYTES:
            length, position = _read_varint(message, position)
        elif wire in (_WIDE, _NARROW):
            length = 8 if wire == _WIDE else 4
        else:
            raise ValueError(f"not a protocol buffer: wire type {wire}")
        if position + length > len(message):
            raise ValueError("the protocol buffer is truncated")
        yield number, message[position : position + length]
        position += length


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(message):
            raise ValueError("the protocol buffer is truncated")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _parts(message: memoryview, number: int) -> list[memoryview]:
    """The sub-messages, strings or bytes of one field."""
    return [value for field, value in fields(message) if field == number and isinstance(value, memoryview)]


def read(model: bytes) -> tuple[dict[str, Array], list[Node]]:
    """The float32 weights of a model by name, and its nodes (without attributes). Raises ValueError."""
    (graph,) = _parts(memoryview(model), 7)
    weights = dict(_read_tensor(tensor) for tensor in _parts(graph, 5))
    nodes = [
        Node(
            str(_parts(node, 4)[0], "utf-8"),
            [str(name, "utf-8") for name in _parts(node, 1)],
            [str(name, "utf-8") for name in _parts(node, 2)],
        )
        for node in _parts(graph, 1)
    ]
    return weights, nodes


def _read_tensor(tensor: memoryview) -> tuple[str, Array]:
    shape: list[int] = []
    name, data = "", memoryview(b"")
    for number, value in fields(tensor):
        if number == 1:
            shape += [value] if isinstance(value, int) else _packed(value)
        elif number == 8 and isinstance(value, memoryview):
            name = str(value, "utf-8")
        elif number in (4, 9) and isinstance(value, memoryview):
            data = value
    return name, np.frombuffer(data, "<f4").reshape(shape)


def _packed(values: memoryview) -> list[int]:
    numbers, position = [], 0
    while position < len(values):
        number, position = _read_varint(values, position)
        numbers.append(number)
    return numbers


# -- writing


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _piece(field: int, value: Union[bytes, str]) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | _BYTES) + _varint(len(data)) + data


def _tensor(name: str, array: Array) -> bytes:
    kind = _INT64 if array.dtype == np.int64 else _FLOAT
    shape = b"".join(_number(1, size) for size in array.shape)
    return shape + _number(2, kind) + _piece(8, name) + _piece(9, np.ascontiguousarray(array).tobytes())


def _node(node: Node) -> bytes:
    out = [_piece(1, name) for name in node.inputs] + [_piece(2, name) for name in node.outputs]
    out.append(_piece(4, node.operation))
    # AttributeProto: name = 1, i = 3, type = 20 (2: an integer)
    out += [_piece(5, _piece(1, name) + _number(3, value) + _number(20, 2)) for name, value in node.attributes.items()]
    return b"".join(out)


def _value(name: str, shape: Sequence[Dimension]) -> bytes:
    sizes = [_piece(1, _number(1, size) if isinstance(size, int) else _piece(2, size)) for size in shape]
    return _piece(1, name) + _piece(2, _piece(1, _number(1, _FLOAT) + _piece(2, b"".join(sizes))))


def write(
    nodes: Sequence[Node],
    weights: Mapping[str, Array],
    inputs: Mapping[str, Sequence[Dimension]],
    outputs: Mapping[str, Sequence[Dimension]],
) -> bytes:
    """A model of these nodes. Inputs and outputs are float32; weights are float32 or int64."""
    graph = [_piece(1, _node(node)) for node in nodes]
    graph.append(_piece(2, "graph"))
    graph += [_piece(5, _tensor(name, array)) for name, array in weights.items()]
    graph += [_piece(11, _value(name, shape)) for name, shape in inputs.items()]
    graph += [_piece(12, _value(name, shape)) for name, shape in outputs.items()]
    opset = _piece(1, "") + _number(2, _OPSET)
    return _number(1, _IR_VERSION) + _piece(7, b"".join(graph)) + _piece(8, opset)
