"""bfloat16 and float16: read as float32, computed in float32, rounded once.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import oracle
import problems
import pytest
from layers import GRADIENTS, all_bytes, arguments, expected, plain, run_all

import convt3d
from convt3d import _arrays

bfloat16 = pytest.importorskip("ml_dtypes").bfloat16

DTYPES = [np.dtype(bfloat16), np.dtype(np.float16)]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
# Half a unit in the last place of 1, and the smallest number there is.
ROUNDING = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
SMALLEST = {"bfloat16": 2.0**-133, "float16": 2.0**-24}
BLOCK, BLOCKS = 25, 4


def short(seed, dtype, layer=None, limit=9):
    """A layer and its arrays of small integers, which both types hold."""
    layer = dict(layer or problems.random_layer(seed), dtype="float32")
    arrays = problems.integers(seed, layer, limit)
    return layer, [None if a is None else a.astype(dtype) for a in arrays]


def wide(arrays):
    return [None if a is None else a.astype(np.float64) for a in arrays]


def rounded(results, dtype):
    """By way of float32, which has them all exactly."""
    exact = [a.astype(np.float32) for a in results]
    assert all(np.array_equal(a, b) for a, b in zip(exact, results))
    with np.errstate(over="ignore"):
        return [a.astype(dtype) for a in exact]


def assert_same(found, wanted, where=None):
    for name, a, b in zip(("y", *GRADIENTS), found, wanted):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), (name, where)
        assert np.array_equal(a.astype(np.float64), b.astype(np.float64)), (name, where)


@each_dtype
@pytest.mark.parametrize("block", range(BLOCKS))
def test_integers_are_rounded_once(block, dtype):
    """Sums beyond 8 and 11 bits, so that a sum of rounded parts would show."""
    lost = 0
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        layer, arrays = short(seed, dtype, limit=40)
        exact = expected(layer, wide(arrays))
        wanted = rounded(exact, dtype)
        assert_same(run_all(layer, arrays), wanted, (seed, layer))
        lost += sum(np.count_nonzero(a != b.astype(np.float64)) for a, b in zip(exact, wanted))
    assert lost > 100 * BLOCK


@each_dtype
@pytest.mark.parametrize("seed", range(10))
def test_bounds_for_any_numbers(seed, dtype):
    layer = dict(problems.random_layer(seed), padding_mode="zeros", dtype="float32", bias=True)
    if not problems.legal(layer):
        pytest.fail("zeros are legal wherever others are")
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(s).astype(dtype) for s in problems.shapes(layer)]
    x, w, b, dy = wide(arrays)
    results = expected(layer, (x, w, b, dy))
    sizes = expected(layer, [np.abs(a) for a in (x, w, b, dy)])
    taps = w[0, 0].size
    most = [x.shape[1] * taps, dy.shape[1] * taps, x[:, 0].size, dy[:, 0].size]
    u, least = ROUNDING[dtype.name], SMALLEST[dtype.name]
    for found, y, size, terms in zip(run_all(layer, arrays), results, sizes, most):
        g = (terms + 2) * 2.0**-24 / (1 - (terms + 2) * 2.0**-24)
        bound = u * np.abs(y) + (1 + u) * g * size + least
        assert np.all(np.abs(found.astype(np.float64) - y) <= bound)


@each_dtype
def test_what_is_too_large_or_small(dtype):
    one = np.ones((1, 1, 1, 1, 1), dtype)
    largest = {"bfloat16": 3.3895313892515355e38, "float16": 65504.0}[dtype.name]
    x = np.array([largest, -largest, np.inf, np.nan, 0]).astype(dtype).reshape(1, 1, 1, 1, 5)
    y = convt3d.conv_transpose3d(x, 2 * one).astype(np.float64).ravel()
    assert np.array_equal(y, [np.inf, -np.inf, np.inf, np.nan, 0], equal_nan=True)
    # The smallest there is, made of halves that are rounded to even.
    smallest = SMALLEST[dtype.name]
    x = (np.array([1, 2, 3, 5]) * smallest).astype(dtype).reshape(1, 1, 1, 1, 4)
    y = convt3d.conv_transpose3d(x, one / dtype.type(2)).astype(np.float64).ravel()
    assert np.array_equal(y / smallest, [0, 1, 2, 2])


@each_dtype
@pytest.mark.parametrize("seed", range(10))
def test_out_and_accumulate(seed, dtype):
    layer, arrays = short(seed, dtype)
    x, w, b, dy = arrays
    fresh = run_all(layer, arrays)
    outs = [np.full(a.shape, np.nan, dtype) for a in fresh]
    y = convt3d.conv_transpose3d(x, w, b, **arguments(layer), out=outs[0])
    gradients = convt3d.conv_transpose3d_backward(dy, x, w, **arguments(layer), out=outs[1:])
    assert all(a is b for a, b in zip(outs, (y, *gradients)))
    assert all_bytes(outs) == all_bytes(fresh)
    outs = [np.full(a.shape, 3, dtype) for a in gradients]
    convt3d.conv_transpose3d_backward(dy, x, w, **arguments(layer), out=outs, accumulate=True)
    exact = expected(layer, wide(arrays))[1:]
    assert_same(outs, rounded([a + 3 for a in exact], dtype))


@each_dtype
@pytest.mark.parametrize("seed", range(10))
def test_float32_gradients_keep_what_is_lost(seed, dtype):
    """New arrays by grad_weight_dtype, and those in out by their own."""
    layer, arrays = short(seed, dtype, dict(problems.random_layer(seed), batch=3), limit=40)
    x, w, _, dy = arrays
    exact = expected(layer, wide(arrays))[1:]
    wanted = [rounded(exact[:1], dtype)[0], *rounded(exact[1:], np.float32)]
    named = dict(arguments(layer), grad_weight_dtype=np.float32)
    assert_same((dtype, *convt3d.conv_transpose3d_backward(dy, x, w, **named))[1:], wanted)
    outs = [np.full(a.shape, 5, a.dtype) for a in wanted]
    for _ in range(2):
        into = {"out": [None, *outs[1:]], "output_mask": (0, 1, 1), "accumulate": True}
        convt3d.conv_transpose3d_backward(dy, x, w, **arguments(layer), **into)
    assert_same(outs[1:], [(5 + 2 * a).astype(np.float32) for a in exact[1:]])
    # One of each.
    mixed = [None, np.zeros(w.shape, dtype), outs[2]]
    convt3d.conv_transpose3d_backward(dy, x, w, **arguments(layer), out=mixed)
    assert_same(mixed[1:], [exact[1].astype(np.float32).astype(dtype), wanted[2]])


@each_dtype
def test_a_bias_of_float32(dtype):
    layer, (x, w, _, _) = short(1, dtype, plain())
    bias = np.array([1 / 3, -1000.0001, 7], np.float32)
    y = convt3d.conv_transpose3d(x, w, bias)
    exact = oracle.forward(layer, x.astype(np.float64), w.astype(np.float64), None)
    exact = exact.astype(np.float32) + bias[:, None, None, None]
    assert_same([y], [exact.astype(dtype)])
    assert not np.array_equal(y, convt3d.conv_transpose3d(x, w, bias.astype(dtype)))


@each_dtype
def test_strides_and_large_outputs(dtype):
    layer, arrays = short(2, dtype, plain(batch=2, padding_mode="circular", padding=(1,) * 6))
    wanted = run_all(layer, arrays)
    turned = [np.asfortranarray(a)[::1] for a in arrays]
    turned[0] = np.repeat(arrays[0], 2, -1)[..., ::2]
    assert all_bytes(run_all(layer, turned)) == all_bytes(wanted)
    x, one = np.ones((1, 100, 110, 220), dtype), np.ones((1, 1, 1, 1, 1), dtype)
    y = convt3d.conv_transpose3d(x, one)
    assert y.nbytes > 4 << 20 and y.dtype == dtype and np.all(y == one.ravel()[0])
    assert y.__array_interface__["data"][0] % (2 << 20) == 0


@each_dtype
def test_activations(dtype):
    layer, (x, w, b, _) = short(4, dtype, plain(), limit=2)
    before = oracle.forward(layer, *wide((x, w, b)))
    y = convt3d.conv_transpose3d(x, w, b, activation="tanh")
    assert y.dtype == dtype
    u = 1.05 * ROUNDING[dtype.name]
    assert np.all(np.abs(y.astype(np.float64) - np.tanh(before)) <= u * np.abs(np.tanh(before)))


# ---- What is refused -------------------------------------------------------------------


@each_dtype
def test_mixed_dtypes(dtype):
    _, (x, w, b, dy) = short(3, dtype, plain())
    other = {"bfloat16": np.float16, "float16": bfloat16}[dtype.name]
    name = np.dtype(other).name
    text = f"dtype {name} is not {dtype}, the dtype of x"
    either = f"dtype {name} is neither {dtype}, the dtype of x, nor float32"
    forward, backward = convt3d.conv_transpose3d, convt3d.conv_transpose3d_backward
    gradients = [np.zeros_like(a) for a in (x, w, b)]
    for call, words in (
        (lambda: forward(x, w.astype(other)), f"weight: {text}"),
        (lambda: forward(x, w.astype(np.float32)), "weight: dtype float32 is not"),
        (lambda: forward(x.astype(np.float32), w), f"weight: dtype {dtype} is not float32"),
        (lambda: forward(x, w, b.astype(other)), f"bias: {either}"),
        (lambda: forward(x, w, b.astype(np.float64)), "bias: dtype float64 is neither"),
        (lambda: forward(x, w, out=dy.astype(np.float32)), "out: dtype float32 is not"),
        (lambda: backward(dy.astype(np.float32), x, w), "grad_output: dtype float32 is not"),
        *(
            (lambda o=o: backward(dy, x, w, out=o), words)
            for o, words in (
                ([gradients[0].astype(np.float32), None, None], "grad_x: dtype float32 is not"),
                ([None, gradients[1].astype(other), None], f"grad_weight: {either}"),
                ([None, None, gradients[2].astype(np.float64)], "grad_bias: dtype float64 is"),
            )
        ),
    ):
        with pytest.raises(convt3d.DtypeError, match=f"^{words}"):
            call()
    assert not any(a.any() for a in gradients)


def test_grad_weight_dtype_is_checked():
    for dtype in (np.float32, np.float64, *DTYPES):
        _, (x, w, _, dy) = short(3, dtype, plain())
        for asked in (np.float32, "float64", *DTYPES, np.int32):
            legal = {np.dtype(dtype)} | ({np.dtype(np.float32)} if dtype in DTYPES else set())
            named = {"grad_weight_dtype": asked}
            if np.dtype(asked) in legal:
                found = convt3d.conv_transpose3d_backward(dy, x, w, **named)
                assert [a.dtype for a in found] == [x.dtype, np.dtype(asked), np.dtype(asked)]
            else:
                with pytest.raises(
                    convt3d.DtypeError, match=f"grad_weight_dtype: {np.dtype(asked)} is"
                ):
                    convt3d.conv_transpose3d_backward(dy, x, w, **named)
    with pytest.raises(TypeError, match="grad_weight_dtype: expected a dtype, got 'nothing'"):
        convt3d.conv_transpose3d_backward(dy, x, w, grad_weight_dtype="nothing")


def test_others_of_two_bytes():
    """No dtype of another meaning is taken for bfloat16."""
    swapped = DTYPES[0].newbyteorder(">")
    for dtype in (np.dtype("V2"), np.dtype([("bfloat16", "V2")]), np.dtype(np.int16), swapped):
        assert _arrays.code_of(dtype) is None
    assert [_arrays.code_of(dtype) for dtype in DTYPES] == [3, 4]


# ---- Other kinds of arrays ---------------------------------------------------------------


def test_buffers_of_float16():
    layer, arrays = short(5, np.float16, plain())
    wanted = run_all(layer, arrays)
    views = [memoryview(a) for a in arrays]
    assert views[0].format == "e"
    assert all_bytes(run_all(layer, views)) == all_bytes(wanted)
    out = np.zeros_like(wanted[0])
    convt3d.conv_transpose3d(*views[:3], **arguments(layer), out=memoryview(out))
    assert np.array_equal(out, wanted[0])


class OnlyDLPack:
    """A tensor of some library that has nothing but the DLPack protocol."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **named):
        return self.tensor.__dlpack__(**named)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


