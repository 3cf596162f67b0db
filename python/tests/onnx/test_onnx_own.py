"""Every ConvTranspose test that the package onnx ships, as a model and as a node.
SPDX-License-Identifier: MIT
"""

import importlib
import inspect
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# 'onnx' alone could be the folder of this file, were the package missing.
pytest.importorskip("onnx.reference")
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import DATA_DIR

from convt3d.onnx import run


def node_cases() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the other operators' tests
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases("ConvTranspose")
    return [
        case for case in cases if any(n.op_type == "ConvTranspose" for n in case.model.graph.node)
    ]


def data_folders() -> list[Path]:
    """The stored models of ConvTranspose nodes only."""
    found = []
    for path in sorted(Path(DATA_DIR).glob("*/*/model.onnx")):
        if path.parent.parent.name != "node":  # older versions store those of node_cases(), too
            operators = {node.op_type for node in onnx.load(str(path)).graph.node}
            if operators == {"ConvTranspose"}:
                found.append(path.parent)
    return found


NODE_CASES, DATA_FOLDERS = node_cases(), data_folders()


def test_all_of_onnx_is_found() -> None:
    module = importlib.import_module("onnx.backend.test.case.node.convtranspose")
    assert len(NODE_CASES) >= inspect.getsource(module).count(" expect(") >= 9
    assert {folder.name for folder in DATA_FOLDERS} >= {
        "test_ConvTranspose2d",
        "test_ConvTranspose2d_no_bias",
        "test_operator_convtranspose",
    }


@pytest.mark.parametrize("as_node", [False, True], ids=["model", "node"])
@pytest.mark.parametrize("case", NODE_CASES, ids=lambda case: case.name)
def test_onnx_node(case: Any, as_node: bool) -> None:
    (node,) = case.model.graph.node
    assert case.data_sets
    for inputs, outputs in case.data_sets:
        results = run(node if as_node else case.model, inputs)
        assert len(results) == len(outputs)
        for result, expected in zip(results, outputs):
            assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
            np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("as_node", [False, True], ids=["model", "node"])
@pytest.mark.parametrize("folder", DATA_FOLDERS, ids=lambda folder: folder.name)
def test_onnx_stored_model(folder: Path, as_node: bool) -> None:
    graph = onnx.load(str(folder / "model.onnx")).graph
    assert list(folder.glob("test_data_set_*"))
    for data in folder.glob("test_data_set_*"):
        x, y = (
            numpy_helper.to_array(onnx.load_tensor(str(data / name)))
            for name in ("input_0.pb", "output_0.pb")
        )
        if as_node:
            feeds = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
            (name,) = (name for name in graph.node[0].input if name and name not in feeds)
            (result,) = run(graph.node[0], {**feeds, name: x})
        else:
            (result,) = run(folder / "model.onnx", [x])
        assert (result.dtype, result.shape) == (y.dtype, y.shape)
        np.testing.assert_allclose(result, y, rtol=1e-4, atol=1e-5)
