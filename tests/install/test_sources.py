"""Every source file is in the build: the lists in CMakeLists.txt equal the folders.

SPDX-License-Identifier: MIT
"""

import re

import pytest

from conftest import TOP


@pytest.mark.parametrize("listing, folders", [
    ("CMakeLists.txt", ["src", "src/kernels", "cli"]),
    ("cmake/io.cmake", ["io"]),
])
def test_lists_equal_folders(listing, folders):
    listed = re.findall(r"\b(?:src|cli|io)/[\w/]+\.c\b", (TOP / listing).read_text())
    present = [str(path.relative_to(TOP)) for folder in folders
               for path in (TOP / folder).glob("*.c")]
    assert present
    assert sorted(listed) == sorted(present)
