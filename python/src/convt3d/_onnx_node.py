"""One ConvTranspose node: its attributes, and what they make of the layer's arguments.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import onnx

from ._arrays import Array, code_of, empty
from ._functional import conv_transpose3d
from ._library import DTYPES, ArgumentError, DtypeError, ShapeError

_AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
_LISTS = ("dilations", "kernel_shape", "output_padding", "output_shape", "pads", "strides")
_ATTRIBUTES = {
    "auto_pad": onnx.AttributeProto.STRING,
    "group": onnx.AttributeProto.INT,
    **dict.fromkeys(_LISTS, onnx.AttributeProto.INTS),
}


class _Axis(NamedTuple):
    """The layer's arguments along one axis, of which the default is no axis at all."""

    stride: int = 1
    dilation: int = 1
    padding: Tuple[int, int] = (0, 0)
    output_padding: int = 0
    beyond: int = 0  # what is asked for beyond the layer's own output
    size: int = 1  # of the whole output


class _Attributes(Dict[str, Any]):
    """What a node gives, checked for names and types."""

    def __init__(self, node: Any):
        for attribute in node.attribute:
            wanted = _ATTRIBUTES.get(attribute.name)
            if wanted is None:
                raise ArgumentError(
                    f"attribute {attribute.name!r} is unknown; legal: {', '.join(_ATTRIBUTES)}"
                )
            if attribute.type != wanted or attribute.ref_attr_name:
                kind = onnx.AttributeProto.AttributeType.Name(wanted)
                raise ArgumentError(f"{attribute.name} is not a value of type {kind}")
            self[attribute.name] = onnx.helper.get_attribute_value(attribute)

    def integers(self, name: str, axes: int, default: int, least: int) -> List[int]:
        count = 2 * axes if name == "pads" else axes
        values: List[int] = list(self.get(name, [default] * count))
        if len(values) != count:
            raise ArgumentError(
                f"{name} is {values}, but must be {count} integers for {axes} spatial axes"
            )
        for i, value in enumerate(values):
            if value < least:
                raise ArgumentError(
                    f"{name} is {value} on spatial axis {i % axes}, but must be at least {least}"
                )
        return values

    def auto_pad(self) -> str:
        value = str(self.get("auto_pad", b"NOTSET"), "utf-8", "replace")
        if value not in _AUTO_PADS:
            raise ArgumentError(f"auto_pad is {value!r}; legal: {', '.join(_AUTO_PADS)}")
        if value != "NOTSET" and "pads" in self:
            raise ArgumentError(
                f"pads is {list(self['pads'])} and auto_pad {value!r}; "
                "legal: pads with auto_pad NOTSET, or no pads"
            )
        return value


def _check_arrays(group: int, x: Array, w: Array, b: Array | None) -> None:
    for name, array in (("X", x), ("W", w), ("B", b)):
        if array is not None and (code_of(array.dtype) is None or array.dtype != x.dtype):
            raise DtypeError(
                f"{name} is {array.dtype} (X is {x.dtype}); legal: {DTYPES}, one for all"
            )
    if not 3 <= x.ndim <= 5:
        raise ShapeError(f"X has shape {x.shape}; legal: (N, C, D1, ...) of 1 to 3 spatial axes")
    channels = x.shape[1]
    if w.ndim != x.ndim or w.shape[0] != channels:
        raise ShapeError(
            f"W has shape {w.shape}; legal for X of shape {x.shape}: "
            f"({channels}, M/group, k1, ...) of {x.ndim} axes"
        )
    if group < 1 or channels % group:
        raise ShapeError(f"group is {group}, but must be a divisor of X's {channels} channels")
    if b is not None and b.shape != (w.shape[1] * group,):
        raise ShapeError(f"B has shape {b.shape}, but must be ({w.shape[1] * group},)")


