"""Where the tests find the oracle and each other; what they set for a process is put back.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent
# oracle.py and problems.py: the layer by its definition, and random layers.
sys.path[:0] = [str(HERE), str(HERE.parents[2] / "tests" / "shell")]

import convt3d  # noqa: E402


@pytest.fixture(autouse=True)
def same_start():
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.manual_seed(0)
    yield
    convt3d.set_num_threads(None)
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
