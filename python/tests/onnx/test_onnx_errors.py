"""What convt3d.onnx refuses, and how.
SPDX-License-Identifier: MIT
"""

import importlib
import sys
from typing import Any

import numpy as np
import pytest

# 'onnx' alone could be the folder of this file, were the package missing.
pytest.importorskip("onnx.reference")
from onnx import TensorProto, helper
from onnx_cases import model_of, node_of

import convt3d
import convt3d.onnx
from convt3d.onnx import run

X, W = np.ones((1, 4, 3, 5), np.float32), np.ones((4, 2, 2, 3), np.float32)
B = np.ones(2, np.float32)


@pytest.mark.parametrize(
    ("attributes", "error", "text"),
    [
        ({"strides": [1, 0]}, "ArgumentError", "strides is 0 on spatial axis 1.* at least 1"),
        ({"strides": [2]}, "ArgumentError", r"strides is \[2\], but must be 2 integers for 2"),
        ({"dilations": [-1, 1]}, "ArgumentError", "dilations is -1 on spatial axis 0.* least 1"),
        ({"dilations": [1, 1, 1]}, "ArgumentError", "dilations is .* must be 2 integers"),
        ({"pads": [0, 0, 0, -3]}, "ArgumentError", "pads is -3 on spatial axis 1.* at least 0"),
        ({"pads": [1, 1]}, "ArgumentError", r"pads is \[1, 1\], but must be 4 integers for 2"),
        ({"pads": [0, 4, 0, 3]}, "ShapeError", "spatial axis 1 would be 7 - pads 4 and 3 = 0"),
        ({"pads": [1] * 4, "auto_pad": "SAME_UPPER"}, "ArgumentError", "pads is .* 'SAME_UPPER'"),
        ({"pads": [0] * 4, "auto_pad": "VALID"}, "ArgumentError", "pads is .* 'VALID'.* NOTSET"),
        ({"auto_pad": "SAME"}, "ArgumentError", "auto_pad is 'SAME'; legal: NOTSET, SAME_UPPER"),
        ({"auto_pad": 1}, "ArgumentError", "auto_pad is not a value of type STRING"),
        ({"output_padding": [0, -1]}, "ArgumentError", "output_padding is -1 on spatial axis 1"),
        (
            {"output_padding": [0, 3], "strides": [9, 3], "dilations": [1, 2]},
            "ArgumentError",
            "output_padding is 3 on spatial axis 1, but must be 0 to 2.* stride 3 and dilation 2",
        ),
        ({"output_padding": [0]}, "ArgumentError", "output_padding is .* must be 2 integers"),
        ({"output_shape": [4, 0]}, "ArgumentError", "output_shape is 0 on spatial axis 1"),
        ({"output_shape": [1, 2, 4, 7]}, "ArgumentError", "output_shape is .* be 2 integers"),
        ({"kernel_shape": [3, 2]}, "ShapeError", r"kernel_shape is \[3, 2\], but .* \[2, 3\]"),
        ({"kernel_shape": [2]}, "ShapeError", r"kernel_shape is \[2\], but W's"),
        ({"group": 3}, "ShapeError", "group is 3, but must be a divisor of X's 4 channels"),
        ({"group": 0}, "ShapeError", "group is 0, but"),
        ({"group": [1]}, "ArgumentError", "group is not a value of type INT"),
        ({"stride": [1, 1]}, "ArgumentError", "'stride' is unknown; legal: auto_pad, group"),
        ({"strides": [2**62, 2**62]}, "RangeError", "64 bits"),
    ],
)
def test_refused_attributes(attributes: Any, error: str, text: str) -> None:
    for node, label in (
        (node_of(name="up1", **attributes), "ConvTranspose node 'up1': "),
        (node_of(**attributes), "ConvTranspose node of output 'y': "),
    ):
        with pytest.raises(getattr(convt3d, error), match=f"^{label}.*{text}") as caught:
            run(node, [X, W])
        assert str(caught.value).count("node") == 1


@pytest.mark.parametrize(
    ("arrays", "error", "text"),
    [
        ([X[0, 0], W], "ShapeError", r"X has shape \(3, 5\); legal: .* 1 to 3 spatial axes"),
        ([np.ones([1] * 6, np.float32), W], "ShapeError", "X has shape"),
        ([X, W[0]], "ShapeError", r"W has shape \(2, 2, 3\); legal .*\(4, M/group, k1, .* 4 axes"),
        ([X, W[:3]], "ShapeError", r"W has shape \(3, 2, 2, 3\); legal"),
        ([X, W, np.ones(3, np.float32)], "ShapeError", r"B has shape \(3,\), but must be \(2,\)"),
        ([X, W, B[None]], "ShapeError", r"B has shape \(1, 2\), but must be \(2,\)"),
        ([X[..., :0], W], "ShapeError", "input_size is 0 on the width axis"),
        ([X, W[..., :0, :]], "ShapeError", "kernel_size is 0 on the height axis"),
        ([X.astype(np.int8), W], "DtypeError", "X is int8.* legal: float32, float64, bfloat16"),
        ([X, W.astype(np.float64)], "DtypeError", "W is float64 .X is float32.; legal"),
        ([X, W, B.astype(np.float64)], "DtypeError", "B is float64"),
        ([X.astype(int), W.astype(int)], "DtypeError", "X is int64"),
        ([X.astype(">f4"), W], "DtypeError", "X is >f4"),
    ],
)
def test_refused_arrays(arrays: Any, error: str, text: str) -> None:
    node = node_of("xwb"[: len(arrays)], name="up1")
    with pytest.raises(getattr(convt3d, error), match=f"^ConvTranspose node 'up1': .*{text}"):
        run(node, arrays)


