"""Files in and out: types, orders, places, and files that can't be had.
SPDX-License-Identifier: MIT
"""

import os
import resource

import numpy as np
import pytest

import files
import oracle
import problems

LAYER = {"batch": 2, "groups": 1, "padding_mode": "zeros", "bias": False, "dtype": "float32",
         "in_channels": 2, "out_channels": 3, "input_size": (3, 2, 4), "kernel_size": (2, 3, 2),
         "stride": (2, 1, 1), "dilation": (1, 1, 1), "padding": (0, 0, 1, 1, 0, 0),
         "output_padding": (0, 0, 0)}
OPTIONS = problems.options(LAYER)


def data(limit=3):
    x, w, _, _ = problems.integers(1, LAYER, limit)
    return x, w, oracle.forward(LAYER, x, w)


@pytest.mark.parametrize("dtype", ["bool", "u1", "i1", "<u2", ">u2", "<i2", ">i2", "<u4", "<i4",
                                   ">i4", "<u8", "<i8", ">i8", "<f2", ">f2", "<f4", ">f4", "<f8",
                                   ">f8"])
def test_every_numeric_npy_is_an_input(shell, dtype):
    x, w, _ = data()
    x, b = np.abs(x).astype(dtype), np.array([0, 1, 3]).astype(dtype)
    shell.good("forward", "--input", shell.save("x.npy", x), "--weight", shell.save("w.npy", w),
               "--bias", shell.save("b.npy", b), *OPTIONS, "--output", "y.npy")
    y = shell.load("y.npy")
    assert y.dtype == np.float32
    assert np.array_equal(y, oracle.forward(LAYER, x.astype(np.float64), w, b))


@pytest.mark.parametrize("dtype, found", [("<f2", "float16"), ("i1", "float32"),
                                          ("<i2", "float32"), ("<i4", "float64"),
                                          ("<f8", "float64"), (">f8", "float64")])
def test_the_weight_decides_the_type(shell, dtype, found):
    x, w, y = data()
    shell.good("forward", "--input", shell.save("x.npy", x), "--weight",
               shell.save("w.npy", w.astype(dtype)), *OPTIONS, "--output", "y.npy")
    assert shell.load("y.npy").dtype == found
    assert np.array_equal(shell.load("y.npy"), y)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_overrides(shell, dtype):
    """0.1 tells a float32 computation from a float64 one."""
    shell.save("x.npy", np.full((1, 1, 1, 1, 1), 0.1))
    shell.save("w.npy", np.full((1, 1, 1, 1, 1), 3.0))
    shell.good("forward", "--input", "x.npy", "--weight", "w.npy", "--dtype", dtype, "--output",
               "y.npy")
    y = shell.load("y.npy")
    kind = np.dtype(dtype).type
    assert y.dtype == dtype and y.ravel()[0] == kind(0.1) * kind(3)


@pytest.mark.parametrize("ending", ["npy", "safetensors", "nii", "nii.gz"])
def test_round_trip(shell, ending):
    """What one run writes, another reads: an impulse kernel keeps it."""
    x, _, _ = data()
    w = np.zeros((2, 2, 1, 1, 1), np.float32)
    w[0, 0] = w[1, 1] = 1
    shell.save("w.npy", w)
    shell.good("forward", "--input", shell.save("x.npy", x), "--weight", "w.npy", "--output",
               "a." + ending)
    shell.good("forward", "--input", "a." + ending, "--weight", "w.npy", "--output", "b.npy")
    assert np.array_equal(shell.load("b.npy"), x)


def test_fortran_order(shell):
    x, w, y = data()
    shell.good("forward", "--input", shell.save("x.npy", np.asfortranarray(x)), "--weight",
               shell.save("w.npy", np.asfortranarray(w)), *OPTIONS, "--output", "y.npy")
    assert np.array_equal(shell.load("y.npy"), y)


def test_nifti_axes(shell):
    """x, y, z are W, H, D; time is the batch; dimension 5 the channels."""
    x, w, y = data()
    volume = x.transpose(4, 3, 2, 0, 1)  # x, y, z, t, channel
    files.write_nifti(shell.path("x.nii"), np.asfortranarray(volume), np.eye(4))
    shell.good("forward", "--input", "x.nii", "--weight", shell.save("w.npy", w), *OPTIONS,
               "--output", "y.npy")
    assert np.array_equal(shell.load("y.npy"), y)


@pytest.mark.parametrize("link", [None, os.link, os.symlink])
def test_output_may_be_the_input(shell, link):
    x, _, _ = data()
    shell.save("w.npy", 2 * np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1, 1))
    shell.save("x.npy", x)
    name = "x.npy"
    if link:
        link("x.npy" if link is os.symlink else shell.path("x.npy"), shell.path("other.npy"))
        name = "other.npy"
    shell.good("forward", "--input", "x.npy", "--weight", "w.npy", "--output", name)
    assert np.array_equal(shell.load(name), 2 * x)


