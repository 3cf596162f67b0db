"""Nodes and models of bfloat16 and float16.
SPDX-License-Identifier: MIT
"""

from typing import Any

import numpy as np
import pytest

# 'onnx' alone could be the folder of this file, were the package missing.
pytest.importorskip("onnx.reference")
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx_cases import integers, same
from test_onnx_nodes import MODES, by_mode_and_axes, random_case

from convt3d.onnx import run

bfloat16 = pytest.importorskip("ml_dtypes").bfloat16

KINDS = {"FLOAT16": np.dtype(np.float16), "BFLOAT16": np.dtype(bfloat16)}
each_kind = pytest.mark.parametrize("kind", KINDS)


@by_mode_and_axes
@each_kind
def test_random_nodes(axes: int, mode: str, kind: str) -> None:
    """Against a scatter in float64, which is rounded once."""
    rng = np.random.default_rng([9, axes, MODES.index(mode), list(KINDS).index(kind)])
    for _ in range(20):
        case = random_case(rng, axes, mode, KINDS[kind])
        (result,) = run(case.node, case.feeds)
        same(result, case.expected)


def tensor_of(kind: str, name: str, array: Any, raw: bool) -> Any:
    """As a file may have it: bytes, or numbers one by one."""
    if raw:
        values: Any = array.astype(KINDS[kind]).tobytes()
    else:
        values = array.ravel().tolist()
    return helper.make_tensor(name, getattr(TensorProto, kind), array.shape, values, raw=raw)


@each_kind
@pytest.mark.parametrize("raw", [False, True], ids=["numbers", "bytes"])
def test_models(kind: str, raw: bool) -> None:
    """Weights that are an initializer and a Constant, by the operator set that has the type."""
    rng, dtype = np.random.default_rng(5), KINDS[kind]
    x, w, b = integers(rng, 1, 2, 5, 4), integers(rng, 2, 3, 3, 3), integers(rng, 3)
    shapes = {"x": x.shape, "y": [None] * 4}
    values = {
        name: helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape)
        for name, shape in shapes.items()
    }
    nodes = [
        helper.make_node("Constant", [], ["b"], value=tensor_of(kind, "b", b, raw)),
        helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], strides=[2, 2]),
    ]
    graph = helper.make_graph(
        nodes, "graph", [values["x"]], [values["y"]], [tensor_of(kind, "w", w, raw)]
    )
    opset = [helper.make_opsetid("", 22 if onnx.defs.onnx_opset_version() >= 22 else 11)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    if opset[0].version == 22:
        onnx.checker.check_model(model)
    (wanted,) = run(nodes[1], [x, w, b])
    for source in (model, model.SerializeToString()):
        (result,) = run(source, [x.astype(dtype)])
        same(result, wanted.astype(dtype))


def test_bfloat16_that_onnx_gives_as_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older versions of onnx have no dtype for it."""
    w = np.float32([[[1, -2.5, 3]]])
    tensor = tensor_of("BFLOAT16", "w", w, False)
    x = helper.make_tensor_value_info("x", TensorProto.BFLOAT16, [1, 1, 1])
    y = helper.make_tensor_value_info("y", TensorProto.BFLOAT16, None)
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"])
    model = helper.make_model(helper.make_graph([node], "graph", [x], [y], [tensor]))
    monkeypatch.setattr(numpy_helper, "to_array", lambda tensor: w)
    same(run(model, [np.ones((1, 1, 1), bfloat16)])[0], w.astype(bfloat16))
