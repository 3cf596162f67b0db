"""How the tests run the command: $CONVT3D names it.
SPDX-License-Identifier: MIT
"""

import os
import resource
import subprocess

import numpy as np
import pytest

COMMAND = os.environ["CONVT3D"]


class Shell:
    """The command in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder

    def start(self, *args, **kwargs):
        return subprocess.Popen([COMMAND, *map(str, args)], cwd=self.folder, **kwargs)

    def run(self, *args, env=None, limit=None):
        """'limit' is a resource and its limit, for this process alone."""
        prepare = (lambda: resource.setrlimit(limit[0], (limit[1], limit[1]))) if limit else None
        return subprocess.run([COMMAND, *map(str, args)], cwd=self.folder, capture_output=True,
                              text=True, timeout=300, env=dict(os.environ, **(env or {})),
                              preexec_fn=prepare)

    def good(self, *args, env=None):
        result = self.run(*args, env=env)
        assert result.returncode == 0 and result.stderr == "", result
        return result.stdout

    def bad(self, status, words, *args, env=None, limit=None):
        """Fails with this status and one line that has all the words, and
        changes no file."""
        before = self.state()
        result = self.run(*args, env=env, limit=limit)
        lines = result.stderr.splitlines()
        assert result.returncode == status, result
        assert lines and lines[0].startswith("convt3d: "), result
        if status == 2:
            assert len(lines) == 2 and "--usage" in lines[1], result
        else:
            assert len(lines) == 1, result
        for word in words:
            assert word in lines[0], (word, lines[0])
        assert self.state() == before, "a failed command changed files"
        return lines[0]

    def state(self):
        found = {}
        for folder, _, names in os.walk(self.folder):
            for name in names:
                status = os.lstat(os.path.join(folder, name))
                found[os.path.join(folder, name)] = (status.st_ino, status.st_size,
                                                     status.st_mtime_ns)
        return found

    def path(self, name):
        return os.path.join(self.folder, name)

    def save(self, name, array):
        np.save(self.path(name), array)
        return name

    def load(self, name):
        return np.load(self.path(name))


@pytest.fixture
def shell(tmp_path):
    return Shell(str(tmp_path))
