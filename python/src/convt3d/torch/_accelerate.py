"""Whole models: their ConvTranspose3d layers swapped for convt3d's, and back.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

from typing import Dict, List, NamedTuple

import torch

from .. import _library
from ._module import DTYPES, ConvTranspose3d


class Report(NamedTuple):
    """What accelerate() did; prints as a list.

    Attributes:
        swapped: names of the layers that convt3d runs now, as in model.named_modules().
        left: names of the other ConvTranspose3d layers, with the reason.
    """

    swapped: List[str]
    left: Dict[str, str]

    def __str__(self) -> str:
        lines = [f"{len(self.swapped)} swapped, {len(self.left)} left"]
        lines += [f"  {name or '(the model itself)'}" for name in self.swapped]
        lines += [f"  {name or '(the model itself)'}: {why}" for name, why in self.left.items()]
        return "\n".join(lines)


class Accelerated(ConvTranspose3d):
    """A torch.nn.ConvTranspose3d that accelerate() swapped; prints as one."""

    def _get_name(self) -> str:
        return "ConvTranspose3d"


def accelerate(model: torch.nn.Module) -> Report:
    """Swaps every torch.nn.ConvTranspose3d of a model for convt3d's, in place.

    The modules stay the objects that they are, with their parameters, hooks and names; only
    their class changes.  Optimizers, state_dicts and references to modules stay valid.
    In eval mode without gradients, layers with small inputs keep their weights packed; they
    are packed again when the parameter changes (see repack() for writes that PyTorch itself
    doesn't notice).  torch.fx.symbolic_trace() wants PyTorch's own layers: restore() before.

    Args:
        model: any module; its layers are found as by model.named_modules().

    Returns:
        What was swapped, and what was left and why.
    """
    swapped, left = [], {}
    for name, module in model.named_modules():
        if isinstance(module, ConvTranspose3d) or not _is_transposed(module):
            continue
        why = _why_not(module)
        if why:
            left[name] = why
        else:
            module.__class__ = Accelerated  # type: ignore[assignment]
            swapped.append(name)
    return Report(swapped, left)


def restore(model: torch.nn.Module) -> List[str]:
    """Undoes accelerate().  Returns the names of the layers that are PyTorch's again."""
    restored = []
    for name, module in model.named_modules():
        if type(module) is Accelerated:
            module.__class__ = torch.nn.ConvTranspose3d  # type: ignore[assignment]
            restored.append(name)
    return restored


def _is_transposed(module: torch.nn.Module) -> bool:
    return isinstance(module, (torch.nn.ConvTranspose3d, torch.nn.LazyConvTranspose3d))


def _why_not(module: torch.nn.Module) -> str:
    """Why a layer is left; empty if nothing speaks against it."""
    if type(module) is not torch.nn.ConvTranspose3d:
        return f"of class {type(module).__qualname__}, which may compute something else"
    if "forward" in vars(module):
        return "its forward() was replaced"
    weight = module.weight
    if weight.device.type not in ("cpu", "meta"):
        return f"on device {weight.device}"
    if weight.dtype not in DTYPES:
        return f"of dtype {weight.dtype}; convt3d has {_library.DTYPES}"
    return ""
