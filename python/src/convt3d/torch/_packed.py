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
from torch.autograd import forward_ad
from torch.multiprocessing.reductions import StorageWeakRef

from .._layer import Plan, Weights
from .._library import FORWARD
from . import _autocast, _tensors

# Positions N*D*H*W of an input up to which packed weights are kept: at 4096, packing takes
# about a hundredth of the call.
MOST_POSITIONS = 4096
# Values that are compared at each call; more weights than this are sampled.
SAMPLE = 64

_Key = Tuple[Any, ...]


class _Packed:
    def __init__(self, key: _Key, weight: Tensor, plan: Plan, dtype: Any):
        self.key = key
        # As long as this is there, no other storage gets the number that is in the key;
        # an address may be given to the next tensor at once.
        self.storage = StorageWeakRef(_storage(weight))
        self.places = _places(weight)
        self.sample = weight.detach().take(self.places)
        self.weights = _tensors.pack_weights(plan, weight.to(dtype))

    def is_of(self, key: _Key, weight: Tensor) -> bool:
        return self.key == key and torch.equal(self.sample, weight.detach().take(self.places))


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


def _storage(tensor: Tensor) -> Any:
    return tensor.untyped_storage() if hasattr(tensor, "untyped_storage") else tensor.storage()


def _places(weight: Tensor) -> Tensor:
    """Where to look: spread over all values and, as scaling leaves zeros, over the others."""
    flat = weight.detach().flatten()
    places = torch.arange(0, flat.numel(), max(1, flat.numel() // SAMPLE))
    if flat[places].all():
        return places
    nonzero = flat.nonzero().flatten()
    return torch.cat((places, nonzero[:: max(1, nonzero.numel() // SAMPLE)]))


def run(
    module: torch.nn.ConvTranspose3d,
    input: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    output_padding: Sequence[int],
    asked: Any,
) -> Optional[Tensor]:
    """The output by packed weights, or None where they aren't for this call.  'asked' is
    what autocast casts to, or None: weights are cast as they are packed."""
    if torch.is_grad_enabled() or module.training or _tensors.is_compiling():
        return None
    if forward_ad._current_level >= 0:  # tangents are there without gradients, too
        return None
    if (
        not _tensors.is_plain(*(t for t in (input, weight, bias) if t is not None))
        or not weight.is_contiguous()
    ):
        return None
    if input.dim() not in (4, 5) or input.numel() > MOST_POSITIONS * max(1, module.in_channels):
        return None
    input, bias = _autocast.cast(input, asked), _autocast.cast_optional(bias, asked)
    if _autocast.dtype_of(weight, asked) is not input.dtype:
        return None  # refused elsewhere
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
    return _tensors.forward(input, weight, bias, layer, packed)


def _current(module: Any, weight: Tensor, input: Tensor, layer: Any) -> Optional[Weights]:
    """The module's packed weights, of the input's dtype, made now unless they are there and up
    to date."""
    try:
        version = weight._version
    except RuntimeError:  # made in inference mode: its changes aren't counted
        return None
    # All that packed weights depend on, by the header: neither sizes nor output_padding.
    fixed = layer._replace(output_padding=(0, 0, 0))
    memory = (_storage(weight)._cdata, weight.data_ptr(), version)
    key = (memory, weight.dtype, input.dtype, weight.shape, _tensors.threads(), fixed)
    kept = _kept.get(module)
    if kept is not None and kept.is_of(key, weight):
        return kept.weights
    code = _tensors.code_of("input", input)
    plan = _tensors.plan_of(layer, FORWARD, input.shape, weight.shape, code)
    kept = _Packed(key, weight, plan, input.dtype)
    _kept[module] = kept
    return kept.weights
