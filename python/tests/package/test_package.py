"""The package as a user gets it: from a checkout, from a source distribution, as a wheel.
SPDX-License-Identifier: MIT
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[3]
PROGRAM = """
import sys, numpy as np, convt3d
y = convt3d.conv_transpose3d(np.ones((1, 2, 3, 3, 3), "f"), np.ones((2, 1, 2, 2, 2), "f"), stride=2)
print(convt3d.__version__, y.shape, y.sum(), "torch" in sys.modules)
"""
PRINTED = "0.1.0 (1, 1, 6, 6, 6) 432.0 False\n"


def output_of(command, **options):
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def run_from(folder):
    """The package from this folder alone: neither the sources nor the build's library."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CONVT3D", "PYTHON"))}
    env["PYTHONPATH"] = str(folder)
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    return output_of([sys.executable, "-c", PROGRAM], env=env, cwd=folder)


def pip_install(target, *what):
    flags = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation")
    output_of([sys.executable, "-m", "pip", "install", *flags, "--target", target, *what])


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what the package is made from, under git so that leavings show."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("include", "src", "cmake", "python"):
        ignored = shutil.ignore_patterns("__pycache__", ".*_cache", "tests")
        shutil.copytree(TOP / name, folder / name, ignore=ignored)
    for name in ("CMakeLists.txt", "LICENSE", ".gitignore"):
        shutil.copy(TOP / name, folder / name)
    output_of(["git", "init", "--quiet", folder])
    output_of(["git", "add", "--all"], cwd=folder)
    output_of(["git", "-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "c"], cwd=folder)
    return folder


def test_install_from_a_checkout_leaves_it_clean(checkout, tmp_path):
    pip_install(tmp_path, checkout / "python")
    assert run_from(tmp_path) == PRINTED
    assert (tmp_path / "convt3d/py.typed").exists()
    assert output_of(["git", "status", "--short"], cwd=checkout) == ""


def test_files_to_give_away(tmp_path):
    output_of([TOP / "tools/python-package.sh", tmp_path, sys.executable], cwd=TOP)
    (sdist,) = (tmp_path / "python").glob("*.tar.gz")
    (wheel,) = (tmp_path / "python").glob("*.whl")
    with tarfile.open(sdist) as archive:
        names = [name.split("/", 1)[1] for name in archive.getnames() if "/" in name]
    sources = {f"core/{p.relative_to(TOP)}" for p in (TOP / "src").rglob("*.[ch]")}
    assert sources <= set(names)
    strays = [n for n in names if not re.match(r"(core/|src/|CMake|LICENSE|README|PKG-|pyproj)", n)]
    assert strays == []
    # One wheel for every Python 3: nothing in it is compiled against Python.
    assert re.fullmatch(r"convt3d-0\.1\.0-py3-none-(many)?linux.*\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        packed = {n for n in archive.namelist() if n.startswith("convt3d/")}
    package = TOP / "python/src"
    files = (p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    present = {str(p.relative_to(package)) for p in files}
    assert packed == present | {"convt3d/libconvt3d.so"}
    pip_install(tmp_path / "lib", wheel)
    assert run_from(tmp_path / "lib") == PRINTED


def test_version_is_the_header_s():
    header = (TOP / "include/convt3d.h").read_text()
    numbers = re.findall(r"^#define CONVT3D_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)$", header, re.M)
    version = ".".join(numbers)
    project = (TOP / "python/pyproject.toml").read_text()
    library = (TOP / "python/src/convt3d/_library.py").read_text()
    assert re.search(r'^version = "(.*)"$', project, re.M).group(1) == version
    assert re.search(r'^VERSION = "(.*)"$', library, re.M).group(1) == version


@pytest.mark.parametrize("module", ["convt3d", "convt3d.torch", "convt3d.onnx"])
def test_what_is_public_has_a_docstring(module):
    pytest.importorskip(module.split(".")[-1]) if "." in module else None
    names = __import__(module, fromlist=["__all__"])
    for name in names.__all__:
        assert len(getattr(names, name).__doc__ or "") > 20, name
