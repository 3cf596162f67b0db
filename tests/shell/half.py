"""The two types of 16 bits, rounded and read by their definition; float16 by NumPy.
SPDX-License-Identifier: MIT
"""

import numpy as np

import files

DTYPES = ("bfloat16", "float16")
SHORT = {"bfloat16": "bf16", "float16": "f16"}
NAMES = {"bfloat16": "BF16", "float16": "F16"}
# The largest integer up to which there are no gaps.
INTEGERS = {"bfloat16": 2**8, "float16": 2**11}


def to_bits(dtype, values):
    """The nearest number of the type, ties to even; no NaN.  Values are rounded to float32
    first: give what that holds.  One value comes as an array of one: views of what has no
    axis are not for every NumPy."""
    values = np.atleast_1d(np.asarray(values, np.float32))
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).view(np.uint16)
    bits = values.view(np.uint32)
    return ((bits + (0x7fff + (bits >> 16 & 1))) >> 16).astype(np.uint16)


def from_bits(dtype, bits):
    if dtype == "float16":
        return bits.view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounded(dtype, values):
    """float32 with nothing but values of the type."""
    return from_bits(dtype, to_bits(dtype, values))


def save(shell, dtype, name, values):
    """A file of one tensor; returns the name."""
    files.write_safetensors(shell.path(name), {"tensor": to_bits(dtype, values)},
                            names={np.dtype("<u2"): NAMES[dtype]})
    return name


def load(shell, dtype, name):
    """The bits of the one tensor in a file, which must be of this type."""
    path = shell.path(name)
    assert files.safetensors_types(path) == {"tensor": NAMES[dtype]}
    tensors, _ = files.read_safetensors(path)
    return tensors["tensor"].view(np.uint16)
