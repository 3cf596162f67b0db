"""The layer by its definition, in float64, sharing nothing with the program.

Every tap scatters the input over the full result, one position per axis at
i*stride + k*dilation; then each border is folded onto the part that is kept, as
the padding mode says.  The gradients gather where this scatters.
SPDX-License-Identifier: MIT
"""

import itertools

import numpy as np


def full_size(size, kernel_size, stride, dilation, output_padding):
    return (size - 1) * stride + dilation * (kernel_size - 1) + 1 + output_padding


def full_shape(layer):
    return [full_size(layer["input_size"][a], layer["kernel_size"][a], layer["stride"][a],
                      layer["dilation"][a], layer["output_padding"][a]) for a in range(3)]


def output_size(layer):
    padding = layer["padding"]
    return tuple(n - padding[2 * a] - padding[2 * a + 1] for a, n in enumerate(full_shape(layer)))


def owner(position, length, mode):
    """The output that a position, counted from the first output, belongs to."""
    if 0 <= position < length:
        return position
    if mode == "zeros":
        return None
    if mode == "replicate":
        return 0 if position < 0 else length - 1
    if mode == "circular":
        return position + length if position < 0 else position - length
    return -position if position < 0 else 2 * (length - 1) - position


def owners(layer, axis):
    """Pairs of a position in the full result and the output it belongs to."""
    length, before = output_size(layer)[axis], layer["padding"][2 * axis]
    for position in range(full_shape(layer)[axis]):
        found = owner(position - before, length, layer["padding_mode"])
        if found is not None:
            yield position, found


def fold(full, layer):
    for axis in range(3):
        source = np.moveaxis(full, 2 + axis, 0)
        target = np.zeros((output_size(layer)[axis],) + source.shape[1:])
        for position, found in owners(layer, axis):
            target[found] += source[position]
        full = np.moveaxis(target, 0, 2 + axis)
    return full


def unfold(dy, layer):
    for axis in range(3):
        source = np.moveaxis(dy, 2 + axis, 0)
        target = np.zeros((full_shape(layer)[axis],) + source.shape[1:])
        for position, found in owners(layer, axis):
            target[position] = source[found]
        dy = np.moveaxis(target, 0, 2 + axis)
    return dy


def taps(layer):
    """Every tap, and the places in the full result that it reaches."""
    for k in itertools.product(*map(range, layer["kernel_size"])):
        reach = []
        for a in range(3):
            first, step = k[a] * layer["dilation"][a], layer["stride"][a]
            reach.append(slice(first, first + (layer["input_size"][a] - 1) * step + 1, step))
        yield (slice(None), slice(None)) + k, (slice(None), slice(None)) + tuple(reach)


def by_group(array, layer, axis):
    return np.split(array.astype(np.float64), layer["groups"], axis)


def forward(layer, x, w, b=None):
    parts = []
    for xg, wg in zip(by_group(x, layer, 1), by_group(w, layer, 0)):
        full = np.zeros([x.shape[0], w.shape[1]] + full_shape(layer))
        for tap, reach in taps(layer):
            full[reach] += np.einsum("ncdhw,cm->nmdhw", xg, wg[tap])
        parts.append(fold(full, layer))
    y = np.concatenate(parts, axis=1)
    return y if b is None else y + b.astype(np.float64).reshape(1, -1, 1, 1, 1)


def backward(layer, x, w, dy):
    """Gradients with respect to input, weight and bias."""
    dx, dw = [], []
    for xg, wg, dyg in zip(by_group(x, layer, 1), by_group(w, layer, 0), by_group(dy, layer, 1)):
        full = unfold(dyg, layer)
        dxg, dwg = np.zeros(xg.shape), np.zeros(wg.shape)
        for tap, reach in taps(layer):
            dxg += np.einsum("nmdhw,cm->ncdhw", full[reach], wg[tap])
            dwg[tap] = np.einsum("ncdhw,nmdhw->cm", xg, full[reach])
        dx.append(dxg)
        dw.append(dwg)
    return (np.concatenate(dx, axis=1), np.concatenate(dw, axis=0),
            dy.astype(np.float64).sum(axis=(0, 2, 3, 4)))
