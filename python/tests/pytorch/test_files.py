"""Parameters in safetensors files, between Python, the shell command and R, in both directions.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import problems
import pytest
import torch
from torch_cases import MODES, Own, integers, module, plain, same_bytes, symmetric, typical

from convt3d.torch import ConvTranspose3d

pytest.importorskip("safetensors")
import safetensors.numpy
import safetensors.torch

TOP = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("CONVT3D_BUILD", TOP / "build"))
COMMAND = Path(os.environ.get("CONVT3D", TOP / "build" / "convt3d"))

needs_command = pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} isn't built")


class Folder:
    """The shell command and R in a folder of their own."""

    def __init__(self, path):
        self.path = path

    def run(self, *command, **environment):
        child = subprocess.run(
            [str(c) for c in command],
            cwd=self.path,
            env=dict(os.environ, **environment),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert child.returncode == 0, child.stderr
        return child.stdout

    def shell(self, *arguments):
        return self.run(COMMAND, *arguments)

    def r(self, *lines):
        return self.run(
            "Rscript", "-e", "\n".join(("library(convt3d)", *lines)), R_LIBS=r_libraries()
        )


def r_libraries():
    return os.pathsep.join(filter(None, [str(BUILD / "r" / "lib"), os.environ.get("R_LIBS", "")]))


def no_r():
    """Why R can't take part; empty if it can."""
    if not shutil.which("Rscript"):
        return "R isn't here"
    code = 'cat(all(sapply(c("convt3d", "jsonlite"), requireNamespace, quietly = TRUE)))'
    child = subprocess.run(
        ["Rscript", "-e", code],
        env=dict(os.environ, R_LIBS=r_libraries()),
        capture_output=True,
        text=True,
        timeout=60,
    )
    return "" if child.stdout == "TRUE" else "R has no packages convt3d and jsonlite"


NO_R = no_r()
needs_r = pytest.mark.skipif(bool(NO_R), reason=NO_R)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def init(folder, layer, seed):
    """The command's own module of this layer."""
    folder.shell(
        "init",
        *("--in-channels", layer["in_channels"], "--out-channels", layer["out_channels"]),
        *("--kernel-size", problems.values(layer["kernel_size"]), *problems.options(layer)),
        *("--dtype", layer["dtype"], *([] if layer["bias"] else ["--no-bias"])),
        *("--seed", seed, "--output", "m.safetensors"),
    )
    return folder.path / "m.safetensors"


@needs_command
@pytest.mark.parametrize("seed", range(8))
def test_what_the_command_writes(folder, seed):
    """The values that PyTorch itself draws for this seed."""
    layer = symmetric(seed)
    path = init(folder, layer, seed)
    torch.manual_seed(seed)
    drawn = module(layer)
    x = integers(seed, layer)[0]
    np.save(folder.path / "x.npy", x.numpy())
    folder.shell(*("forward", "--input", "x.npy", "--module", "m.safetensors", "--output", "y.npy"))
    y = torch.from_numpy(np.load(folder.path / "y.npy"))
    kinds = (ConvTranspose3d, Own) if layer["padding_mode"] == "zeros" else (ConvTranspose3d,)
    for kind in kinds:
        made = module(layer, kind=kind)
        made.load_state_dict(safetensors.torch.load_file(path), strict=True)
        assert same_bytes(made.weight.detach(), drawn.weight.detach())
        found = made(x).detach()
        assert found.dtype is y.dtype
        torch.testing.assert_close(found, y)
        if kind is ConvTranspose3d:
            assert same_bytes(found, y)  # the same library
    with safetensors.safe_open(str(path), "pt") as file:
        assert file.metadata()["padding_mode"] == layer["padding_mode"]


@needs_command
@pytest.mark.parametrize("package", ["torch", "numpy"])
@pytest.mark.parametrize("seed", range(4))
def test_what_the_command_reads(folder, seed, package):
    layer = symmetric(seed)
    x, w, b, dy = integers(seed, layer)
    made = module(layer, w, b)
    path = folder.path / "m.safetensors"
    if package == "torch":
        safetensors.torch.save_file(made.state_dict(), path)
    else:
        safetensors.numpy.save_file({n: t.numpy() for n, t in made.state_dict().items()}, path)
    np.save(folder.path / "x.npy", x.numpy())
    np.save(folder.path / "dy.npy", dy.numpy())
    common = ("--input", "x.npy", "--module", "m.safetensors", *problems.options(layer))
    folder.shell("forward", *common, "--output", "y.npy")
    folder.shell(
        *("backward", *common, "--grad-output", "dy.npy", "--grad-input", "dx.npy"),
        *("--grad-weight", "dw.npy"),
    )
    x.requires_grad_()
    y = made(x)
    y.backward(dy)
    found = [np.load(folder.path / f"{name}.npy") for name in ("y", "dx", "dw")]
    for a, b in zip(found, (y.detach(), x.grad, made.weight.grad)):
        assert np.array_equal(a, b.numpy()) and a.dtype == b.numpy().dtype


