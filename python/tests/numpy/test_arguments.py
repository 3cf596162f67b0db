"""Every wrong argument is an error that names it, its axis, its value and what is legal.

Arrays that are wrong for their dtype or their memory are in test_array_errors.py.
SPDX-License-Identifier: MIT
"""

import numpy as np
import pytest
from refusals import ARG, AXES, BIAS, RANGE, SHAPE, WEIGHT, X, at, ones, refused

import convt3d

# What an axis may not have: the argument, its value there, elsewhere, and what is said.
ON_AN_AXIS = [
    ("stride", 0, 1, ARG, "stride is 0", "at least 1"),
    ("stride", -1, 2, ARG, "stride is -1", "at least 1"),
    ("dilation", 0, 1, ARG, "dilation is 0", "at least 1"),
    ("dilation", -7, 1, ARG, "dilation is -7", "at least 1"),
    ("padding", -1, 0, ARG, "padding (before) is -1", "at least 0"),
    ("padding", (-3, 0), (0, 0), ARG, "padding (before) is -3", "at least 0"),
    ("padding", (0, -2), (0, 0), ARG, "padding (after) is -2", "at least 0"),
    ("padding", 3, 0, SHAPE, "(3 - 1)*1 - 3 - 3 + 1*(3 - 1) + 0 + 1 = -1", "at least 1"),
    ("padding", (0, 5), (0, 0), SHAPE, "(3 - 1)*1 - 0 - 5 + 1*(3 - 1) + 0 + 1 = 0", "at least 1"),
    ("output_padding", -1, 0, ARG, "output_padding is -1", "at least 0"),
    ("output_padding", 1, 0, ARG, "output_padding is 1", "0 to 0", "stride 1 and dilation 1"),
    ("output_size", 4, 5, SHAPE, "output_size is 4", "must be 5", "output_padding 0"),
    ("output_size", 6, 5, SHAPE, "output_size is 6", "must be 5", "output_padding 0"),
    ("output_size", 0, 5, SHAPE, "output_size is 0", "must be 5"),
    ("output_size", -5, 5, SHAPE, "output_size is -5", "must be 5"),
]


@pytest.mark.parametrize("row", ON_AN_AXIS, ids=lambda row: f"{row[0]} {row[1]}")
@pytest.mark.parametrize("axis", range(3))
def test_values_on_an_axis(axis, row):
    name, value, rest, error, *words = row
    refused(error, [AXES[axis], *words], **{name: at(axis, value, rest)})


@pytest.mark.parametrize("axis", range(3))
def test_output_padding_and_output_size_have_a_range(axis):
    for name in ("stride", "dilation"):
        named = {name: at(axis, 3, 1)}
        words = ["output_padding is 3", AXES[axis], "0 to 2"]
        refused(ARG, words, output_padding=at(axis, 3, 0), **named)
        refused(ARG, words, x=ones(0, 2, 3, 3, 3), output_padding=at(axis, 3, 0), **named)
        low = 9  # of 3 inputs and 3 taps
        for size in (low - 1, low + 3):
            words = [f"output_size is {size}", AXES[axis], f"{low} to {low + 2}", "gives"]
            refused(SHAPE, words, output_size=at(axis, size, 5), **named)
        for size in (low, low + 2):
            y = convt3d.conv_transpose3d(X, WEIGHT, output_size=at(axis, size, 5), **named)
            assert y.shape[2 + axis] == size


def shaped(**shapes):
    return {name: ones(*shape) for name, shape in shapes.items()}


