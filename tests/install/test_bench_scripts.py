"""The benchmark's scripts run on this build, and their figures agree with each other.

SPDX-License-Identifier: MIT
"""

import json
import os
import sys

import pytest

from conftest import TOP, output_of

LAYER, PROBLEM = "nnunet_up1", "n1ci320co320i4k2s2"
DIRECTIONS = ["forward", "backward_input", "backward_weight"]


@pytest.fixture(scope="module")
def scaling(build, tmp_path_factory):
    out = tmp_path_factory.mktemp("bench")
    output_of([sys.executable, TOP / "bench/scaling.py", "--parts", "sizes,memory", "--sizes",
               "4,5,8", "--rounds", "1", "--threads", "1", "--layers", LAYER, "--out", out],
              env=dict(os.environ, CONVT3D_LIBRARY=str(build / "libconvt3d.so")))
    return json.loads((out / "scaling.json").read_text())


def test_sizes(scaling):
    for directions in scaling["sizes"].values():
        assert list(directions) == DIRECTIONS
        for points in directions.values():
            assert [p["size"] for p in points] == [4, 5, 8]
            assert min(p["relative"] for p in points) == 1
            assert points[0]["doubling"] is None
            for before, p in zip(points, points[1:]):
                ratio = 2 * p["relative"] / before["relative"]
                assert p["doubling"] == pytest.approx(ratio, rel=0.01)
    assert [p["useful"] for p in scaling["sizes"]["k2 s2, 64 to 32 channels"]["forward"]] == [
        2 * 64 * 32 * 8 * size**3 for size in (4, 5, 8)]


def test_scratch_is_what_the_command_says(scaling, build):
    lines = output_of([build / "convt3d", "bench", "--json", "--threads", "1", PROBLEM])
    said = {line["direction"]: line["extra_bytes"]
            for line in map(json.loads, lines.splitlines())}
    assert {d: scaling["memory"][d][LAYER]["extra_bytes"] for d in DIRECTIONS} == said
    tensors = 4 * (320 * 4**3 + 320 * 320 * 8 + 320 * 8**3)
    for d in DIRECTIONS:
        assert scaling["memory"][d][LAYER]["limit"] == int(0.1 * tensors) + 16 * 2**20
