"""A trilinear module enlarges as linear interpolation with half-pixel centres
does, computed here with NumPy alone.
SPDX-License-Identifier: MIT
"""

import numpy as np
import pytest

import files


def enlarge(volume, factors):
    """Linear interpolation; beyond the outer centres the edge goes on."""
    for axis, factor in enumerate(factors, start=volume.ndim - 3):
        size = volume.shape[axis]
        at = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
        low = np.minimum(at.astype(int), max(size - 2, 0))
        high = np.minimum(low + 1, size - 1)
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(volume.ndim)])
        volume = volume.take(low, axis) * (1 - share) + volume.take(high, axis) * share
    return volume


@pytest.mark.parametrize("stride", ["2", "3", "4", "2,3,1", "1", "5,1,2"])
@pytest.mark.parametrize("channels", [1, 3])
def test_trilinear_in_mode_replicate(shell, stride, channels):
    factors = [int(s) for s in stride.split(",")] * (3 if "," not in stride else 1)
    shell.good("init", "--fill", "trilinear", "--stride", stride, "--in-channels", channels,
               "--padding-mode", "replicate", "--dtype", "float64", "--output", "up.safetensors")
    assert list(files.read_safetensors(shell.path("up.safetensors"))[0]) == ["weight"]
    x = np.random.default_rng(5).standard_normal((2, channels, 3, 4, 6))
    shell.good("forward", "--input", shell.save("x.npy", x), "--module", "up.safetensors",
               "--output", "y.npy")
    expected = enlarge(x, factors)
    found = shell.load("y.npy")
    assert found.shape == expected.shape
    # Folding a border of two and more onto the edge adds up to more than the
    # edge: beyond stride 3 only what no border reaches is interpolation.
    inner = tuple(slice(f // 2, -(f // 2)) if f > 3 else slice(None) for f in factors)
    assert np.abs(found - expected)[(...,) + inner].max() < 1e-14


def test_trilinear_in_mode_zeros_darkens_only_the_border(shell):
    shell.good("init", "--fill", "trilinear", "--stride", "2", "--output", "up.safetensors")
    x = np.random.default_rng(6).random((1, 1, 4, 5, 6)).astype(np.float32) + 1
    shell.good("forward", "--input", shell.save("x.npy", x), "--module", "up.safetensors",
               "--output", "y.npy")
    y, expected = shell.load("y.npy"), enlarge(x.astype(np.float64), (2, 2, 2))
    inner = (slice(None), slice(None)) + (slice(1, -1),) * 3
    assert np.abs(y[inner] - expected[inner]).max() < 1e-6
    assert y[0, 0, 0, 0, 0] < 0.9 * expected[0, 0, 0, 0, 0]


def world(affine, index):
    return (affine @ np.array([*index, 1.0]))[:3]


def test_doubled_scan_keeps_its_place(shell):
    """Integer scan with an oblique affine: values, voxel size and position."""
    rng = np.random.default_rng(8)
    scan = rng.integers(0, 200, (7, 6, 5)).astype(np.uint8)  # x, y, z
    affine = np.array([[-2, 0.3, 0, 40], [0.1, 1.5, 0.2, -60], [0, -0.4, 3, 10], [0, 0, 0, 1.0]])
    files.write_nifti(shell.path("scan.nii.gz"), scan, affine)
    shell.good("init", "--fill", "trilinear", "--stride", "2", "--padding-mode", "replicate",
               "--output", "up.safetensors")
    for ending in (".nii", ".nii.gz"):
        shell.good("forward", "--input", "scan.nii.gz", "--module", "up.safetensors", "--output",
                   "double" + ending)
        double, found, zooms = files.read_nifti(shell.path("double" + ending))
        expected = enlarge(scan.transpose(2, 1, 0).astype(np.float64), (2, 2, 2))
        assert double.shape[:3] == (14, 12, 10)
        assert np.abs(double.reshape(14, 12, 10) - expected.transpose(2, 1, 0)).max() < 1e-4
        # Half-pixel centres: output 0 lies a quarter of a voxel before input 0.
        for index in ((0, 0, 0), (13, 11, 9), (5, 0, 9)):
            before = (np.array(index) + 0.5) / 2 - 0.5
            assert np.allclose(world(found, index), world(affine, before), atol=1e-4)
        assert np.allclose(zooms, np.sqrt((affine[:3, :3] ** 2).sum(0)) / 2, atol=1e-5)


@pytest.mark.parametrize("options, stride, before, dilation, kernel", [
    (("--stride", "2,3,4", "--padding", "1,0,2,1,0,3"), (2, 3, 4), (1, 2, 0), (1, 1, 1), (3, 4, 5)),
    (("--dilation", "1,2,3",), (1, 1, 1), (0, 0, 0), (1, 2, 3), (3, 4, 5))])
def test_space_follows_every_layer(shell, options, stride, before, dilation, kernel):
    affine = np.array([[1, 0, 0, -5], [0, 2, 0, 7], [0, 0, 3, 9], [0, 0, 0, 1.0]])
    files.write_nifti(shell.path("x.nii"), np.ones((4, 5, 6), np.float32), affine)
    shell.save("w.npy", np.ones((1, 1, *kernel), np.float32))
    shell.good("forward", "--input", "x.nii", "--weight", "w.npy", *options, "--output", "y.nii")
    _, found, _ = files.read_nifti(shell.path("y.nii"))
    for index in ((0, 0, 0), (3, 2, 1)):  # x, y, z
        at = [(index[2 - a] + before[a] - dilation[a] * (kernel[a] - 1) / 2) / stride[a]
              for a in range(3)]
        assert np.allclose(world(found, index), world(affine, at[::-1]), atol=1e-5)
    # And back: the gradient with respect to the input lies where the input did.
    shell.good("backward", "--input", "x.nii", "--weight", "w.npy", *options, "--grad-output",
               "y.nii", "--grad-input", "dx.nii")
    assert np.allclose(files.read_nifti(shell.path("dx.nii"))[1], affine, atol=1e-5)
    shell.save("x.npy", np.ones((1, 1, 6, 5, 4), np.float32))
    shell.good("backward", "--input", "x.npy", "--weight", "w.npy", *options, "--grad-output",
               "y.nii", "--grad-input", "dx.nii")
    assert np.allclose(files.read_nifti(shell.path("dx.nii"))[1], affine, atol=1e-5)
