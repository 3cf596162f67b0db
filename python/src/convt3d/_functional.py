"""The layer as a function of arrays.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

from typing import Any, Sequence

from . import _layer
from ._arrays import (
    Array,
    as_array,
    check_shape,
    dtype_code,
    gradient_dtype,
    output,
    pack,
    wider,
)
from ._layer import Ints, Padding
from ._library import (
    ACCUMULATE,
    BACKWARD_INPUT,
    BACKWARD_WEIGHT,
    FORWARD,
    OVERWRITE,
    ArgumentError,
)


def conv_transpose3d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    padding_mode: str = "zeros",
    output_size: Sequence[int] | None = None,
    out: Any = None,
    activation: str = "none",
    negative_slope: float = 0.01,
    precision: str = "highest",
) -> Array:
    """Transposed 3-D convolution, as torch.nn.functional.conv_transpose3d computes it.

    Along each axis, input i meets tap k of the kernel at output
    o = i*stride - padding + k*dilation, and the output's size is
    (in - 1)*stride - 2*padding + dilation*(kernel_size - 1) + output_padding + 1.

    Arrays are NumPy's, or of any kind that shows its memory by the buffer protocol or
    DLPack: float32, float64, float16 or (ml_dtypes') bfloat16, all of one kind, of any
    strides.  Nothing is copied.  Those of 16 bits are computed in float32 and rounded once.
    The three axes are depth, height, width, in this order; where an argument is Ints,
    it is one integer for all three or three of them.

    Args:
        x: the input, (N, in_channels, D, H, W) or, as one sample, (in_channels, D, H, W).
        weight: (in_channels, out_channels/groups, kD, kH, kW).
        bias: (out_channels,), or None; of float32 as well where x has 16 bits.
        stride: steps of the output between neighbours of the input, 1 or more.
        padding: what is cropped at each border of the full result, 0 or more; or three
            pairs (before, after).
        output_padding: what is added after the end; less than max(stride, dilation).
        groups: divides both numbers of channels.
        dilation: steps between the taps, 1 or more.
        padding_mode: "zeros" crops; "reflect", "replicate" and "circular" add each border
            back onto the part that is kept: the gradient of a Conv3d of this mode.
        output_size: (D, H, W) in place of output_padding.
        out: an array to write the output to, of its shape and dtype; not overlapping x,
            weight or bias.
        activation: what is made of each output, bias included: "none", "relu",
            "leaky_relu", "gelu", "gelu_tanh", "sigmoid" or "tanh".
        negative_slope: of "leaky_relu".
        precision: of float32, as torch.set_float32_matmul_precision() names it: "highest";
            on CPUs with AMX "high" and "medium" multiply factors that are off by up to
            2^-16 and 2^-8 of themselves, and are faster.

    Returns:
        The output, (N, out_channels, outD, outH, outW), without N where x has none: a new
        array in C order (a large one on huge pages), or ``out``.

    Raises:
        ArgumentError, ShapeError (both ValueError), DtypeError or TypeError, RangeError
        (OverflowError), NoMemoryError (MemoryError): with the argument, the axis, the
        value and the legal range; ``out`` is untouched then.
        KeyboardInterrupt: within about a tenth of a second; ``out`` is unspecified then.
    """
    layer = _layer.make_layer(
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        padding_mode,
        output_size,
        activation,
        negative_slope,
        precision,
    )
    x, weight = as_array("x", x), as_array("weight", weight)
    plan = _layer.make_plan(
        layer, FORWARD, dtype_code("x", x), x.shape, weight.shape, _layer.threads_asked()
    )
    inputs, packed_bias = [("x", x), ("weight", weight)], None
    packed_input, packed_weight = pack("x", x, x.dtype), pack("weight", weight, x.dtype)
    if bias is not None:
        bias = as_array("bias", bias)
        packed_bias = pack("bias", bias, x.dtype, wider(x.dtype))
        inputs.append(("bias", bias))
    result, packed_output = output("out", out, plan.output_shape, x.dtype, inputs)
    _layer.run_forward(plan, packed_input, packed_weight, packed_bias, packed_output)
    return result


def conv_transpose3d_backward(
    grad_output: Any,
    x: Any,
    weight: Any,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    padding_mode: str = "zeros",
    output_size: Sequence[int] | None = None,
    output_mask: Sequence[bool] = (True, True, True),
    out: Sequence[Any] = (None, None, None),
    accumulate: bool = False,
    precision: str = "highest",
    grad_weight_dtype: Any = None,
) -> tuple[Array | None, Array | None, Array | None]:
    """The gradients of conv_transpose3d() with respect to x, weight and bias.

    Args:
        grad_output: the gradient with respect to the output, of the output's shape.
        x: the input, as in the forward call.
        weight: as in the forward call.
        stride, padding, output_padding, groups, dilation, padding_mode, output_size: as in
            the forward call.
        output_mask: which of the three gradients are wanted.
        out: arrays to write them to, or None for a new one each; of the shapes and dtype of
            x, weight and (out_channels,), and not overlapping anything else.  Those of
            weight and bias may be of float32 where x has 16 bits.
        accumulate: add to what ``out`` holds, which must then be given for each that is
            wanted.
        precision: as in the forward call.
        grad_weight_dtype: that of new arrays for the gradients of weight and bias: x's,
            which is the default; or, where x has 16 bits, float32, which keeps what rounding
            would lose of sums over a whole batch.

    Returns:
        (grad_x, grad_weight, grad_bias), None for each that isn't wanted.

    Raises:
        As conv_transpose3d().
    """
    layer = _layer.make_layer(
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        padding_mode,
        output_size,
        precision=precision,
    )
    grad_output, x = as_array("grad_output", grad_output), as_array("x", x)
    weight = as_array("weight", weight)
    if len(output_mask) != 3 or len(out) != 3:
        raise ArgumentError(
            "output_mask and out: expected 3 values (x, weight, bias), "
            f"got {len(output_mask)} and {len(out)}"
        )
    if accumulate and any(wanted and o is None for wanted, o in zip(output_mask, out)):
        raise ArgumentError("accumulate: needs an array in out for each gradient that is wanted")
    write = ACCUMULATE if accumulate else OVERWRITE
    key = (dtype_code("x", x), x.shape, weight.shape, _layer.threads_asked())
    wants_x, wants_weight, wants_bias = output_mask
    # Everything is checked before anything is written: both plans and all arrays first.
    plan = _layer.make_plan(layer, BACKWARD_INPUT, *key)
    weight_plan = _layer.make_plan(layer, BACKWARD_WEIGHT, *key)
    check_shape("grad_output", grad_output.shape, plan.output_shape)
    packed_grad = pack("grad_output", grad_output, x.dtype)
    packed_x, packed_weight = pack("x", x, x.dtype), pack("weight", weight, x.dtype)
    channels = (weight.shape[1] * layer.groups,)
    others = [("grad_output", grad_output), ("x", x), ("weight", weight)]

    def target(wanted: bool, name: str, given: Any, shape: Sequence[int], *more: Any) -> Any:
        if not wanted:
            return None, None
        array, packed = output(name, given, shape, x.dtype, others, *more)
        others.append((name, array))
        return array, packed

    grad_x, packed_grad_x = target(wants_x, "grad_x", out[0], x.shape)
    more = (gradient_dtype("grad_weight_dtype", grad_weight_dtype, x.dtype), wider(x.dtype))
    grad_weight, packed_grad_weight = target(
        wants_weight, "grad_weight", out[1], weight.shape, *more
    )
    grad_bias, packed_grad_bias = target(wants_bias, "grad_bias", out[2], channels, *more)
    if wants_x:
        _layer.run_backward_input(plan, packed_grad, packed_weight, packed_grad_x, write)
    if wants_weight or wants_bias:
        _layer.run_backward_weight(
            weight_plan, packed_x, packed_grad, packed_grad_weight, packed_grad_bias, write
        )
    return grad_x, grad_weight, grad_bias
