"""Random nodes against a scatter in NumPy, onnx's evaluator and ONNX Runtime.
SPDX-License-Identifier: MIT
"""

from typing import Any, NamedTuple

import numpy as np
import pytest

# 'onnx' alone could be the folder of this file, were the package missing.
pytest.importorskip("onnx.reference")
from onnx.reference import ReferenceEvaluator
from onnx_cases import integers, model_of, node_of, same

import convt3d
import convt3d._onnx_node
from convt3d.onnx import run


class Case(NamedTuple):
    feeds: dict[str, Any]
    attributes: dict[str, Any]
    total: list[int]  # by axis, the specification's total padding
    beyond: list[int]  # by axis, the output's elements after the last tap
    expected: Any

    @property
    def node(self) -> Any:
        return node_of(self.feeds, **self.attributes)


def scatter(x: Any, w: Any, b: Any, group: int, places: Any) -> Any:
    """Each tap added where it belongs, then the kept part cut out; no convt3d in it.

    'places' has (stride, dilation, begin, size) of each axis."""
    dtype, x, w = x.dtype, x.astype(np.float64), w.astype(np.float64)
    channels, filters = x.shape[1] // group, w.shape[1]
    steps = list(zip(places, x.shape[2:], w.shape[2:]))
    # As large as both what the taps reach and what is kept.
    whole = [max(s * (i - 1) + d * (k - 1) + 1, o + z) for (s, d, o, z), i, k in steps]
    y = np.zeros((x.shape[0], filters * group, *whole))
    for tap in np.ndindex(*w.shape[2:]):
        at = tuple(slice(t * d, t * d + s * i, s) for t, ((s, d, _, _), i, _) in zip(tap, steps))
        at = tuple(slice(a.start, a.stop - a.step + 1, a.step) for a in at)
        for g in range(group):
            rows = slice(g * channels, (g + 1) * channels)
            added = np.einsum("nc...,cm->nm...", x[:, rows], w[(rows, slice(None), *tap)])
            y[(slice(None), slice(g * filters, (g + 1) * filters), *at)] += added
    y = y[(slice(None), slice(None), *(slice(o, o + z) for _, _, o, z in places))]
    if b is not None:
        y = y + b.astype(np.float64).reshape((-1,) + (1,) * len(places))
    return y.astype(dtype)


MODES = ("default", "pads", "VALID", "SAME_UPPER", "SAME_LOWER", "output_shape")


