"""Values against the definition, over the whole argument space, exactly.
SPDX-License-Identifier: MIT
"""

import itertools
import math

import numpy as np
import oracle
import problems
import pytest
from layers import GRADIENTS, all_bytes, arguments, expected, plain, run_all

import convt3d

BLOCK, BLOCKS = 40, 10


def assert_equal(found, wanted, dtype, where):
    for name, a, b in zip(("y", *GRADIENTS), found, wanted):
        assert a.dtype == np.dtype(dtype), (name, where)
        assert a.shape == b.shape, (name, where)
        assert np.array_equal(a, b), (name, where)
        assert a.flags.c_contiguous and a.flags.writeable, (name, where)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_integers_are_exact(block):
    nonzero = 0
    for seed in range(problems.SEED + block * BLOCK, problems.SEED + (block + 1) * BLOCK):
        layer = problems.random_layer(seed)
        arrays = problems.integers(seed, layer)
        named = arguments(layer, pairs=seed % 2 == 0, output_size=seed % 3 == 0)
        found = run_all(layer, arrays, **named)
        assert_equal(found, expected(layer, arrays), layer["dtype"], (seed, layer))
        nonzero += sum(map(np.count_nonzero, found))
    assert nonzero > 100 * BLOCK  # zeros equal to zeros would show nothing


@pytest.mark.parametrize("seed", range(20))
def test_unbatched(seed):
    layer = dict(problems.random_layer(seed), batch=1)
    x, w, b, dy = problems.integers(seed, layer)
    y, dx, dw, db = run_all(layer, (x[0], w, b, dy[0]), **arguments(layer))
    assert (y.ndim, dx.ndim) == (4, 4)
    wanted = expected(layer, (x, w, b, dy))
    assert_equal((y[None], dx[None], dw, db), wanted, layer["dtype"], layer)


@pytest.mark.parametrize("seed", range(20))
def test_empty_batch(seed):
    layer = dict(problems.random_layer(seed), batch=0)
    found = run_all(layer, problems.integers(seed, layer))
    assert [a.shape for a in found] == [problems.shapes(layer)[i] for i in (3, 0, 1, 2)]
    assert not found[2].any() and not found[3].any()  # sums of nothing


@pytest.mark.parametrize("seed", range(20))
def test_one_integer_is_three(seed):
    rng = np.random.default_rng(seed)
    k, s, p, d = (int(rng.integers(low, low + 3)) for low in (2, 1, 0, 1))
    layer = dict(problems.random_layer(seed), kernel_size=(k,) * 3, stride=(s,) * 3)
    layer.update(padding=(p,) * 6, dilation=(d,) * 3, output_padding=(max(s, d) - 1,) * 3)
    layer.update(input_size=(4, 5, 6), padding_mode="zeros")
    arrays = problems.integers(seed, layer)
    named = {"stride": s, "padding": p, "output_padding": max(s, d) - 1, "dilation": d}
    found = run_all(layer, arrays, groups=layer["groups"], **named)
    assert_equal(found, expected(layer, arrays), layer["dtype"], layer)
    listed = {name: [np.int64(value)] for name, value in named.items()}
    listed["padding"] = np.full((3, 2), p, np.int16)
    again = run_all(layer, arrays, groups=np.uint8(layer["groups"]), **listed)
    assert all_bytes(again) == all_bytes(found)


def test_defaults_and_positions():
    """The arguments of torch.nn.functional.conv_transpose3d, in its order."""
    layer = plain(batch=2)
    x, w, b, dy = arrays = problems.integers(1, layer)
    y = convt3d.conv_transpose3d(x, w, b)
    gradients = convt3d.conv_transpose3d_backward(dy, x, w)
    assert_equal((y, *gradients), expected(layer, arrays), "float32", layer)
    layer = plain(batch=2, in_channels=4, out_channels=6, groups=2, stride=(2, 3, 4))
    layer.update(padding=(1, 1, 0, 0, 2, 2), output_padding=(1, 2, 0), dilation=(1, 2, 3))
    x, w, b, dy = arrays = problems.integers(2, layer)
    rest = (2, 3, 4), (1, 0, 2), (1, 2, 0), 2, (1, 2, 3)
    y = convt3d.conv_transpose3d(x, w, b, *rest)
    gradients = convt3d.conv_transpose3d_backward(dy, x, w, *rest)
    assert_equal((y, *gradients), expected(layer, arrays), "float32", layer)


