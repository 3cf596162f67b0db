"""The picture of a volume: which slices, which way up, how bright.
SPDX-License-Identifier: MIT
"""

import numpy as np
import pytest

import files

GAP = 8


def panels(shell, *args):
    """The three slices of the picture that view makes."""
    shell.good("view", *args, "--output", "p.png")
    picture = files.read_png(shell.path("p.png"))
    empty = ~picture.any(axis=0)
    edges, start = [], None
    for x, nothing in enumerate(list(empty) + [True]):
        if not nothing and start is None:
            start = x
        elif nothing and start is not None:
            edges.append(picture[:, start:x])
            start = None
    assert len(edges) == 3, "slices of a volume that is nowhere dark lie apart"
    return [e[e.any(axis=1)] for e in edges]


def octants():
    """A bright volume with one brighter eighth: high x, high y, high z."""
    volume = np.full((40, 40, 40), 100, np.float32)  # z, y, x
    volume[0, 0, :4] = 0
    volume[20:, 20:, 20:] = 200
    return volume


def quarters(panel):
    """Which quarters are the brighter: upper left, upper right, lower left, lower right."""
    h, w = panel.shape[0] // 2, panel.shape[1] // 2
    means = [part.mean() for half in (panel[:h], panel[h:]) for part in (half[:, :w], half[:, w:])]
    return [bool(m > (min(means) + max(means)) / 2) for m in means]


UPPER_RIGHT, LOWER_RIGHT = [False, True, False, False], [False, False, False, True]
UPPER_LEFT, LOWER_LEFT = [True, False, False, False], [False, False, True, False]


@pytest.mark.parametrize("signs, expected", [
    ((1, 1, 1), (UPPER_RIGHT, UPPER_RIGHT, UPPER_RIGHT)),
    ((-1, 1, 1), (UPPER_RIGHT, UPPER_LEFT, UPPER_LEFT)),
    ((1, -1, 1), (UPPER_LEFT, UPPER_RIGHT, LOWER_RIGHT)),
    ((1, 1, -1), (LOWER_RIGHT, LOWER_RIGHT, UPPER_RIGHT))])
def test_superior_anterior_and_right_have_their_sides(shell, signs, expected):
    affine = np.diag([*signs, 1.0])
    files.write_nifti(shell.path("v.nii.gz"), np.asfortranarray(octants().T), affine)
    assert tuple(quarters(p) for p in panels(shell, "v.nii.gz")) == expected


@pytest.mark.parametrize("quatern, qfac, expected", [
    ((0, 0, 0), 1, (UPPER_RIGHT, UPPER_RIGHT, UPPER_RIGHT)),
    ((0, 0, 0), -1, (LOWER_RIGHT, LOWER_RIGHT, UPPER_RIGHT)),
    ((1, 0, 0), 1, (LOWER_LEFT, LOWER_RIGHT, LOWER_RIGHT)),  # half a turn about x
    ((0, 1, 0), 1, (LOWER_RIGHT, LOWER_LEFT, UPPER_LEFT)),
    ((0, 0, 1), 1, (UPPER_LEFT, UPPER_LEFT, LOWER_LEFT))])
def test_sides_by_a_rotation(shell, quatern, qfac, expected):
    files.write_nifti(shell.path("v.nii"), np.asfortranarray(octants().T), np.eye(4), quatern, qfac)
    assert tuple(quarters(p) for p in panels(shell, "v.nii")) == expected


def test_array_without_a_place_is_shown_as_stored(shell):
    shell.save("v.npy", octants())
    assert [quarters(p) for p in panels(shell, "v.npy")] == [LOWER_RIGHT] * 3


def test_voxel_sizes_give_the_proportions(shell):
    volume = np.full((10, 20, 30), 5, np.float32)
    volume[:2] = 4
    files.write_nifti(shell.path("v.nii"), np.asfortranarray(volume.T), np.diag([1, 1, 6, 1.0]))
    sagittal, coronal, axial = panels(shell, "v.nii")
    assert axial.shape == (round(384 * 20 / 60), round(384 * 30 / 60))
    assert sagittal.shape[1] == 384 * 20 // 60 and coronal.shape[1] == 384 * 30 // 60
    for panel in (sagittal, coronal):  # bright are the upper four fifths
        assert abs((panel.mean(axis=1) > 127).sum() - 384 * 0.8) < 3


def test_contrast_ignores_single_bright_voxels(shell):
    rng = np.random.default_rng(3)
    volume = rng.uniform(50, 100, (24, 24, 24)).astype(np.float32)
    volume[3, 3, 3], volume[4, 4, 4], volume[5, 5, 5] = 1e6, np.inf, np.nan
    shell.save("v.npy", volume)
    shell.good("view", "v.npy", "--output", "p.png")
    picture = files.read_png(shell.path("p.png"))
    assert picture.max() == 255 and 90 < picture[picture > 0].mean() < 165


def test_contrast_ignores_what_is_no_number(shell):
    rng = np.random.default_rng(4)
    volume = rng.uniform(50, 100, (24, 24, 24)).astype(np.float32)
    volume[rng.random(volume.shape) < 0.3] = np.nan
    volume[rng.random(volume.shape) < 0.1] = np.inf
    shell.save("v.npy", volume)
    shell.good("view", "v.npy", "--output", "p.png")
    picture = files.read_png(shell.path("p.png"))
    inner = picture[(picture > 0) & (picture < 255)]
    assert inner.size > picture.size / 20 and 90 < inner.mean() < 165


def test_channel_and_batch(shell):
    """Only the chosen channel of the chosen sample has a structure."""
    volume = np.zeros((2, 3, 8, 8, 8), np.float64)
    volume[1, 2] = np.arange(8)
    shell.save("v.npy", volume)
    seen = {}
    for n in range(2):
        for c in range(3):
            shell.good("view", "v.npy", "--batch", n, "--channel", c, "--output", "p.png")
            seen[n, c] = len(np.unique(files.read_png(shell.path("p.png")))) > 8
    assert seen == {(n, c): (n, c) == (1, 2) for n in range(2) for c in range(3)}
    shell.bad(1, ["--channel", "3", "0 to 2"], "view", "v.npy", "--channel", "3", "--output", "q.png")
    shell.bad(1, ["--batch", "2", "0 to 1"], "view", "v.npy", "--batch", "2", "--output", "q.png")


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 1000), (500, 1, 2), (2, 3, 4, 5),
                                   (1, 2, 3, 4, 5)])
@pytest.mark.parametrize("value", [0, 7, np.nan, None])
def test_any_volume_has_a_picture(shell, shape, value):
    volume = np.random.default_rng(0).random(shape) if value is None else np.full(shape, value)
    shell.save("v.npy", volume.astype(np.float32))
    shell.good("view", "v.npy", "--output", "p.png")
    height, width = files.read_png(shell.path("p.png")).shape
    assert 1 <= height <= 384 and 2 * GAP < width <= 3 * 384 + 2 * GAP


@pytest.mark.parametrize("shape", [(3,), (3, 3), (0, 3, 3), (1, 1, 1, 2, 2, 2)])
def test_what_is_no_volume(shell, shape):
    shell.save("v.npy", np.zeros(shape, np.float32))
    text = "(" + ", ".join(map(str, shape)) + ")"
    shell.bad(1, ["v.npy", text], "view", "v.npy", "--output", "p.png")
