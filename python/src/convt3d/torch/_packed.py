"""Weights that stay packed between calls in eval mode.

Packing pays where a call has few positions: there it takes up to 40 % of the time.  A
larger volume is run from the weights themselves, as in training.

Packed weights are used as long as the parameter is the same memory of the same version,
PyTorch's own count of changes in place.  Writes through ``.data`` don't count there; a
sample of the values catches those that change the whole tensor, as optimizers and
averaging do, and repack() is for the others.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import weakref
from typing import Any, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .._layer import Weights
from .._library import FORWARD
from . import _tensors

# Positions N*D*H*W of an input up to which packed weights are kept: at 4096, packing takes
# about a hundredth of the call.
MOST_POSITIONS = 4096
# Values that are compared at each call; more weights than this are sampled evenly.
SAMPLE = 64

_Key = Tuple[Any, ...]


class _Packed:
    def __init__(self, weights: Weights, key: _Key, sample: Tensor):
        self.weights, self.key, self.sample = weights, key, sample


_kept: weakref.WeakKeyDictionary[torch.nn.Module, _Packed] = weakref.WeakKeyDictionary()


def repack(model: torch.nn.Module) -> None:
    """Forgets the packed weights of a model's layers; their next calls pack anew.

    Needed only after a part of a weight was written through ``.data``, or from outside
    PyTorch: such changes leave no trace.
    """
    for module in model.modules():
        _kept.pop(module, None)


def is_packed(module: torch.nn.Module) -> bool:
    """Whether this module holds packed weights now."""
    return module in _kept


def _sample(weight: Tensor) -> Tensor:
    flat = weight.detach().reshape(-1) if weight.is_contiguous() else weight.detach().flatten()
    step = max(1, flat.numel() // SAMPLE)
    return flat[::step]


def run(
    module: torch.nn.ConvTranspose3d, input: Tensor, output_padding: Sequence[int]
) -> Optional[Tensor]:
    """The output by packed weights, or None where they aren't for this call."""
    if module.training or torch.is_grad_enabled() or _tensors.is_compiling():
        return None
    weight, bias = module.weight, module.bias
    if (
        not _tensors.is_plain(*(t for t in (input, weight, bias) if t is not None))
        or not weight.is_contiguous()
    ):
        return None
    if input.dim() not in (4, 5) or input.numel() > MOST_POSITIONS * max(1, module.in_channels):
        return None
    layer = _tensors.layer_of(
        module.stride,
        module.padding,  # type: ignore[arg-type]
        output_padding,
        module.groups,
        module.dilation,
        module.padding_mode,
    )
    packed = _current(module, weight, input, layer)
    if packed is None:
        return None
    return _tensors.forward_packed(input, weight, packed, bias, layer)


def _current(module: Any, weight: Tensor, input: Tensor, layer: Any) -> Optional[Weights]:
    """The module's packed weights, made now unless they are there and up to date."""
    try:
        version = weight._version
    except RuntimeError:  # made in inference mode: its changes aren't counted
        return None
    # All that packed weights depend on, by the header: neither sizes nor output_padding.
    fixed = layer._replace(output_padding=(0, 0, 0))
    key = (weight.data_ptr(), version, weight.dtype, weight.shape, _tensors.threads(), fixed)
    sample = _sample(weight)
    kept = _kept.get(module)
    if kept is not None and kept.key == key and torch.equal(kept.sample, sample):
        return kept.weights
    plan = _tensors.plan_of(layer, FORWARD, input.shape, weight)
    kept = _Packed(_tensors.pack_weights(plan, weight), key, sample.clone())
    _kept[module] = kept
    return kept.weights
