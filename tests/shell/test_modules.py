"""Module files: made by init, read by the other commands, with arguments of
their own that options may repeat but not contradict.
SPDX-License-Identifier: MIT
"""

import numpy as np
import pytest

import files
import oracle
import problems


def init(shell, layer, *more):
    return shell.good("init", "--in-channels", layer["in_channels"], "--out-channels",
                      layer["out_channels"], "--kernel-size",
                      problems.values(layer["kernel_size"]), *problems.options(layer), "--dtype",
                      layer["dtype"], *([] if layer["bias"] else ["--no-bias"]), *more,
                      "--output", "m.safetensors")


@pytest.mark.parametrize("seed", range(15))
def test_init_then_forward_and_backward(shell, seed):
    layer = problems.random_layer(seed)
    init(shell, layer, "--seed", seed)
    tensors, _ = files.read_safetensors(shell.path("m.safetensors"))
    w, b = tensors["weight"], tensors.get("bias")
    assert (b is not None) == layer["bias"] and w.dtype == layer["dtype"]
    assert w.shape == problems.shapes(layer)[1]
    bound = np.sqrt(layer["groups"] / (layer["out_channels"] * np.prod(layer["kernel_size"])))
    assert np.abs(w).max() <= bound * (1 + 1e-6)
    assert w.size < 20 or np.abs(w).max() > bound / 2
    x, _, _, dy = problems.integers(seed, layer)
    shell.save("x.npy", x)
    shell.save("dy.npy", dy)
    shell.good("forward", "--input", "x.npy", "--module", "m.safetensors", "--output", "y.npy")
    shell.good("backward", "--input", "x.npy", "--module", "m.safetensors", "--grad-output",
               "dy.npy", "--grad-input", "dx.npy", "--grad-weight", "dw.npy")
    tolerance = 1e-4 if layer["dtype"] == "float32" else 1e-12
    for name, value in zip(("y", "dx", "dw"),
                           (oracle.forward(layer, x, w, b), *oracle.backward(layer, x, w, dy))):
        assert np.allclose(shell.load(name + ".npy"), value, rtol=0,
                           atol=tolerance * max(1, np.abs(value).max()))


def test_seed_decides(shell):
    layer = problems.random_layer(2)
    contents = []
    for seed in ("1", "1", "2", "18446744073709551615"):
        init(shell, layer, "--seed", seed)
        contents.append(files.read_safetensors(shell.path("m.safetensors"))[0]["weight"])
    assert np.array_equal(contents[0], contents[1])
    assert not np.array_equal(contents[0], contents[2])
    assert not np.array_equal(contents[2], contents[3])


def test_metadata_holds_the_arguments(shell):
    text = shell.good("init", "--in-channels", "16", "--out-channels", "33", "--kernel-size",
                      "3,5,2", "--stride", "2,1,1", "--padding", "0,4,2", "--output",
                      "m.safetensors")
    _, metadata = files.read_safetensors(shell.path("m.safetensors"))
    assert metadata == {"in_channels": "16", "out_channels": "33", "kernel_size": "3,5,2",
                        "stride": "2,1,1", "padding": "0,4,2", "output_padding": "0",
                        "dilation": "1", "groups": "1", "padding_mode": "zeros", "bias": "true"}
    assert "ConvTranspose3d(16, 33, kernel_size=(3, 5, 2), stride=(2, 1, 1), padding=(0, 4, 2))" \
        in text
    assert "weight: (16, 33, 3, 5, 2)" in text
    assert shell.good("info", "--module", "m.safetensors") == text
    assert "output:  (20, 33, 21, 46, 97)" in shell.good(
        "shape", "--input-size", "20,16,10,50,100", "--module", "m.safetensors")


def test_six_paddings_survive(shell):
    layer = dict(problems.random_layer(0), padding=(1, 0, 2, 1, 0, 1), padding_mode="zeros",
                 kernel_size=(3, 4, 5), input_size=(3, 3, 3))
    init(shell, layer)
    assert files.read_safetensors(shell.path("m.safetensors"))[1]["padding"] == "1,0,2,1,0,1"


