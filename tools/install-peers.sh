#!/bin/sh
# Installs the libraries that the benchmark compares with into a virtual environment.
# Usage: tools/install-peers.sh FOLDER
# SPDX-License-Identifier: MIT
set -eu
folder=${1:?usage: tools/install-peers.sh FOLDER}

[ -x "$folder/bin/python" ] || python3 -m venv "$folder"
pip="$folder/bin/python -m pip --disable-pip-version-check install --quiet"
# $pip is a list of words, on purpose.
# shellcheck disable=SC2086
for package in numpy torch==2.13.0 "onednn onednn-devel" "onnx onnxruntime" openvino matplotlib; do
    echo "installing $package"
    $pip $package || echo "not to be had here: $package"
done
