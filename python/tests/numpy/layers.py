"""Random layers of tests/shell/problems.py as calls of the package; scripts in children.
SPDX-License-Identifier: MIT
"""

import os
import subprocess
import sys

import oracle

import convt3d

GRADIENTS = ("grad_x", "grad_weight", "grad_bias")


def plain(**given):
    """A small layer with all arguments at their defaults but those that are given."""
    layer = {"batch": 1, "in_channels": 2, "out_channels": 3, "bias": True, "dtype": "float32"}
    layer.update(input_size=(2, 3, 4), kernel_size=(2, 2, 3), stride=(1,) * 3, padding=(0,) * 6)
    layer.update(output_padding=(0,) * 3, groups=1, dilation=(1,) * 3, padding_mode="zeros")
    assert layer.keys() >= given.keys()
    return {**layer, **given}


def arguments(layer, pairs=False, output_size=False):
    """The layer's keyword arguments.

    Padding is pairs where it must be, or if they are asked for; output_padding is said
    by the output's size if that is asked for.
    """
    before, after = layer["padding"][0::2], layer["padding"][1::2]
    named = {name: layer[name] for name in ("stride", "dilation", "groups", "padding_mode")}
    named["padding"] = tuple(zip(before, after)) if pairs or before != after else before
    if output_size:
        named["output_size"] = oracle.output_size(layer)
    else:
        named["output_padding"] = layer["output_padding"]
    return named


def run_all(layer, arrays, **named):
    """y, and the gradients of x, weight and bias, by the package."""
    named = named or arguments(layer)
    x, w, b, dy = arrays
    y = convt3d.conv_transpose3d(x, w, b, **named)
    return (y, *convt3d.conv_transpose3d_backward(dy, x, w, **named))


def expected(layer, arrays):
    """The same by the definition, in float64."""
    x, w, b, dy = arrays
    return (oracle.forward(layer, x, w, b), *oracle.backward(layer, x, w, dy))


def all_bytes(results):
    return [(a.shape, a.dtype.str, a.tobytes()) for a in results]


def run_child(script, *arguments, **environment):
    """Runs a script in a Python of its own; warnings are errors there."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        env=dict(os.environ, **environment),
        capture_output=True,
        text=True,
        timeout=60,
    )
