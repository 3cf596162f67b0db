"""convt3d.torch.conv_transpose3d and convt3d.torch.ConvTranspose3d.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

from typing import Any, List, Literal, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from .._layer import Ints, Padding, check_input_rank, integer, paddings, triple
from .._library import PADDING_MODES, ArgumentError, ShapeError
from . import _autocast, _operators, _packed, _tensors

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
DTYPES = tuple(_tensors.CODES)


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Optional[Tensor] = None,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    padding_mode: str = "zeros",
) -> Tensor:
    """torch.nn.functional.conv_transpose3d, on convt3d's library and with its gradients.

    Args:
        input: (N, in_channels, D, H, W) or (in_channels, D, H, W); float32, float64, bfloat16
            or float16, on the CPU, of any strides.
        weight: (in_channels, out_channels/groups, kD, kH, kW), of the same dtype.
        bias: (out_channels,) or None.
        stride, padding, output_padding, groups, dilation: as in torch.nn.functional;
            padding may also be three pairs (before, after), and output_padding is less than
            max(stride, dilation).
        padding_mode: "zeros", "reflect", "replicate" or "circular"; what each means is said
            at convt3d.conv_transpose3d().

    Returns:
        The output, of the inputs' dtype; channels_last_3d where the input is.  Under autocast
        the inputs, and so the output, are cast to its dtype, as in PyTorch.

    Raises:
        convt3d.Error, as convt3d.conv_transpose3d() does; KeyboardInterrupt within about a
        tenth of a second.
    """
    _check_tensors(input, weight, bias)
    asked = _autocast.dtype()
    before, after = paddings(padding)
    six = [p for pair in zip(before, after) for p in pair]
    result: Tensor = _operators.forward(
        _autocast.cast(input, asked),
        _autocast.cast(weight, asked),
        _autocast.cast_optional(bias, asked),
        list(triple("stride", stride)),
        list(before) if before == after else six,
        list(triple("output_padding", output_padding)),
        integer("groups", groups),
        list(triple("dilation", dilation)),
        padding_mode,
    )
    return result


class ConvTranspose3d(torch.nn.ConvTranspose3d):
    """torch.nn.ConvTranspose3d on convt3d's library.

    The same arguments, parameters, initial values, state_dict keys and repr, and one thing
    more: ``padding_mode`` may be "reflect", "replicate" or "circular" as well.

    float32, float64, bfloat16 and float16 tensors on the CPU run on convt3d, under autocast in
    its dtype; other devices and dtypes go on as in PyTorch, which has padding_mode "zeros"
    alone.  In eval mode without gradients the weights are kept packed: see accelerate().

    Args:
        in_channels, out_channels, kernel_size, stride, padding, output_padding, groups,
        bias, dilation, padding_mode, device, dtype: as in torch.nn.ConvTranspose3d.

    Shape:
        input (N, in_channels, D, H, W) or (in_channels, D, H, W); output the same with
        out_channels and, along each axis, (in - 1)*stride - 2*padding +
        dilation*(kernel_size - 1) + output_padding + 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Union[int, Tuple[int, int, int]],
        stride: Union[int, Tuple[int, int, int]] = 1,
        padding: Union[int, Tuple[int, int, int]] = 0,
        output_padding: Union[int, Tuple[int, int, int]] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Union[int, Tuple[int, int, int]] = 1,
        padding_mode: PaddingMode = "zeros",
        device: Any = None,
        dtype: Any = None,
    ):
        if padding_mode not in PADDING_MODES:
            raise ArgumentError(
                f"padding_mode: {padding_mode!r} is not one of {', '.join(PADDING_MODES)}"
            )
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            groups,
            bias,
            dilation,
            "zeros",  # all that PyTorch lets pass
            device,
            dtype,
        )
        self.padding_mode = padding_mode

    def forward(self, input: Tensor, output_size: Optional[List[int]] = None) -> Tensor:
        """The layer's output.

        Args:
            input: (N, in_channels, D, H, W) or (in_channels, D, H, W).
            output_size: (D, H, W), with N and channels in front or without, in place of
                output_padding.
        """
        # TorchScript compiles what PyTorch's own layer does.
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            assert self.padding_mode == "zeros", "TorchScript: padding_mode is not zeros"
            output_padding = self._output_padding(
                input,
                output_size,
                self.stride,  # type: ignore[arg-type]
                self.padding,  # type: ignore[arg-type]
                self.kernel_size,  # type: ignore[arg-type]
                3,
                self.dilation,  # type: ignore[arg-type]
            )
            return torch.nn.functional.conv_transpose3d(
                input,
                self.weight,
                self.bias,
                self.stride,
                self.padding,  # type: ignore[arg-type]
                output_padding,
                self.groups,
                self.dilation,
            )
        else:  # else what follows would be compiled as well
            return forward(self, input, output_size)


