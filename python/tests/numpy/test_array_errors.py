"""Arrays that are refused, by name and with what would help; nothing is written then.
SPDX-License-Identifier: MIT
"""

import ctypes
import decimal
import mmap
import re

import numpy as np
import pytest

import convt3d

OPERANDS = ("x", "weight", "bias", "grad_output", "out", "grad_x", "grad_weight", "grad_bias")
SHAPES = ((1, 2, 3, 3, 3), (2, 3, 2, 2, 2), (3,), (1, 3, 4, 4, 4))
ERRORS = (convt3d.ArgumentError, convt3d.ShapeError, convt3d.DtypeError, TypeError)


class Call:
    """Both functions with all operands; and their outputs, which must keep their bytes."""

    def __init__(self, dtype=np.float32):
        fill = [np.full(SHAPES[i], 77, dtype) for i in (3, 0, 1, 2)]
        inputs = [np.ones(shape, dtype) for shape in SHAPES]
        self.arrays = dict(zip(OPERANDS, inputs + fill))

    def run(self, name):
        """The function that has an operand of this name."""
        a = self.arrays
        if name in ("bias", "out"):
            return convt3d.conv_transpose3d(a["x"], a["weight"], a["bias"], out=a["out"])
        out = [a[name] for name in OPERANDS[5:]]
        return convt3d.conv_transpose3d_backward(a["grad_output"], a["x"], a["weight"], out=out)

    def refused(self, name, error, *words):
        """Refuses what stands under the name, in both functions where both have it."""
        outputs = [a for a in map(self.arrays.get, OPERANDS[4:]) if isinstance(a, np.ndarray)]
        before = [a.tobytes() for a in outputs]
        for entry in (name, "out") if name in ("x", "weight") else (name,):
            with pytest.raises(error) as raised:
                self.run(entry)
            assert type(raised.value) is error
            for word in (f"{name}: ", *words):
                assert re.search(word, str(raised.value)), (word, str(raised.value))
        assert [a.tobytes() for a in outputs] == before


def test_the_call_itself_is_right():
    call = Call()
    call.run("out")
    call.run("grad_x")
    assert not any(np.any(call.arrays[name] == 77) for name in OPERANDS[4:])


DTYPES = (">f2", ">f4", ">f8", "int8", "int32", "int64", "uint8", "bool", "complex64")
DTYPES += ("float64", "float16", "longdouble", "datetime64[s]", "S4", "O", "f4,f4")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERANDS)
def test_wrong_dtypes(name, dtype):
    call = Call()
    dtype = np.dtype(dtype)
    call.arrays[name] = np.zeros(call.arrays[name].shape, dtype)
    if dtype in (np.float64, np.float16) and name == "x":  # then all others are of the wrong one
        with pytest.raises(convt3d.DtypeError, match=f"float32 is not {dtype}, the dtype of x"):
            call.run("out")
        return
    wanted = (
        "float32, float64, bfloat16, float16" if name == "x" else "is not float32, the dtype of x"
    )
    call.refused(name, convt3d.DtypeError, re.escape(str(dtype)), wanted)
    with pytest.raises(TypeError):
        call.run(name)


def test_mixed_dtypes_where_nothing_is_read():
    """The weight says only its shape where the gradient of the bias alone is wanted."""
    x, weight, _, grad = (np.ones(shape, np.float32) for shape in SHAPES)
    with pytest.raises(convt3d.DtypeError, match="weight: dtype float64"):
        convt3d.conv_transpose3d_backward(
            grad, x, weight.astype(np.float64), output_mask=(False, False, True)
        )


class OnAnotherDevice:
    def __dlpack__(self, **named):
        raise BufferError("on a device of its own")

    def __dlpack_device__(self):
        return (2, 0)


NOT_ARRAYS = {
    "None": None,
    "a list": [[1.0]],
    "a tuple": (1.0,),
    "a number": 1.0,
    "a string": "x",
    "a decimal": decimal.Decimal(1),
    "a generator": (i for i in ()),
    "a function": len,
}


@pytest.mark.parametrize("kind", NOT_ARRAYS)
@pytest.mark.parametrize("name", OPERANDS)
def test_what_is_no_array(name, kind):
    call = Call()
    call.arrays[name] = NOT_ARRAYS[kind]
    if kind == "None" and name not in ("x", "weight", "grad_output"):
        call.run(name)  # these may be absent
        return
    call.refused(name, TypeError, "expected an array", type(NOT_ARRAYS[kind]).__name__)


@pytest.mark.parametrize("name", OPERANDS)
def test_what_can_not_be_read_in_place(name):
    released = memoryview(bytearray(4))
    released.release()
    closed = mmap.mmap(-1, 4)
    closed.close()
    unreadable = {"a device of its own": OnAnotherDevice(), "released": released}
    unreadable.update({"closed": closed, "format": (ctypes.c_wchar * 3)()})
    call = Call()
    for words, array in unreadable.items():
        call.arrays[name] = array
        call.refused(name, convt3d.ArgumentError, "can't be read in place", words)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPERANDS)