def unreadable(shell, kind):
    path = shell.path("bad.npy")
    if kind == "directory":
        os.mkdir(path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind != "missing":
        content = {"empty": b"", "text": b"hello, world, this is no array\n"}
        with open(path, "wb") as file:
            file.write(content.get(kind, b"\x93NUMPY\x01\x00\xff\xff{"))


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "empty", "text", "truncated"])
@pytest.mark.parametrize("option", ["--input", "--weight", "--bias", "--module"])
def test_files_that_are_no_arrays(shell, kind, option):
    x, w, _ = data()
    unreadable(shell, kind)
    given = {"--input": shell.save("x.npy", x), "--weight": shell.save("w.npy", w)}
    given[option] = "bad.npy"
    if option == "--module":
        del given["--weight"]
    shell.bad(1, ["bad.npy"], "forward", *[part for pair in given.items() for part in pair],
              "--output", "y.npy")


@pytest.mark.parametrize("folder", ["no/such/folder", "w.npy"])
def test_output_folder_is_looked_at_first(shell, folder):
    """Before the input, which is missing here, is read."""
    shell.save("w.npy", np.ones((1, 1, 1, 1, 1), np.float32))
    shell.bad(1, ["--output", folder], "forward", "--input", "missing.npy", "--weight", "w.npy",
              "--output", folder + "/y.npy")


def test_a_failed_run_keeps_the_old_output(shell):
    x, w, _ = data()
    shell.save("y.npy", np.arange(5.0))
    shell.bad(1, ["bias"], "forward", "--input", shell.save("x.npy", x), "--weight",
              shell.save("w.npy", w), "--bias", shell.save("b.npy", np.ones(2)), *OPTIONS,
              "--output", "y.npy")
    assert np.array_equal(shell.load("y.npy"), np.arange(5.0))


def test_memory_that_cannot_be_had(shell):
    """An output far beyond the machine: the bytes are named, nothing is left."""
    shell.save("x.npy", np.ones((1, 1, 2, 2, 2), np.float32))
    shell.save("w.npy", np.ones((1, 1, 1, 1, 1), np.float32))
    shell.bad(1, ["bytes"], "forward", "--input", "x.npy", "--weight", "w.npy", "--stride",
              str(2 ** 16), "--output", "y.npy")
    shell.bad(1, ["bytes"], "forward", "--input", "x.npy", "--weight", "w.npy", "--stride",
              str(2 ** 21), "--output", "y.npy")


@pytest.mark.parametrize("megabytes", [40, 60, 80, 100])
def test_memory_limit(shell, megabytes):
    """64 MB of output: refused with the bytes, or done; nothing in between."""
    shell.save("x.npy", np.ones((1, 1, 256, 256, 256), np.uint8))
    shell.save("w.npy", np.ones((1, 1, 1, 1, 1), np.float32))
    args = ("forward", "--input", "x.npy", "--weight", "w.npy", "--threads", "1", "--output",
            "y.npy")
    shell.bad(1, ["bytes"], *args, limit=(resource.RLIMIT_AS, megabytes << 20))
    shell.good(*args)


@pytest.mark.parametrize("name", ["y.npy", "y.safetensors", "y.nii", "y.nii.gz"])
def test_no_room_for_the_output(shell, name):
    """The system refuses the rest of the file: the old one stays, no part of
    the new one."""
    x = np.random.default_rng(2).standard_normal((1, 1, 40, 40, 40)).astype(np.float32)
    shell.save("x.npy", x)
    shell.save("w.npy", np.ones((1, 1, 1, 1, 1), np.float32))
    with open(shell.path(name), "w") as file:
        file.write("the old one")
    shell.bad(1, [name], "forward", "--input", "x.npy", "--weight", "w.npy", "--output", name,
              limit=(resource.RLIMIT_FSIZE, 100000))


@pytest.mark.parametrize("variable, value", [("CONVT3D_NUM_THREADS", "many"),
                                             ("CONVT3D_NUM_THREADS", "0"),
                                             ("CONVT3D_NUM_THREADS", "-3"),
                                             ("CONVT3D_ISA", "mmx")])
def test_environment_that_makes_no_sense(shell, variable, value):
    """No fault of the command line, whatever the command."""
    x, w, _ = data()
    env = {variable: value}
    shell.bad(1, [variable, value], "forward", "--input", shell.save("x.npy", x), "--weight",
              shell.save("w.npy", w), *OPTIONS, "--output", "y.npy", env=env)
    shell.bad(1, [variable, value], "init", "--fill", "trilinear", "--stride", "2", "--output",
              "m.safetensors", env=env)
    shell.bad(1, [variable, value], "shape", "--input-size", "2,2,2", "--kernel-size", "2", env=env)
