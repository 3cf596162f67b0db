"""What the tests of the build share: its folder, and one installed copy of it.

SPDX-License-Identifier: MIT
"""

import os
import pathlib
import subprocess

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]


def output_of(command, **options):
    """What a command prints; the test fails, with the messages, where the command does."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, **options)
    assert done.returncode == 0, "%s\n%s" % (command, done.stdout)
    return done.stdout


@pytest.fixture(scope="session")
def build():
    return pathlib.Path(os.environ["CONVT3D_BUILD"])


@pytest.fixture(scope="session")
def prefix(build, tmp_path_factory):
    """Installed in one place and moved to another: nothing may remember the first."""
    first = tmp_path_factory.mktemp("install") / "first"
    output_of(["cmake", "--install", build, "--prefix", first])
    return first.rename(first.parent / "moved")
