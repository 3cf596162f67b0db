"""The virtual environment of the tests that need other people's packages.

They compare with PyTorch, ONNX Runtime, safetensors and nibabel; it also holds NumPy's
bfloat16 (ml_dtypes) and the linters of Python.  PyPI has those; where it doesn't answer, the tests can't run, and the caller
reports them as skipped.

Usage: python tools/python_environment.py FOLDER
    makes FOLDER, and prints its Python, or why there is none, with status 1

SPDX-License-Identifier: MIT
"""

import functools
import json
import os
import subprocess
import sys

TORCH = "torch==2.13.0"
# What else is installed, and the modules to know it by.  Of what judges the sources the
# version is fixed: the next one may want another layout.
OTHERS = {
    "numpy": "numpy",
    "safetensors": "safetensors",
    "nibabel": "nibabel",
    "pytest": "pytest",
    "hypothesis": "hypothesis",
    "ml_dtypes": "ml_dtypes",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "scikit-build-core": "scikit_build_core",
    "ruff==0.17.6": "ruff",
    "mypy==2.4.1": "mypy",
}


class Environment:
    def __init__(self, python, missing, reason):
        self.python = python  # None: nothing can run
        self.missing = missing  # modules that could not be had
        self.reason = reason


def _pip(python, arguments, log):
    return subprocess.run([python, "-m", "pip", "--disable-pip-version-check", "--no-input",
                           "--retries", "1", "--timeout", "30"]
                          + arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=log, check=False)


def _has(python, modules):
    code = "import " + ", ".join(modules)
    return subprocess.run([python, "-c", code], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, check=False).returncode == 0


def _install_torch(python, log):
    """Installs torch if that is a CPU build; returns why not, or None.

    What 'torch' means depends on machine and index: on some it brings several
    gigabytes of CUDA libraries, which a test must not do to anyone's disk."""
    report = _pip(python, ["install", "--quiet", "--dry-run", "--report", "-", TORCH], log)
    if report.returncode != 0:
        return "the package index has no " + TORCH
    names = [item["metadata"]["name"] for item in json.loads(report.stdout)["install"]]
    if any(name.lower().startswith(("nvidia", "cuda", "triton")) for name in names):
        return "the package index would bring CUDA libraries with " + TORCH
    if _pip(python, ["install", "--quiet", TORCH], log).returncode != 0:
        return TORCH + " could not be installed"
    return None


@functools.lru_cache(maxsize=None)  # a look takes seconds, an index that is silent more
def prepare(folder, log_path):
    """Makes, or completes, the environment and says what it holds."""
    python = os.path.join(folder, "bin", "python")
    if os.path.exists(python) and _has(python, [*OTHERS.values(), "torch"]):
        return Environment(python, [], "")
    with open(log_path, "wb") as log:
        made = subprocess.run([sys.executable, "-m", "venv", folder], stdout=log, stderr=log,
                              check=False)
        if made.returncode != 0:
            return Environment(None, [], "no virtual environment could be made, see " + log_path)
        # An old pip fetches whole wheels in a dry run; a new one only reads about them.
        if _pip(python, ["install", "--quiet", "--upgrade", "pip", *OTHERS], log).returncode != 0:
            return Environment(None, [], "the package index doesn't answer, see " + log_path)
        reason = _install_torch(python, log)
    return Environment(python, ["torch"] if reason else [], reason or "")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    os.makedirs(sys.argv[1], exist_ok=True)
    found = prepare(sys.argv[1], os.path.join(sys.argv[1], "pip.log"))
    print(found.python or found.reason)
    sys.exit(0 if found.python else 1)
