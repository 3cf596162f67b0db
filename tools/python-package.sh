#!/bin/bash
# Makes the Python package's files to give away, from a copy that holds the library's sources.
# Usage: tools/python-package.sh BUILD_FOLDER [PYTHON]
#   PYTHON has scikit-build-core; without it, a virtual environment in BUILD_FOLDER
# Leaves BUILD_FOLDER/python/convt3d-VERSION.tar.gz and convt3d-VERSION-py3-none-*.whl.
# SPDX-License-Identifier: MIT
set -eu
cd "$(dirname "$0")/.."

mkdir -p "$1/python"
work=$(cd "$1/python" && pwd)
python=${2:-$(python3 tools/python_environment.py "$1/venv")}
python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python")

rm -rf "$work/tree" "$work"/convt3d-*
mkdir -p "$work/tree/core"
for name in CMakeLists.txt LICENSE README.md pyproject.toml src; do
    cp -RL "python/$name" "$work/tree/"
done
find "$work/tree" -name '__pycache__' -prune -exec rm -r {} +
cp -R CMakeLists.txt LICENSE cmake include src "$work/tree/core/"
cd "$work/tree"
# The source distribution first; the wheel is made from what it holds, as pip would.
"$python" -c "import sys
from scikit_build_core import build
print('built', build.build_sdist(sys.argv[1]))" "$work" >"$work/sdist.log" 2>&1 || {
    tail -n 40 "$work/sdist.log"
    exit 1
}
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
    --wheel-dir "$work" "$work"/convt3d-*.tar.gz
ls "$work"/convt3d-*
