"""bfloat16 and float16: runs whose tensors are of these types, float32 beside them, --dtype,
and files that can't hold them.
SPDX-License-Identifier: MIT
"""

import json

import numpy as np
import pytest

import files
import half
import oracle
import problems

BLOCK, BLOCKS = 10, 6
ONE = (1, 1, 1, 1, 1)


@pytest.fixture(params=half.DTYPES)
def dtype(request):
    return request.param


def inputs(shell, dtype, arrays):
    """The options of backward and, last, the bias of forward, for files of this type."""
    x, w, b, dy = arrays
    half.save(shell, dtype, "dy.safetensors", dy)
    return (["--input", half.save(shell, dtype, "x.safetensors", x), "--weight",
             half.save(shell, dtype, "w.safetensors", w)],
            [] if b is None else ["--bias", half.save(shell, dtype, "b.safetensors", b)])


GRADIENTS = ["--grad-output", "dy.safetensors", "--grad-input", "dx.safetensors", "--grad-weight",
             "dw.safetensors", "--grad-bias", "db.safetensors"]


def layer_of(seed):
    return dict(problems.random_layer(seed), dtype="float32")


@pytest.mark.parametrize("block", range(BLOCKS))
def test_integers_are_rounded_once(shell, dtype, block):
    """Sums that float32 holds, but not the type."""
    inexact = 0
    for seed in range(problems.SEED + block * BLOCK, problems.SEED + (block + 1) * BLOCK):
        layer = layer_of(seed)
        arrays = problems.integers(seed, layer, limit=60)
        common, bias = inputs(shell, dtype, arrays)
        options = problems.options(layer)
        shell.good("forward", *common, *bias, *options, "--output", "y.safetensors")
        shell.good("backward", *common, *options, *GRADIENTS)
        x, w, b, dy = arrays
        expected = [oracle.forward(layer, x, w, b), *oracle.backward(layer, x, w, dy)]
        for name, value in zip(("y", "dx", "dw", "db"), expected):
            found = half.load(shell, dtype, name + ".safetensors")
            assert np.abs(value).max() < 2**24
            assert np.array_equal(half.from_bits(dtype, found), half.rounded(dtype, value)), (
                seed, name, layer)
            inexact += np.count_nonzero(half.rounded(dtype, value) != value)
    assert inexact > 10 * BLOCK


@pytest.mark.parametrize("algorithm", ["engine", "reference"])
def test_as_float32_rounded(shell, dtype, algorithm):
    """Any numbers: what float32 makes of the same ones, rounded.  Where the engine adds in
    another order, by no more than that can change."""
    layer = dict(layer_of(5), in_channels=20, out_channels=17, groups=1)
    rng = np.random.default_rng(3)
    arrays = [half.rounded(dtype, rng.standard_normal(shape)) for shape in problems.shapes(layer)]
    common, bias = inputs(shell, dtype, arrays)
    options = [*problems.options(layer), "--algorithm", algorithm]
    files32 = [part for name, array in zip(("--input", "--weight", "--bias"), arrays)
               for part in (name, shell.save(name[2:] + ".npy", array))]
    shell.save("dy.npy", arrays[3])
    shell.good("forward", *common, *bias, *options, "--output", "y.safetensors")
    shell.good("backward", *common, *options, *GRADIENTS)
    shell.good("forward", *files32, *options, "--output", "y.npy")
    shell.good("backward", *files32[:4], *options, "--grad-output", "dy.npy", "--grad-input",
               "dx.npy", "--grad-weight", "dw.npy", "--grad-bias", "db.npy")
    for name in ("y", "dx", "dw", "db"):
        found, wide = half.load(shell, dtype, name + ".safetensors"), shell.load(name + ".npy")
        same = found == half.to_bits(dtype, wide)
        if algorithm == "reference":
            assert same.all(), name
        limit = 2**-19 * np.abs(wide).max()
        found = half.from_bits(dtype, found)
        assert np.all(same | ((half.rounded(dtype, wide - limit) <= found)
                              & (found <= half.rounded(dtype, wide + limit)))), name


def test_activation(shell, dtype):
    layer = layer_of(8)
    x, w, b, dy = problems.integers(8, layer, limit=2)
    common, _ = inputs(shell, dtype, (x / 8, w, b, dy))
    run = ["forward", *common, *problems.options(layer)]
    for name in ("relu", "leaky_relu", "gelu", "tanh"):
        shell.good(*run, "--activation", name, "--output", "y.safetensors")
        shell.good(*run, "--activation", name, "--dtype", "float32", "--output", "y.npy")
        assert np.array_equal(half.load(shell, dtype, "y.safetensors"),
                              half.to_bits(dtype, shell.load("y.npy"))), name