def random_case(rng: np.random.Generator, axes: int, mode: str, dtype: Any = np.float32) -> Case:
    def each(least: int, most: int) -> list[int]:
        return [int(value) for value in rng.integers(least, most + 1, axes)]

    def often() -> bool:
        return bool(rng.random() < 0.6)

    group = int(rng.choice([1, 1, 2, 3]))
    size, kernel = each(1, 4), each(1, 4)
    x = integers(rng, int(rng.integers(1, 3)), group * int(rng.integers(1, 3)), *size, dtype=dtype)
    w = integers(rng, x.shape[1], int(rng.integers(1, 3)), *kernel, dtype=dtype)
    b = integers(rng, w.shape[1] * group, dtype=dtype) if often() else None
    stride, dilation, more = [1] * axes, [1] * axes, [0] * axes
    attributes: dict[str, Any] = {}
    if often():
        attributes["strides"] = stride = each(1, 5)
    if often():
        attributes["dilations"] = dilation = each(1, 3)
    if often():
        legal = [max(pair) - 1 for pair in zip(stride, dilation)]
        attributes["output_padding"] = more = [int(rng.integers(0, most + 1)) for most in legal]
    if often():
        attributes["kernel_shape"] = kernel
    if group > 1 or often():
        attributes["group"] = group
    full = [
        s * (i - 1) + p + (k - 1) * d + 1
        for s, i, p, k, d in zip(stride, size, more, kernel, dilation)
    ]
    begin, end, auto_pad = [0] * axes, [0] * axes, "NOTSET"
    if mode == "pads":
        begin, end = ([int(rng.integers(0, f)) // 2 for f in full] for _ in range(2))
        attributes["pads"] = begin + end
    elif mode == "output_shape":
        wanted = [int(rng.integers(1, f + 7)) for f in full]
        attributes["output_shape"] = wanted
        auto_pad = str(rng.choice(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
        if auto_pad == "NOTSET" and often():
            attributes["pads"] = each(0, 3) + each(0, 3)  # to be ignored
    elif mode != "default":
        auto_pad = mode
    if auto_pad != "NOTSET" or often():
        attributes["auto_pad"] = auto_pad
    if mode.startswith("SAME"):
        wanted = [i * s for i, s in zip(size, stride)]
    elif mode != "output_shape":
        wanted = [f - first - last for f, first, last in zip(full, begin, end)]
    total = [f - z for f, z in zip(full, wanted)]
    if mode in ("output_shape", "SAME_UPPER", "SAME_LOWER"):
        # Where the total is negative, nothing is cut off and the rest lies at the end.
        cut = [max(0, t) for t in total]
        begin = [t // 2 if auto_pad == "SAME_UPPER" else t - t // 2 for t in cut]
    expected = scatter(x, w, b, group, list(zip(stride, dilation, begin, wanted)))
    feeds = {"x": x, "w": w} if b is None else {"x": x, "w": w, "b": b}
    beyond = [p + max(0, -t) for p, t in zip(more, total)]
    return Case(feeds, attributes, total, beyond, expected)


def reaches_a_stride_beyond(case: Case) -> bool:
    """A further input element would have had its place in the output."""
    strides = case.attributes.get("strides", [1] * len(case.total))
    return any(more >= stride for more, stride in zip(case.beyond, strides))


def runtime_agrees(case: Case) -> bool:
    # Refused with INVALID_ARGUMENT, even where output_padding is legal since the dilation is
    # larger than the stride.
    if reaches_a_stride_beyond(case):
        return False
    # SAME_* where the kernel is smaller than the stride: the output ends with the last tap,
    # smaller than the specified input size * stride.
    same_size = "output_shape" not in case.attributes and "SAME" in case.attributes.get(
        "auto_pad", ""
    )
    return not (same_size and min(case.total) < 0)


def reference_agrees(case: Case) -> bool:
    # It cuts W by output channels, keeps one output channel of each group, and gives all
    # groups the bias of the first; older versions have no groups at all.
    if case.attributes.get("group", 1) > 1:
        return False
    # Refused, since its Col2Im derives the input's size from the output's.
    if reaches_a_stride_beyond(case):
        return False
    auto_pad = case.attributes.get("auto_pad", "NOTSET")
    if "SAME" in auto_pad:
        # A negative total padding is halved, rounding down: the output begins before the
        # first tap.
        return min(case.total) >= 0
    # output_shape without SAME_*: the pads aren't derived from it, but those given, or 0.
    return "output_shape" not in case.attributes or (
        max(case.total) <= 0 and not any(case.attributes.get("pads", []))
    )


def by_mode_and_axes(function: Any) -> Any:
    function = pytest.mark.parametrize("mode", MODES)(function)
    return pytest.mark.parametrize("axes", [1, 2, 3])(function)


@by_mode_and_axes
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_nodes(axes: int, mode: str, dtype: Any) -> None:
    rng = np.random.default_rng([axes, MODES.index(mode), np.dtype(dtype).itemsize])
    cases = [random_case(rng, axes, mode, dtype) for _ in range(40)]
    for case in cases:
        (result,) = run(case.node, case.feeds)
        same(result, case.expected)
        assert result.flags.c_contiguous
    # The cases have in them what they are for.
    assert sum(np.count_nonzero(case.expected) > 0 for case in cases) > 30
    if mode in ("output_shape", "SAME_UPPER", "SAME_LOWER"):
        assert any(t > 0 and t % 2 for case in cases for t in case.total)
        assert any(t < 0 for case in cases for t in case.total)
    if mode == "output_shape":  # further than the layer's output_padding goes
        assert any(reaches_a_stride_beyond(case) and min(case.total) < -4 for case in cases)


@by_mode_and_axes
def test_reference_evaluator(axes: int, mode: str) -> None:
    rng = np.random.default_rng([7, axes, MODES.index(mode)])
    compared = 0
    while compared < 12:
        case = random_case(rng, axes, mode, np.float64)
        if reference_agrees(case):
            expected = ReferenceEvaluator(case.node).run(None, case.feeds)[0]
            (result,) = run(case.node, case.feeds)
            same(result, expected)
            compared += 1


@by_mode_and_axes
def test_onnxruntime(axes: int, mode: str) -> None:
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    rng = np.random.default_rng([8, axes, MODES.index(mode)])
    compared = 0
    while compared < 40:
        case = random_case(rng, axes, mode)  # it has no ConvTranspose of float64 on CPUs
        if runtime_agrees(case):
            model = model_of([case.node], case.feeds)
            session = runtime.InferenceSession(model.SerializeToString(), options)
            (result,) = run(model, case.feeds)
            same(result, session.run(None, case.feeds)[0])
            compared += 1


def test_where_the_odd_pad_goes() -> None:
    x, w = np.float32([[[1, 2, 3]]]), np.float32([[[1, 10, 100]]])
    full = [1, 10, 102, 20, 203, 30, 300]
    for auto_pad, expected in (
        ("SAME_UPPER", full[:6]),
        ("SAME_LOWER", full[1:]),
    ):
        (y,) = run(node_of(strides=[2], auto_pad=auto_pad), [x, w])
        assert y.tolist() == [[expected]]
        for wanted in (6, 4, 9, 20):
            begin = max(0, 7 - wanted) // 2 if auto_pad == "SAME_UPPER" else (8 - wanted) // 2
            (y,) = run(node_of(strides=[2], auto_pad=auto_pad, output_shape=[wanted]), [x, w])
            assert y.tolist() == [[(full + [0] * 20)[max(0, begin) :][:wanted]]]


def test_beyond_every_reach_is_bias() -> None:
    rng = np.random.default_rng(1)
    x, w, b = integers(rng, 2, 2, 3, 2, 4), integers(rng, 2, 3, 2, 2, 2), np.float32([5, 6, 7])
    node = node_of(["x", "w", "b"], output_shape=[9, 11, 40], strides=[2, 1, 3])
    (y,) = run(node, [x, w, b])
    (near,) = run(node_of(["x", "w", "b"], strides=[2, 1, 3]), [x, w, b])
    expected = np.broadcast_to(b[:, None, None, None], (2, 3, 9, 11, 40)).copy()
    expected[:, :, :6, :3, :11] = near
    same(y, expected)


def test_the_layer_writes_what_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = convt3d._onnx_node.conv_transpose3d

    def watched(*arguments: Any, **options: Any) -> Any:
        assert all(np.shares_memory(array, given) for array, given in zip(arguments, (x, w)))
        made.append((real(*arguments, **options), options["out"]))
        return made[-1][0]

    monkeypatch.setattr(convt3d._onnx_node, "conv_transpose3d", watched)
    x, w = np.ones((1, 1, 3), np.float32), np.ones((1, 1, 2), np.float32)
    for size in (6, 8, 9):
        # Elements beyond the last tap are the layer's, as its output_padding, where they can be.
        (y,) = run(node_of(strides=[3], output_shape=[size + 2]), [x, w])
        result, out = made.pop()
        assert np.shares_memory(y, result)
        assert (out is None) == (size < 9)


def test_a_node_s_inputs() -> None:
    """An input left out doesn't count, and one that is used twice counts once."""
    x, w = np.ones((1, 1, 3), np.float32), np.ones((1, 1, 2), np.float32)
    for inputs in ([x, w], {"x": x, "w": w}):
        assert run(node_of(["x", "w", ""]), inputs)[0].tolist() == [[[1, 2, 2, 1]]]
    assert run(node_of(["x", "x"], domain="ai.onnx"), [w])[0].tolist() == [[[1, 2, 1]]]


def test_no_batch() -> None:
    (y,) = run(node_of(), [np.zeros((0, 2, 3), np.float32), np.zeros((2, 5, 2), np.float32)])
    assert y.shape == (0, 5, 4)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_any_strides(axes: int) -> None:
    rng = np.random.default_rng(axes)
    x, w = integers(rng, 2, 4, *[5] * axes), integers(rng, 4, 6, *[3] * axes)
    (expected,) = run(node_of(), [x, w])
    channels_last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    flipped = np.ascontiguousarray(w[..., ::-1])[..., ::-1]
    flipped.flags.writeable = False
    (y,) = run(node_of(), [np.moveaxis(channels_last, -1, 1), flipped])
    same(y, expected)
