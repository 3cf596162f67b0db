"""torch.autocast on the CPU, which casts what transposed convolutions take.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor

if hasattr(torch, "get_autocast_dtype"):  # since 2.4

    def dtype() -> Any:
        """What autocast casts to now; None where it is off."""
        return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None

else:

    def _lowers() -> bool:
        """Older versions have transposed convolutions on the list of what stays in float32."""
        one = torch.ones(1, 1, 1, 1, 1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return torch.nn.functional.conv_transpose3d(one, one).dtype is torch.bfloat16

    _LOWERS = _lowers()

    def dtype() -> Any:
        """What autocast casts to now; None where it is off."""
        if not torch.is_autocast_cpu_enabled():
            return None
        return torch.get_autocast_cpu_dtype() if _LOWERS else torch.float32


def dtype_of(tensor: Tensor, asked: Any) -> Any:
    """The dtype in which autocast to 'asked' lets a tensor in; PyTorch leaves float64."""
    casts = (
        asked is not None
        and tensor.device.type == "cpu"
        and tensor.is_floating_point()
        and tensor.dtype is not torch.float64
    )
    return asked if casts else tensor.dtype


def cast(tensor: Tensor, asked: Any) -> Tensor:
    """The tensor as autocast lets it in, differentiably."""
    return tensor if asked is None else tensor.to(dtype_of(tensor, asked))


def cast_optional(tensor: Optional[Tensor], asked: Any) -> Optional[Tensor]:
    return None if tensor is None else cast(tensor, asked)