def _check_tensors(input: Any, weight: Any, bias: Any) -> None:
    for name, value in (("input", input), ("weight", weight), ("bias", bias)):
        if not isinstance(value, Tensor) and not (value is None and name == "bias"):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")


def supports(input: Tensor, weight: Tensor, asked: Any = None) -> bool:
    """Whether convt3d runs this; else PyTorch does.  'asked' is what autocast casts to."""
    dtype = _autocast.dtype_of(weight, asked)
    return (
        dtype in DTYPES
        and _autocast.dtype_of(input, asked) is dtype
        and input.device.type in ("cpu", "meta")
        and weight.device.type == input.device.type
        and input.layout is torch.strided
        # Tensors without memory, and traces, are the custom operators' business.
        and (_operators.HAS_OPERATORS or _tensors.is_plain(input, weight))
    )


def forward(
    module: torch.nn.ConvTranspose3d, input: Tensor, output_size: Optional[List[int]] = None
) -> Tensor:
    """What ConvTranspose3d.forward() does, for any module with its attributes."""
    # Once: a parametrization computes it anew, and may change its state, at each access.
    weight, bias = module.weight, module.bias
    _check_tensors(input, weight, bias)
    if output_size is None:
        output_padding = module.output_padding
    else:
        output_padding = tuple(padding_for(module, input, output_size))
    asked = _autocast.dtype()
    if module.padding_mode == "zeros" and not supports(input, weight, asked):
        return torch.nn.functional.conv_transpose3d(
            input,
            weight,
            bias,
            module.stride,
            module.padding,  # type: ignore[arg-type]
            output_padding,
            module.groups,
            module.dilation,
        )
    output = _packed.run(module, input, weight, bias, output_padding, asked)
    if output is not None:
        return output
    result: Tensor = _operators.forward(
        _autocast.cast(input, asked),
        _autocast.cast(weight, asked),
        _autocast.cast_optional(bias, asked),
        list(module.stride),
        list(module.padding),
        list(output_padding),
        module.groups,
        list(module.dilation),
        module.padding_mode,
    )
    return result


def padding_for(
    module: torch.nn.ConvTranspose3d, input: Tensor, output_size: Sequence[int]
) -> List[int]:
    """The output_padding that gives this output size."""
    sizes = list(output_size)
    check_input_rank(input.shape)
    if len(sizes) == input.dim():
        sizes = sizes[-3:]
    if len(sizes) != 3:
        raise ShapeError(
            f"output_size: expected 3 or {input.dim()} values (D, H, W last), got {len(sizes)}"
        )
    smallest = _operators.output_size(
        input.shape[-3:],
        module.kernel_size,
        module.stride,
        module.padding,  # type: ignore[arg-type]
        (0, 0, 0),
        module.dilation,
    )
    found = [wanted - least for wanted, least in zip(sizes, smallest)]
    for axis, name in enumerate(("depth", "height", "width")):
        limit = max(module.stride[axis], module.dilation[axis]) - 1
        if not 0 <= found[axis] <= limit:
            raise ShapeError(
                f"output_size: {sizes[axis]} in {name} can't be reached; legal: "
                f"{smallest[axis]} to {smallest[axis] + limit} (output_padding 0 to {limit})"
            )
    return found
