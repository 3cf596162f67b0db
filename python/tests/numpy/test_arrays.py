"""Arrays of any memory layout and any kind: the same bytes, read and written in place.
SPDX-License-Identifier: MIT
"""

import array as array_module
import ctypes
import mmap
import tracemalloc

import numpy as np
import problems
import pytest
from layers import all_bytes, arguments, plain

import convt3d

LAYER = plain(batch=2, in_channels=4, out_channels=6, groups=2, input_size=(3, 4, 9))
LAYER.update(kernel_size=(2, 3, 3), stride=(2, 1, 3), padding=(1, 0, 0, 1, 2, 2))
NAMED = arguments(LAYER)
OPERANDS = ("x", "weight", "bias", "grad_output")


def operands(dtype="float32", seed=1):
    """Numbers whose sums are rounded, so that another order of additions would show."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in problems.shapes(LAYER)]


def compute(x, weight, bias, grad_output, out=(None,) * 4):
    y = convt3d.conv_transpose3d(x, weight, bias, **NAMED, out=out[0])
    return (y, *convt3d.conv_transpose3d_backward(grad_output, x, weight, **NAMED, out=out[1:]))


def into(view, array):
    """The array's values in memory that lies otherwise."""
    view[...] = array
    return view


def spaced(array, step):
    """Every 'step'th element on each axis of something larger; backwards if negative."""
    large = np.full([(n + 1) * abs(step) for n in array.shape], np.nan, array.dtype)
    return large[tuple(slice(-1 if step < 0 else 1, None, step) for _ in array.shape)]


def cut(array, step):
    return spaced(array, step)[tuple(slice(n) for n in array.shape)]


def permuted(array, order):
    empty = np.empty([array.shape[i] for i in order], array.dtype)
    return empty.transpose(np.argsort(order))


LAYOUTS = {
    "column-major": lambda a: np.empty_like(a, order="F"),
    "channels last": lambda a: permuted(a, [0, *range(2, a.ndim), 1][: a.ndim]),
    "width first": lambda a: permuted(a, [a.ndim - 1, *range(a.ndim - 1)]),
    "every second": lambda a: cut(a, 2),
    "every third, backwards": lambda a: cut(a, -3),
    "backwards": lambda a: np.empty_like(a)[(slice(None, None, -1),) * a.ndim],
    "a part of a larger one": lambda a: cut(a, 1),
    "one element off": lambda a: np.empty(a.size + 1, a.dtype)[1:].reshape(a.shape),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("which", [*OPERANDS, "all"])
def test_inputs_of_any_layout(which, layout, dtype):
    given = operands(dtype)
    wanted = all_bytes(compute(*given))
    views = [
        into(LAYOUTS[layout](a), a) if which in ("all", name) else a
        for name, a in zip(OPERANDS, given)
    ]
    if which == "all" and "off" not in layout:
        assert any(a.strides != b.strides for a, b in zip(views, given))
    assert all_bytes(compute(*views)) == wanted


@pytest.mark.parametrize("layout", LAYOUTS)
def test_outputs_of_any_layout(layout):
    """The results appear in the view's memory, and nothing around it is touched."""
    given = operands()
    fresh = compute(*given)
    outs = [LAYOUTS[layout](a) for a in fresh]
    memory = [a if a.base is None else a.base for a in outs]
    for whole in memory:
        whole[...] = 77
    found = compute(*given, out=outs)
    for a, b in zip(found, outs):
        assert a is b
    assert all_bytes(outs) == all_bytes(fresh)
    for whole, view in zip(memory, outs):
        view[...] = 77
        assert np.all(whole == 77)


def test_strides_of_zero():
    x, weight, bias, grad = operands()
    for axis in range(5):
        arrays = [a[(slice(None),) * axis + (slice(1),)] for a in (x, weight, grad)]
        views = [np.broadcast_to(a, b.shape) for a, b in zip(arrays, (x, weight, grad))]
        assert all(a.strides[axis] == 0 for a in views)
        found = compute(views[0], views[1], np.broadcast_to(bias[:1], bias.shape), views[2])
        dense = [np.ascontiguousarray(a) for a in views]
        wanted = compute(dense[0], dense[1], np.full_like(bias, bias[0]), dense[2])
        assert all_bytes(found) == all_bytes(wanted)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_multiple_of_the_element_size_is_aligned(dtype):
    given = operands(dtype)
    wanted = all_bytes(compute(*given))
    addresses = set()
    for offset in range(17):
        moved = []
        for a in given + [np.frombuffer(b, dtype).reshape(shape) for shape, _, b in wanted]:
            large = np.empty(a.size + 17, a.dtype)[offset : offset + a.size]
            moved.append(into(large.reshape(a.shape), a))
            addresses.add(moved[-1].__array_interface__["data"][0] % 64)
        found = compute(*moved[:4], out=moved[4:])
        assert all_bytes(found) == wanted, offset
    assert len(addresses) >= 64 // np.dtype(dtype).itemsize


def test_axes_of_length_one_may_have_any_stride():
    """NumPy doesn't care about them, and a field of records has odd ones."""
    records = np.zeros((1, 1, 1, 1, 1), [("a", np.float32), ("b", np.int16)])
    records["a"] = 3
    field = records["a"]
    assert field.strides[-1] % field.itemsize
    assert convt3d.conv_transpose3d(field, field, field[0, 0, 0, 0]) == 12


def far_apart(array, strides):
    """A view of so many gigabytes, nearly all of which are never touched."""
    no_reserve = 0x4000  # Linux's MAP_NORESERVE
    size = 4 * (1 + sum((n - 1) * step for n, step in zip(array.shape, strides)))
    try:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve)
    except OSError:
        pytest.skip("no such range of addresses is to be had")
    first = np.frombuffer(memory, np.float32, 1)
    return np.lib.stride_tricks.as_strided(first, array.shape, [4 * step for step in strides])


