"""What the files reveal: shapes, types and sizes that don't fit, status 1; and
the command that shows sizes beforehand.
SPDX-License-Identifier: MIT
"""

import os
import re

import numpy as np
import pytest

import oracle
import problems

AXES = ("depth", "height", "width")


def save(shell, x=(1, 4, 3, 3, 3), w=(4, 6, 3, 3, 3), b=None, dy=None):
    shell.save("x.npy", np.ones(x, np.float32))
    shell.save("w.npy", np.ones(w, np.float32))
    options = ["--input", "x.npy", "--weight", "w.npy"]
    if b is not None:
        shell.save("b.npy", np.ones(b, np.float32))
        options += ["--bias", "b.npy"]
    if dy is not None:
        shell.save("dy.npy", np.ones(dy, np.float32))
        options += ["--grad-output", "dy.npy"]
    return options


@pytest.mark.parametrize("shape", [(3,), (3, 3), (3, 3, 3), (1, 1, 4, 3, 3, 3)])
def test_input_rank(shell, shape):
    text = "(" + ", ".join(map(str, shape)) + ")"
    shell.bad(1, ["input", "x.npy", text, "5", "4"], "forward", *save(shell, x=shape),
              "--output", "y.npy")


@pytest.mark.parametrize("shape", [(3,), (4, 6, 3, 3), (1, 4, 6, 3, 3, 3)])
def test_weight_rank(shell, shape):
    text = "(" + ", ".join(map(str, shape)) + ")"
    shell.bad(1, ["weight", "w.npy", text, "in_channels"], "forward", *save(shell, w=shape),
              "--output", "y.npy")


@pytest.mark.parametrize("shape", [(0,), (1,), (5,), (7,), (3,), (6, 1)])
def test_bias_length(shell, shape):
    shell.bad(1, ["bias", "6" if len(shape) == 1 else "1"], "forward", *save(shell, b=shape), "--output", "y.npy")


def test_weight_of_a_conv_layer_gets_a_hint(shell):
    message = shell.bad(1, ["weight"], "forward", *save(shell, w=(6, 4, 3, 3, 3)),
                        "--output", "y.npy")
    assert "Conv3d" in message and "w.npy" in message


def test_channels_that_differ(shell):
    shell.bad(1, ["weight", "in_channels", "5"], "forward", *save(shell, w=(5, 6, 3, 3, 3)),
              "--output", "y.npy")


@pytest.mark.parametrize("groups", [3, 5])
def test_groups_must_divide_channels(shell, groups):
    shell.bad(1, ["in_channels", "4", "groups", str(groups)], "forward", *save(shell), "--groups",
              groups, "--output", "y.npy")


@pytest.mark.parametrize("x, w", [((1, 0, 3, 3, 3), (0, 6, 3, 3, 3)),
                                  ((1, 4, 0, 3, 3), (4, 6, 3, 3, 3)),
                                  ((1, 4, 3, 3, 0), (4, 6, 3, 3, 3)),
                                  ((1, 4, 3, 3, 3), (4, 0, 3, 3, 3)),
                                  ((1, 4, 3, 3, 3), (4, 6, 3, 0, 3))])
def test_empty_axes(shell, x, w):
    shell.bad(1, ["0"], "forward", *save(shell, x=x, w=w), "--output", "y.npy")