def test_an_attribute_of_a_function_is_refused() -> None:
    node = node_of(group=1)
    node.attribute[0].ref_attr_name = "groups"
    with pytest.raises(convt3d.ArgumentError, match="group is not a value of type INT"):
        run(node, [X, W])


def test_mixed_dtypes_are_refused() -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    for arrays, text in (
        ([X.astype(bfloat16), W], r"W is float32 \(X is bfloat16\)"),
        ([X, W.astype(bfloat16)], r"W is bfloat16 \(X is float32\)"),
        ([a.astype(bfloat16) for a in (X, W)] + [B], r"B is float32 \(X is bfloat16\)"),
    ):
        with pytest.raises(convt3d.DtypeError, match=text):
            run(node_of("xwb"[: len(arrays)]), arrays)


@pytest.mark.parametrize("kind", ["INT32", "FLOAT8E4M3FN", "INT64"])
def test_other_initializers_are_refused(kind: str) -> None:
    tensor = helper.make_tensor("w", getattr(TensorProto, kind), W.shape, W.ravel().astype(int))
    model = model_of([node_of()], {"x": X})
    model.graph.initializer.append(tensor)
    with pytest.raises(convt3d.DtypeError, match=f"initializer 'w': dtype {kind} is not one of"):
        run(model, [X])
    model.graph.node.insert(0, helper.make_node("Constant", [], ["v"], name="c", value=tensor))
    model.graph.node[1].input[1] = "v"
    del model.graph.initializer[:]
    with pytest.raises(convt3d.DtypeError, match=f"^Constant node 'c': value: dtype {kind}"):
        run(model, [X])


@pytest.mark.parametrize(
    ("inputs", "error", "text"),
    [
        ([X], convt3d.ArgumentError, "1 arrays; legal: 2, for 'x', 'w'"),
        ([X, W, B], convt3d.ArgumentError, "3 arrays; legal: 2"),
        ({"x": X}, convt3d.ArgumentError, "unknown: none; missing: 'w'; legal: 'x', 'w'"),
        ({"x": X, "w": W, "b": B}, convt3d.ArgumentError, "unknown: 'b'; missing: none"),
        (X, TypeError, "inputs: expected a mapping .* got ndarray"),
        ({"x": X, "w": None}, TypeError, "input 'w': expected an array"),
        ([X, [1.0]], TypeError, "input 'w': expected an array"),
    ],
)
def test_refused_inputs(inputs: Any, error: Any, text: str) -> None:
    for source in (node_of(), model_of([node_of()], {"x": X, "w": W})):
        with pytest.raises(error, match=text):
            run(source, inputs)


def named(operator: str, inputs: Any, outputs: Any = ("h",), **attributes: Any) -> Any:
    return helper.make_node(operator, list(inputs), list(outputs), name="odd", **attributes)


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (named("Relu", "x"), "operator 'Relu'; legal: ConvTranspose, Constant,"),
        (named("ConvTranspose", "xw", domain="com.example"), "domain 'com.example'; legal"),
        (named("ConvTranspose", "x"), "its inputs are 'x'; legal: 2 to 3"),
        (named("ConvTranspose", "xwbb"), "its inputs are 'x', 'w', 'b', 'b'; legal: 2 to 3"),
        (named("ConvTranspose", ["x", ""]), "its inputs are 'x', ''; legal: .* none of the first"),
        (named("ConvTranspose", "xw", "hi"), "its outputs are 'h', 'i'; legal: one"),
        (named("ConvTranspose", "xw", []), "its outputs are none; legal: one"),
        (named("ConvTranspose", "zw"), "input 'z' is neither an input, nor an initializer"),
        (named("ConvTranspose", "yw"), "input 'y' is neither .* of a node before it"),
        (named("Identity", []), "its inputs are none; legal: 1 to 1"),
        (named("Constant", [], value_int=1), "its attributes are 'value_int'; legal: value or"),
    ],
)
def test_refused_nodes(node: Any, text: str) -> None:
    with pytest.raises(convt3d.ArgumentError, match=f"^{node.op_type} node 'odd': .*{text}"):
        run(model_of([node, node_of()], {"x": X, "w": W}), [X, W])


def test_refused_sources() -> None:
    model = model_of([node_of()], {"x": X, "w": W})
    with pytest.raises(convt3d.ArgumentError, match=r"legal: ConvTranspose$"):
        run(named("Identity", "x"), [X])
    with pytest.raises(TypeError, match=r"expected an onnx.NodeProto, .* got int"):
        run(1, [X, W])
    with pytest.raises(convt3d.ArgumentError, match="bytes: not a serialized ONNX model"):
        run(b"\xff\xff", [X, W])
    with pytest.raises(convt3d.ArgumentError, match="graph: it has no outputs"):
        run(b"", [])
    model.graph.output[0].name = "z"
    with pytest.raises(convt3d.ArgumentError, match="graph's output 'z' is neither"):
        run(model, [X, W])
    model.graph.sparse_initializer.add()
    with pytest.raises(convt3d.ArgumentError, match="sparse initializers"):
        run(model, [X, W])


def test_without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "convt3d.onnx")
    with pytest.raises(ImportError, match=r"needs the package onnx \(pip install 'convt3d\[onnx\]"):
        importlib.import_module("convt3d.onnx")