def test_unbatched_and_threads(shell, dtype):
    layer = dict(layer_of(2), batch=1)
    x, w, b, dy = problems.integers(2, layer, limit=60)
    common, _ = inputs(shell, dtype, (x[0], w, b, dy[0]))
    for threads in ("1", "3"):
        shell.good("forward", *common, *problems.options(layer), "--threads", threads, "--output",
                   "y.safetensors")
        y = half.load(shell, dtype, "y.safetensors")
        assert np.array_equal(half.from_bits(dtype, y)[None],
                              half.rounded(dtype, oracle.forward(layer, x, w)))


# ---- float32 beside them ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float32", "float64", "own", "other"])
def test_bias_of_another_type_is_not_rounded_by_itself(shell, dtype, kind):
    """1 plus half a step, and as much again: rounded for itself, the bias would be 1, and
    the sum, again in the middle, 1 too."""
    step = 2.0**-7 if dtype == "bfloat16" else 2.0**-10
    common, _ = inputs(shell, dtype, (np.full(ONE, step / 2), np.ones(ONE), None, np.ones(ONE)))
    values, expected = np.array([1 + step / 2]), 1 + step
    if kind == "own":
        bias, expected = half.save(shell, dtype, "b.safetensors", values), 1
    elif kind == "other" and dtype == "bfloat16":
        bias = half.save(shell, "float16", "b.safetensors", values)
    elif kind == "other":  # too large for float16, but not beside it
        values, expected = np.array([2.0**16]), np.inf
        bias = half.save(shell, "bfloat16", "b.safetensors", values)
        half.save(shell, dtype, "x.safetensors", np.full(ONE, -2.0**15))
        expected = 2.0**15
    else:
        bias = shell.save("b.npy", values.astype(kind))
    for typed in ([], ["--dtype", dtype]):
        shell.good("forward", *common, "--bias", bias, *typed, "--output", "y.safetensors")
        found = half.from_bits(dtype, half.load(shell, dtype, "y.safetensors"))
        assert found.ravel().tolist() == [expected]


@pytest.mark.parametrize("name", ["float32", "f32"])
def test_weight_gradients_in_float32(shell, dtype, name):
    """Exact, where 16 bits are not; grad_input stays as it is."""
    for seed in range(5):
        layer = layer_of(seed)
        arrays = problems.integers(seed, layer, limit=60)
        x, w, _, dy = arrays
        common, _ = inputs(shell, dtype, arrays)
        shell.good("backward", *common, *problems.options(layer), "--grad-output",
                   "dy.safetensors", "--grad-input", "dx.safetensors", "--grad-weight", "dw.npy",
                   "--grad-bias", "g.safetensors:bias", "--grad-weight-dtype", name)
        dx, dw, db = oracle.backward(layer, x, w, dy)
        assert files.safetensors_types(shell.path("g.safetensors")) == {"bias": "F32"}
        assert shell.load("dw.npy").dtype == np.float32
        assert np.array_equal(shell.load("dw.npy"), dw)
        assert np.array_equal(files.read_safetensors(shell.path("g.safetensors"))[0]["bias"], db)
        found = half.from_bits(dtype, half.load(shell, dtype, "dx.safetensors"))
        assert np.array_equal(found, half.rounded(dtype, dx))
    assert np.any(half.rounded(dtype, dw) != dw)


def test_weight_gradients_in_the_layers_own_type(shell, dtype):
    arrays = problems.integers(1, layer_of(1), limit=60)
    common, _ = inputs(shell, dtype, arrays)
    run = ["backward", *common, *problems.options(layer_of(1)), "--grad-output", "dy.safetensors"]
    for own in ([], ["--grad-weight-dtype", dtype], ["--grad-weight-dtype", half.SHORT[dtype]]):
        shell.good(*run, *own, "--grad-weight", "dw.safetensors")
        half.load(shell, dtype, "dw.safetensors")


def test_weight_gradients_in_no_other_type(shell, dtype):
    common, _ = inputs(shell, dtype, (np.ones(ONE), np.ones(ONE), None, np.ones(ONE)))
    run = ["backward", *common, "--grad-output", "dy.safetensors"]
    other, = set(half.DTYPES) - {dtype}
    option = "--grad-weight-dtype"
    for wrong in ("float64", other):
        shell.bad(1, [option, wrong, dtype, "float32"], *run, "--grad-weight", "dw.safetensors",
                  option, wrong)
        shell.bad(2, [option, wrong, dtype, "float32"], *run, "--grad-weight", "dw.safetensors",
                  option, wrong, "--dtype", dtype)
    for layer in ("float32", "float64"):
        shell.bad(2, [option, dtype, layer, "alone"], *run, "--grad-weight", "dw.safetensors",
                  option, dtype, "--dtype", layer)
    shell.bad(2, [option, "float32", "float64", "alone"], *run, "--grad-weight", "dw.npy", option,
              "float32", "--dtype", "float64")
    shell.bad(2, [option, "single", "float32", "float64", "bfloat16", "float16"], *run,
              "--grad-weight", "dw.safetensors", option, "single")
    shell.bad(2, [option, "--grad-weight", "--grad-bias"], *run, "--grad-input",
              "dx.safetensors", option, "float32")