CONV = ones(3, 2, 3, 3, 3)
ARGUMENTS = {
    "groups 0": (ARG, {"groups": 0}, "groups is 0", "at least 1"),
    "groups -1": (ARG, {"groups": -1}, "groups is -1", "at least 1"),
    "groups that don't divide": (SHAPE, {"groups": 3}, "in_channels is 2", "groups, which is 3"),
    "padding_mode": (ARG, {"padding_mode": "same"}, "padding_mode", "'same'", "zeros", "circular"),
    "padding_mode, case": (ARG, {"padding_mode": "Zeros"}, "'Zeros'", "reflect", "replicate"),
    "padding_mode, number": (ARG, {"padding_mode": 1}, "padding_mode: 1", "zeros"),
    "padding_mode, None": (ARG, {"padding_mode": None}, "padding_mode: None", "zeros"),
    "padding_mode, list": (ARG, {"padding_mode": ["zeros"]}, "padding_mode: ['zeros']", "zeros"),
    "reflect": (
        ARG,
        {"padding_mode": "reflect", "padding": ((0, 0), (0, 2), (2, 2))},
        *("padding is 2", "width", "'reflect'", "at most 0", "output size of 1"),
    ),
    "circular": (
        ARG,
        {"padding_mode": "circular", "padding": ((0, 0), (3, 0), (0, 0))},
        *("padding is 3", "height", "'circular'", "at most 2", "output size of 2"),
    ),
    "two values": (ARG, {"stride": (1, 2)}, "stride", "1 or 3 integers", "got 2", "(1, 2)"),
    "four values": (ARG, {"dilation": [1] * 4}, "dilation", "depth, height, width", "got 4"),
    "no values": (ARG, {"output_padding": ()}, "output_padding", "1 or 3 integers", "got 0"),
    "two sizes": (ARG, {"output_size": (5, 5)}, "output_size", "1 or 3 integers", "got 2"),
    "six paddings": (ARG, {"padding": [0] * 6}, "padding", "1 or 3 integers", "got 6"),
    "two pairs": (ARG, {"padding": [(0, 0)] * 2}, "padding", "3 pairs (before, after)"),
    "three triples": (ARG, {"padding": [(0, 0, 0)] * 3}, "padding", "3 pairs (before, after)"),
    "x of no axes": (SHAPE, shaped(x=()), "input", "shape ()", "0 axes", "5 (N, in_channels"),
    "x of 3 axes": (SHAPE, shaped(x=(2, 3, 3)), "input", "3 axes", "or 4 without the batch"),
    "x of 6 axes": (SHAPE, shaped(x=(1, 1, 2, 3, 3, 3)), "input", "6 axes", "legal: 5"),
    "weight of 4 axes": (SHAPE, shaped(weight=(2, 3, 3, 3)), "weight", "4 axes", "legal: 5"),
    "weight of 6 axes": (SHAPE, shaped(weight=(2, 3, 3, 3, 3, 3)), "weight", "6 axes", "legal: 5"),
    "a Conv3d's weight": (SHAPE, {"weight": CONV}, "weight", "axis 0 is 3", "2", "Conv3d"),
    "other channels": (SHAPE, shaped(x=(1, 4, 3, 3, 3)), "weight", "axis 0 is 2", "in_channels, 4"),
    "no channels": (SHAPE, shaped(x=(1, 0, 3, 3, 3), weight=(0, 3, 3, 3, 3)), "in_channels is 0"),
    "no outputs": (SHAPE, shaped(weight=(2, 0, 3, 3, 3)), "out_channels is 0", "at least 1"),
    **{
        f"no {axis} of input": (SHAPE, shaped(x=(1, 2, *at(a, 0, 3))), "input_size is 0", axis)
        for a, axis in enumerate(AXES)
    },
    **{
        f"no {axis} of kernel": (
            SHAPE,
            shaped(weight=(2, 3, *at(a, 0, 3))),
            *("kernel_size is 0", axis, "at least 1"),
        )
        for a, axis in enumerate(AXES)
    },
    "a product that wraps to 0": (
        RANGE,
        {**shaped(x=(1, 2, 2, 2, 1), weight=(2, 3, 1, 1, 1)), "stride": (2**32 - 1, 2**32 - 1, 1)},
        *("output", "(1, 3, 4294967296, 4294967296, 1)", "more bytes"),
    ),
    "bytes beyond the address space": (
        RANGE,
        {**shaped(x=(1, 2, 2, 1, 1), weight=(2, 3, 1, 1, 1)), "stride": (2**60, 1, 1)},
        *("output", str(2**60 + 1), "more bytes than the address space"),
    ),
    "an output beyond 64 bits": (
        RANGE,
        {**shaped(x=(1, 2, 1, 3, 1), weight=(2, 3, 1, 1, 1)), "stride": 2**62},
        *("output size", "height", "exceeds 64 bits", str(2**62)),
    ),
    "paddings beyond 64 bits": (
        RANGE,
        {"padding": ((0, 0), (0, 0), (2**62, 2**62))},
        *("output size", "width", "exceeds 64 bits", str(2**62)),
    ),
    "channels beyond 64 bits": (RANGE, {"groups": 2**62}, "out_channels = 3 * groups", "64 bits"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments(name):
    error, given, *words = ARGUMENTS[name]
    refused(error, words, **given)


FORWARD_ONLY = {
    "activation": (ARG, {"activation": "elu"}, "activation: 'elu'", "none, relu", "tanh"),
    "activation, None": (ARG, {"activation": None}, "activation: None", "leaky_relu"),
    "slope, a string": (TypeError, {"negative_slope": "1"}, "negative_slope", "number", "'1'"),
    "slope, None": (TypeError, {"negative_slope": None}, "negative_slope", "number", "None"),
    "slope, a list": (TypeError, {"negative_slope": [0.1]}, "negative_slope", "number", "[0.1]"),
    "slope, huge": (RANGE, {"negative_slope": 10**400}, "negative_slope", "too large"),
    **{
        f"slope {slope}": (
            ARG,
            {"negative_slope": slope, "activation": "leaky_relu"},
            *("negative_slope", "finite"),
        )
        for slope in (float("nan"), float("inf"), 1e39)
    },
    **{
        f"bias of {n}": (SHAPE, shaped(bias=(n,)), f"bias has size {n}", "out_channels", "have 3")
        for n in (0, 1, 2, 4)
    },
    "bias of no axes": (SHAPE, shaped(bias=()), "bias", "shape ()"),
    "bias of two axes": (SHAPE, shaped(bias=(1, 3)), "bias has 2 axes", "must have 1"),
    "bias per group": (SHAPE, {**shaped(bias=(3,)), "groups": 2}, "bias has size 3", "have 6"),
}


@pytest.mark.parametrize("name", FORWARD_ONLY)
def test_arguments_of_forward(name):
    error, given, *words = FORWARD_ONLY[name]
    out = {"out": np.full((1, 6, 5, 5, 5), 77, np.float32)} if "groups" in given else {}
    refused(error, words, backward=False, **given, **out)


def test_memory_that_nobody_has():
    x = np.broadcast_to(np.float32(1), (1, 1, 2, 1, 1))
    with pytest.raises(convt3d.NoMemoryError, match=str(4 * (2**50 + 1)) + ".*" + str(2**50 + 1)):
        convt3d.conv_transpose3d(x, ones(1, 1, 1, 1, 1), stride=(2**50, 1, 1))


@pytest.mark.parametrize("threads", [0, -1, 1025, 10**6, 2**31, 2**32 + 1])
def test_numbers_of_threads(threads):
    convt3d.set_num_threads(3)
    with pytest.raises(ARG, match=f"threads: {threads} .* 1 to 1024"):
        convt3d.set_num_threads(threads)
    assert convt3d.get_num_threads() == 3


def test_backward_has_three_masks_and_three_outputs():
    dy = ones(1, 3, 5, 5, 5)
    for named in ({"output_mask": (True, True)}, {"out": (None,) * 4}):
        with pytest.raises(ARG, match="3 values"):
            convt3d.conv_transpose3d_backward(dy, X, WEIGHT, **named)
    for i in range(3):
        out = [np.full_like(a, 77) for a in (X, WEIGHT, BIAS)]
        out[i] = None
        with pytest.raises(ARG, match="accumulate: needs an array in out"):
            convt3d.conv_transpose3d_backward(dy, X, WEIGHT, out=out, accumulate=True)
        assert all(np.all(a == 77) for a in out if a is not None)


def test_scratch_is_bounded():
    """The plan of a large kernel with many outputs needs no buffer of gigabytes."""
    from convt3d._layer import Layer, Plan

    for direction in range(3):
        plan = Plan(Layer(), direction, 1, (1, 1, 64, 64, 64), (1, 68, 23, 23, 23), 2)
        assert plan.scratch_size < 1 << 28
        assert "23" in str(plan)


def test_unknown_words_are_pythons_own_error():
    with pytest.raises(TypeError, match="strides"):
        convt3d.conv_transpose3d(X, WEIGHT, strides=2)
    with pytest.raises(TypeError, match="weight"):
        convt3d.conv_transpose3d(X)


@pytest.mark.parametrize("wrong", [True, 1.0, (True, 1, 1), (1, 1.0, 1), [1, 1, 1.0]])
def test_what_is_remembered_lets_no_equal_value_pass(wrong):
    for right in (1, (1, 1, 1)):
        convt3d.conv_transpose3d(X, WEIGHT, stride=right)
    with pytest.raises(TypeError, match="stride"):
        convt3d.conv_transpose3d(X, WEIGHT, stride=wrong)
