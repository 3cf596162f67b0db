"""Where the tests find the oracle and each other; the number of threads is put back.
SPDX-License-Identifier: MIT
"""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
# oracle.py and problems.py: the layer by its definition, and random layers.
sys.path[:0] = [str(HERE), str(HERE.parents[2] / "tests" / "shell")]

import convt3d  # noqa: E402


@pytest.fixture(autouse=True)
def default_threads():
    yield
    convt3d.set_num_threads(None)
