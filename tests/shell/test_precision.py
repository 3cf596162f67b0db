"""--precision: what it changes, where the CPU has AMX, and what it must not change.
SPDX-License-Identifier: MIT
"""

import json

import numpy as np
import pytest

PROBLEM = "ci64co64i3x4x20k3p1"
NAMES = ["highest", "high", "medium"]
# Of the sum of magnitudes.
MOST = {"highest": 2.0**-20, "high": 2.0**-15, "medium": 2.0**-7}


def has_amx(shell):
    return any(line.split() == ["ISA:", "x86_amx", "yes"]
               for line in shell.good("info").splitlines())


def outputs(shell, x, w, *args):
    files = ["--input", shell.save("x.npy", x), "--weight", shell.save("w.npy", w)]
    for name in (*NAMES, None):
        option = ["--precision", name] if name else []
        shell.good("forward", *files, "--padding", "1", *option, *args, "--output", "y.npy")
        yield shell.load("y.npy")


def layer(dtype):
    rng = np.random.default_rng(7)
    return (rng.standard_normal((1, 64, 3, 4, 20)).astype(dtype),
            rng.standard_normal((64, 64, 3, 3, 3)).astype(dtype))


def test_each_is_as_exact_as_it_says(shell):
    x, w = layer("float32")
    wide, *_ = outputs(shell, x.astype("float64"), w.astype("float64"))
    sums, *_ = outputs(shell, np.abs(x).astype("float64"), np.abs(w).astype("float64"))
    highest, high, medium, default = outputs(shell, x, w)
    errors = {name: (np.abs(y - wide) / sums).max()
              for name, y in zip(NAMES, (highest, high, medium))}
    assert np.array_equal(highest, default)
    for name in NAMES:
        assert errors[name] <= MOST[name]
    if has_amx(shell):
        assert errors["highest"] * 4 < errors["high"] < errors["medium"] / 64
    else:
        assert np.array_equal(highest, high) and np.array_equal(highest, medium)


def test_float64_and_other_instruction_sets_know_one(shell):
    x, w = layer("float64")
    first, *others = outputs(shell, x, w)
    assert all(np.array_equal(first, other) for other in others)
    x, w = layer("float32")
    first, *others = outputs(shell, x, w, "--isa", "generic")
    assert all(np.array_equal(first, other) for other in others)


def test_info_says_what_was_chosen_and_why(shell):
    texts = [shell.good("info", "--problem", PROBLEM, "--precision", name) for name in NAMES]
    assert all(f"precision: {name}\n" in text for name, text in zip(NAMES, texts))
    assert "precision" not in shell.good("info", "--problem", PROBLEM + "f64")
    thin = shell.good("info", "--problem", "ci4co30i3x4x20k3p1", "--direction", "forward")
    if has_amx(shell):
        for words, text in zip(("six of three", "three of two", "one of bfloat16"), texts):
            assert words in text
        assert "groups of fewer than 16 channels" in thin
        forbidden = shell.good("info", "--problem", PROBLEM, "--isa", "x86_avx512")
        assert "products" not in forbidden and "isa: x86_avx512" in forbidden
        forbidden = shell.good("info", "--problem", PROBLEM, env={"CONVT3D_ISA": "x86_avx512"})
        assert "products" not in forbidden
    else:
        assert "products" not in "".join(texts) + thin


@pytest.mark.parametrize("command", ["forward", "backward", "info", "bench"])
def test_names(shell, command):
    array = shell.save("a.npy", np.ones((1, 1, 2, 2, 2), "float32"))
    args = {"forward": ["--input", array, "--weight", array, "--output", "y.npy"],
            "backward": ["--input", array, "--weight", array, "--grad-output", array,
                         "--grad-input", "g.npy"],
            "info": ["--problem", PROBLEM], "bench": [PROBLEM]}[command]
    shell.bad(2, ["--precision", "low", "highest", "medium"], command, *args, "--precision", "low")


def test_bench_names_it(shell):
    line = shell.good("bench", "ci2co2i2k2", "--precision", "high", "--json", "--direction",
                      "forward")
    assert json.loads(line)["precision"] == "high"