STATED = {"--stride": "2,1,1", "--padding": "0,4,2", "--output-padding": "0", "--dilation": "1",
          "--groups": "1", "--padding-mode": "zeros"}


@pytest.fixture
def module(shell):
    shell.good("init", "--in-channels", "2", "--out-channels", "3", "--kernel-size", "3,5,2",
               "--stride", "2,1,1", "--padding", "0,4,2", "--output", "m.safetensors")
    shell.save("x.npy", np.ones((1, 2, 5, 6, 7), np.float32))
    shell.run_module = ("forward", "--input", "x.npy", "--module", "m.safetensors", "--output",
                        "y.npy")
    return shell


def test_options_may_repeat_the_metadata(module):
    module.good(*module.run_module)
    first = module.load("y.npy")
    module.good(*module.run_module, *[part for pair in STATED.items() for part in pair])
    assert np.array_equal(module.load("y.npy"), first)
    module.good(*module.run_module, "--padding", "0,0,4,4,2,2", "--dilation", "1,1,1")


@pytest.mark.parametrize("option, value", [
    ("--stride", "2"), ("--stride", "1,2,1"), ("--padding", "0,4,4"), ("--padding", "0,0,4,4,2,1"),
    ("--output-padding", "1,0,0"), ("--dilation", "2"), ("--groups", "2"),
    ("--padding-mode", "circular")])
def test_options_may_not_contradict_the_metadata(module, option, value):
    key = option[2:].replace("-", "_")
    module.bad(2, [option, value, "contradicts", key, STATED[option], "m.safetensors"],
               *module.run_module, option, value)


def test_output_size_overrides_output_padding(module):
    module.good(*module.run_module, "--output-size", "12,2,4")
    assert module.load("y.npy").shape == (1, 3, 12, 2, 4)
    module.bad(1, ["output_size", "depth", "13", "11 to 12"], *module.run_module,
               "--output-size", "13,2,4")


@pytest.mark.parametrize("option, value", [("--kernel-size", "3"), ("--in-channels", "4"),
                                           ("--out-channels", "2")])
def test_shape_holds_options_against_the_weight(module, option, value):
    module.bad(2, [option, value, "contradicts", "m.safetensors"], "shape", "--input-size",
               "2,5,6,7", "--module", "m.safetensors", option, value)


def test_file_of_another_tool_takes_options(shell):
    """No metadata of ours: options say what the layer is."""
    layer = problems.random_layer(11)
    x, w, b, _ = problems.integers(11, layer)
    tensors = {"weight": w, "step": np.zeros(1, np.float32)}
    if b is not None:
        tensors["bias"] = b
    files.write_safetensors(shell.path("m.safetensors"), tensors, {"format": "pt"})
    shell.good("forward", "--input", shell.save("x.npy", x), "--module", "m.safetensors",
               *problems.options(layer), "--output", "y.npy")
    assert np.array_equal(shell.load("y.npy"), oracle.forward(layer, x, w, b))


def test_tensors_by_name(shell):
    layer = problems.random_layer(12)
    x, w, _, _ = problems.integers(12, layer)
    b = np.arange(layer["out_channels"]).astype(w.dtype)
    files.write_safetensors(shell.path("all.safetensors"),
                            {"up.weight": w, "up.bias": b, "volume": x})
    shell.good("forward", "--input", "all.safetensors:volume", "--weight",
               "all.safetensors:up.weight", "--bias", "all.safetensors:up.bias",
               *problems.options(layer), "--output", "out.safetensors:result")
    tensors, _ = files.read_safetensors(shell.path("out.safetensors"))
    assert list(tensors) == ["result"]
    assert np.array_equal(tensors["result"], oracle.forward(layer, x, w, b))
    shell.bad(1, ["all.safetensors", "nothing", "up.weight", "up.bias", "volume"], "forward",
              "--input", "all.safetensors:nothing", "--weight", "all.safetensors:up.weight",
              "--output", "y.npy")


W = np.ones((2, 3, 2, 2, 2), np.float32)