# ---- --dtype, and which type is chosen ---------------------------------------------------


@pytest.mark.parametrize("short", [False, True])
def test_dtype_makes_it_so(shell, dtype, short):
    """float64 in, which is rounded; and back to wider types."""
    shell.save("x.npy", np.full(ONE, 0.1))
    shell.save("w.npy", np.full(ONE, 3.0))
    run = ["forward", "--input", "x.npy", "--weight", "w.npy", "--dtype",
           half.SHORT[dtype] if short else dtype]
    shell.good(*run, "--output", "y.safetensors")
    found = half.from_bits(dtype, half.load(shell, dtype, "y.safetensors"))
    assert found.ravel()[0] == half.rounded(dtype, half.rounded(dtype, 0.1) * np.float32(3))
    for wide in ("float32", "float64", "f32", "f64"):
        shell.good("forward", "--input", "y.safetensors", "--weight", "w.npy", "--dtype", wide,
                   "--output", "z.npy")
        z = shell.load("z.npy")
        assert z.dtype.itemsize == int(wide[-2:]) // 8
        assert z.ravel()[0] == 3 * np.float64(found.ravel()[0])


@pytest.mark.parametrize("kind", ["float32", "float64", "int32", "uint8", "float16"])
def test_the_weight_decides_for_16_bits_too(shell, dtype, kind):
    """As it does for the others: all arrays are converted to its type."""
    x = np.array([1, 100, 255], kind).reshape(1, 1, 1, 1, 3)
    x[..., 1] += 1 if kind in ("int32", "uint8") else 0.3
    half.save(shell, dtype, "w.safetensors", np.ones(ONE))
    shell.good("forward", "--input", shell.save("x.npy", x), "--weight", "w.safetensors",
               "--output", "y.safetensors")
    assert np.array_equal(half.load(shell, dtype, "y.safetensors"), half.to_bits(dtype, x))
    half.save(shell, dtype, "x.safetensors", x)
    shell.good("forward", "--input", "x.safetensors", "--weight",
               shell.save("w.npy", np.ones(ONE, "float32")), "--output", "y.npy")
    assert shell.load("y.npy").dtype == np.float32
    assert np.array_equal(shell.load("y.npy"), half.rounded(dtype, x))


def test_float16_in_npy(shell):
    x = np.arange(6).reshape(1, 1, 1, 2, 3)
    for order in "<>":
        shell.good("forward", "--input", shell.save("x.npy", x.astype(order + "f2")), "--weight",
                   shell.save("w.npy", np.full(ONE, 1.5, order + "f2")), "--output", "y.npy")
        assert shell.load("y.npy").dtype == np.float16
        assert np.array_equal(shell.load("y.npy"), 1.5 * x)


def test_beyond_float16(shell):
    """65,519 rounds to what is finite, 65,520 doesn't."""
    shell.save("x.npy", np.array([65519, 65520, -65520], "float32").reshape(1, 1, 1, 1, 3))
    shell.save("w.npy", np.ones(ONE, "float32"))
    shell.good("forward", "--input", "x.npy", "--weight", "w.npy", "--dtype", "f16", "--output",
               "y.npy")
    assert shell.load("y.npy").ravel().tolist() == [65504, np.inf, -np.inf]


# ---- files that can't hold them ----------------------------------------------------------


@pytest.mark.parametrize("name", ["y.npy", "y.nii", "y.nii.gz"])
def test_files_that_cannot_hold_it(shell, dtype, name):
    """Said before the input, which isn't there, is read."""
    half.save(shell, dtype, "w.safetensors", np.ones(ONE))
    if (dtype, name) == ("float16", "y.npy"):
        return
    words = [name, dtype, ".safetensors", "--dtype"]
    run = ["--input", "missing.npy", "--weight", "w.safetensors"]
    for typed, status in (([], 1), (["--dtype", dtype], 2)):
        shell.bad(status, ["--output", *words], "forward", *run, *typed, "--output", name)
        for option in ("--grad-input", "--grad-weight", "--grad-bias"):
            shell.bad(status, [option, *words], "backward", *run, *typed, "--grad-output",
                      "missing.npy", option, name)
    half.save(shell, dtype, "x.safetensors", np.ones(ONE))
    shell.good("forward", "--input", "x.safetensors", "--weight", "w.safetensors", "--dtype",
               "float32", "--output", name)


