"""The layer on PyTorch's tensors, without autograd: what the operators run.

Tensors are read in place, whatever their strides.  Memory formats go through: where the
input is channels_last_3d, so is the output.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import ctypes
from typing import Any, Sequence

import torch
from torch import Tensor

from .. import _layer
from .._layer import Layer, Plan, Weights
from .._library import (
    BACKWARD_INPUT,
    BACKWARD_WEIGHT,
    BFLOAT16,
    DTYPES,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    FORWARD,
    HUGE_PAGE,
    MAX_THREADS,
    PADDING_MODES,
    PRECISIONS,
    ArgumentError,
    DtypeError,
)
from . import _openmp

# How calls run; also while other operators of PyTorch do.
HOST = _openmp.threads()

CODES: dict[Any, int] = {
    torch.float32: FLOAT32,
    torch.float64: FLOAT64,
    torch.bfloat16: BFLOAT16,
    torch.float16: FLOAT16,
}

_MADV_HUGEPAGE = 14
_madvise: Any = None
try:
    _madvise = ctypes.CDLL(None).madvise
    _madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
except (OSError, AttributeError):
    pass  # not Linux


def is_compiling() -> bool:
    """Whether torch.compile or torch.export is looking on."""
    compiler = getattr(torch, "compiler", None)
    return bool(compiler is not None and compiler.is_compiling())


def _no_level() -> None:
    return None


functorch_level = getattr(getattr(torch._C, "_functorch", None), "maybe_current_level", _no_level)
_dispatch_modes = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 0)


def has_tangents() -> bool:
    """Whether tensors may carry tangents: forward mode works without gradients, too."""
    return torch.autograd.forward_ad._current_level >= 0


def is_plain(*tensors: Tensor) -> bool:
    """Whether the tensors are this machine's memory, and nothing watches what is done."""
    return (
        all(
            type(t) in (Tensor, torch.nn.Parameter)
            and t.device.type == "cpu"
            and not t.is_neg()
            and torch._C._has_storage(t)  # not batched, as by is_grads_batched=True
            for t in tensors
        )
        and not torch._C._is_tracing()
        and _dispatch_modes() == 0
        and functorch_level() is None
    )


def layer_of(
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    groups: int,
    dilation: Sequence[int],
    padding_mode: str,
) -> Layer:
    """An operator's arguments; 'padding' has three values, or six: before and after in
    depth, height, width."""
    if len(padding) == 6:
        before, after = tuple(padding[0::2]), tuple(padding[1::2])
    else:
        before = after = tuple(padding)
    for name, values in (
        ("stride", stride),
        ("padding", before),
        ("output_padding", output_padding),
        ("dilation", dilation),
    ):
        if len(values) != 3:
            raise ArgumentError(f"{name}: expected 3 values (depth, height, width), got {values}")
    return Layer(
        stride=tuple(stride),  # type: ignore[arg-type]
        padding_before=before,  # type: ignore[arg-type]
        padding_after=after,  # type: ignore[arg-type]
        output_padding=tuple(output_padding),  # type: ignore[arg-type]
        groups=groups,
        dilation=tuple(dilation),  # type: ignore[arg-type]
        padding_mode=_layer.choice("padding_mode", padding_mode, PADDING_MODES),
        precision=precision(),
    )


def precision() -> int:
    """What torch.set_float32_matmul_precision() set."""
    try:
        return PRECISIONS.get(torch.get_float32_matmul_precision(), 0)
    except RuntimeError:  # set by other functions, whose names say more than these three
        return 0


def threads() -> int:
    """What set_num_threads() of convt3d set, else PyTorch's number."""
    return _layer.threads_asked() or min(torch.get_num_threads(), MAX_THREADS)


def code_of(name: str, tensor: Tensor) -> int:
    code = CODES.get(tensor.dtype)
    if code is None:
        raise DtypeError(f"{name}: dtype {tensor.dtype} is not one of {DTYPES}")
    if tensor.layout is not torch.strided or tensor.device.type != "cpu":
        raise DtypeError(
            f"{name}: a {tensor.layout} tensor on {tensor.device}; legal: strided, on the CPU"
        )
    return code