@pytest.mark.parametrize("tensors, metadata, words", [
    ({"bias": np.ones(3, np.float32)}, {}, ["weight", "bias"]),
    ({"weight": W}, {"stride": "two"}, ["metadata", "stride", "two"]),
    ({"weight": W}, {"stride": "0"}, ["metadata", "stride", "0", "1 to"]),
    ({"weight": W}, {"padding": "1,2"}, ["metadata", "padding", "2 values"]),
    ({"weight": W}, {"padding_mode": "same"}, ["metadata", "padding_mode", "same", "reflect"]),
    ({"weight": W}, {"kernel_size": "3"}, ["kernel_size", "3", "contradicts", "2"]),
    ({"weight": W}, {"in_channels": "4"}, ["in_channels", "4", "contradicts", "2"]),
    ({"weight": W}, {"bias": "true"}, ["metadata", "bias", "no tensor"]),
    ({"weight": W, "bias": np.ones(3, np.float32)}, {"bias": "false"}, ["metadata", "bias"]),
    ({"weight": W, "bias": np.ones(2, np.float32)}, {}, ["bias", "3", "2"]),
])
def test_module_files_that_contradict_themselves(shell, tensors, metadata, words):
    files.write_safetensors(shell.path("m.safetensors"), tensors, metadata)
    shell.save("x.npy", np.ones((1, 2, 3, 3, 3), np.float32))
    shell.bad(1, words, "forward", "--input", "x.npy", "--module", "m.safetensors", "--output",
              "y.npy")


@pytest.mark.parametrize("args, words", [
    (("--in-channels", "4", "--out-channels", "6", "--kernel-size", "2", "--groups", "3"),
     ["in_channels", "4", "groups", "3"]),
    (("--in-channels", "0", "--out-channels", "6", "--kernel-size", "2"),
     ["--in-channels", "0", "1 to"]),
    (("--in-channels", "4", "--out-channels", "6", "--kernel-size", "2,0,2"),
     ["--kernel-size", "height", "0", "1 to"]),
    (("--in-channels", "4", "--out-channels", "6", "--kernel-size", "2", "--output-padding",
      "0,0,1"), ["output_padding", "width", "1", "0 to 0"]),
    (("--in-channels", "2147483648", "--out-channels", "2147483648", "--kernel-size", "65536"),
     ["bytes"]),
    (("--fill", "trilinear", "--stride", "2", "--kernel-size", "3"),
     ["--kernel-size", "3", "contradicts", "4", "trilinear"]),
    (("--fill", "trilinear", "--stride", "2", "--in-channels", "2", "--out-channels", "3"),
     ["--out-channels", "3", "contradicts", "2", "trilinear"]),
    (("--fill", "trilinear", "--stride", "2", "--padding", "0"),
     ["--padding", "0", "contradicts", "1", "trilinear"]),
    (("--fill", "trilinear", "--stride", "2", "--dilation", "2"), ["dilation", "2"]),
    (("--fill", "icnr", "--in-channels", "2", "--out-channels", "3", "--stride", "2",
      "--kernel-size", "3"), ["kernel_size", "3", "2"]),
])
def test_layers_that_init_refuses(shell, args, words):
    shell.bad(2, words, "init", *args, "--output", "m.safetensors")


def test_icnr_starts_as_nearest_neighbour(shell):
    shell.good("init", "--fill", "icnr", "--in-channels", "3", "--out-channels", "2", "--stride",
               "2,3,2", "--output", "m.safetensors")
    x = np.random.default_rng(1).standard_normal((1, 3, 2, 3, 4)).astype(np.float32)
    shell.good("forward", "--input", shell.save("x.npy", x), "--module", "m.safetensors",
               "--output", "y.npy")
    y = shell.load("y.npy")
    assert y.shape == (1, 2, 4, 9, 8)
    assert np.array_equal(y, y[:, :, ::2, ::3, ::2].repeat(2, 2).repeat(3, 3).repeat(2, 4))
    assert len(np.unique(y)) == y.size // 12
