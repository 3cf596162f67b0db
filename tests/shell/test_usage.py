"""What the command line alone makes wrong: one line, a hint, status 2, no file.
SPDX-License-Identifier: MIT
"""

import numpy as np
import pytest

COMMANDS = ("forward", "backward", "init", "shape", "info", "check", "view", "bench")
LARGEST = "9223372036854775807"


@pytest.fixture
def layer(shell):
    """A shell with files that make a legal run, and the options of that run."""
    shell.save("x.npy", np.ones((1, 4, 3, 3, 3), np.float32))
    shell.save("w.npy", np.ones((4, 6, 3, 3, 3), np.float32))
    shell.save("dy.npy", np.ones((1, 6, 5, 5, 5), np.float32))
    shell.forward = ("forward", "--input", "x.npy", "--weight", "w.npy", "--output", "y.npy")
    shell.backward = ("backward", "--input", "x.npy", "--weight", "w.npy", "--grad-output",
                      "dy.npy", "--grad-input", "dx.npy")
    shell.good(*shell.forward)
    shell.good(*shell.backward)
    return shell


def test_no_command(shell):
    shell.bad(2, ["command", "missing"])


@pytest.mark.parametrize("name", ["forwards", "-x", "--inpt", ""])
def test_unknown_command(shell, name):
    shell.bad(2, ["unknown", name], name)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--strid", "--no-such-option", "-x", "--stride=2,1 --oops"])
def test_unknown_option(shell, command, option):
    word = option.split()[-1]
    if word == "--strid" and command in ("forward", "backward", "init", "shape"):
        word, option = "--xstride", "--xstride"  # --strid is short for --stride there
    shell.bad(2, ["no option", word], command, *option.split()[-1:])


@pytest.mark.parametrize("command, option", [
    ("forward", "--input"), ("forward", "--output"), ("backward", "--input"),
    ("backward", "--grad-output"), ("init", "--output"), ("shape", "--input-size"),
    ("view", "--output")])
def test_missing_option(shell, command, option):
    given = {"--input": "x.npy", "--output": "y.npy", "--grad-output": "dy.npy",
             "--input-size": "1,1,1"}
    takes = {"forward": ("--input", "--output"), "backward": ("--input", "--grad-output"),
             "init": ("--output",), "shape": ("--input-size",), "view": ("--output",)}[command]
    args = [part for name in takes if name != option for part in (name, given[name])]
    shell.bad(2, [option, "missing"], command, *args)


@pytest.mark.parametrize("args, words", [
    (("forward", "--input", "x.npy", "--output", "y.npy"), ["--weight", "--module", "missing"]),
    (("backward", "--input", "x.npy", "--weight", "w.npy", "--grad-output", "dy.npy"),
     ["--grad-input", "--grad-weight", "--grad-bias", "missing"]),
    (("view", "--output", "p.png"), ["file", "missing"]),
    (("view", "x.npy", "dy.npy", "--output", "p.png"), ["file", "twice"]),
    (("forward", "x.npy"), ["x.npy", "too many"]),
    (("shape", "--input-size", "2,2,2"), ["--kernel-size", "missing"]),
    (("init", "--output", "m.safetensors", "--in-channels", "2", "--out-channels", "2"),
     ["--kernel-size", "missing"]),
    (("init", "--output", "m.safetensors", "--in-channels", "2", "--kernel-size", "2"),
     ["--out-channels", "missing"]),
    (("forward", "--weight"), ["--weight", "needs a value"]),
    (("info", "--direction", "forward"), ["--direction", "--problem"]),
    (("info", "--problem", "ci1co1i1k1", "--direction", "sideways"),
     ["--direction", "sideways", "forward", "backward_input", "backward_weight"]),
    (("info", "--problem", "ci1co1i1"), ["--problem", "k"]),
    (("info", "--problem", "ci1co1i1k1", "--module", "m.safetensors"),
     ["--problem", "--module", "exclude"]),
    (("check", "--count", "0"), ["--count", "0", "1 to 1000000"]),
    (("check", "--seed", "-1"), ["--seed", "-1", "18446744073709551615"]),
    (("check", "--seed", "18446744073709551616"), ["--seed", "18446744073709551615"]),
    (("init", "--fill", "zeros", "--output", "m.safetensors"),
     ["--fill", "zeros", "default", "trilinear", "icnr"]),
    (("view", "x.npy", "--output", "p.jpg"), ["--output", "p.jpg", ".png"]),
    (("view", "x.npy", "--output", "p.png", "--channel", "-1"), ["--channel", "-1", "0 to"]),
    (("init", "--output", "m.npy", "--in-channels", "2", "--out-channels", "2", "--kernel-size",
      "2"), ["--output", "m.npy", ".safetensors"]),
    (("init", "--output", "m.safetensors:weight", "--in-channels", "2", "--out-channels", "2",
      "--kernel-size", "2"), ["--output", ".safetensors"]),
])
def test_wrong_words(layer, args, words):
    layer.bad(2, words, *args)


@pytest.mark.parametrize("option, values", [("--stride", "2"), ("--input", "x.npy"),
                                            ("--output", "y.npy"), ("--threads", "1")])
def test_repeated_option(layer, option, values):
    layer.bad(2, [option, "twice"], *layer.forward, option, values, option, values)


AXES = ("depth", "height", "width")
RANGED = [("--stride", "0", "1"), ("--stride", "-1", "1"), ("--dilation", "0", "1"),
          ("--dilation", "-3", "1"), ("--padding", "-1", "0"), ("--output-padding", "-1", "0"),
          ("--output-size", "0", "1"), ("--stride", "-9223372036854775808", "1"),
          ("--padding", "9223372036854775808", "0"), ("--stride", "99999999999999999999999", "1")]