def _split(auto_pad: str, total: int) -> Tuple[Tuple[int, int], int]:
    """Pads (begin, end) for a total padding, and what lies beyond where it is negative.

    The odd one goes to the end for SAME_UPPER, else to the beginning, as the attribute's text
    and the formula since opset 11 say; opset 1's formula says the opposite of its text.

    A negative total, halved, would be negative pads, which no text allows.  It means here
    that the output goes on at its end, as with output_padding and as in ONNX Runtime.
    Elsewhere: onnx's reference evaluator halves it for SAME_*, rounding down, so that the
    output begins before the first tap; where SAME_* meets a kernel smaller than the stride,
    ONNX Runtime ends the output at the last tap, smaller than input size * stride; and where
    output_shape goes a stride or more beyond the last tap, both refuse it.
    """
    if total < 0:
        return (0, 0), -total
    small, large = total // 2, total - total // 2
    return ((small, large) if auto_pad == "SAME_UPPER" else (large, small)), 0


def _axes(attributes: _Attributes, input_size: Sequence[int], kernel: Sequence[int]) -> List[_Axis]:
    count = len(kernel)
    kernel_shape = attributes.get("kernel_shape", kernel)
    if list(kernel_shape) != list(kernel):
        raise ShapeError(f"kernel_shape is {list(kernel_shape)}, but W's kernel is {list(kernel)}")
    auto_pad = attributes.auto_pad()
    strides = attributes.integers("strides", count, 1, 1)
    dilations = attributes.integers("dilations", count, 1, 1)
    paddings = attributes.integers("output_padding", count, 0, 0)
    pads = attributes.integers("pads", count, 0, 0)
    wanted: Sequence[int] | None = None
    if "output_shape" in attributes:  # pads are ignored then
        wanted = attributes.integers("output_shape", count, 1, 1)
    elif auto_pad.startswith("SAME"):
        wanted = [size * stride for size, stride in zip(input_size, strides)]
    axes = []
    for i, (stride, dilation, more) in enumerate(zip(strides, dilations, paddings)):
        most = max(stride, dilation) - 1
        if more > most:
            raise ArgumentError(
                f"output_padding is {more} on spatial axis {i}, but must be 0 to {most}: "
                f"less than the larger of stride {stride} and dilation {dilation}"
            )
        full = stride * (input_size[i] - 1) + more + (kernel[i] - 1) * dilation + 1
        padding, beyond = (pads[i], pads[count + i]), 0
        if wanted is not None:
            padding, beyond = _split(auto_pad, full - wanted[i])
        size = full - sum(padding) + beyond
        if size < 1:
            raise ShapeError(
                f"the output's size on spatial axis {i} would be {full} - pads "
                f"{padding[0]} and {padding[1]} = {size}, but must be at least 1"
            )
        # The layer itself goes on for as long as output_padding is legal.
        own = min(beyond, most - more)
        axes.append(_Axis(stride, dilation, padding, more + own, beyond - own, size))
    return axes


def conv_transpose(node: Any, x: Any, w: Any, b: Any = None) -> Array:
    attributes = _Attributes(node)
    group = attributes.get("group", 1)
    _check_arrays(group, x, w, b)
    # One and two axes are the last of three, the one that the layer is fastest along.
    missing = 5 - x.ndim
    view = (slice(None), slice(None)) + (None,) * missing
    axes = [_Axis()] * missing + _axes(attributes, x.shape[2:], w.shape[2:])
    out = part = None  # the layer's own output, where that isn't the whole
    if any(axis.beyond for axis in axes):
        shape = (x.shape[0], w.shape[1] * group, *(axis.size for axis in axes))
        out = part = empty(shape, x.dtype)
        for i, axis in enumerate(axes):
            others, end = (slice(None),) * (2 + i), axis.size - axis.beyond
            out[others + (slice(end, None),)] = 0 if b is None else b[:, None, None, None]
            part = part[others + (slice(end),)]
    result = conv_transpose3d(
        x[view],
        w[view],
        b,
        stride=[axis.stride for axis in axes],
        padding=[axis.padding for axis in axes],
        output_padding=[axis.output_padding for axis in axes],
        groups=group,
        dilation=[axis.dilation for axis in axes],
        out=part,
    )
    whole = result if out is None else out
    return whole.reshape(whole.shape[:2] + whole.shape[2 + missing :])
