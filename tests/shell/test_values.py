"""The command's arithmetic against the oracle, over the whole argument space.
SPDX-License-Identifier: MIT
"""

import numpy as np
import pytest

import oracle
import problems

BLOCK, BLOCKS = 20, 15


def run_all(shell, layer, arrays, options, rank=5):
    """Runs forward and backward; returns y, dx, dw, db."""
    x, w, b, dy = arrays
    if rank == 4:
        x, dy = x[0], dy[0]
    files = ["--input", shell.save("x.npy", x), "--weight", shell.save("w.npy", w)]
    bias = [] if b is None else ["--bias", shell.save("b.npy", b)]
    shell.save("dy.npy", dy)
    shell.good("forward", *files, *bias, *options, "--output", "y.npy")
    shell.good("backward", *files, *options, "--grad-output", "dy.npy", "--grad-input", "dx.npy",
               "--grad-weight", "dw.npy", "--grad-bias", "db.npy")
    found = [shell.load(name + ".npy") for name in ("y", "dx", "dw", "db")]
    for array in found:
        assert array.dtype == np.dtype(layer["dtype"])
    if rank == 4:
        found[0], found[1] = found[0][None], found[1][None]
    return found


def expected(layer, arrays):
    x, w, b, dy = arrays
    return [oracle.forward(layer, x, w, b), *oracle.backward(layer, x, w, dy)]


@pytest.mark.parametrize("block", range(BLOCKS))
def test_integers_are_exact(shell, block):
    nonzero = 0
    for seed in range(problems.SEED + block * BLOCK, problems.SEED + (block + 1) * BLOCK):
        layer = problems.random_layer(seed)
        arrays = problems.integers(seed, layer)
        found = run_all(shell, layer, arrays, problems.options(layer))
        for name, a, b in zip(("y", "dx", "dw", "db"), found, expected(layer, arrays)):
            assert a.shape == b.shape, (seed, name, layer)
            assert np.array_equal(a, b), (seed, name, layer)
            nonzero += np.count_nonzero(a)
    assert nonzero > 100 * BLOCK  # zeros equal to zeros would show nothing


@pytest.mark.parametrize("algorithm", ["engine", "reference"])
@pytest.mark.parametrize("mode", problems.MODES)
def test_forced_algorithm(shell, algorithm, mode):
    layer = {"batch": 2, "groups": 2, "padding_mode": mode, "bias": True, "dtype": "float32",
             "in_channels": 4, "out_channels": 6, "input_size": (3, 4, 9), "kernel_size": (3, 2, 4),
             "stride": (2, 3, 1), "dilation": (1, 2, 1), "padding": (1, 0, 0, 2, 2, 1),
             "output_padding": (1, 2, 0)}
    arrays = problems.integers(1, layer)
    options = problems.options(layer) + ["--algorithm", algorithm, "--threads", "2"]
    for a, b in zip(run_all(shell, layer, arrays, options), expected(layer, arrays)):
        assert np.array_equal(a, b)


def test_three_values_per_axis_keep_their_axes(shell):
    """One tap in one place: any axis swapped would move it."""
    x = np.zeros((1, 1, 2, 2, 2), np.float32)
    w = np.zeros((1, 1, 2, 2, 2), np.float32)
    x[0, 0, 1, 1, 1] = w[0, 0, 1, 1, 1] = 1
    shell.save("x.npy", x)
    shell.save("w.npy", w)
    shell.good("forward", "--input", "x.npy", "--weight", "w.npy", "--stride", "2,3,5",
               "--dilation", "7,11,13", "--padding", "0,1,2,3,4,5", "--output", "y.npy")
    y = shell.load("y.npy")
    assert y.shape == (1, 1, 2 + 7 + 1 - 1, 3 + 11 + 1 - 5, 5 + 13 + 1 - 9)
    assert [tuple(p) for p in np.argwhere(y)] == []  # cropped away in depth and width
    shell.good("forward", "--input", "x.npy", "--weight", "w.npy", "--stride", "2,3,5",
               "--dilation", "7,11,13", "--padding", "1,0,2,0,4,0", "--output", "y.npy")
    y = shell.load("y.npy")
    assert [tuple(p) for p in np.argwhere(y)] == [(0, 0, 2 + 7 - 1, 3 + 11 - 2, 5 + 13 - 4)]


@pytest.mark.parametrize("seed", range(5))
def test_unbatched(shell, seed):
    layer = dict(problems.random_layer(seed), batch=1)
    arrays = problems.integers(seed, layer)
    found = run_all(shell, layer, arrays, problems.options(layer), rank=4)
    for a, b in zip(found, expected(layer, arrays)):
        assert np.array_equal(a, b)


def test_empty_batch(shell):
    shell.save("x.npy", np.zeros((0, 2, 3, 3, 3), np.float32))
    shell.save("w.npy", np.ones((2, 4, 2, 2, 2), np.float32))
    shell.save("dy.npy", np.zeros((0, 4, 6, 6, 6), np.float32))
    shell.good("forward", "--input", "x.npy", "--weight", "w.npy", "--stride", "2",
               "--output", "y.npy")
    assert shell.load("y.npy").shape == (0, 4, 6, 6, 6)
    shell.good("backward", "--input", "x.npy", "--weight", "w.npy", "--stride", "2",
               "--grad-output", "dy.npy", "--grad-input", "dx.npy", "--grad-weight", "dw.npy",
               "--grad-bias", "db.npy")
    assert shell.load("dx.npy").shape == (0, 2, 3, 3, 3)
    assert np.array_equal(shell.load("dw.npy"), np.zeros((2, 4, 2, 2, 2)))
    assert np.array_equal(shell.load("db.npy"), np.zeros(4))


