"""The transposed 3-D convolution layer on a small, fast library of its own.

    import convt3d
    y = convt3d.conv_transpose3d(x, weight, bias, stride=2, padding=1)

On NumPy arrays, and on whatever has the buffer protocol or DLPack.  convt3d.torch has a
drop-in for torch.nn.ConvTranspose3d and accelerates whole models; convt3d.onnx runs the
ConvTranspose nodes of ONNX models.
SPDX-License-Identifier: MIT
"""

from ._functional import conv_transpose3d, conv_transpose3d_backward
from ._layer import get_num_threads, set_num_threads
from ._library import (
    VERSION,
    ArgumentError,
    DtypeError,
    Error,
    NoMemoryError,
    RangeError,
    ShapeError,
    UnsupportedError,
)

__version__ = VERSION

__all__ = [
    "ArgumentError",
    "DtypeError",
    "Error",
    "NoMemoryError",
    "RangeError",
    "ShapeError",
    "UnsupportedError",
    "conv_transpose3d",
    "conv_transpose3d_backward",
    "get_num_threads",
    "set_num_threads",
]
