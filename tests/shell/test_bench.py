"""convt3d bench: figures that make sense, for a problem and for a file of them.
SPDX-License-Identifier: MIT
"""

import json

import pytest

KEYS = ["problem", "name", "direction", "threads", "precision", "isa", "ms", "gflops",
        "extra_bytes"]
DIRECTIONS = ["forward", "backward_input", "backward_weight"]
SMALL = "n2ci3co4i5x6x7k3s2p1"


def write(shell, name, text):
    with open(shell.path(name), "w") as file:
        file.write(text)


def objects(text):
    return [json.loads(line) for line in text.splitlines()]


def test_json_has_a_line_for_each_direction(shell):
    lines = objects(shell.good("bench", "--json", SMALL + ':"small"', "--threads", "1"))
    assert [line["direction"] for line in lines] == DIRECTIONS
    for line in lines:
        assert list(line) == KEYS
        assert line["problem"] == SMALL and line["name"] == "small"
        assert line["threads"] == 1 and line["precision"] == "highest"
        assert line["extra_bytes"] > 0
        work = 2 * 2 * 3 * 4 * 27 * 5 * 6 * 7
        assert line["gflops"] * line["ms"] * 1e6 == pytest.approx(work, rel=1e-3)


def test_direction_and_isa(shell):
    line, = objects(shell.good("bench", "--json", SMALL, "--direction", "backward_input",
                               "--isa", "generic"))
    assert line["direction"] == "backward_input" and line["isa"] == "generic"
    assert line["name"] == ""


def test_the_table_says_the_same(shell):
    heading, row = shell.good("bench", SMALL + ':"small"', "--direction",
                              "forward").splitlines()
    assert set(heading.split()) == set(KEYS)
    found = dict(zip(heading.split(), row.split()))
    assert found["problem"] == SMALL and found["name"] == "small"
    assert float(found["ms"]) > 0 and float(found["gflops"]) > 0


def test_a_file_with_comments(shell):
    write(shell, "layers.txt", f'# two layers\n\n{SMALL}:"one" # here\n  \nci1co1i2k2s2f64nb\n')
    lines = objects(shell.good("bench", "--json", "--file", "layers.txt", "--direction",
                               "forward"))
    assert [(line["name"], line["problem"]) for line in lines] == [
        ("one", SMALL), ("", "ci1co1i2k2s2nbf64")]


@pytest.mark.parametrize("status, words, args", [
    (2, ["problem", "--file", "missing"], []),
    (2, ["exclude"], [SMALL, "--file", "layers.txt"]),
    (2, ["twice"], [SMALL, SMALL]),
    (2, ["the problem", "fields are"], ["x"]),
    (2, ["--direction", "up", "backward_weight"], [SMALL, "--direction", "up"]),
    (2, ["--precision", "low", "highest"], [SMALL, "--precision", "low"]),
    (1, ["nowhere.txt", "No such file"], ["--file", "nowhere.txt"]),
    (1, ["Is a directory"], ["--file", "."]),
])
def test_wrong_requests(shell, status, words, args):
    shell.bad(status, words, "bench", *args)


def test_the_line_of_a_bad_problem_is_named(shell):
    write(shell, "layers.txt", f"{SMALL}\nci1co1i2k0\n")
    shell.bad(2, ["layers.txt, line 2", "kernel_size"], "bench", "--file", "layers.txt",
              "--direction", "forward")