@pytest.mark.parametrize("seed", range(20))
def test_output_size_stands_for_output_padding(shell, seed):
    layer = problems.random_layer(seed)
    x, w, _, _ = problems.integers(seed, layer)
    size = ",".join(map(str, oracle.output_size(layer)))
    shell.good("forward", "--input", shell.save("x.npy", x), "--weight", shell.save("w.npy", w),
               *problems.options(layer, output_padding=False), "--output-size", size,
               "--output", "y.npy")
    assert np.array_equal(shell.load("y.npy"), oracle.forward(layer, x, w))


@pytest.mark.parametrize("seed", range(20))
def test_backward_takes_the_size_of_grad_output(shell, seed):
    layer = problems.random_layer(seed)
    x, w, _, dy = problems.integers(seed, layer)
    shell.good("backward", "--input", shell.save("x.npy", x), "--weight", shell.save("w.npy", w),
               *problems.options(layer, output_padding=False), "--grad-output",
               shell.save("dy.npy", dy), "--grad-input", "dx.npy")
    assert np.array_equal(shell.load("dx.npy"), oracle.backward(layer, x, w, dy)[0])


@pytest.mark.parametrize("wanted", [("dx",), ("dw",), ("db",), ("dx", "db"), ("dw", "db"),
                                    ("dx", "dw")])
def test_any_subset_of_gradients(shell, wanted):
    layer = problems.random_layer(3)
    x, w, b, dy = problems.integers(3, layer)
    names = {"dx": "--grad-input", "dw": "--grad-weight", "db": "--grad-bias"}
    asked = [part for name in wanted for part in (names[name], name + ".npy")]
    shell.good("backward", "--input", shell.save("x.npy", x), "--weight", shell.save("w.npy", w),
               *problems.options(layer), "--grad-output", shell.save("dy.npy", dy), *asked)
    for name, gradient in zip(("dx", "dw", "db"), oracle.backward(layer, x, w, dy)):
        if name in wanted:
            assert np.array_equal(shell.load(name + ".npy"), gradient)
        else:
            assert shell.path(name + ".npy") not in shell.state()


def test_gradients_share_a_safetensors_file(shell):
    import files
    layer = problems.random_layer(4)
    x, w, b, dy = problems.integers(4, layer)
    shell.good("backward", "--input", shell.save("x.npy", x), "--weight", shell.save("w.npy", w),
               *problems.options(layer), "--grad-output", shell.save("dy.npy", dy),
               "--grad-weight", "g.safetensors:weight", "--grad-bias", "g.safetensors:bias",
               "--grad-input", "dx.npy")
    tensors, _ = files.read_safetensors(shell.path("g.safetensors"))
    dx, dw, db = oracle.backward(layer, x, w, dy)
    assert sorted(tensors) == ["bias", "weight"]
    assert np.array_equal(tensors["weight"], dw) and np.array_equal(tensors["bias"], db)
    assert np.array_equal(shell.load("dx.npy"), dx)


def test_threads_give_the_same_bytes(shell):
    rng = np.random.default_rng(7)
    shell.save("x.npy", rng.standard_normal((2, 5, 6, 7, 19), np.float32))
    shell.save("w.npy", rng.standard_normal((5, 7, 3, 3, 3), np.float32))
    results = []
    for threads in ("1", "2", "3"):
        shell.good("forward", "--input", "x.npy", "--weight", "w.npy", "--stride", "2",
                   "--threads", threads, "--output", "y.npy")
        with open(shell.path("y.npy"), "rb") as file:
            results.append(file.read())
    assert results[0] == results[1] == results[2]


# Layers with a shape of their own: kernels beyond the input, huge steps, holes.
ODD = {
    "kernel much larger than the input": dict(input_size=(2, 1, 3), kernel_size=(23, 9, 40),
                                              padding=(3, 3, 4, 4, 10, 10)),
    "padding beyond the kernel": dict(input_size=(6, 7, 8), kernel_size=(2, 1, 2),
                                      padding=(2, 2, 3, 2, 1, 4)),
    "holes: stride beyond the kernel": dict(input_size=(3, 2, 4), kernel_size=(2, 1, 2),
                                            stride=(5, 3, 4)),
    "holes: stride equals dilation": dict(input_size=(4, 3, 5), kernel_size=(3, 2, 3),
                                          stride=(2, 2, 2), dilation=(2, 2, 2)),
    "one input and a huge stride": dict(input_size=(1, 1, 1), kernel_size=(2, 2, 2),
                                        stride=(2 ** 40, 0x10000, 2 ** 31)),
    "one tap and a huge dilation": dict(input_size=(2, 3, 2), kernel_size=(1, 1, 1),
                                        dilation=(2 ** 40, 0x10000, 2 ** 31)),
    "a stride beyond 16 bits": dict(input_size=(2, 1, 1), kernel_size=(1, 1, 1),
                                    stride=(0x10000, 1, 1)),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_shapes(shell, name):
    layer = {"batch": 1, "groups": 1, "padding_mode": "zeros", "bias": True, "dtype": "float32",
             "in_channels": 2, "out_channels": 3, "stride": (1, 1, 1), "dilation": (1, 1, 1),
             "padding": (0,) * 6, "output_padding": (0, 0, 0)}
    layer.update(ODD[name])
    arrays = problems.integers(9, layer)
    arrays[2][:] = (5, 6, 7)
    found = run_all(shell, layer, arrays, problems.options(layer))
    for a, b in zip(found, expected(layer, arrays)):
        assert np.array_equal(a, b)
    if name.startswith("holes"):
        assert np.all(found[0][0, :, 1, 1, 1] == (5, 6, 7))  # nothing but the bias
