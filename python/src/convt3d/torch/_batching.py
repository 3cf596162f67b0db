"""torch.vmap of the operators: one call for the whole batch, no loops.

Where only a tensor with a batch axis of its own is batched, the new axis joins that one.
Otherwise it joins the groups: B layers side by side are one of B times the groups.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Optional, Tuple

from torch import Tensor

Batch = Optional[int]


def _spread(tensor: Tensor, batch: Batch, size: int) -> Tensor:
    """The batch in front; a tensor without one is seen 'size' times."""
    if batch is None:
        return tensor.expand(size, *tensor.shape)
    return tensor.movedim(batch, 0)


def _with_samples(tensor: Tensor) -> Tensor:
    """(B, [N,] C, D, H, W) -> (B, N, C, D, H, W)."""
    return tensor if tensor.dim() == 6 else tensor.unsqueeze(1)


def _into_samples(tensor: Tensor, batch: Batch, size: int) -> Tensor:
    return _with_samples(_spread(tensor, batch, size)).flatten(0, 1)


def _into_channels(tensor: Tensor, batch: Batch, size: int) -> Tensor:
    """(B, N, C, ...) -> (N, B*C, ...)."""
    return _with_samples(_spread(tensor, batch, size)).movedim(0, 1).flatten(1, 2)


def _from_samples(result: Tensor, size: int, unbatched: bool) -> Tensor:
    result = result.unflatten(0, (size, -1))
    return result.squeeze(1) if unbatched else result


def _from_channels(result: Tensor, size: int, unbatched: bool) -> Tensor:
    result = result.unflatten(1, (size, -1)).movedim(1, 0)
    return result.squeeze(1) if unbatched else result


def _rank(tensor: Tensor, batch: Batch) -> int:
    return tensor.dim() - (batch is not None)


def _grouped(layer: Tuple[Any, ...], size: int) -> Tuple[Any, ...]:
    stride, padding, output_padding, groups, dilation, padding_mode = layer
    return stride, padding, output_padding, groups * size, dilation, padding_mode


def _forward(
    run: Any, info: Any, in_dims: Any, input: Any, weight: Any, bias: Any, *layer: Any
) -> Any:
    size, unbatched = info.batch_size, _rank(input, in_dims[0]) == 4
    if in_dims[1] is None and in_dims[2] is None:
        merged = _into_samples(input, in_dims[0], size)
        result = run(merged, weight, bias, *layer)
        return _from_samples(result, size, unbatched), 0
    merged = _into_channels(input, in_dims[0], size)
    weight = _spread(weight, in_dims[1], size).flatten(0, 1)
    if bias is not None:
        bias = _spread(bias, in_dims[2], size).flatten(0, 1)
    result = run(merged, weight, bias, *_grouped(layer, size))
    return _from_channels(result, size, unbatched), 0


def _backward_input(
    run: Any, info: Any, in_dims: Any, grad: Any, weight: Any, input_size: Any, *layer: Any
) -> Any:
    """As _forward(), with the input's size in the place of a bias that isn't batched."""
    return _forward(
        lambda grad, weight, _, *layer: run(grad, weight, input_size, *layer),
        info,
        (in_dims[0], in_dims[1], None),
        grad,
        weight,
        None,
        *layer,
    )


def _backward_weight(
    run: Any, info: Any, in_dims: Any, grad: Any, input: Any, kernel_size: Any, *rest: Any
) -> Any:
    size, with_bias, layer = info.batch_size, rest[0], rest[1:]
    merged = _into_channels(grad, in_dims[0], size), _into_channels(input, in_dims[1], size)
    weight, bias = run(*merged, kernel_size, with_bias, *_grouped(layer, size))
    bias = bias.unflatten(0, (size, -1)) if with_bias else bias.new_empty((size, 0))
    return (weight.unflatten(0, (size, -1)), bias), (0, 0)


_RULES: dict[str, Callable[..., Any]] = {
    "conv_transpose3d": _forward,
    "conv_transpose3d_backward_input": _backward_input,
    "conv_transpose3d_backward_weight": _backward_weight,
}


def rule(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
    """The batching rule of an operator, which is run by run()."""
    return functools.partial(_RULES[name], run)
