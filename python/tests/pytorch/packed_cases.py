"""A module that packs its weights, and its results with and without.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import torch
from torch_cases import module, normal, plain, same_bytes

from convt3d.torch import is_packed

# More weights than are looked at one by one.
LAYER = plain(in_channels=8, out_channels=16, kernel_size=(3, 3, 3), stride=(2, 2, 2))
X = normal(1, LAYER)[0]


def unpacked(made, x=X):
    with torch.enable_grad():
        return made(x).detach()


def packed(made, x=X):
    with torch.no_grad():
        return made(x)


def fresh(seed=0):
    """A module that has just used its packed weights twice."""
    torch.manual_seed(seed)
    made = module(LAYER).eval()
    first = packed(made)
    assert is_packed(made) and same_bytes(packed(made), first)
    assert same_bytes(first, unpacked(made))
    return made
