"""Activations: what forward --activation writes, and who takes the option.
SPDX-License-Identifier: MIT
"""

import json
import math

import numpy as np
import pytest

import oracle
import problems

PROBLEM = "n1ci2co3i3k3s2"
FORMULAS = {
    "none": lambda y: y,
    "relu": lambda y: np.maximum(y, 0),
    "leaky_relu": lambda y: np.where(y > 0, y, 0.01 * y),
    "gelu": lambda y: y / 2 * (1 + np.vectorize(math.erf)(y / math.sqrt(2))),
    "gelu_tanh": lambda y: y / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3))),
    "sigmoid": lambda y: 1 / (1 + np.exp(-y)),
    "tanh": np.tanh,
}


def layer(mode, dtype):
    return {"batch": 2, "groups": 1, "padding_mode": mode, "bias": True, "dtype": dtype,
            "in_channels": 2, "out_channels": 3, "input_size": (2, 3, 4), "kernel_size": (2, 1, 3),
            "stride": (1, 2, 2), "dilation": (1, 1, 1), "padding": (0, 0, 0, 0, 1, 1),
            "output_padding": (0, 1, 0)}


def files(shell, arrays):
    return [part for name, array in zip(("input", "weight", "bias"), arrays)
            for part in ("--" + name, shell.save(name + ".npy", array))]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_formulas(shell, mode, dtype):
    problem = layer(mode, dtype)
    x, w, b, _ = problems.integers(3, problem)
    x, b = x / 8, b / 4  # to where the functions bend; every sum stays exact
    y = oracle.forward(problem, x.astype("float64"), w, b.astype("float64"))
    assert y.min() < -1 and y.max() > 1
    for name, function in FORMULAS.items():
        for algorithm in ("engine", "reference"):
            shell.good("forward", *files(shell, (x.astype(dtype), w.astype(dtype),
                                                 b.astype(dtype))),
                       *problems.options(problem), "--activation", name, "--algorithm", algorithm,
                       "--output", "y.npy")
            found = shell.load("y.npy")
            assert found.dtype == np.dtype(dtype) and found.shape == y.shape
            error = np.abs(found - function(y)).max()
            assert error < (1e-5 if dtype == "float32" else 1e-13), (name, algorithm, error)


def test_negative_slope(shell):
    shell.save("x.npy", np.array([-8, -0.5, 0, 3], "float32").reshape(1, 1, 1, 1, 4))
    shell.save("w.npy", np.ones((1, 1, 1, 1, 1), "float32"))
    base = ["forward", "--input", "x.npy", "--weight", "w.npy", "--output", "y.npy",
            "--activation", "leaky_relu"]
    for slope in ("0.25", "-2", "1e-1"):
        shell.good(*base, "--negative-slope", slope)
        assert shell.load("y.npy").ravel().tolist() == [np.float32(-8) * np.float32(slope),
                                                        np.float32(-0.5) * np.float32(slope), 0, 3]
    for wrong in ("nan", "inf", "1e999", "", "0.1x", " 1", "1,2"):
        shell.bad(2, ["--negative-slope", "finite"], *base, "--negative-slope", wrong)
    shell.bad(1, ["negative_slope", "float32"], *base, "--negative-slope", "1e39")


def test_who_takes_it(shell):
    plans = shell.good("info", "--problem", PROBLEM, "--activation", "tanh").split("direction: ")
    assert [("activation: tanh\n" in plan) for plan in plans] == [False, True, False, False]
    line, = shell.good("bench", "--json", PROBLEM, "--direction", "forward", "--activation",
                       "gelu").splitlines()
    assert json.loads(line)["activation"] == "gelu"
    lines = shell.good("bench", "--json", PROBLEM, "--activation", "relu").splitlines()
    assert ["activation" in json.loads(line) for line in lines] == [True, False, False]
    for args in (("info", "--problem"), ("bench",)):
        shell.bad(2, ["--activation", "forward"], *args, PROBLEM, "--direction", "backward_input",
                  "--activation", "relu")
    shell.bad(2, ["--activation", "--problem"], "info", "--activation", "relu")
    shell.bad(2, ["--activation"], "backward", "--activation", "relu")
    shell.bad(2, ["--activation"], "init", "--activation", "relu")