@pytest.mark.parametrize("seed", range(30))
def test_out_is_filled_and_returned(seed):
    layer = problems.random_layer(seed)
    x, w, b, dy = arrays = problems.integers(seed, layer)
    fresh = run_all(layer, arrays)
    outs = [np.full_like(a, np.nan) for a in fresh]
    y = convt3d.conv_transpose3d(x, w, b, **arguments(layer), out=outs[0])
    gradients = convt3d.conv_transpose3d_backward(dy, x, w, **arguments(layer), out=outs[1:])
    for given, returned in zip(outs, (y, *gradients)):
        assert returned is given
    assert all_bytes(outs) == all_bytes(fresh)


@pytest.mark.parametrize("seed", range(30))
def test_accumulate_adds(seed):
    layer = problems.random_layer(seed)
    x, w, _b, dy = arrays = problems.integers(seed, layer)
    wanted = expected(layer, arrays)[1:]
    outs = [np.full(a.shape, 5 - i, layer["dtype"]) for i, a in enumerate(wanted)]
    for round in (1, 2):
        found = convt3d.conv_transpose3d_backward(
            dy, x, w, **arguments(layer), out=outs, accumulate=True
        )
        for i, (given, returned, gradient) in enumerate(zip(outs, found, wanted)):
            assert returned is given
            assert np.array_equal(returned, 5 - i + round * gradient)


@pytest.mark.parametrize("mask", list(itertools.product((False, True), repeat=3)))
def test_any_subset_of_gradients(mask):
    layer = problems.random_layer(3)
    x, w, b, dy = arrays = problems.integers(3, layer)
    found = convt3d.conv_transpose3d_backward(dy, x, w, **arguments(layer), output_mask=mask)
    for wanted, a, b in zip(mask, found, expected(layer, arrays)[1:]):
        assert np.array_equal(a, b) if wanted else a is None


def test_the_page_example():
    """The layer of PyTorch's documentation, with a smaller input."""
    layer = plain(batch=2, in_channels=16, out_channels=33, input_size=(4, 12, 9))
    layer.update(kernel_size=(3, 5, 2), stride=(2, 1, 1), padding=(0, 0, 4, 4, 2, 2))
    arrays = problems.integers(5, layer)
    found = run_all(layer, arrays, stride=(2, 1, 1), padding=(0, 4, 2))
    assert found[0].shape == (2, 33, 9, 8, 6)
    assert_equal(found, expected(layer, arrays), "float32", layer)


def sizes(input_size, kernel_size, **more):
    return plain(input_size=input_size, kernel_size=kernel_size, **more)


# Layers with a shape of their own: kernels beyond the input, huge steps, holes, edges of vectors.
ODD = {
    "kernel beyond the input": sizes((2, 1, 3), (23, 9, 40), padding=(3, 3, 4, 4, 10, 10)),
    "a padding of 63": sizes((2, 2, 70), (1, 2, 70), padding=(0, 0, 0, 0, 63, 63)),
    "padding beyond the kernel": sizes((6, 7, 8), (2, 1, 2), padding=(2, 2, 3, 2, 1, 4)),
    "holes: stride beyond the kernel": sizes((3, 2, 4), (2, 1, 2), stride=(5, 3, 4)),
    "holes: stride is dilation": sizes((4, 3, 5), (3, 2, 3), stride=(2,) * 3, dilation=(2,) * 3),
    "one input, a huge stride": sizes((1, 1, 1), (2, 2, 2), stride=(2**40, 0x10000, 2**62)),
    "one tap, a huge dilation": sizes((2, 3, 2), (1, 1, 1), dilation=(2**40, 0x10000, 2**62)),
    "a stride beyond 16 bits": sizes((2, 1, 1), (1, 1, 1), stride=(0x10000, 1, 1)),
    "depthwise": plain(in_channels=17, out_channels=17, groups=17),
    "depthwise, two outputs each": plain(in_channels=5, out_channels=10, groups=5),
    **{f"{n} channels": plain(in_channels=n, out_channels=48 - n) for n in (1, 15, 16, 17, 31, 33)},
    **{f"a width of {n}": plain(input_size=(1, 2, n)) for n in (15, 16, 17, 31, 32, 33)},
    **{f"a batch of {n}": plain(batch=n) for n in (31, 32, 33, 65)},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ODD)
