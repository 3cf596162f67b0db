"""Nodes and models for the tests, and what they are compared by.
SPDX-License-Identifier: MIT
"""

from typing import Any

import numpy as np
import pytest

# 'onnx' alone could be the folder of this file, were the package missing.
pytest.importorskip("onnx.reference")
from onnx import TensorProto, helper, numpy_helper

TYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float64): TensorProto.DOUBLE}


def node_of(names: Any = ("x", "w"), output: str = "y", **attributes: Any) -> Any:
    return helper.make_node("ConvTranspose", list(names), [output], **attributes)


def model_of(
    nodes: Any, feeds: dict[str, Any], outputs: Any = ("y",), constants: Any = None, opset: int = 13
) -> Any:
    """A model whose inputs are 'feeds' and whose initializers are 'constants'."""
    first = next(iter(feeds.values()))
    kind = TYPES[first.dtype]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, a.shape) for name, a in feeds.items()],
        [helper.make_tensor_value_info(name, kind, [None] * first.ndim) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def integers(rng: np.random.Generator, *shape: int, dtype: Any = np.float32) -> Any:
    """Of which sums of products are exact in any order."""
    return rng.integers(-4, 5, shape).astype(dtype)


def same(actual: Any, expected: Any) -> None:
    assert type(actual) is np.ndarray
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert np.array_equal(actual, expected)