def pack(name: str, tensor: Tensor) -> bytes:
    code = code_of(name, tensor)  # first: what has no memory has no pointer either
    return _layer.pack_tensor(name, tensor.data_ptr(), code, tensor.shape, tensor.stride())


def pack_optional(name: str, tensor: Tensor | None) -> bytes | None:
    return None if tensor is None else pack(name, tensor)


def channels_last(tensor: Tensor) -> bool:
    """Whether what is made from this tensor has its channels closest in memory."""
    return (
        tensor.dim() == 5
        and tensor.is_contiguous(memory_format=torch.channels_last_3d)
        and not tensor.is_contiguous()
    )


def new(shape: Sequence[int], like: Tensor, last: bool = False) -> Tensor:
    """A new tensor, channels_last_3d or contiguous; it may be one of shapes alone."""
    form = torch.channels_last_3d if last else torch.contiguous_format
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=form)


def empty(shape: Sequence[int], like: Tensor, last: bool = False) -> Tensor:
    """A new tensor; a large one on huge pages, where the system has them."""
    result = new(shape, like, last)
    size = result.numel() * result.element_size()
    if size >= 2 * HUGE_PAGE and _madvise is not None and like.device.type == "cpu":
        # Only whole huge pages that are nobody else's; a refusal changes nothing.
        start = -(-result.data_ptr() // HUGE_PAGE) * HUGE_PAGE
        end = (result.data_ptr() + size) // HUGE_PAGE * HUGE_PAGE
        if end > start:
            _madvise(start, end - start, _MADV_HUGEPAGE)
    return result


def plan_of(
    layer: Layer, direction: int, input: Sequence[int], weight: Sequence[int], code: int
) -> Plan:
    """By the shapes of input and weight, and the dtype."""
    return _layer.make_plan(layer, direction, code, tuple(input), tuple(weight), threads())


def forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    layer: Layer,
    packed: Weights | None = None,
) -> Tensor:
    """The layer.  Where weights were packed before, only the shape of 'weight' is used."""
    like = weight if packed is None else input  # as it is packed it may be cast
    if bias is not None and bias.dtype is torch.float32 and like.element_size() == 2:
        # The library would take it, but no gradient here is of another dtype than the weight.
        raise DtypeError(f"bias: dtype {bias.dtype} is not {like.dtype}, the dtype of weight")
    plan = plan_of(layer, FORWARD, input.shape, weight.shape, code_of("weight", like))
    output = empty(plan.output_shape, like, channels_last(input))
    _layer.run_forward(
        plan,
        pack("input", input),
        pack("weight", weight) if packed is None else None,
        pack_optional("bias", bias),
        pack("output", output),
        packed,
        HOST,
    )
    return output


def backward_input(
    grad_output: Tensor, weight: Tensor, input_shape: Sequence[int], layer: Layer
) -> Tensor:
    plan = plan_of(layer, BACKWARD_INPUT, input_shape, weight.shape, code_of("weight", weight))
    grad_input = empty(tuple(input_shape), weight, channels_last(grad_output))
    _layer.run_backward_input(
        plan,
        pack("grad_output", grad_output),
        pack("weight", weight),
        pack("grad", grad_input),
        threads=HOST,
    )
    return grad_input


def backward_weight(
    grad_output: Tensor,
    input: Tensor,
    weight_shape: Sequence[int],
    layer: Layer,
    with_bias: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients of weight and bias; that of the bias is empty where it isn't wanted."""
    grad_weight = empty(tuple(weight_shape), input)
    grad_bias = empty((weight_shape[1] * layer.groups if with_bias else 0,), input)
    plan = plan_of(layer, BACKWARD_WEIGHT, input.shape, weight_shape, code_of("input", input))
    _layer.run_backward_weight(
        plan,
        pack("input", input),
        pack("grad_output", grad_output),
        pack("grad_weight", grad_weight),
        pack("grad_bias", grad_bias) if with_bias else None,
        threads=HOST,
    )
    return grad_weight, grad_bias


def pack_weights(plan: Plan, weight: Tensor) -> Weights:
    return Weights(plan, pack("weight", weight))
