"""The layer in PyTorch: a drop-in module, and whole models made faster.

    from convt3d.torch import ConvTranspose3d, accelerate
    up = ConvTranspose3d(16, 8, 2, stride=2)     # as torch.nn.ConvTranspose3d
    print(accelerate(model))                     # in place; restore(model) undoes it
SPDX-License-Identifier: MIT
"""

from ._accelerate import Report, accelerate, restore
from ._module import ConvTranspose3d, conv_transpose3d
from ._packed import is_packed, repack

__all__ = [
    "ConvTranspose3d",
    "Report",
    "accelerate",
    "conv_transpose3d",
    "is_packed",
    "repack",
    "restore",
]