def test_odd_shapes(name, dtype):
    layer = dict(ODD[name], dtype=dtype)
    arrays = problems.integers(9, layer)
    arrays[2][:] = np.arange(5, 5 + layer["out_channels"])
    found = run_all(layer, arrays)
    assert_equal(found, expected(layer, arrays), dtype, name)
    if name.startswith("holes"):
        assert np.all(found[0][0, :, 1, 1, 1] == (5, 6, 7))  # nothing but the bias


@pytest.mark.parametrize("bits", [(12, 11), (20, 3)])
def test_operands_of_many_bits_are_exact(bits):
    """Sums that any product of fewer than 24 bits would round."""
    layer = plain(in_channels=1, out_channels=9, kernel_size=(2, 1, 1))
    x, w, _, _ = problems.integers(11, layer)
    rng = np.random.default_rng(12)
    for array, b in zip((x, w), bits):
        array[:] = rng.integers(2 ** (b - 1), 2**b, array.shape)
    assert np.array_equal(convt3d.conv_transpose3d(x, w), oracle.forward(layer, x, w))


ACTIVATIONS = {
    "none": lambda x: x,
    "relu": lambda x: np.where(x < 0, 0, x),
    "leaky_relu": lambda x: np.where(x > 0, x, x * 0.25),
    "gelu": lambda x: x * np.vectorize(math.erfc)(-x / math.sqrt(2)) / 2,
    # x/2*(1 + tanh(z)), without its cancellation
    "gelu_tanh": lambda x: x / (1 + np.exp(-math.sqrt(8 / math.pi) * (x + 0.044715 * x**3))),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name, dtype):
    """Each is its function of what the layer gives without one, bias and holes included."""
    rng = np.random.default_rng(8)
    x = rng.standard_normal((2, 3, 4, 5, 6)).astype(dtype)
    w = rng.standard_normal((3, 5, 2, 2, 2)).astype(dtype)
    b = np.array([-2, -0.5, 0, 0.5, 2], dtype)
    without = convt3d.conv_transpose3d(x, w, b, stride=3)
    found = convt3d.conv_transpose3d(x, w, b, stride=3, activation=name, negative_slope=0.25)
    assert found.dtype == without.dtype and without.min() < -2 and without.max() > 2
    wanted = ACTIVATIONS[name](without.astype(np.float64))
    # Units in the last place; in float64 the formulas here round as well, and tails feel that.
    units = 0.6 if dtype == "float32" else 16 + 2 * without**2
    limits = np.finfo(dtype)
    bound = units * limits.eps * np.abs(wanted) + limits.smallest_subnormal
    assert np.all(np.abs(found - wanted) <= bound)
    if name in ("none", "relu", "leaky_relu"):
        assert np.array_equal(found, wanted)


def test_negative_slope():
    x = np.array([-8, 8, -0.0, np.nan], np.float32).reshape(1, 1, 1, 1, 4)
    one = np.ones((1, 1, 1, 1, 1), np.float32)
    named = {"activation": "leaky_relu"}
    for slope in (0.25, -2, 0, np.float32(0.5)):
        y = convt3d.conv_transpose3d(x, one, **named, negative_slope=slope).ravel()
        assert np.array_equal(y, [-8 * slope, 8, 0, np.nan], equal_nan=True)
    assert convt3d.conv_transpose3d(x, one, **named).ravel()[0] == np.float32(-0.08)


def test_nan_and_infinity_reach_their_own_outputs():
    layer = plain(batch=2, in_channels=4, out_channels=6, groups=2, input_size=(3, 4, 5))
    layer.update(kernel_size=(3, 2, 3), stride=(2, 1, 2), dilation=(1, 2, 1))
    layer.update(padding=(1, 0, 0, 1, 1, 1), output_padding=(1, 0, 1))
    x, w, _, _ = problems.integers(7, layer)
    x[:], w[:] = 1, 0.5
    x[0, 0, 1, 1, 1], x[1, 3, 2, 3, 4] = np.nan, -np.inf
    marks = np.where(np.isnan(x), 1, np.where(np.isinf(x), 2, 0))
    reached = oracle.forward(layer, marks, np.ones_like(w))
    y = convt3d.conv_transpose3d(x, w, **arguments(layer))
    assert {0, 1, 2} == set(reached.ravel())
    assert np.array_equal(np.isnan(y), reached == 1)
    assert np.array_equal(y == -np.inf, reached == 2)
