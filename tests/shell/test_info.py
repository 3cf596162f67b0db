"""What info and check say.
SPDX-License-Identifier: MIT
"""

import os
import re

import pytest

PROBLEM = "n1ci64co32i24x32x64k3s2p1op1nb"


def isas(shell, answer="yes"):
    return re.findall(r"^ISA: +(\S+) +%s$" % answer, shell.good("info"), re.M)


def test_info(shell):
    text = shell.good("info")
    assert re.search(r"^convt3d: +\d+\.\d+\.\d+$", text, re.M)
    assert re.search(r"^CPU: +\S", text, re.M)
    assert re.search(r"^threads: +%d$" % len(os.sched_getaffinity(0)), text, re.M)
    assert "generic" in isas(shell)
    assert shell.good("--version").split()[1] in text


def test_info_shows_what_the_environment_decides(shell):
    assert "CONVT3D_NUM_THREADS=3" in shell.good("info", env={"CONVT3D_NUM_THREADS": "3"})


def test_info_explains_a_problem(shell):
    text = shell.good("info", "--problem", PROBLEM)
    for direction in ("forward", "backward_input", "backward_weight"):
        assert f"{direction}:\n" in text
        one = shell.good("info", "--problem", PROBLEM, "--direction", direction)
        assert one.startswith(f"{direction}:\n") and one in text
        assert "algorithm: engine" in one
    for isa in isas(shell):
        assert f"isa: {isa}" in shell.good("info", "--problem", PROBLEM, "--isa", isa)
    text = shell.good("info", "--problem", PROBLEM, "--algorithm", "reference", "--threads", "1")
    assert "algorithm: reference" in text and "algorithm: engine" not in text


@pytest.mark.parametrize("text, words", [
    ("", ["ci"]), ("ci1", ["co"]), ("ci1co1i1k1k2", ["k", "twice"]), ("ci1co1i1k1z3", ["z3"]),
    ("ci1co1i1x2k1", ["i"]), ("ci1co1i1k1s0", ["stride", "0"]), ("ci3co2g2i1k1", ["groups", "2"]),
    ("ci1co1i1k1p9", ["output", "-17"])])
def test_problem_strings_that_are_wrong(shell, text, words):
    shell.bad(2, ["--problem", *words], "info", "--problem", text)


def test_check_covers_every_instruction_set(shell):
    text = shell.good("check", "--count", "15", "--seed", "42")
    assert text.splitlines()[0].endswith("seed 42")
    supported = isas(shell)
    assert supported
    for isa in supported:
        for dtype in ("float32", "float64", "bfloat16", "float16"):
            line = next(l for l in text.splitlines() if l.split()[:2] == [isa, dtype + ":"])
            assert "15 problems" in line and "45 runs equal the reference" in line, line
    assert shell.good("check", "--count", "15", "--seed", "42") == text
    only = shell.good("check", "--count", "2", "--isa", "generic")
    assert len(only.splitlines()) == 5 and re.search(r"seed \d+$", only.splitlines()[0])


def test_isa_that_this_cpu_lacks(shell):
    for isa in isas(shell, "no"):
        shell.bad(1, [isa], "check", "--isa", isa)
        shell.bad(1, [isa], "info", "--problem", PROBLEM, "--isa", isa)
