"""The command against PyTorch: values in all directions, over the whole
argument space, and parameters after a seed.
SPDX-License-Identifier: MIT
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import files
import problems

BLOCK, BLOCKS = 15, 12


def tensors(layer, seed):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(layer["dtype"]) for shape in problems.shapes(layer)]


def run(shell, layer, x, w, b, dy):
    common = ["--input", shell.save("x.npy", x), "--weight", shell.save("w.npy", w),
              *problems.options(layer)]
    bias = ["--bias", shell.save("b.npy", b)] if layer["bias"] else []
    shell.good("forward", *common, *bias, "--output", "y.npy")
    shell.good("backward", *common, "--grad-output", shell.save("dy.npy", dy), "--grad-input",
               "dx.npy", "--grad-weight", "dw.npy", "--grad-bias", "db.npy")
    return [shell.load(name + ".npy") for name in ("y", "dx", "dw", "db")]


def conv_transpose(layer, x, w, b):
    return F.conv_transpose3d(x, w, b, layer["stride"], layer["padding"][0::2],
                              layer["output_padding"], layer["groups"], layer["dilation"])


def fold_by_autograd(layer, x, w, b):
    """The gradient, with respect to its input, of a Conv3d of that padding mode
    (torch.nn.Conv3d pads with F.pad).  The conv may have more outputs than x has
    inputs, as output_padding can reach beyond a stride: those get no gradient."""
    p = layer["padding"]
    size = [layer["batch"], layer["out_channels"]] + [
        (layer["input_size"][a] - 1) * layer["stride"][a] + layer["dilation"][a]
        * (layer["kernel_size"][a] - 1) + 1 + layer["output_padding"][a] - p[2 * a] - p[2 * a + 1]
        for a in range(3)]
    volume = torch.zeros(size, dtype=x.dtype, requires_grad=True)
    padded = F.pad(volume, (p[4], p[5], p[2], p[3], p[0], p[1]),
                   **({"mode": layer["padding_mode"]} if layer["padding_mode"] != "zeros" else {}))
    z = F.conv3d(padded, w, None, layer["stride"], 0, layer["dilation"], layer["groups"])
    z = z[:, :, :x.shape[2], :x.shape[3], :x.shape[4]]
    y, = torch.autograd.grad(z, volume, x, create_graph=True)
    return y if b is None else y + b.reshape(1, -1, 1, 1, 1)


def expected(function, layer, arrays):
    x, w, b, dy = (torch.from_numpy(a.astype(np.float64)) for a in arrays)
    leaves = [t.requires_grad_() for t in (x, w, b)]
    y = function(layer, x, w, b if layer["bias"] else None)
    grads = torch.autograd.grad(y, leaves, dy, allow_unused=True)
    db = dy.sum((0, 2, 3, 4))
    return [t.detach().numpy() for t in (y, grads[0], grads[1], db)]


def compare(layer, found, wanted, arrays, function):
    """Errors in units of the sum of magnitudes, by the layer of magnitudes."""
    unit = 2.0 ** (-24 if layer["dtype"] == "float32" else -52)
    sums = expected(function, layer, [np.abs(a) for a in arrays])
    for name, a, b, s in zip(("y", "dx", "dw", "db"), found, wanted, sums):
        assert a.shape == b.shape, (name, layer)
        assert np.all(np.abs(a - b) <= 16 * unit * s + 1e-300), (name, layer)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_zeros_mode(shell, block):
    done, seed = 0, problems.SEED + 1000 * block
    while done < BLOCK:
        seed += 1
        layer = problems.random_layer(seed, symmetric=True)
        layer["padding_mode"] = "zeros"
        if not problems.legal(layer):
            continue
        arrays = tensors(layer, seed)
        compare(layer, run(shell, layer, *arrays), expected(conv_transpose, layer, arrays),
                arrays, conv_transpose)
        done += 1


@pytest.mark.parametrize("mode", problems.MODES)
@pytest.mark.parametrize("block", range(4))
def test_every_mode_is_the_gradient_of_conv3d(shell, mode, block):
    done, seed = 0, problems.SEED + 7777 * block
    while done < BLOCK:
        seed += 1
        layer = problems.random_layer(seed)
        layer["padding_mode"] = mode
        if not problems.legal(layer):
            continue
        arrays = tensors(layer, seed)
        compare(layer, run(shell, layer, *arrays), expected(fold_by_autograd, layer, arrays),
                arrays, fold_by_autograd)
        done += 1


@pytest.mark.parametrize("mode", problems.MODES)
def test_modes_through_the_conv3d_module(shell, mode):
    """The module itself, in place of F.pad, so that its meaning of the mode is
    what is tested."""
    torch.manual_seed(3)
    conv = torch.nn.Conv3d(6, 4, (3, 4, 3), stride=(2, 1, 2), padding=(1, 2, 1), groups=2,
                           bias=False, padding_mode=mode, dtype=torch.float64)
    volume = torch.zeros(2, 6, 5, 6, 7, dtype=torch.float64, requires_grad=True)
    z = conv(volume)
    x = torch.randn(z.shape, dtype=torch.float64)
    y, = torch.autograd.grad(z, volume, x)
    shell.save("x.npy", x.numpy())
    shell.save("w.npy", conv.weight.detach().numpy())
    shell.good("forward", "--input", "x.npy", "--weight", "w.npy", "--stride", "2,1,2",
               "--padding", "1,2,1", "--groups", "2", "--padding-mode", mode, "--output-size",
               "5,6,7", "--output", "y.npy")
    assert np.allclose(shell.load("y.npy"), y.numpy(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("seed", [0, 1, 12345, 2 ** 32 - 1, 2 ** 32, 2 ** 63, 2 ** 64 - 1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [(16, 33, (3, 5, 2), 1), (4, 6, (1, 1, 1), 2),
                                   (64, 32, (3, 3, 3), 32)])
def test_seeded_parameters_are_pytorchs(shell, seed, dtype, sizes):
    cin, cout, kernel, groups = sizes
    torch.manual_seed(seed)
    layer = torch.nn.ConvTranspose3d(cin, cout, kernel, groups=groups,
                                     dtype=getattr(torch, dtype))
    shell.good("init", "--in-channels", cin, "--out-channels", cout, "--kernel-size",
               ",".join(map(str, kernel)), "--groups", groups, "--dtype", dtype, "--seed", seed,
               "--output", "m.safetensors")
    found, _ = files.read_safetensors(shell.path("m.safetensors"))
    assert np.array_equal(found["weight"], layer.weight.detach().numpy())
    assert np.array_equal(found["bias"], layer.bias.detach().numpy())


def test_pages_examples(shell):
    """The two layers of the reference page, on a smaller batch."""
    torch.manual_seed(1)
    x = torch.randn(2, 16, 10, 50, 100)
    shell.save("x.npy", x.numpy())
    for args, layer in [
            (("--kernel-size", "3", "--stride", "2"), torch.nn.ConvTranspose3d(16, 33, 3, stride=2)),
            (("--kernel-size", "3,5,2", "--stride", "2,1,1", "--padding", "0,4,2"),
             torch.nn.ConvTranspose3d(16, 33, (3, 5, 2), stride=(2, 1, 1), padding=(0, 4, 2)))]:
        files.write_safetensors(shell.path("m.safetensors"),
                                {k: v.numpy() for k, v in layer.state_dict().items()})
        shell.good("forward", "--input", "x.npy", "--module", "m.safetensors", *args[2:],
                   "--output", "y.npy")
        y = layer.double()(x.double()).detach().numpy()
        assert shell.load("y.npy").shape == y.shape
        assert np.abs(shell.load("y.npy") - y).max() < 1e-5