def test_memory_that_is_not_aligned(name, dtype):
    call = Call(dtype)
    a = call.arrays[name]
    for offset in range(1, a.itemsize):
        memory = np.full(a.nbytes + a.itemsize, 7, np.uint8)[offset : offset + a.nbytes]
        call.arrays[name] = memory.view(dtype).reshape(a.shape)
        call.refused(name, convt3d.ArgumentError, f"not aligned .* {a.itemsize} bytes", "ascont")


@pytest.mark.parametrize("name", OPERANDS)
def test_strides_that_are_no_whole_elements(name):
    call = Call()
    a = call.arrays[name]
    records = np.zeros(a.shape, [("value", np.float32), ("mark", np.int16)])
    call.arrays[name] = records["value"]
    call.refused(name, convt3d.ArgumentError, "whole elements of 4 bytes", "ascontiguousarray", "6")


@pytest.mark.parametrize("name", OPERANDS[4:])
def test_outputs_that_are_read_only(name):
    call = Call()
    array = call.arrays[name]
    array.flags.writeable = False
    call.refused(name, convt3d.ArgumentError, "read-only")
    call.arrays[name] = memoryview(array)
    call.refused(name, convt3d.ArgumentError, "read-only")
    call.arrays[name] = np.broadcast_to(np.float32(0), array.shape)
    call.refused(name, convt3d.ArgumentError, "read-only")


@pytest.mark.parametrize("name", OPERANDS[4:])
def test_outputs_that_overlap_themselves(name):
    call = Call()
    array = call.arrays[name]
    memory = np.full(2 * array.size, 77, np.float32)
    strided = np.lib.stride_tricks.as_strided
    for axis in range(array.ndim):
        for stride in (0, array.strides[axis] - 4, 4 - array.strides[axis]):
            steps = list(array.strides)
            steps[axis] = stride
            if array.shape[axis] > 1:
                call.arrays[name] = strided(memory[array.size :], array.shape, steps)
                call.refused(name, convt3d.ArgumentError, "overlaps itself", "a stride of")
    assert np.all(memory == 77)
    steps = [-stride for stride in array.strides]
    call.arrays[name] = strided(memory[array.size :], array.shape, steps)
    call.run(name)
    assert not np.any(memory[1 : array.size + 1] == 77)
    assert memory[0] == 77 and np.all(memory[array.size + 1 :] == 77)


PAIRS = [("out", i) for i in ("x", "weight", "bias")]
PAIRS += [(o, i) for o in OPERANDS[5:] for i in ("grad_output", "x", "weight")]
PAIRS += [("grad_weight", "grad_x"), ("grad_bias", "grad_x"), ("grad_bias", "grad_weight")]


@pytest.mark.parametrize("name, other", PAIRS)
def test_outputs_that_overlap_others(name, other):
    """By ranges of bytes: also where two views have no element in common."""
    call = Call()
    size, others = call.arrays[name].size, call.arrays[other].size
    memory = np.full(2 * (size + others), 77, np.float32)

    def place(which, start, step=1):
        a = call.arrays[which]
        view = memory[start : start + a.size * step : step].reshape(a.shape)
        call.arrays[which] = view

    for start in (0, others - 1):
        place(other, 0)
        place(name, start)
        call.refused(name, convt3d.ArgumentError, f"overlaps {other} in memory")
    place(other, 0, 2)
    place(name, 1, 2)
    call.refused(name, convt3d.ArgumentError, f"overlaps {other} in memory")
    place(other, 0)
    place(name, others)
    call.run(name)  # side by side is fine


@pytest.mark.parametrize("name", OPERANDS[3:])
@pytest.mark.parametrize("change", [-1, 1, "fewer axes", "more axes"])
def test_one_element_too_small_or_too_large(name, change):
    call = Call()
    shape = call.arrays[name].shape
    for axis in range(len(shape)):
        wrong = list(shape)
        if isinstance(change, int):
            wrong[axis] += change
        elif change == "more axes":
            wrong = [1, *shape]
        else:
            wrong = wrong[1:]
        call.arrays[name] = np.full(wrong, 77, np.float32)
        call.refused(name, convt3d.ShapeError)


def test_a_failure_is_one_of_pythons_own():
    assert issubclass(convt3d.ArgumentError, ValueError)
    assert issubclass(convt3d.ShapeError, ValueError)
    assert issubclass(convt3d.DtypeError, TypeError)
    assert issubclass(convt3d.RangeError, OverflowError)
    assert issubclass(convt3d.NoMemoryError, MemoryError)
    assert issubclass(convt3d.UnsupportedError, NotImplementedError)
    for error in (convt3d.ArgumentError, convt3d.ShapeError, convt3d.DtypeError):
        assert issubclass(error, convt3d.Error) and error.status in ("ARG", "SHAPE", "DTYPE")
