"""Every source file is in the build: the lists of the build equal the folders.

SPDX-License-Identifier: MIT
"""

import re

import pytest

from conftest import TOP


@pytest.mark.parametrize("listing, folders", [
    ("CMakeLists.txt", ["src", "cli"]),
    ("cmake/io.cmake", ["io"]),
])
def test_lists_equal_folders(listing, folders):
    listed = re.findall(r"\b(?:src|cli|io)/[\w/]+\.c\b", (TOP / listing).read_text())
    present = [str(path.relative_to(TOP)) for folder in folders
               for path in (TOP / folder).glob("*.c")]
    assert present
    assert sorted(listed) == sorted(present)


def test_every_kernel_file_is_an_instruction_set_in_the_list():
    kernels = TOP / "src/kernels"
    listed = re.findall(r"^CONVT3D_ISA\((\w+)\)", (kernels / "list.inc").read_text(), re.M)
    assert sorted(listed) == sorted(path.stem for path in kernels.glob("*.c"))
