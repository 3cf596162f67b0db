"""What refuses a call: its error, its words, and that nothing was written.
SPDX-License-Identifier: MIT
"""

import numpy as np
import pytest

import convt3d

AXES = ("depth", "height", "width")
INTEGERS = ("stride", "padding", "output_padding", "dilation", "output_size")
SMALLEST = {"stride": 1, "dilation": 1, "padding": 0, "output_padding": 0}


def ones(*shape):
    return np.ones(shape, np.float32)


X, WEIGHT, BIAS = ones(1, 2, 3, 3, 3), ones(2, 3, 3, 3, 3), ones(3)


def refused(error, words, backward=True, **given):
    """Refused, with all the words in the message and nothing written, by both functions."""
    named = {"x": X, "weight": WEIGHT, **given}
    outs = [np.full((1, 3, 5, 5, 5), 77, np.float32)]
    outs += [np.full_like(a, 77) for a in (X, WEIGHT, BIAS)]
    before = [a.tobytes() for a in outs]
    with pytest.raises(error) as raised:
        convt3d.conv_transpose3d(**{"out": outs[0], "bias": BIAS, **named})
    errors = [raised.value]
    if backward:
        with pytest.raises(error) as raised:
            convt3d.conv_transpose3d_backward(**{"grad_output": outs[0], "out": outs[1:], **named})
        errors.append(raised.value)
    for value in errors:
        assert type(value) is error, value
        text = str(value)
        assert len(text) < 500 and "\n" not in text
        for word in words:
            assert word in text, (word, text)
    assert [a.tobytes() for a in outs] == before


ARG, SHAPE, RANGE = convt3d.ArgumentError, convt3d.ShapeError, convt3d.RangeError


def at(axis, value, rest):
    return tuple(value if a == axis else rest for a in range(3))
