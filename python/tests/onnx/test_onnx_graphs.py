"""Models of several nodes: chains, initializers, files, and whose memory is whose.
SPDX-License-Identifier: MIT
"""

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# 'onnx' alone could be the folder of this file, were the package missing.
pytest.importorskip("onnx.reference")
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_cases import integers, model_of, node_of, same

import convt3d
import convt3d._onnx_node
from convt3d.onnx import run


def decoder() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """x doubled twice with weights that are an initializer, a Constant and shared."""
    rng = np.random.default_rng(3)
    constants = {"w1": integers(rng, 2, 2, 2, 2), "unused": np.arange(3)}
    bias = integers(rng, 2)
    nodes = [
        helper.make_node("Constant", [], ["b1"], value=numpy_helper.from_array(bias)),
        helper.make_node("Constant", [], ["b2"], value_floats=[1.0, -2.0]),
        helper.make_node("Identity", ["w1"], ["w2"]),
        node_of(["x", "w1", "b1"], "h1", strides=[2, 2]),
        node_of(["h1", "w2", ""], "h2", strides=[2, 2]),
        node_of(["h1", "w2", "b2"], "skip", auto_pad="SAME_LOWER"),
        node_of(["h2", "w3"], "y"),
    ]
    feeds = {"x": integers(rng, 1, 2, 3, 4), "w3": integers(rng, 2, 1, 3, 3)}
    return model_of(nodes, feeds, ("y", "skip"), constants), feeds, constants


def test_chain() -> None:
    model, feeds, _ = decoder()
    onnx.checker.check_model(model)
    expected = ReferenceEvaluator(model).run(None, feeds)
    assert [array.shape for array in expected] == [(1, 1, 14, 18), (1, 2, 6, 8)]
    for source in (model, model.graph, model.SerializeToString()):
        for inputs in (feeds, list(feeds.values()), tuple(feeds.values())):
            results = run(source, inputs)
            assert len(results) == 2
            for result, wanted in zip(results, expected):
                same(result, wanted)


def test_path(tmp_path: Path) -> None:
    model, feeds, _ = decoder()
    expected = run(model, feeds)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    for source in (path, str(path)):
        for result, wanted in zip(run(source, feeds), expected):
            same(result, wanted)
    onnx.save_model(model, str(path), save_as_external_data=True, location="w", size_threshold=0)
    assert (tmp_path / "w").stat().st_size
    same(run(path, feeds)[0], expected[0])
    with pytest.raises(convt3d.ArgumentError, match=r"initializer 'w1'.*file of its own"):
        run(path.read_bytes(), feeds)
    with pytest.raises(FileNotFoundError):
        run(tmp_path / "none.onnx", feeds)


def test_an_initializer_that_is_an_input_may_be_replaced() -> None:
    rng = np.random.default_rng(4)
    x, w, other = integers(rng, 1, 1, 4), integers(rng, 1, 1, 2), integers(rng, 1, 1, 2)
    model = model_of([node_of()], {"x": x, "w": w}, constants={"w": w})
    same(run(model, [x])[0], run(node_of(), [x, w])[0])
    same(run(model, {"x": x})[0], run(node_of(), [x, w])[0])
    same(run(model, {"x": x, "w": other})[0], run(node_of(), [x, other])[0])


def test_outputs_are_the_callers_own() -> None:
    x, w = np.ones((1, 1, 3), np.float32), np.ones((1, 1, 2), np.float32)
    nodes = [
        node_of(),
        helper.make_node("Identity", ["y"], ["again"]),
        helper.make_node("Identity", ["x"], ["x_too"]),
    ]
    outputs = ("y", "again", "x", "x_too", "w")
    results = run(model_of(nodes, {"x": x}, outputs, {"w": w}), [x])
    assert [result.ravel().tolist() for result in results] == [
        [1, 2, 2, 1],
        [1, 2, 2, 1],
        [1, 1, 1],
        [1, 1, 1],
        [1, 1],
    ]
    for i, result in enumerate(results):
        result[...] = 10 + i
    assert [result.flat[0] for result in results] == [10, 11, 12, 13, 14]
    assert x.max() == 1


def test_what_no_node_needs_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    alive = []
    real = convt3d._onnx_node.conv_transpose3d

    def watched(*arguments: Any, **options: Any) -> Any:
        alive.append([array() is not None for array in made])
        result = real(*arguments, **options)
        made.append(weakref.ref(result))
        return result

    monkeypatch.setattr(convt3d._onnx_node, "conv_transpose3d", watched)
    x, w = np.ones((1, 1, 2, 2, 2), np.float32), np.ones((1, 1, 2, 2, 2), np.float32)
    nodes = [node_of([a, "w"], b) for a, b in ("xa", "ab", "bc", "cy")]
    run(model_of(nodes, {"x": x, "w": w}), [x, w])
    assert alive == [[], [True], [False, True], [False, False, True]]


def test_arrays_of_others() -> None:
    torch = pytest.importorskip("torch")
    x, w = torch.ones(1, 1, 3), torch.ones(1, 1, 2)
    assert run(node_of(), {"x": x, "w": w})[0].tolist() == [[[1, 2, 2, 1]]]
