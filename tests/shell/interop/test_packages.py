"""Files of the safetensors and nibabel packages, read and written both ways.
SPDX-License-Identifier: MIT
"""

import nibabel
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch

import oracle
import problems

LAYER = {"batch": 2, "groups": 1, "padding_mode": "zeros", "bias": True, "dtype": "float32",
         "in_channels": 3, "out_channels": 2, "input_size": (4, 3, 5), "kernel_size": (2, 3, 2),
         "stride": (2, 1, 1), "dilation": (1, 1, 1), "padding": (0, 0, 1, 1, 0, 0),
         "output_padding": (0, 0, 0)}
OPTIONS = problems.options(LAYER)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_state_dict_saved_by_safetensors(shell, dtype):
    layer = torch.nn.ConvTranspose3d(3, 2, (2, 3, 2), stride=(2, 1, 1), padding=(0, 1, 0))
    layer = layer.to(dtype)
    safetensors.torch.save_file(layer.state_dict(), shell.path("m.safetensors"))
    x, _, _, _ = problems.integers(1, LAYER)
    shell.good("forward", "--input", shell.save("x.npy", x), "--module", "m.safetensors",
               *OPTIONS, "--output", "y.safetensors")
    expected = layer.double()(torch.from_numpy(x).double()).detach()
    y = safetensors.torch.load_file(shell.path("y.safetensors"))["tensor"]
    assert y.dtype == dtype
    error = (y.double() - expected).abs()
    assert torch.all(error <= torch.finfo(dtype).eps / 2 * expected.abs() + 1e-4)
    if dtype in (torch.bfloat16, torch.float16):  # rounded once, to the nearest
        shell.good("forward", "--input", "x.npy", "--module", "m.safetensors", *OPTIONS, "--dtype",
                   "float32", "--output", "y.npy")
        assert torch.equal(y, torch.from_numpy(shell.load("y.npy")).to(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "uint8", "int16",
                                   "uint16", "int32", "uint32", "int64", "uint64", "bool"])
def test_inputs_saved_by_safetensors(shell, dtype):
    x, w, b, _ = problems.integers(2, LAYER)
    x = np.abs(x).astype(dtype)
    safetensors.numpy.save_file({"x": x, "w": w, "b": b}, shell.path("all.safetensors"))
    shell.good("forward", "--input", "all.safetensors:x", "--weight", "all.safetensors:w",
               "--bias", "all.safetensors:b", *OPTIONS, "--output", "y.safetensors:y")
    found = safetensors.numpy.load_file(shell.path("y.safetensors"))
    assert list(found) == ["y"]
    assert np.array_equal(found["y"], oracle.forward(LAYER, x.astype(np.float64), w, b))


def test_module_read_by_safetensors(shell):
    shell.good("init", "--in-channels", "3", "--out-channels", "2", "--kernel-size", "2,3,2",
               "--stride", "2,1,1", "--padding", "0,1,0", "--seed", "4", "--output",
               "m.safetensors")
    with safetensors.safe_open(shell.path("m.safetensors"), "np") as file:
        assert sorted(file.keys()) == ["bias", "weight"]
        assert file.metadata()["stride"] == "2,1,1"
    layer = torch.nn.ConvTranspose3d(3, 2, (2, 3, 2), stride=(2, 1, 1), padding=(0, 1, 0))
    layer.load_state_dict(safetensors.torch.load_file(shell.path("m.safetensors")))
    x, _, _, _ = problems.integers(5, LAYER)
    shell.good("forward", "--input", shell.save("x.npy", x), "--module", "m.safetensors",
               "--output", "y.npy")
    assert np.abs(shell.load("y.npy") - layer(torch.from_numpy(x)).detach().numpy()).max() < 1e-5


AFFINE = np.array([[-2, 0.3, 0, 40], [0.1, 1.5, 0.2, -60], [0, -0.4, 3, 10], [0, 0, 0, 1.0]])


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_nifti_of_nibabel(shell, kind, ending, dtype):
    x, w, b, _ = problems.integers(3, LAYER)
    x = np.abs(x).astype(dtype)
    image = kind(x.transpose(4, 3, 2, 0, 1), AFFINE)  # x, y, z, t, channel
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, shell.path("x." + ending))
    shell.good("forward", "--input", "x." + ending, "--weight", shell.save("w.npy", w), "--bias",
               shell.save("b.npy", b), *OPTIONS, "--output", "y." + ending)
    y = nibabel.load(shell.path("y." + ending))
    assert np.array_equal(y.get_fdata().transpose(3, 4, 2, 1, 0),
                          oracle.forward(LAYER, x.astype(np.float64), w, b))
    shift = [(0 + 0 - 1 / 2) / 1, (0 + 1 - 2 / 2) / 1, (0 + 0 - 1 / 2) / 2]  # x, y, z
    follow = np.diag([1, 1, 1 / 2, 1.0])
    follow[:3, 3] = shift
    assert np.allclose(y.affine, AFFINE @ follow, atol=1e-5)
    assert y.header.get_xyzt_units()[0] == "mm"


def test_scaled_integers_of_nibabel(shell):
    """scl_slope and scl_inter are applied."""
    x = np.linspace(-3, 7, 60).reshape(5, 4, 3)
    image = nibabel.Nifti1Image(x, np.eye(4))
    image.set_data_dtype(np.int16)
    nibabel.save(image, shell.path("x.nii"))
    stored = nibabel.load(shell.path("x.nii")).get_fdata()
    shell.save("w.npy", np.ones((1, 1, 1, 1, 1)))
    shell.good("forward", "--input", "x.nii", "--weight", "w.npy", "--output", "y.npy")
    assert np.allclose(shell.load("y.npy")[0, 0], stored.transpose(2, 1, 0), rtol=0, atol=1e-6)


def test_qform_follows(shell):
    """A rotated qform, no sform: the same place for the same voxels."""
    angle = 0.4
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, :3] *= (2.0, 3.0, 4.0)
    affine[:3, 3] = (5, -6, 7)
    image = nibabel.Nifti1Image(np.ones((5, 4, 3), np.float32), None)
    image.set_qform(affine, code=1)
    image.set_sform(None, code=0)
    nibabel.save(image, shell.path("x.nii"))
    shell.good("init", "--fill", "trilinear", "--stride", "2", "--output", "up.safetensors")
    shell.good("forward", "--input", "x.nii", "--module", "up.safetensors", "--output", "y.nii")
    found = nibabel.load(shell.path("y.nii"))
    follow = np.diag([0.5, 0.5, 0.5, 1.0])
    follow[:3, 3] = -0.25
    assert np.allclose(found.affine, affine @ follow, atol=1e-5)
    assert np.allclose(found.header.get_zooms()[:3], (1, 1.5, 2), atol=1e-6)
    assert int(found.header["qform_code"]) == 1 and int(found.header["sform_code"]) == 0
