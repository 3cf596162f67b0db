"""The manual page knows every option, command and status there is.
SPDX-License-Identifier: MIT
"""

import os
import re

import pytest

PAGE = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "man", "convt3d.1")
COMMANDS = ("forward", "backward", "init", "shape", "info", "check", "view", "bench")


@pytest.fixture(scope="module")
def page():
    with open(PAGE) as file:
        return file.read().replace("\\-", "-")


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_explained(shell, page, command):
    options = set(re.findall(r"--[a-z][a-z-]*", shell.good(command, "--help")))
    assert {"--help", "--usage", "--version"} < options
    for option in options:
        assert re.search(re.escape(option) + r"(?![a-z-])", page), option
    assert f".SH \"CONVT3D {command.upper()}\"" in page


def test_nothing_is_explained_that_is_not_there(shell, page):
    known = {o for c in COMMANDS for o in re.findall(r"--[a-z][a-z-]*", shell.good(c, "--help"))}
    assert set(re.findall(r"--[a-z][a-z-]*", page)) <= known


def test_version(shell, page):
    assert f"\"{shell.good('--version').strip()}\"" in page.splitlines()[2]