@pytest.mark.parametrize("axis", range(3))
def test_output_that_vanishes(shell, axis):
    padding = ["0", "0", "0"]
    padding[axis] = "3"
    message = shell.bad(1, [AXES[axis], "stride", "padding", "dilation", "-1"], "forward",
                        *save(shell), "--padding", ",".join(padding), "--output", "y.npy")
    assert "(3 - 1)*1 - 3 - 3 + 1*(3 - 1) + 0 + 1 = -1" in message


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("mode, padding, extent", [("reflect", 2, 3), ("circular", 3, 4)])
def test_padding_beyond_the_mode(shell, axis, mode, padding, extent):
    """Outputs of 2 in the tested axis: reflect may pad 1, circular 2."""
    kernel = [3, 3, 3]
    kernel[axis] = 2 * padding
    values = ["0", "0", "0"]
    values[axis] = str(padding)
    files = save(shell, x=(1, 4, 3, 3, 3)[:2 + axis] + (3,) + (3,) * (2 - axis),
                 w=(4, 6, *kernel))
    out = 3 + 2 * padding - 1 - 2 * padding
    assert out == 2
    shell.bad(1, ["padding", AXES[axis], str(padding), mode, str(out)], "forward", *files,
              "--padding-mode", mode, "--padding", ",".join(values), "--output", "y.npy")


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("beside", [-1, 2])
def test_output_size_outside_its_range(shell, axis, beside):
    """Stride 2: 7 to 8 are legal."""
    sizes = [7, 8, 7]
    sizes[axis] = 7 + beside
    for command in (("forward", *save(shell)), ("shape", "--input-size", "1,4,3,3,3",
                                                "--kernel-size", "3")):
        output = ["--output", "y.npy"] if command[0] == "forward" else []
        shell.bad(1 if output else 2, ["output_size", AXES[axis], str(7 + beside), "7 to 8",
                                       "output_padding"], *command, "--stride", "2",
                  "--output-size", ",".join(map(str, sizes)), *output)


@pytest.mark.parametrize("place", range(5))
def test_grad_output_of_another_shape(shell, place):
    shape = [1, 6, 5, 5, 5]
    shape[place] += 1
    shell.bad(1, [str(shape[place])], "backward", *save(shell, dy=shape), "--output-padding", "0",
              "--grad-input", "dx.npy", "--grad-weight", "dw.npy", "--grad-bias", "db.npy")


def test_output_padding_that_is_given_holds_for_grad_output(shell):
    """8 is a legal size for stride 2, but not with this option."""
    options = save(shell, dy=(1, 6, 8, 8, 8)) + ["--stride", "2", "--grad-input", "dx.npy"]
    shell.good("backward", *options)
    shell.good("backward", *options, "--output-padding", "1")
    os.remove(shell.path("dx.npy"))
    shell.bad(1, ["grad_output", "8", "7"], "backward", *options, "--output-padding", "0")
    shell.bad(1, ["grad_output", "8", "7"], "backward", *options, "--output-size", "7")


def test_one_output_size_serves_all_axes(shell):
    shell.good("forward", *save(shell), "--stride", "2", "--output-size", "8", "--output", "y.npy")
    assert shell.load("y.npy").shape == (1, 6, 8, 8, 8)


def test_grad_output_without_batch(shell):
    """One sample only is one sample."""
    shell.bad(1, ["grad_output", "4", "5"], "backward",
              *save(shell, x=(2, 4, 3, 3, 3), dy=(6, 5, 5, 5)), "--grad-input", "dx.npy")


@pytest.mark.parametrize("wanted", ["--grad-input", "--grad-weight", "--grad-bias"])
def test_backward_checks_the_weight(shell, wanted):
    shell.bad(1, ["weight"], "backward", *save(shell, w=(6, 4, 3, 3, 3), dy=(1, 6, 5, 5, 5)),
              wanted, "g.npy")


HUGE = ["2147483648", "1099511627776", "9223372036854775807"]


@pytest.mark.parametrize("value", HUGE)
@pytest.mark.parametrize("option", ["--stride", "--dilation", "--padding", "--kernel-size",
                                    "--groups", "--in-channels", "--out-channels",
                                    "--output-size"])
def test_huge_values(shell, option, value):
    """Refused with a reason, or legal: never a crash, a hang or a wrapped size."""
    layer = {"--in-channels": "2", "--out-channels": "2", "--kernel-size": "2"}
    layer[option] = value
    args = [part for pair in layer.items() for part in pair]
    result = shell.run("shape", "--input-size", "3,4,5", *args)
    assert result.returncode in (0, 1, 2) and "-" not in re.sub(r"[a-z]-", "", result.stdout), result
    if result.returncode:
        assert result.stderr.startswith("convt3d: ")
    if option in ("--stride", "--dilation") and value == HUGE[-1]:
        assert result.returncode == 2 and "64 bits" in result.stderr


