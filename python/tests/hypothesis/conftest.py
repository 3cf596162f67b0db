"""Where the tests find the oracle, and their helpers beside the NumPy tests.
SPDX-License-Identifier: MIT
"""

import sys
from pathlib import Path

import pytest

PYTHON = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PYTHON / "tests" / "numpy"), str(PYTHON.parent / "tests" / "shell")]


@pytest.fixture(scope="session", autouse=True)
def no_folder_of_examples(tmp_path_factory):
    """Examples are the same in every run, so nothing is to be kept in the checkout."""
    from hypothesis.configuration import set_hypothesis_home_dir

    set_hypothesis_home_dir(tmp_path_factory.mktemp("hypothesis"))
