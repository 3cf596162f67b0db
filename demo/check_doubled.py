#!/usr/bin/env python3
"""Checks a doubled NIfTI volume against linear interpolation computed here.

Usage: check_doubled.py VOLUME.nii.gz DOUBLED.nii

Knows nothing of transposed convolution: voxel o of the doubled volume lies at
position (o + 1/2)/2 - 1/2 of the original, kept inside it, and takes the
weighted mean of the two neighbours, axis by axis, in double.  Compares every
voxel, and where both files say that voxels lie in space.

SPDX-License-Identifier: MIT
"""

import gzip
import sys

import numpy as np

TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}


def read(path):
    """Voxels (x, y, z) and the 4x4 matrix of the header's sform."""
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
        data = file.read()
    order = "<" if int.from_bytes(data[:4], "little") == 348 else ">"
    number = lambda kind, at, count: np.frombuffer(data, order + kind, count, at)  # noqa: E731
    dims = number("i2", 40, 8)
    size = [int(n) for n in dims[1:4]]
    assert np.prod(dims[4:1 + dims[0]], dtype=int) == 1, "one volume was expected"
    voxels = number(TYPES[int(number("i2", 70, 1)[0])], int(number("f4", 108, 1)[0]),
                    size[0] * size[1] * size[2])
    slope, intercept = number("f4", 112, 2)
    if slope != 0:
        voxels = voxels * np.float64(slope) + np.float64(intercept)
    affine = np.vstack([number("f4", 280, 12).reshape(3, 4), [0, 0, 0, 1]]).astype(np.float64)
    return voxels.reshape(size, order="F"), affine


def neighbours(size):
    """For each position of a doubled axis: the neighbour below it, and the other one's part."""
    position = np.clip((np.arange(2 * size) + 0.5) / 2 - 0.5, 0, size - 1)
    low = np.minimum(np.floor(position).astype(int), size - 2)
    return low, position - low


def double(volume, axis):
    low, part = neighbours(volume.shape[axis])
    part = part.reshape([-1 if a == axis else 1 for a in range(3)])
    return volume.take(low, axis) * (1 - part) + volume.take(low + 1, axis) * part


def largest_difference(original, doubled):
    """The last axis plane by plane: all at once it would take a gigabyte."""
    planes = double(double(original.astype(np.float64), 0), 1)
    worst = 0.0
    for o, (low, part) in enumerate(zip(*neighbours(original.shape[2]))):
        plane = planes[:, :, low] * (1 - part) + planes[:, :, low + 1] * part
        worst = np.maximum(worst, np.abs(plane - doubled[:, :, o]).max())  # a NaN stays
    return float(worst)


def main():
    original, affine = read(sys.argv[1])
    doubled, doubled_affine = read(sys.argv[2])
    shape = tuple(2 * size for size in original.shape)
    if doubled.shape != shape:
        sys.exit("check: the shape is %s, not %s" % (doubled.shape, shape))
    worst = largest_difference(original, doubled)
    scale = float(np.abs(original).max())
    print("  checked all %d voxels against linear interpolation: largest difference %.2g "
          "(values up to %g)" % (doubled.size, worst, scale))
    # Eight products, each rounded once, of values up to 'scale'.
    if not worst <= 8 * 2.0**-24 * scale or doubled.std() < 0.5 * original.std():
        sys.exit("check: that is too much")

    step = np.diag([0.5, 0.5, 0.5, 1.0])
    step[:3, 3] = -0.25
    shift = float(np.abs(affine @ step - doubled_affine).max())
    print("  checked where the voxels lie: off by at most %.2g mm" % shift)
    if not shift < 1e-4:
        sys.exit("check: the doubled volume is not where the original was")


if __name__ == "__main__":
    main()