def test_shape_product_that_wraps(shell):
    shell.bad(2, ["bytes"], "shape", "--input-size", "4294967296,1,65536,65536,1",
              "--kernel-size", "1")


def test_shape_is_what_forward_makes(shell):
    for seed in range(20):
        layer = problems.random_layer(seed)
        x, w, b, y = problems.shapes(layer)
        text = shell.good("shape", "--input-size", ",".join(map(str, x)), "--out-channels",
                          layer["out_channels"], "--kernel-size",
                          problems.values(layer["kernel_size"]), *problems.options(layer))
        assert "output:  (" + ", ".join(map(str, y)) + ")" in text
        for axis in range(3):
            line = next(t for t in text.splitlines() if t.startswith(AXES[axis]))
            least, most, padding = re.search(
                r"output_size (\d+) to (\d+) \(output_padding 0 to (\d+)\)", line).groups()
            assert int(least) == y[2 + axis] - layer["output_padding"][axis]
            assert int(padding) == max(layer["stride"][axis], layer["dilation"][axis]) - 1
            assert int(most) == int(least) + int(padding)


def test_shape_counts_taps_per_output(shell):
    """Against outputs far from the border, counted by the oracle."""
    for kernel, stride, dilation in [(3, 2, 1), (4, 2, 1), (2, 2, 1), (3, 2, 2), (1, 3, 1),
                                     (5, 3, 2), (4, 6, 4), (7, 4, 6), (2, 1, 1)]:
        layer = {"groups": 1, "padding_mode": "zeros", "input_size": (40, 1, 1),
                 "kernel_size": (kernel, 1, 1), "stride": (stride, 1, 1),
                 "dilation": (dilation, 1, 1), "padding": (0,) * 6, "output_padding": (0,) * 3}
        ones = oracle.forward(layer, np.ones((1, 1, 40, 1, 1)), np.ones((1, 1, kernel, 1, 1)))
        edge = dilation * (kernel - 1) + stride
        inner = ones.ravel()[edge:-edge]
        text = shell.good("shape", "--input-size", "40,1,1", "--kernel-size", f"{kernel},1,1",
                          "--stride", f"{stride},1,1", "--dilation", f"{dilation},1,1")
        assert f"taps per output {inner.min():.0f} to {inner.max():.0f}" in text
        assert ("even" if inner.min() == inner.max() else "uneven") in text.splitlines()[3]


def test_shape_of_the_pages_examples(shell):
    common = ("shape", "--input-size", "20,16,10,50,100", "--out-channels", "33")
    text = shell.good(*common, "--kernel-size", "3", "--stride", "2")
    assert "output:  (20, 33, 21, 101, 201)" in text
    text = shell.good(*common, "--kernel-size", "3,5,2", "--stride", "2,1,1", "--padding", "0,4,2")
    assert "output:  (20, 33, 21, 46, 97)" in text
    floats = 20 * 16 * 10 * 50 * 100 + 16 * 33 * 3 * 5 * 2 + 20 * 33 * 21 * 46 * 97
    assert f"forward: {4 * (floats + 33)} bytes of tensors" in text
    assert f"backward_input: {4 * floats} bytes of tensors" in text


def test_shape_without_batch_and_channels(shell):
    assert "output:  (1, 1, 4, 6, 8)" in shell.good("shape", "--input-size", "2,3,4",
                                                    "--kernel-size", "2", "--stride", "2")
    assert "output:  (5, 4, 6, 8)" in shell.good("shape", "--input-size", "5,2,3,4",
                                                 "--kernel-size", "2", "--stride", "2")
    assert "output:  (0, 5, 4, 6, 8)" in shell.good("shape", "--input-size", "0,5,2,3,4",
                                                    "--kernel-size", "2", "--stride", "2")
