"""Random small layers of the whole argument space, and their options.
SPDX-License-Identifier: MIT
"""

import os
import random

import numpy as np

import oracle

MODES = ("zeros", "reflect", "replicate", "circular")
SEED = int(os.environ.get("CONVT3D_TEST_SEED", "20220711"))


def legal(layer):
    for a in range(3):
        before, after = layer["padding"][2 * a:2 * a + 2]
        out = oracle.full_size(layer["input_size"][a], layer["kernel_size"][a], layer["stride"][a],
                               layer["dilation"][a], layer["output_padding"][a]) - before - after
        limit = {"reflect": out - 1, "circular": out}.get(layer["padding_mode"], before + after)
        if out < 1 or max(before, after) > limit:
            return False
    return True


def pick(rng, symmetric):
    layer = {"batch": rng.choice((1, 1, 2, 3)), "groups": rng.choice((1, 1, 1, 2, 3)),
             "padding_mode": rng.choice(MODES), "bias": rng.random() < 0.7,
             "dtype": rng.choice(("float32", "float64"))}
    per_group = rng.choice((1, 1, 2, 3, 4, 9)), rng.choice((1, 1, 2, 3, 5, 17))
    layer["in_channels"] = layer["groups"] * per_group[0]
    layer["out_channels"] = layer["groups"] * per_group[1]
    layer["input_size"] = tuple(rng.randint(1, 6) for _ in range(2)) + (
        rng.choice((1, 2, 3, 4, 7, 8, 9, 16, 17)),)
    layer["kernel_size"] = tuple(rng.randint(1, 5) for _ in range(3))
    layer["stride"] = tuple(rng.randint(1, 4) for _ in range(3))
    layer["dilation"] = tuple(rng.choice((1, 1, 2, 3)) for _ in range(3))
    padding = [rng.randint(0, 3) for _ in range(6)]
    if symmetric or rng.random() < 0.5:
        padding[1::2] = padding[0::2]
    layer["padding"] = tuple(padding)
    layer["output_padding"] = tuple(rng.randint(0, max(s, d) - 1)
                                    for s, d in zip(layer["stride"], layer["dilation"]))
    return layer


def random_layer(seed, symmetric=False):
    rng = random.Random(seed)
    while True:
        layer = pick(rng, symmetric)
        if legal(layer):
            return layer


def shapes(layer):
    """Of x, w, b and y."""
    x = (layer["batch"], layer["in_channels"]) + layer["input_size"]
    w = (layer["in_channels"], layer["out_channels"] // layer["groups"]) + layer["kernel_size"]
    y = (layer["batch"], layer["out_channels"]) + oracle.output_size(layer)
    return x, w, (layer["out_channels"],), y


def integers(seed, layer, limit=9):
    """x, w, b and dy of small integers, whose sums no float rounds."""
    rng = np.random.default_rng(seed)
    arrays = [rng.integers(-limit, limit + 1, shape).astype(layer["dtype"])
              for shape in shapes(layer)]
    if not layer["bias"]:
        arrays[2] = None
    return arrays


def values(numbers):
    """One value where all agree, as people write it."""
    numbers = list(numbers)
    if len(numbers) == 6 and numbers[0::2] == numbers[1::2]:
        numbers = numbers[0::2]
    if len(set(numbers)) == 1:
        numbers = numbers[:1]
    return ",".join(str(n) for n in numbers)


def options(layer, output_padding=True):
    """The layer's arguments on the command line."""
    result = ["--stride", values(layer["stride"]), "--padding", values(layer["padding"]),
              "--dilation", values(layer["dilation"]), "--groups", str(layer["groups"]),
              "--padding-mode", layer["padding_mode"]]
    if output_padding:
        result += ["--output-padding", values(layer["output_padding"])]
    return result