class OldDLPack(OnlyDLPack):
    """One of before DLPack 1.0, whose capsule has no version."""

    def __dlpack__(self):
        return self.tensor.__dlpack__()


def itself(tensor):
    return tensor


@pytest.mark.parametrize("kind", [itself, OnlyDLPack, OldDLPack])
@each_dtype
def test_dlpack(dtype, kind):
    torch = pytest.importorskip("torch")
    layer, arrays = short(6, dtype, plain())
    wanted = run_all(layer, arrays)

    def tensor(a):
        made = torch.from_numpy(a.astype(np.float32)).to(getattr(torch, dtype.name))
        return made.transpose(0, -1).contiguous().transpose(0, -1)

    inputs = [tensor(a) for a in arrays]
    assert all_bytes(run_all(layer, [kind(t) for t in inputs])) == all_bytes(wanted)
    assert inputs[0].dtype is getattr(torch, dtype.name)  # nothing is left changed
    y = torch.zeros(wanted[0].shape, dtype=inputs[0].dtype)
    by_dlpack = kind is not itself or dtype == bfloat16
    old = np.lib.NumpyVersion(np.__version__) < "2.1.0"
    if kind is OldDLPack or (by_dlpack and old):  # NumPy takes it for read-only
        with pytest.raises(convt3d.ArgumentError, match="out: the memory is read-only"):
            convt3d.conv_transpose3d(*inputs[:3], out=kind(y))
        return
    convt3d.conv_transpose3d(*inputs[:3], out=kind(y))
    assert np.array_equal(y.float().numpy(), wanted[0].astype(np.float32))


