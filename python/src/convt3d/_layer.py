"""The layer's arguments, and the plans that are kept for them.

Everything here is about shapes; no memory of a tensor is looked at.  NumPy's and
PyTorch's front ends describe their tensors as bytes, pack_tensor(), and share the rest.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import functools
import operator
import struct
from ctypes import byref, c_double, c_int64, c_void_p, create_string_buffer
from typing import Any, Callable, NamedTuple, Sequence, Tuple, TypeVar, Union

from ._library import (
    ACTIVATIONS,
    FLOAT32,
    FORWARD,
    MAX_THREADS,
    PADDING_MODES,
    PRECISIONS,
    ArgumentError,
    CError,
    Options,
    Problem,
    RangeError,
    ShapeError,
    Threads,
    failure,
    library,
    own_threads,
)

Triple = Tuple[int, int, int]
Ints = Union[int, Sequence[int]]
Padding = Union[int, Sequence[int], Sequence[Sequence[int]]]

# Problems whose plans are kept; a plan is a few kilobytes.
CACHED_PLANS = 256


# ---- Arguments -------------------------------------------------------------------


def integer(name: str, value: Any) -> int:
    """An int of 64 bits; anything that is one (NumPy's), but no bool and no float."""
    if type(value) is not int:
        if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
            raise TypeError(f"{name}: expected an integer, got {value!r}")
        try:
            value = operator.index(value)
        except TypeError:
            raise TypeError(
                f"{name}: expected an integer, got {value!r} of type {type(value).__name__}"
            ) from None
    if not -(2**63) <= value < 2**63:
        raise RangeError(f"{name}: {value} needs more than 64 bits")
    return int(value)


def real(name: str, value: Any) -> float:
    try:
        return c_double(value).value + 0.0  # -0.0 is 0.0, as it is to the cache of plans
    except TypeError:
        raise TypeError(f"{name}: expected a number, got {value!r}") from None
    except OverflowError as error:
        raise RangeError(f"{name}: {error}") from None


def _items(value: Any) -> tuple[Any, ...] | None:
    """The items of what has some; a string has none that could be meant."""
    if type(value) is int or isinstance(value, (str, bytes)):
        return None
    try:
        return tuple(value)
    except TypeError:
        return None


def triple(name: str, value: Any) -> Triple:
    """One integer for all three axes, or three: depth, height, width."""
    values = _items(value)
    if values is None:
        values = (value,)
    if len(values) == 1:
        values *= 3
    if len(values) != 3:
        raise ArgumentError(
            f"{name}: expected 1 or 3 integers (depth, height, width), got {len(values)}: {value!r}"
        )
    first, second, third = values
    return (integer(name, first), integer(name, second), integer(name, third))


def paddings(value: Any) -> tuple[Triple, Triple]:
    """Padding before and after: one integer, three, or three pairs (before, after)."""
    values = _items(value)
    pairs = [pair for pair in map(_items, values or ()) if pair is not None]
    if values is None or len(pairs) < len(values) or not pairs:
        both = triple("padding", value if values is None else values)
        return both, both
    if len(pairs) != 3 or any(len(pair) != 2 for pair in pairs):
        raise ArgumentError(
            f"padding: expected 3 pairs (before, after), one an axis, got {value!r}"
        )
    before, after = zip(*pairs)
    return triple("padding", before), triple("padding", after)


def choice(name: str, value: Any, legal: dict[str, int]) -> int:
    try:
        return legal[value]
    except (KeyError, TypeError):
        raise ArgumentError(f"{name}: {value!r} is not one of {', '.join(legal)}") from None


class Layer(NamedTuple):
    """The arguments of the layer, and how it is computed, checked for their types; hashable."""

    stride: Triple = (1, 1, 1)
    padding_before: Triple = (0, 0, 0)
    padding_after: Triple = (0, 0, 0)
    output_padding: Triple = (0, 0, 0)
    output_size: Triple | None = None
    groups: int = 1
    dilation: Triple = (1, 1, 1)
    padding_mode: int = 0
    activation: int = 0
    negative_slope: float = 0.01
    precision: int = 0


_Function = TypeVar("_Function", bound=Callable[..., Any])


def _remembered(function: _Function) -> _Function:
    """Knows the results of arguments that it has seen.  Those that are equal, as 1, 1.0 and
    True, are told apart by their types, but not within a tuple."""
    known = functools.lru_cache(maxsize=4 * CACHED_PLANS, typed=True)(function)

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        for value in (*arguments, *named.values()):
            if isinstance(value, tuple) and {*map(type, value)} != {int}:
                return function(*arguments, **named)
        try:
            return known(*arguments, **named)
        except TypeError:  # an argument without a hash; or of a wrong type, which is said here
            return function(*arguments, **named)

    return call  # type: ignore[return-value]


@_remembered
def make_layer(
    stride: Ints,
    padding: Padding,
    output_padding: Ints,
    groups: int,
    dilation: Ints,
    padding_mode: str,
    output_size: Sequence[int] | None = None,
    activation: str = "none",
    negative_slope: float = 0.01,
    precision: str = "highest",
) -> Layer:
    """The arguments of conv_transpose3d(), checked."""
    before, after = paddings(padding)
    return Layer(
        triple("stride", stride),
        before,
        after,
        triple("output_padding", output_padding),
        None if output_size is None else triple("output_size", output_size),
        integer("groups", groups),
        triple("dilation", dilation),
        choice("padding_mode", padding_mode, PADDING_MODES),
        choice("activation", activation, ACTIVATIONS),
        real("negative_slope", negative_slope),
        choice("precision", precision, PRECISIONS),
    )


def check_input_rank(shape: Sequence[int]) -> None:
    if len(shape) not in (4, 5):
        raise ShapeError(
            f"input: shape {tuple(shape)} has {len(shape)} axes; "
            "legal: 5 (N, in_channels, D, H, W), or 4 without the batch"
        )


def _check_shapes(input_shape: tuple[int, ...], weight_shape: tuple[int, ...], groups: int) -> None:
    check_input_rank(input_shape)
    if len(weight_shape) != 5:
        raise ShapeError(
            f"weight: shape {weight_shape} has {len(weight_shape)} axes; "
            "legal: 5 (in_channels, out_channels/groups, kD, kH, kW)"
        )
    channels = input_shape[-4]
    if channels != weight_shape[0]:
        hint = ""
        if groups == 1 and channels == weight_shape[1]:
            hint = "; axes 0 and 1 look swapped, as in a weight of Conv3d"
        raise ShapeError(
            f"weight: axis 0 is {weight_shape[0]}, but must be in_channels, {channels} "
            f"(the shape is (in_channels, out_channels/groups, kD, kH, kW)){hint}"
        )
    if groups < 1:
        raise ArgumentError(f"groups is {groups}, but must be at least 1")


def make_problem(
    layer: Layer, dtype: int, input_shape: tuple[int, ...], weight_shape: tuple[int, ...]
) -> tuple[Problem, tuple[int, ...]]:
    """The C library's problem, output_size resolved, and its output's shape."""
    _check_shapes(input_shape, weight_shape, layer.groups)
    problem, error = Problem(), CError()
    library.convt3d_problem_init(byref(problem))
    problem.dtype, problem.padding_mode = dtype, layer.padding_mode
    problem.batch = input_shape[0] if len(input_shape) == 5 else 1
    problem.groups, problem.in_channels = layer.groups, weight_shape[0]
    problem.out_channels = integer(
        f"out_channels = {weight_shape[1]} * groups", weight_shape[1] * layer.groups
    )
    problem.input_size[:] = input_shape[-3:]
    problem.kernel_size[:] = weight_shape[2:]
    problem.stride[:], problem.dilation[:] = layer.stride, layer.dilation
    problem.padding_before[:], problem.padding_after[:] = layer.padding_before, layer.padding_after
    problem.output_padding[:] = layer.output_padding
    if layer.output_size is not None:
        wanted = (c_int64 * 3)(*layer.output_size)
        status = library.convt3d_problem_set_output_size(byref(problem), wanted, byref(error))
        if status:
            raise failure(status, error)
    shape = (c_int64 * 5)()
    status = library.convt3d_problem_output_shape(byref(problem), shape, byref(error))
    if status:
        raise failure(status, error)
    return problem, tuple(shape)[5 - len(input_shape) :]


# ---- Threads ---------------------------------------------------------------------

_threads = 0


def set_num_threads(threads: int | None) -> None:
    """Sets how many threads calls use from now on; results are the same for any number.

    Args:
        threads: 1 to 1024; None for the default, which is $CONVT3D_NUM_THREADS, else
            the CPUs that this process may use.
    """
    global _threads
    number = 0 if threads is None else integer("threads", threads)
    if threads is not None and not 1 <= number <= MAX_THREADS:
        raise ArgumentError(f"threads: {threads} is not in the legal range 1 to {MAX_THREADS}")
    _threads = number


def get_num_threads() -> int:
    """How many threads a call may use; a small one uses fewer."""
    if _threads:
        return _threads
    ones = (1, 1, 1, 1, 1)
    plan = make_plan(Layer(), FORWARD, FLOAT32, ones, ones, 0)
    return int(library.convt3d_plan_threads(plan.handle))


def threads_asked() -> int:
    """What set_num_threads() set; 0 for the default."""
    return _threads


# ---- Plans -----------------------------------------------------------------------


class Plan:
    """One direction of one problem.  Freed with its last user, which may be a thread
    that is in the middle of a run."""

    def __init__(
        self,
        layer: Layer,
        direction: int,
        dtype: int,
        input_shape: tuple[int, ...],
        weight_shape: tuple[int, ...],
        threads: int,
    ):
        self.handle = c_void_p()
        self.problem, self.output_shape = make_problem(layer, dtype, input_shape, weight_shape)
        options, error = Options(), CError()
        library.convt3d_options_init(byref(options))
        options.threads, options.precision = threads, layer.precision
        if direction == FORWARD:
            options.activation = layer.activation
            options.negative_slope = layer.negative_slope
        status = library.convt3d_plan_create(
            byref(self.problem), direction, byref(options), byref(self.handle), byref(error)
        )
        if status:
            raise failure(status, error)
        # Bytes that a run needs beside its tensors, at most.
        self.scratch_size = int(library.convt3d_plan_scratch_size(self.handle, 0, 0))

    def __del__(self) -> None:
        # At the interpreter's end, the library may be gone before the last plan.
        if self.handle and library is not None:
            library.convt3d_plan_free(self.handle)

    def __str__(self) -> str:
        length = library.convt3d_plan_describe(self.handle, None, 0)
        text = create_string_buffer(length + 1)
        library.convt3d_plan_describe(self.handle, text, length + 1)
        return text.value.decode()


make_plan = functools.lru_cache(maxsize=CACHED_PLANS)(Plan)


class Weights:
    """A weight tensor in the layout that a plan wants.  It never changes."""

    def __init__(self, plan: Plan, weight: bytes):
        self.handle, error = c_void_p(), CError()
        status = library.convt3d_weights_pack(plan.handle, weight, byref(self.handle), byref(error))
        if status:
            raise failure(status, error)

    def __del__(self) -> None:
        if self.handle and library is not None:
            library.convt3d_weights_free(self.handle)


# ---- Tensors and runs ------------------------------------------------------------

# What follows the pointer in a convt3d_tensor, by rank: dtype, rank, size[5], stride[5].
_FORMATS = {
    rank: struct.Struct(f"=ii{rank}q{8 * (5 - rank)}x{rank}q{8 * (5 - rank)}x").pack
    for rank in range(1, 6)
}
_POINTER = struct.Struct("@P").pack


@functools.lru_cache(maxsize=4 * CACHED_PLANS)
def _pack_layout(name: str, dtype: int, shape: Sequence[int], strides: Sequence[int]) -> bytes:
    rank = len(shape)
    if rank not in _FORMATS:
        raise ShapeError(f"{name}: shape {tuple(shape)} has {rank} axes; legal: 1 to 5")
    return _FORMATS[rank](dtype, rank, *shape, *strides)


def pack_tensor(
    name: str, pointer: int, dtype: int, shape: Sequence[int], strides: Sequence[int]
) -> bytes:
    """A convt3d_tensor.  'strides' count elements; both sequences are hashable."""
    return _POINTER(pointer) + _pack_layout(name, dtype, shape, strides)


def run_forward(
    plan: Plan,
    input: bytes,
    weight: bytes | None,
    bias: bytes | None,
    output: bytes,
    packed: Weights | None = None,
    threads: Threads = own_threads,
) -> None:
    handle = packed.handle if packed is not None else None
    function, size = library.convt3d_forward, plan.scratch_size
    threads.call(function, size, plan.handle, input, weight, handle, bias, output)


def run_backward_input(
    plan: Plan,
    grad_output: bytes,
    weight: bytes,
    grad_input: bytes,
    write: int = 0,
    threads: Threads = own_threads,
) -> None:
    function, size = library.convt3d_backward_input, plan.scratch_size
    threads.call(function, size, plan.handle, grad_output, weight, None, grad_input, write)


def run_backward_weight(
    plan: Plan,
    input: bytes | None,
    grad_output: bytes,
    grad_weight: bytes | None,
    grad_bias: bytes | None,
    write: int = 0,
    threads: Threads = own_threads,
) -> None:
    threads.call(
        library.convt3d_backward_weight,
        plan.scratch_size,
        plan.handle,
        input,
        grad_output,
        grad_weight,
        grad_bias,
        write,
    )
