"""The ConvTranspose nodes of ONNX models, on NumPy arrays.

    from convt3d.onnx import run
    (y,) = run("decoder.onnx", {"x": x})

SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Sequence, Union

import numpy as np

from ._arrays import Array, as_array
from ._library import ArgumentError, DtypeError, Error

try:
    import onnx
    from onnx import numpy_helper

    from ._onnx_node import conv_transpose
except ImportError as error:
    raise ImportError(
        f"convt3d.onnx needs the package onnx (pip install 'convt3d[onnx]'): {error}"
    ) from error

__all__ = ["run"]

Inputs = Union[Mapping[str, Any], Sequence[Any]]

# Their numbers of inputs.
_OPERATORS = {"ConvTranspose": (2, 3), "Constant": (0, 0), "Identity": (1, 1)}
# What tensors may be of.
_DTYPES = ("FLOAT", "DOUBLE", "BFLOAT16", "FLOAT16")


def run(node_or_model: Any, inputs: Inputs) -> List[Array]:
    """Runs a ConvTranspose node, or a model that is made of them, as ONNX specifies it.

    Data of one, two and three spatial axes, of the operator's four dtypes (float32, float64,
    float16 and, as ml_dtypes has it, bfloat16), read in place whatever their strides.  Nodes of
    any opset are read as opset 11 and later have it, in which auto_pad SAME_* gives input size *
    stride; ONNX Runtime does so, too.

    Args:
        node_or_model: an onnx.NodeProto of operator ConvTranspose; an onnx.ModelProto or
            onnx.GraphProto of ConvTranspose, Constant and Identity nodes; a model's
            serialized bytes; or its path.  Initializers in external files are found from a
            path, or once onnx.load() has read them.
        inputs: a mapping from names to arrays, or a list or tuple of arrays in the order of
            the node's inputs (those left out, "", don't count) or of the graph's
            (initializers don't count; a mapping may replace those that are graph inputs).
            Of a node, X is (N, C, D1, ...), W (C, M/group, k1, ...), B (M,).

    Returns:
        The outputs, in order, of shape (N, M, o1, ...) each: new arrays in C order, of the
        inputs' dtype.  Where output_shape or SAME_* asks for more than the taps and
        output_padding reach, the rest lies at the end of the axis and is the bias.

    Raises:
        ArgumentError, ShapeError (both ValueError), DtypeError (TypeError): with the node,
        the attribute or input, the axis, the value and what is legal.  Operators and
        the names of inputs are looked at before anything is computed.
        TypeError: for an argument of another type.
        OSError: for a path that can't be read.
        RangeError, NoMemoryError, KeyboardInterrupt: as conv_transpose3d().
    """
    graph = _open(node_or_model)
    uses = Counter(name for node in graph.nodes for name in node.input)
    uses.update(graph.outputs)
    values = _bind(graph, inputs, uses)
    fresh = set()
    for node in graph.nodes:
        result = _apply(node, values)
        if node.op_type == "ConvTranspose":
            fresh.add(id(result))
        values[node.output[0]] = result
        # What no node needs any more needn't wait for the end.
        for name in node.input:
            uses[name] -= 1
            if not uses[name]:
                fresh.discard(id(values.pop(name, None)))
    results = []
    for name in graph.outputs:
        array = _value("graph's output", name, values)
        # Each is the caller's own: neither an input, nor a constant, nor another output.
        results.append(array if id(array) in fresh else array.copy())
        fresh.discard(id(array))
    return results


# ---- Models ----------------------------------------------------------------------


class _Graph(NamedTuple):
    nodes: Sequence[Any]
    inputs: List[str]  # what a sequence of arrays is matched with
    outputs: List[str]
    initializers: Mapping[str, Any] = {}
    replaceable: Sequence[str] = ()  # the initializers that are also the graph's inputs


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def _label(node: Any) -> str:
    name = repr(node.name) if node.name else f"of output {_quoted(node.output)}"
    return f"{node.op_type} node {name}"


def _open(source: Any) -> _Graph:
    """The graph of whatever run() takes, its operators checked."""
    legal = list(_OPERATORS)
    if isinstance(source, (str, os.PathLike)):
        source = onnx.load(os.fspath(source))
    elif isinstance(source, (bytes, bytearray, memoryview)):
        try:
            source = onnx.load_model_from_string(bytes(source))
        except Exception as error:  # protobuf's DecodeError, wherever its version keeps it
            raise ArgumentError(f"bytes: not a serialized ONNX model: {error}") from error
    if isinstance(source, onnx.ModelProto):
        source = source.graph
    if isinstance(source, onnx.NodeProto):
        names = [name for name in dict.fromkeys(source.input) if name]
        graph = _Graph([source], names, list(source.output))
        legal = ["ConvTranspose"]
    elif isinstance(source, onnx.GraphProto):
        if source.sparse_initializer:
            raise ArgumentError("graph: sparse initializers; legal: dense ones")
        tensors = {tensor.name: tensor for tensor in source.initializer}
        names = [value.name for value in source.input]
        graph = _Graph(
            source.node,
            [name for name in names if name not in tensors],
            [value.name for value in source.output],
            tensors,
            [name for name in names if name in tensors],
        )
        if not graph.outputs:
            raise ArgumentError("graph: it has no outputs")
    else:
        raise TypeError(
            "expected an onnx.NodeProto, onnx.ModelProto or onnx.GraphProto, a path or bytes, "
            f"got {type(source).__name__}"
        )
    for node in graph.nodes:
        _check_node(node, legal)
    return graph


def _check_node(node: Any, legal: Sequence[str]) -> None:
    label = _label(node)
    if node.domain not in ("", "ai.onnx"):
        raise ArgumentError(f"{label}: domain {node.domain!r}; legal: the default one, 'ai.onnx'")
    if node.op_type not in legal:
        raise ArgumentError(f"{label}: operator {node.op_type!r}; legal: {', '.join(legal)}")
    least, most = _OPERATORS[node.op_type]
    if not least <= len(node.input) <= most or not all(node.input[:least]):
        raise ArgumentError(
            f"{label}: its inputs are {_quoted(node.input)}; legal: {least} to {most}, "
            f"none of the first {least} left out"
        )
    if len(node.output) != 1:
        raise ArgumentError(f"{label}: its outputs are {_quoted(node.output)}; legal: one")


def _bind(graph: _Graph, inputs: Inputs, uses: Mapping[str, int]) -> Dict[str, Array]:
    """The arrays that are there before any node has run: inputs and used initializers."""
    if isinstance(inputs, Mapping):
        unknown = [name for name in inputs if name not in {*graph.inputs, *graph.replaceable}]
        missing = [name for name in graph.inputs if name not in inputs]
        if unknown or missing:
            raise ArgumentError(
                f"inputs: unknown: {_quoted(unknown)}; missing: {_quoted(missing)}; "
                f"legal: {_quoted(graph.inputs)}, and optionally {_quoted(graph.replaceable)}"
            )
        given = dict(inputs)
    elif isinstance(inputs, (list, tuple)):
        if len(inputs) != len(graph.inputs):
            raise ArgumentError(
                f"inputs: {len(inputs)} arrays; legal: {len(graph.inputs)}, "
                f"for {_quoted(graph.inputs)}"
            )
        given = dict(zip(graph.inputs, inputs))
    else:
        raise TypeError(
            "inputs: expected a mapping from names to arrays, or a list or tuple of arrays, "
            f"got {type(inputs).__name__}"
        )
    values = {name: as_array(f"input {name!r}", value) for name, value in given.items()}
    for name, tensor in graph.initializers.items():
        if uses[name] and name not in values:
            values[name] = _tensor(f"initializer {name!r}", tensor)
    return values


def _value(what: str, name: str, values: Mapping[str, Array]) -> Array:
    if name not in values:
        raise ArgumentError(
            f"{what} {name!r} is neither an input, nor an initializer, nor the output of a "
            "node before it"
        )
    return values[name]


def _tensor(what: str, tensor: Any) -> Array:
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ArgumentError(
            f"{what}: its data is in a file of its own; pass the model's path, or onnx.load() it"
        )
    known = {number: name for name, number in onnx.TensorProto.DataType.items()}
    dtype = known.get(tensor.data_type, tensor.data_type)
    if dtype not in _DTYPES:
        raise DtypeError(f"{what}: dtype {dtype} is not one of {', '.join(_DTYPES)}")
    array: Array = numpy_helper.to_array(tensor)
    if dtype == "BFLOAT16" and array.dtype == np.float32:  # as older versions of onnx have it
        try:
            from ml_dtypes import bfloat16
        except ImportError as error:
            raise DtypeError(f"{what}: dtype {dtype} needs the package ml_dtypes") from error
        array = array.astype(bfloat16)
    return array


def _apply(node: Any, values: Mapping[str, Array]) -> Array:
    """A node's output.  Whatever is refused is refused in its name."""
    try:
        arrays: List[Any] = [_value("input", n, values) if n else None for n in node.input]
        if node.op_type == "ConvTranspose":
            return conv_transpose(node, *arrays)
        return _constant(node) if node.op_type == "Constant" else arrays[0]
    except Error as error:
        raise type(error)(f"{_label(node)}: {error}") from None


def _constant(node: Any) -> Array:
    for attribute in node.attribute:
        if attribute.name == "value":
            return _tensor("value", attribute.t)
        if attribute.name == "value_floats":
            return np.array(attribute.floats, np.float32)
    names = _quoted(attribute.name for attribute in node.attribute)
    raise ArgumentError(f"its attributes are {names}; legal: value or value_floats")