def test_npy_of_ml_dtypes(shell):
    """What numpy.save() makes of its bfloat16."""
    x = half.to_bits("bfloat16", np.ones(ONE)).view("V2")
    shell.bad(1, ["x.npy", "V2", "bfloat16", ".safetensors"], "forward", "--input",
              shell.save("x.npy", x), "--weight", "x.npy", "--output", "y.npy")


# ---- the other commands ------------------------------------------------------------------


def test_module(shell, dtype):
    text = shell.good("init", "--in-channels", "4", "--out-channels", "6", "--kernel-size", "3",
                      "--dtype", half.SHORT[dtype], "--output", "m.safetensors")
    path = shell.path("m.safetensors")
    assert files.safetensors_types(path) == dict.fromkeys(("weight", "bias"), half.NAMES[dtype])
    assert shell.good("info", "--module", "m.safetensors") == text and dtype in text
    tensors, _ = files.read_safetensors(path)
    w, b = (half.from_bits(dtype, tensors[name].view(np.uint16)) for name in ("weight", "bias"))
    bound = 1 / np.sqrt(6 * 27)
    assert bound / 2 < np.abs(w).max() <= bound * 1.01 and len(np.unique(w)) > 200
    rng = np.random.default_rng(1)
    x = half.rounded(dtype, rng.standard_normal((1, 4, 3, 3, 3)))
    half.save(shell, dtype, "x.safetensors", x)
    shell.good("forward", "--input", "x.safetensors", "--module", "m.safetensors", "--output",
               "y.safetensors")
    layer = {"batch": 1, "groups": 1, "padding_mode": "zeros", "in_channels": 4,
             "out_channels": 6, "input_size": (3, 3, 3), "kernel_size": (3, 3, 3),
             "stride": (1, 1, 1), "dilation": (1, 1, 1), "padding": (0,) * 6,
             "output_padding": (0, 0, 0)}
    y = oracle.forward(layer, x, w, b)
    found = half.from_bits(dtype, half.load(shell, dtype, "y.safetensors"))
    step = 2.0**-8 if dtype == "bfloat16" else 2.0**-11
    assert np.all(np.abs(found - y) <= step * np.abs(y) + 1e-6)


def test_trilinear_module(shell, dtype):
    shell.good("init", "--fill", "trilinear", "--stride", "2", "--padding-mode", "replicate",
               "--dtype", dtype, "--output", "m.safetensors")
    half.save(shell, dtype, "x.safetensors", np.full((1, 1, 3, 4, 5), 7))
    shell.good("forward", "--input", "x.safetensors", "--module", "m.safetensors", "--output",
               "y.safetensors")
    y = half.from_bits(dtype, half.load(shell, dtype, "y.safetensors"))
    assert y.shape == (1, 1, 6, 8, 10) and np.all(y == 7)


def test_view(shell, dtype):
    """The picture is that of the same numbers in float32."""
    x = half.rounded(dtype, np.random.default_rng(2).standard_normal((9, 8, 7)))
    pictures = []
    for name in (shell.save("x.npy", x), half.save(shell, dtype, "x.safetensors", x)):
        shell.good("view", name, "--output", "p.png")
        pictures.append(files.read_png(shell.path("p.png")))
    assert np.array_equal(*pictures) and len(np.unique(pictures[0])) > 50


def test_shape(shell, dtype):
    common = ("shape", "--input-size", "2,3,4,5,6", "--out-channels", "5", "--kernel-size", "2")
    text = shell.good(*common, "--dtype", dtype)
    assert f"input:   (2, 3, 4, 5, 6) {dtype}" in text
    elements = 2 * 3 * 4 * 5 * 6 + 3 * 5 * 8 + 2 * 5 * 5 * 6 * 7
    assert f"backward_input: {2 * elements} bytes of tensors" in text
    assert f"forward: {2 * (elements + 5)} bytes of tensors" in text
    half.save(shell, dtype, "w.safetensors", np.ones((3, 5, 2, 2, 2)))
    assert f"(2, 3, 4, 5, 6) {dtype}" in shell.good("shape", "--input-size", "2,3,4,5,6",
                                                    "--weight", "w.safetensors")


def test_info_and_bench(shell, dtype):
    problem = "ci2co3i4k3s2" + half.SHORT[dtype]
    assert f"problem: {problem}\n" in shell.good("info", "--problem", problem)
    lines = [json.loads(line) for line in shell.good("bench", problem, "--json").splitlines()]
    assert [line["problem"] for line in lines] == [problem] * 3
    assert all(line["ms"] > 0 for line in lines)