@pytest.mark.parametrize("option, value, least", RANGED)
@pytest.mark.parametrize("axis", range(3))
def test_value_out_of_range_names_its_axis(layer, option, value, least, axis):
    values = ["1", "1", "1"]
    values[axis] = value
    for command in (layer.forward, layer.backward):
        layer.bad(2, [option, AXES[axis], value, f"{least} to {LARGEST}"], *command, option,
                  ",".join(values))
    layer.bad(2, [option, *AXES, value, f"{least} to {LARGEST}"], *layer.forward, option, value)


@pytest.mark.parametrize("place", range(6))
def test_six_paddings_name_axis_and_side(layer, place):
    values = ["1"] * 6
    values[place] = "-2"
    layer.bad(2, ["--padding", AXES[place // 2], ("before", "after")[place % 2], "-2", "0 to"],
              *layer.forward, "--padding", ",".join(values))


@pytest.mark.parametrize("option, value, words", [
    ("--groups", "0", ["0", "1 to"]), ("--groups", "-2", ["-2", "1 to"]),
    ("--groups", "1,1", ["2 values", "legal are 1"]),
    ("--threads", "0", ["0", "1 to 1024"]), ("--threads", "-1", ["-1", "1 to 1024"]),
    ("--threads", "1025", ["1025", "1 to 1024"]), ("--threads", "1000000", ["1 to 1024"]),
    ("--threads", "two", ["two", "integer"]),
    ("--padding-mode", "same", ["same", "zeros", "reflect", "replicate", "circular"]),
    ("--padding-mode", "", ["zeros", "reflect", "replicate", "circular"]),
    ("--dtype", "float8", ["float8", "float32", "float64", "bfloat16", "float16"]),
    ("--dtype", "F16", ["F16", "float16"]),
    ("--isa", "mmx", ["mmx", "generic"]),
    ("--algorithm", "fast", ["fast", "engine", "reference"]),
    ("--activation", "swish", ["swish", "none", "relu", "leaky_relu", "gelu", "gelu_tanh",
                               "sigmoid", "tanh"]),
    ("--activation", "", ["none", "relu"]), ("--activation", "ReLU", ["ReLU", "'relu'"]),
    ("--negative-slope", "0.1", ["--activation=leaky_relu"]),
    ("--stride", "1,2", ["2 values", "1 or 3"]), ("--stride", "1,1,1,1", ["4 values", "1 or 3"]),
    ("--padding", "1,1", ["2 values", "1 or 3 or 6"]),
    ("--padding", "1,1,1,1", ["4 values", "1 or 3 or 6"]),
    ("--padding", "1,1,1,1,1,1,1", ["7 values", "1 or 3 or 6"]),
    ("--stride", "", ["''", "integers"]), ("--stride", "1,,1", ["1,,1", "integers"]),
    ("--stride", "2.5", ["2.5", "integers"]), ("--stride", "1e3", ["1e3", "integers"]),
    ("--stride", " 2", [" 2", "integers"]), ("--stride", "2 ", ["2 ", "integers"]),
    ("--stride", "0x2", ["0x2", "integers"]), ("--stride", "NA", ["NA", "integers"]),
    ("--output", "y.txt", ["y.txt", ".npy", ".safetensors", ".nii", ".nii.gz"]),
    ("--output", ".npy", [".npy"]),
])
def test_value_that_makes_no_sense(layer, option, value, words):
    base = layer.forward[:-2] if option == "--output" else layer.forward
    layer.bad(2, [option, *words], *base, option, value)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("stride, dilation, value", [("1", "1", "1"), ("3", "2", "3"),
                                                     ("2", "4", "4"), ("1", "1", "9")])
def test_output_padding_not_below_stride_and_dilation(layer, axis, stride, dilation, value):
    values = ["0", "0", "0"]
    values[axis] = value
    most = str(max(int(stride), int(dilation)) - 1)
    for command in (layer.forward, layer.backward,
                    ("shape", "--input-size", "0,1,2,2,2", "--kernel-size", "2")):
        layer.bad(2, ["output_padding", AXES[axis], value, "0 to " + most], *command, "--stride",
                  stride, "--dilation", dilation, "--output-padding", ",".join(values))


def test_options_that_exclude_each_other(layer):
    layer.bad(2, ["--output-size", "--output-padding"], *layer.forward, "--output-size", "5",
              "--output-padding", "0")
    layer.bad(2, ["--module", "--weight"], *layer.forward, "--module", "m.safetensors")
    layer.bad(2, ["--grad-input", "--grad-bias", "dx.npy"], *layer.backward, "--grad-bias",
              "dx.npy")
    layer.bad(2, ["same file"], *layer.backward[:-2], "--grad-weight", "g.safetensors",
              "--grad-bias", "g.safetensors:bias")


@pytest.mark.parametrize("args", [(), *((c,) for c in COMMANDS)])
def test_help_and_version(shell, args):
    text = shell.good(*args, "--help")
    assert text.startswith("Usage: " + " ".join(("convt3d", *args))), text
    assert "Usage: convt3d" in shell.good(*args, "--usage")
    assert shell.good(*args, "--version").startswith("convt3d ")


@pytest.mark.parametrize("args", [("--help",), ("--version",), ("info",), ("forward", "--help")])
def test_standard_output_on_a_full_disk(shell, args):
    with open("/dev/full", "w") as full:
        process = shell.start(*args, stdout=full, stderr=-1, text=True)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and errors.startswith("convt3d: standard output: "), errors