def test_dlpack_that_is_refused():
    torch = pytest.importorskip("torch")
    x = torch.ones(1, 1, 2, 2, 2, dtype=torch.bfloat16)
    with pytest.raises(convt3d.ArgumentError, match=r"x: can't be read in place: .*grad"):
        convt3d.conv_transpose3d(x.clone().requires_grad_(), x)
    with pytest.raises(convt3d.ArgumentError, match="x: can't be read in place"):
        convt3d.conv_transpose3d(x.to("meta"), x)
    with pytest.raises(convt3d.DtypeError, match="x: dtype int16 is not one of float32, float64"):
        convt3d.conv_transpose3d(OnlyDLPack(x.view(torch.int16)), x)


WITHOUT = """
import sys
sys.modules["ml_dtypes"] = None
import numpy as np, torch, convt3d
half = np.ones((1, 1, 2, 2, 2), np.float16)
assert convt3d.conv_transpose3d(half, half).max() == 8
x = torch.ones(1, 1, 2, 2, 2, dtype=torch.bfloat16)
try:
    convt3d.conv_transpose3d(x, x)
except convt3d.DtypeError as error:
    print(error)
"""


def test_without_ml_dtypes():
    """float16 needs nothing; bfloat16 by DLPack says what is missing."""
    pytest.importorskip("torch")
    child = [sys.executable, "-c", WITHOUT]
    found = subprocess.run(child, capture_output=True, text=True, timeout=60)
    assert found.stdout.startswith("x: dtype bfloat16, by DLPack, needs the package ml_dtypes")