@needs_command
def test_models_go_layer_by_layer(folder):
    """Of a whole network's file, the command reads the tensors that are named."""
    net = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), module(plain()), torch.nn.ReLU())
    safetensors.torch.save_model(net, str(folder.path / "net.safetensors"))
    x = integers(1, plain())[0]
    np.save(folder.path / "x.npy", x.numpy())
    folder.shell(
        *("forward", "--input", "x.npy", "--weight", "net.safetensors:1.weight"),
        *("--bias", "net.safetensors:1.bias", "--output", "y.safetensors:y"),
    )
    y = safetensors.torch.load_file(folder.path / "y.safetensors")["y"]
    assert torch.equal(y, net[1](x))
    again = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), ConvTranspose3d(2, 3, (2, 2, 3)))
    safetensors.torch.load_model(again, str(folder.path / "net.safetensors"))
    assert torch.equal(again[1](x), y)


def test_through_numpy_and_back(tmp_path):
    made = module(typical("reflect"))
    state = {name: t.numpy() for name, t in made.state_dict().items()}
    safetensors.numpy.save_file(state, tmp_path / "m.safetensors")
    for kind in (ConvTranspose3d, Own):
        again = module(typical("reflect"), kind=kind)
        again.load_state_dict(safetensors.torch.load_file(tmp_path / "m.safetensors"))
        safetensors.torch.save_file(again.state_dict(), tmp_path / "n.safetensors")
        back = safetensors.numpy.load_file(tmp_path / "n.safetensors")
        assert back.keys() == state.keys()
        assert all(back[name].tobytes() == state[name].tobytes() for name in state)


def r_layer(layer):
    """The call that makes this layer in R."""
    values = {name: layer[name] for name in ("stride", "output_padding", "dilation")}
    values["padding"] = layer["padding"][::2]
    named = [f"{name} = c{value}" for name, value in values.items()]
    bias = "TRUE" if layer["bias"] else "FALSE"
    return (
        f"nn_conv_transpose3d({layer['in_channels']}, {layer['out_channels']}, "
        f"c{layer['kernel_size']}, {', '.join(named)}, groups = {layer['groups']}, "
        f'bias = {bias}, padding_mode = "{layer["padding_mode"]}")'
    )


@needs_r
@pytest.mark.parametrize("mode", MODES)
def test_what_r_writes(folder, mode):
    """Its layer, its input and its output, which the drop-in gives as well."""
    layer = typical(mode, bias=mode != "reflect")
    x = problems.shapes(layer)[0]
    folder.r(
        f"torch_manual_seed(7); m <- {r_layer(layer)}; x <- torch_randn{x}",
        'safetensors_save(m, "m.safetensors")',
        'safetensors_save(list(x = x, y = m(x)), "xy.safetensors")',
    )
    torch.manual_seed(7)
    drawn = module(layer)
    made = module(layer)
    made.load_state_dict(safetensors.torch.load_file(folder.path / "m.safetensors"), strict=True)
    assert all(map(same_bytes, made.state_dict().values(), drawn.state_dict().values()))
    tensors = safetensors.torch.load_file(folder.path / "xy.safetensors")
    torch.testing.assert_close(made(tensors["x"]).detach(), tensors["y"], rtol=1e-5, atol=1e-5)
    with safetensors.safe_open(str(folder.path / "m.safetensors"), "np") as file:
        assert file.metadata()["padding_mode"] == mode


@needs_r
@pytest.mark.parametrize("mode", MODES)
def test_what_r_reads(folder, mode):
    """Integers, whose sums are the same whatever kernels they are made by."""
    layer = typical(mode)
    x, w, b, _ = integers(9, layer)
    made = module(layer, w, b)
    safetensors.torch.save_file(made.state_dict(), folder.path / "m.safetensors")
    safetensors.numpy.save_file({"x": x.numpy()}, folder.path / "x.safetensors")
    folder.r(
        f"m <- {r_layer(layer)}",
        'm$load_state_dict(safetensors_load("m.safetensors"))',
        'y <- m(safetensors_load("x.safetensors")$x)',
        'safetensors_save(list(y = y, weight = m$weight), "y.safetensors")',
    )
    found = safetensors.torch.load_file(folder.path / "y.safetensors")
    assert torch.equal(found["y"], made(x)) and torch.equal(found["weight"], w)


@needs_command
@needs_r
def test_one_file_for_all(folder):
    """Made by the command; read by R, which makes the layer of it, and by the drop-in."""
    layer = typical("circular")
    path = init(folder, layer, 3)
    folder.r(
        'm <- safetensors_layer("m.safetensors")',
        'safetensors_save(m, "again.safetensors")',
    )
    first, again = (
        safetensors.torch.load_file(p) for p in (path, folder.path / "again.safetensors")
    )
    assert first.keys() == again.keys() == module(layer).state_dict().keys()
    assert all(same_bytes(first[name], again[name]) for name in first)
    headers = []
    for file_path in (path, folder.path / "again.safetensors"):
        with safetensors.safe_open(str(file_path), "np") as file:
            headers.append(file.metadata())
    assert headers[0] == headers[1]
