"""Arrays: NumPy's, and whatever shows its memory by the buffer protocol or DLPack.

Nothing is copied here; what can't be read in place is refused, with what would help.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import functools
import math
import mmap
from typing import Any, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ._dlpack import from_dlpack
from ._layer import pack_tensor
from ._library import (
    BFLOAT16,
    DTYPES,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    HUGE_PAGE,
    ArgumentError,
    DtypeError,
    NoMemoryError,
    ShapeError,
)

Array = NDArray[Any]

_CODES: dict[Any, int] = {
    np.dtype(np.float32): FLOAT32,
    np.dtype(np.float64): FLOAT64,
    np.dtype(np.float16): FLOAT16,
}
_FLOAT32 = np.dtype(np.float32)

# Below, a fresh mapping costs more than its page faults.
_WORTH_HUGE_PAGES = 2 * HUGE_PAGE


def as_array(name: str, value: Any) -> Array:
    """The array itself, or a NumPy view of the same memory."""
    if isinstance(value, np.ndarray):
        return value
    has_interface = hasattr(value, "__array_interface__")
    try:
        if hasattr(value, "__dlpack__") and not has_interface:
            # Of NumPy's two doors to foreign memory, __array__ (PyTorch's) keeps what
            # from_dlpack() forgot until NumPy 2.1: that the memory may be written.
            is_torch = type(value).__module__.split(".")[0] == "torch"
            if is_torch and str(value.dtype) != "torch.bfloat16":
                return np.asarray(value)
            return from_dlpack(name, value)
        try:
            return np.asarray(memoryview(value))
        except TypeError:
            if has_interface:
                return np.asarray(value)
    except DtypeError:
        raise
    except (RuntimeError, BufferError, TypeError, ValueError) as error:
        raise ArgumentError(f"{name}: can't be read in place: {error}") from error
    raise TypeError(
        f"{name}: expected an array (NumPy's, or one with the buffer protocol or DLPack), "
        f"got {type(value).__name__}"
    )


def code_of(dtype: Any) -> int | None:
    """The C library's number of a NumPy dtype; None for those that it doesn't have.

    bfloat16 is known by its name: it is a type of ml_dtypes, not of NumPy."""
    code = _CODES.get(dtype)
    if code is None and dtype.name == "bfloat16" and dtype.itemsize == 2 and dtype.isnative:
        code = _CODES[dtype] = BFLOAT16
    return code


def dtype_code(name: str, array: Array) -> int:
    code = code_of(array.dtype)
    if code is None:
        raise DtypeError(f"{name}: dtype {array.dtype} is not one of {DTYPES}")
    return code


def wider(dtype: Any) -> Any:
    """What bias and its gradient and that of the weight may be instead, where x is of this
    dtype: float32 for those of 16 bits, else None."""
    return _FLOAT32 if dtype.itemsize == 2 else None


def gradient_dtype(name: str, asked: Any, dtype: Any) -> Any:
    """The dtype that is asked for, if it is one for gradients where x is of 'dtype'."""
    if asked is None:
        return dtype
    try:
        found = np.dtype(asked)
    except TypeError as error:
        raise TypeError(f"{name}: expected a dtype, got {asked!r}") from error
    _check_dtype(f"{name}:", found, dtype, wider(dtype))
    return found


def _check_dtype(what: str, found: Any, dtype: Any, other: Any) -> None:
    if found != dtype and (other is None or found != other):
        legal = f"neither {dtype}, the dtype of x, nor {other}"
        legal = f"not {dtype}, the dtype of x" if other is None else legal
        raise DtypeError(f"{what} {found} is {legal}")


@functools.lru_cache(maxsize=1024)
def _in_elements(
    name: str, itemsize: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[int, ...]:
    # An axis of length 1 may have any stride, which is never stepped over.
    if any(stride % itemsize for stride, length in zip(strides, shape) if length > 1):
        raise ArgumentError(
            f"{name}: strides {strides} are not in whole elements of {itemsize} bytes; "
            "numpy.ascontiguousarray() makes a copy whose are"
        )
    return tuple(stride // itemsize for stride in strides)


def pack(name: str, array: Array, dtype: Any, other: Any = None) -> bytes:
    """A convt3d_tensor of the array's memory; 'dtype' is that of x, and what this one must be
    of, unless it is of the other."""
    _check_dtype(f"{name}: dtype", array.dtype, dtype, other)
    code, itemsize = dtype_code(name, array), array.itemsize
    pointer = array.__array_interface__["data"][0]
    if pointer % itemsize:
        raise ArgumentError(
            f"{name}: its memory is not aligned to elements of {itemsize} bytes; "
            "numpy.ascontiguousarray() makes a copy that is"
        )
    strides = _in_elements(name, itemsize, array.shape, array.strides)
    return pack_tensor(name, pointer, code, array.shape, strides)


def empty(shape: Sequence[int], dtype: Any) -> Array:
    """A new array in C order; a large one begins a huge page and lies on such."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < _WORTH_HUGE_PAGES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.empty(shape, dtype)
    try:
        memory = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise NoMemoryError(f"no memory for {size} bytes, shape {tuple(shape)}") from error
    try:
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError:
        pass  # a kernel without huge pages
    raw = np.frombuffer(memory, np.uint8)
    start = -raw.__array_interface__["data"][0] % HUGE_PAGE
    array: Array = raw[start : start + size].view(dtype).reshape(shape)
    return array


def check_shape(name: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if len(shape) != len(wanted):
        raise ShapeError(f"{name}: shape {shape} has {len(shape)} axes, but must be {wanted}")
    for axis, (length, right) in enumerate(zip(shape, wanted)):
        if length != right:
            raise ShapeError(
                f"{name}: axis {axis} is {length}, but must be {right} (the shape is {wanted})"
            )


def _check_apart(name: str, array: Array, others: Iterable[tuple[str, Array]]) -> None:
    """By ranges of bytes, as the library does it; which sees one call at a time, and of a
    call only its own tensors."""
    span = array.itemsize
    steps = () if array.flags.c_contiguous else zip(map(abs, array.strides), array.shape)
    for stride, length in sorted(step for step in steps if step[1] != 1):
        if stride < span and array.size:
            raise ArgumentError(
                f"{name}: overlaps itself: a stride of {stride} bytes steps over fewer than "
                f"the {span} that its smaller axes span"
            )
        span += (length - 1) * stride
    for other, memory in others:
        if np.may_share_memory(array, memory):
            raise ArgumentError(f"{name}: overlaps {other} in memory")


def output(
    name: str,
    given: Any,
    shape: Sequence[int],
    dtype: Any,
    others: Iterable[tuple[str, Array]],
    new: Any = None,
    other: Any = None,
) -> tuple[Array, bytes]:
    """The array to write to, a new one if none is given, and its convt3d_tensor.

    A given one is checked completely, against the others that a call reads or writes; it is
    of 'dtype' or, if there is one, the other dtype.  A new one is of the dtype 'new'."""
    if given is None:
        array = empty(shape, dtype if new is None else new)
        return array, pack(name, array, dtype, other)
    array = as_array(name, given)
    if not array.flags.writeable:
        raise ArgumentError(f"{name}: the memory is read-only")
    packed = pack(name, array, dtype, other)
    check_shape(name, array.shape, tuple(shape))
    _check_apart(name, array, others)
    return array, packed
