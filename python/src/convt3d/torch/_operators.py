"""The three operators, with autograd of every order.

The layer is bilinear, y = T(x, w) + b, in every padding mode.  Its gradients are two more
bilinear operators, of which each is the adjoint of the others:

    forward          y  = T(x, w) + b
    backward_input   gx = C(gy, w)      <gx, x> = <gy, T(x, w)>     (C: Conv3d)
    backward_weight  gw = B(gy, x)      <gw, w> = <gy, T(x, w)>,  gb = sum of gy

so that all derivatives, of any order, are calls of these three:

    C(gy, w) by gy, given u:  T(u, w)         by w:  B(gy, u)
    B(gy, x) by gy, given v:  T(x, v) (+ vb)  by x:  C(gy, v)

Each exists twice.  As an autograd function it serves eager calls, torch.func and forward
mode, and costs little.  From PyTorch 2.4 on it is a custom operator as well,
torch.ops.convt3d.*, for what looks at calls without running them: torch.compile,
torch.export, fake and meta tensors.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

from typing import Any, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .._library import ArgumentError
from . import _batching, _tensors
from ._tensors import layer_of

# ---- What they compute ------------------------------------------------------------


def _forward(
    input: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    stride: List[int],
    padding: List[int],
    output_padding: List[int],
    groups: int,
    dilation: List[int],
    padding_mode: str,
) -> Tensor:
    layer = layer_of(stride, padding, output_padding, groups, dilation, padding_mode)
    return _tensors.forward(input, weight, bias, layer)


def _backward_input(
    grad_output: Tensor,
    weight: Tensor,
    input_size: List[int],
    stride: List[int],
    padding: List[int],
    output_padding: List[int],
    groups: int,
    dilation: List[int],
    padding_mode: str,
) -> Tensor:
    layer = layer_of(stride, padding, output_padding, groups, dilation, padding_mode)
    shape = (*grad_output.shape[:-4], weight.shape[0], *input_size)
    return _tensors.backward_input(grad_output, weight, shape, layer)


def _backward_weight(
    grad_output: Tensor,
    input: Tensor,
    kernel_size: List[int],
    with_bias: bool,
    stride: List[int],
    padding: List[int],
    output_padding: List[int],
    groups: int,
    dilation: List[int],
    padding_mode: str,
) -> Tuple[Tensor, Tensor]:
    layer = layer_of(stride, padding, output_padding, groups, dilation, padding_mode)
    shape = _weight_shape(grad_output, input, kernel_size, groups)
    return _tensors.backward_weight(grad_output, input, shape, layer, with_bias)


def _weight_shape(
    grad_output: Tensor, input: Tensor, kernel_size: Sequence[int], groups: int
) -> Tuple[int, ...]:
    return (input.shape[-4], grad_output.shape[-4] // groups, *kernel_size)


# ---- What they would compute: shapes alone ------------------------------------------


def output_size(
    input_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
) -> List[int]:
    """(D, H, W) of the output; works on symbolic sizes."""
    if len(padding) == 6:
        cropped = [padding[2 * a] + padding[2 * a + 1] for a in range(3)]
    else:
        cropped = [2 * p for p in padding]
    return [
        (input_size[a] - 1) * stride[a]
        - cropped[a]
        + dilation[a] * (kernel_size[a] - 1)
        + output_padding[a]
        + 1
        for a in range(3)
    ]


def _forward_fake(
    input: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    groups: int,
    dilation: Sequence[int],
    padding_mode: str,
) -> Tensor:
    if input.device != weight.device:
        raise ArgumentError(f"weight: on {weight.device}, but must be on {input.device}, as input")
    sizes = output_size(
        input.shape[-3:], weight.shape[2:], stride, padding, output_padding, dilation
    )
    shape = (*input.shape[:-4], weight.shape[1] * groups, *sizes)
    return _tensors.new(shape, weight, _tensors.channels_last(input))


def _backward_input_fake(
    grad_output: Tensor, weight: Tensor, input_size: Sequence[int], *layer: Any
) -> Tensor:
    shape = (*grad_output.shape[:-4], weight.shape[0], *input_size)
    return _tensors.new(shape, weight, _tensors.channels_last(grad_output))


def _backward_weight_fake(
    grad_output: Tensor, input: Tensor, kernel_size: Sequence[int], with_bias: bool, *layer: Any
) -> Tuple[Tensor, Tensor]:
    groups = layer[3]
    shape = _weight_shape(grad_output, input, kernel_size, groups)
    bias = (shape[1] * groups if with_bias else 0,)
    return _tensors.new(shape, input), _tensors.new(bias, input)


# ---- Their derivatives --------------------------------------------------------------
#
# Of each: what to remember, the gradients and the tangent.  Backward formulas and tangents
# call the operators, so they can be differentiated again.


def _sum_to_bias(grad_output: Tensor) -> Tensor:
    channel = grad_output.dim() - 4
    return grad_output.sum([d for d in range(grad_output.dim()) if d != channel])


def _sum(*parts: Optional[Tensor]) -> Optional[Tensor]:
    there = [part for part in parts if part is not None]
    return sum(there[1:], there[0]) if there else None


class _Forward:
    name = "conv_transpose3d"
    compute, fake = _forward, _forward_fake

    @staticmethod
    def remember(ctx: Any, inputs: Tuple[Any, ...]) -> None:
        input, weight, bias, *ctx.layer = inputs
        ctx.has_bias = bias is not None
        _save(ctx, input, weight)

    @staticmethod
    def gradients(ctx: Any, grad_output: Tensor) -> Tuple[Optional[Tensor], ...]:
        input, weight = ctx.saved_tensors
        needs_input, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        needs_bias = needs_bias and ctx.has_bias
        grad_input = grad_weight = grad_bias = None
        if needs_input:
            grad_input = backward_input(grad_output, weight, list(input.shape[-3:]), *ctx.layer)
        if needs_weight:
            kernel_size = list(weight.shape[2:])
            grad_weight, grad_bias = backward_weight(
                grad_output, input, kernel_size, needs_bias, *ctx.layer
            )
        elif needs_bias:
            grad_bias = _sum_to_bias(grad_output)
        return grad_input, grad_weight, grad_bias if needs_bias else None, *(None,) * 6

    @staticmethod
    def tangent(
        ctx: Any, d_input: Optional[Tensor], d_weight: Optional[Tensor], d_bias: Optional[Tensor]
    ) -> Any:
        input, weight = ctx.saved_tensors
        if d_input is not None:
            return _sum(
                forward(d_input, weight, d_bias, *ctx.layer),
                None if d_weight is None else forward(input, d_weight, None, *ctx.layer),
            )
        d_weight = torch.zeros_like(weight) if d_weight is None else d_weight
        return forward(input, d_weight, d_bias, *ctx.layer)


class _BackwardInput:
    name = "conv_transpose3d_backward_input"
    compute, fake = _backward_input, _backward_input_fake

    @staticmethod
    def remember(ctx: Any, inputs: Tuple[Any, ...]) -> None:
        grad_output, weight, *ctx.rest = inputs
        ctx.layer = ctx.rest[1:]
        _save(ctx, grad_output, weight)

    @staticmethod
    def gradients(ctx: Any, given: Tensor) -> Tuple[Optional[Tensor], ...]:
        grad_output, weight = ctx.saved_tensors
        by_grad_output = by_weight = None
        if ctx.needs_input_grad[0]:
            by_grad_output = forward(given, weight, None, *ctx.layer)
        if ctx.needs_input_grad[1]:
            kernel_size = list(weight.shape[2:])
            by_weight, _ = backward_weight(grad_output, given, kernel_size, False, *ctx.layer)
        return by_grad_output, by_weight, *(None,) * 7

    @staticmethod
    def tangent(ctx: Any, d_grad: Optional[Tensor], d_weight: Optional[Tensor], _: Any) -> Any:
        grad_output, weight = ctx.saved_tensors
        return _sum(
            None if d_grad is None else backward_input(d_grad, weight, *ctx.rest),
            None if d_weight is None else backward_input(grad_output, d_weight, *ctx.rest),
        )


class _BackwardWeight:
    name = "conv_transpose3d_backward_weight"
    compute, fake = _backward_weight, _backward_weight_fake

    @staticmethod
    def remember(ctx: Any, inputs: Tuple[Any, ...]) -> None:
        grad_output, input, *ctx.rest = inputs
        ctx.with_bias, *ctx.layer = ctx.rest[1:]
        _save(ctx, grad_output, input)

    @staticmethod
    def gradients(
        ctx: Any, given: Tensor, given_bias: Optional[Tensor]
    ) -> Tuple[Optional[Tensor], ...]:
        grad_output, input = ctx.saved_tensors
        by_grad_output = by_input = None
        if ctx.needs_input_grad[0]:
            bias = given_bias if ctx.with_bias else None
            by_grad_output = forward(input, given, bias, *ctx.layer)
        if ctx.needs_input_grad[1]:
            by_input = backward_input(grad_output, given, list(input.shape[-3:]), *ctx.layer)
        return by_grad_output, by_input, *(None,) * 8

    @staticmethod
    def tangent(ctx: Any, d_grad: Optional[Tensor], d_input: Optional[Tensor], _: Any) -> Any:
        grad_output, input = ctx.saved_tensors
        parts = []
        if d_grad is not None:
            parts.append(backward_weight(d_grad, input, *ctx.rest))
        if d_input is not None:
            by_input, by_bias = backward_weight(grad_output, d_input, *ctx.rest)
            parts.append((by_input, torch.zeros_like(by_bias)))
        return tuple(_sum(*both) for both in zip(*parts))


def _save(ctx: Any, *tensors: Tensor) -> None:
    ctx.save_for_backward(*tensors)
    if hasattr(ctx, "save_for_forward"):  # not under custom operators
        ctx.save_for_forward(*tensors)


# ---- Registration -------------------------------------------------------------------

HAS_OPERATORS = hasattr(torch.library, "custom_op")


def _custom_operator(what: Any) -> Any:
    operator = torch.library.custom_op(
        "convt3d::" + what.name, what.compute, mutates_args=(), device_types="cpu"
    )
    operator.register_fake(what.fake)
    operator.register_autograd(
        what.gradients, setup_context=lambda ctx, inputs, output: what.remember(ctx, inputs)
    )
    if hasattr(operator, "register_vmap"):
        operator.register_vmap(_batching.rule(what.name, operator))
    return operator


def _function(what: Any, compute: Any) -> Any:
    """An autograd function that computes with compute()."""

    class Operator(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            what.remember(ctx, inputs)
            return compute(*inputs)

        @staticmethod
        def backward(ctx: Any, *given: Any) -> Any:
            return what.gradients(ctx, *given)

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> Any:
            return what.tangent(ctx, *tangents[:3])

    if not hasattr(torch.autograd.Function, "setup_context"):  # before 2.0
        return Operator.apply

    class Transformed(Operator):
        """The same for torch.func, which wants its steps apart: each call then reads
        forward()'s signature, which takes longer than all of the rest."""

        @staticmethod
        def forward(*inputs: Any) -> Any:
            return compute(*inputs)

        @staticmethod
        def setup_context(ctx: Any, inputs: Tuple[Any, ...], output: Any) -> None:
            what.remember(ctx, inputs)

        @staticmethod
        def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
            return _batching.rule(what.name, Transformed.apply)(info, in_dims, *inputs)

    def apply(*inputs: Any) -> Any:
        kind = Operator if _tensors.functorch_level() is None else Transformed
        return kind.apply(*inputs)

    return apply


def _make(what: Any) -> Any:
    if not HAS_OPERATORS:
        # Elsewhere PyTorch itself resolves what is negative only by a bit.
        return _function(
            what,
            lambda *inputs: what.compute(
                *(i.resolve_neg() if isinstance(i, Tensor) else i for i in inputs)
            ),
        )
    operator = _custom_operator(what)

    def is_plain(inputs: Tuple[Any, ...]) -> bool:
        return _tensors.is_plain(*(i for i in inputs[:3] if isinstance(i, Tensor)))

    def compute(*inputs: Any) -> Any:
        return (what.compute if is_plain(inputs) else operator)(*inputs)

    function = _function(what, compute)

    def call(*inputs: Any) -> Any:
        # A trace can hold operators, but not autograd functions, in a file.
        if _tensors.is_compiling() or torch._C._is_tracing():
            return operator(*inputs)
        # As gradients do that nobody wants to differentiate again.
        if not torch.is_grad_enabled() and not _tensors.has_tangents() and is_plain(inputs):
            return what.compute(*inputs)
        return function(*inputs)

    return call


forward = _make(_Forward)
backward_input = _make(_BackwardInput)
backward_weight = _make(_BackwardWeight)