def test_strides_beyond_32_bits():
    x, weight, bias, grad = operands()
    wanted = compute(x, weight, bias, grad)
    views = [far_apart(a, [2**32 + 3, 2**29 + 1, 2**26, 33, 1]) for a in (x, grad)]
    into(views[0], x)
    y = convt3d.conv_transpose3d(views[0], weight, bias, **NAMED, out=views[1])
    assert y.tobytes() == wanted[0].tobytes()
    into(views[1], grad)
    found = convt3d.conv_transpose3d_backward(views[1], views[0], weight, **NAMED)
    assert all_bytes(found) == all_bytes(wanted[1:])


def test_nothing_is_copied():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((24, 25, 40, 8), np.float32).transpose(3, 0, 1, 2)[:, ::-1, :, ::2]
    weight = rng.standard_normal((3, 3, 3, 20, 8), np.float32).T
    wanted = convt3d.conv_transpose3d(x.copy(), weight.copy(), stride=2)
    out = permuted(wanted, (1, 2, 3, 0))
    tracemalloc.start()
    try:
        y = convt3d.conv_transpose3d(x, weight, stride=2, out=out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert y.tobytes() == wanted.tobytes()
    assert peak < 10_000 < weight.nbytes


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_outputs_begin_huge_pages(dtype):
    x = np.random.default_rng(4).integers(-9, 10, (2, 100, 100, 60)).astype(dtype)
    one = np.ones((2, 3, 1, 1, 1), dtype)
    y = convt3d.conv_transpose3d(x, one, stride=(1, 1, 2))
    grad_x, grad_weight, _ = convt3d.conv_transpose3d_backward(y, x, one, stride=(1, 1, 2))
    for large in (y, grad_x):
        assert large.nbytes > 4 << 20 and address(large) % (2 << 20) == 0
        assert large.flags.c_contiguous and large.flags.writeable and large.dtype == dtype
    assert np.all(y[..., ::2] == x.sum(0)) and not np.any(y[..., 1::2])
    assert np.all(grad_x == 3 * x.sum(0))
    assert grad_weight.nbytes < 4 << 20 and grad_weight.shape == one.shape


# ---- Other kinds of arrays -----------------------------------------------------------


class OnlyDLPack:
    """An array of some library that has nothing but the DLPack protocol."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **named):
        return self.array.__dlpack__(**named)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class OnlyInterface:
    """An array of some library that has nothing but NumPy's protocol."""

    def __init__(self, array):
        self.array = array
        self.__array_interface__ = array.__array_interface__


def from_array_module(a):
    flat = array_module.array({4: "f", 8: "d"}[a.itemsize], a.tobytes())
    return memoryview(flat).cast("B").cast(flat.typecode, a.shape)


def from_ctypes(a):
    kind = {4: ctypes.c_float, 8: ctypes.c_double}[a.itemsize]
    for n in reversed(a.shape):
        kind = kind * n
    return kind.from_buffer_copy(a.tobytes())


def from_bytes(memory, a):
    memory[:] = a.tobytes()
    return memoryview(memory).cast("fd"[a.itemsize == 8], a.shape)


KINDS = {
    "array.array": from_array_module,
    "ctypes": from_ctypes,
    "bytearray": lambda a: from_bytes(bytearray(a.nbytes), a),
    "mmap": lambda a: from_bytes(mmap.mmap(-1, a.nbytes), a),
    "memoryview of NumPy": lambda a: memoryview(np.asfortranarray(a)),
    "DLPack": lambda a: OnlyDLPack(np.asfortranarray(a)),
    "array interface": lambda a: OnlyInterface(np.asfortranarray(a)),
    "memmap": None,
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_shows_its_memory(kind, dtype, tmp_path):
    def convert(a):
        if kind != "memmap":
            return KINDS[kind](a)
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        return into(np.memmap(path, a.dtype, "w+", shape=a.shape), a)

    given = operands(dtype)
    wanted = compute(*given)
    inputs = [convert(a) for a in given]
    assert all_bytes(compute(*inputs)) == all_bytes(wanted)
    outs = [convert(np.full_like(a, np.nan)) for a in wanted]
    if kind == "DLPack" and np.lib.NumpyVersion(np.__version__) < "2.1.0":
        with pytest.raises(convt3d.ArgumentError, match="out: the memory is read-only"):
            compute(*given, out=outs)  # older NumPys take it for that
        return
    found = compute(*given, out=outs)
    assert all_bytes(found) == all_bytes(wanted)
    for out, a in zip(outs, wanted):
        memory = getattr(out, "array", out)
        assert np.array_equal(np.asarray(memory), a)


def test_read_only_inputs():
    given = operands()
    wanted = all_bytes(compute(*given))
    frozen = [np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) for a in given]
    assert not any(a.flags.writeable for a in frozen)
    assert all_bytes(compute(*frozen)) == wanted
    assert all_bytes(compute(*(memoryview(a) for a in frozen))) == wanted


def test_memory_lives_as_long_as_the_array_that_is_returned():
    x, weight, bias, _ = operands()
    wanted = convt3d.conv_transpose3d(x, weight, bias, **NAMED)
    out = from_bytes(bytearray(wanted.nbytes), np.zeros_like(wanted))
    y = convt3d.conv_transpose3d(x, weight, bias, **NAMED, out=out)
    assert np.shares_memory(y, np.asarray(out))
    del out
    assert y.tobytes() == wanted.tobytes()
