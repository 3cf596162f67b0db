"""Integers: what is none, what needs too many bits, and extreme ones on every axis.
SPDX-License-Identifier: MIT
"""

import numpy as np
import pytest
from refusals import ARG, INTEGERS, RANGE, SHAPE, SMALLEST, WEIGHT, X, at, ones, refused

import convt3d

NO_INTEGERS = [True, False, np.True_, 3.7, 1.0, np.float64(1), "1", "111", b"1", b"\1\1\1", 1j]
NO_INTEGERS += [np.array(1.0), np.array(True), object(), len]


@pytest.mark.parametrize("value", [*NO_INTEGERS, None], ids=lambda value: type(value).__name__)
def test_what_is_no_integer(value):
    words = ["expected an integer", repr(value)]
    names = [name for name in INTEGERS if value is not None or name != "output_size"]
    for name in names:
        refused(TypeError, [f"{name}: ", *words], **{name: value})
        for axis in range(3):
            refused(TypeError, [f"{name}: ", *words], **{name: at(axis, value, 1)})
    refused(TypeError, ["groups: ", *words], groups=value)
    for axis in range(3):
        for pair in ((0, value), (value, 0)):
            refused(TypeError, ["padding: ", *words], padding=at(axis, pair, (0, 0)))
    if value is not None:  # which stands for the default
        with pytest.raises(TypeError, match="threads: expected an integer"):
            convt3d.set_num_threads(value)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2**70, -(2**200)])
def test_integers_of_more_than_64_bits(value):
    words = [str(value), "64 bits"]
    for name in INTEGERS:
        refused(RANGE, [name, *words], **{name: value})
        for axis in range(3):
            refused(RANGE, [name, *words], **{name: at(axis, value, 1)})
    refused(RANGE, ["groups", *words], groups=value)
    for axis in range(3):
        for pair in ((0, value), (value, 0)):
            refused(RANGE, ["padding", *words], padding=at(axis, pair, (0, 0)))
    with pytest.raises(RANGE, match="threads"):
        convt3d.set_num_threads(value)


EXTREMES = [2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1]
EXTREMES += [-(2**31), -(2**40), -(2**63)]


def what_is_said(name, value):
    """Of an extreme value on one axis."""
    if value < 0:
        return SHAPE if name == "output_size" else ARG, f"is {value}"
    if name in ("output_size", "output_padding"):
        return SHAPE if name == "output_size" else ARG, f"{name} is {value}"
    if 2 * value + 3 >= 2**63:
        return RANGE, "exceeds 64 bits"
    if name == "padding":
        return SHAPE, f"- {value} - {value} + 1*(3 - 1) + 0 + 1 = {5 - 2 * value}"
    return SHAPE, f"is 5, but must be {2 * value + 3}"  # out's size


@pytest.mark.parametrize("value", EXTREMES)
def test_extreme_integers(value):
    """None is narrowed, and no sum or product of them wraps."""
    for name in INTEGERS:
        error, words = what_is_said(name, value)
        for axis in range(3):
            given = {name: at(axis, value, SMALLEST.get(name, 5))}
            refused(error, [words, "axis"], **given)
    if value < 2**61:
        refused(ARG if value < 0 else SHAPE, ["groups", f"is {value}"], groups=value)
    else:
        refused(RANGE, ["groups", str(3 * value)], groups=value)


def test_extreme_integers_that_are_legal():
    point, one = ones(1, 2, 1, 1, 1), ones(2, 3, 1, 1, 1)
    for value in EXTREMES[:6]:
        assert convt3d.conv_transpose3d(point, WEIGHT, stride=value).shape == (1, 3, 3, 3, 3)
        y = convt3d.conv_transpose3d(X, one, dilation=value)
        assert y.shape == (1, 3, 3, 3, 3) and np.all(y == 2)
