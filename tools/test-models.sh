#!/bin/bash
# PyTorch's own cases and other people's models on the Python package: tests, then times.
# Usage: tools/test-models.sh BUILD_FOLDER [ROUNDS]
# Writes docs/pytorch-cases.md and docs/models.md.  ROUNDS of the times, 7 without it, which
# want a quiet machine; 0: none, and docs/models.md stays as it is.
# SPDX-License-Identifier: MIT
set -eu
cd "$(dirname "$0")/.."
build=$(cd "$1" && pwd)
rounds=${2:-7}
logs=$build/test-logs
mkdir -p "$logs"

python=$(python3 tools/python_environment.py "$build/venv")
"$python" -c 'import torch' || {
    echo "test-models: needs PyTorch, see $build/venv/pip.log"
    exit 1
}
pip=("$python" -m pip --disable-pip-version-check install --quiet)
"${pip[@]}" expecttest pyyaml einops
# Without what else they ask for, of which torchvision would bring CUDA's libraries; these
# networks need none of it.
"${pip[@]}" --no-deps monai dynamic-network-architectures

export PYTHONPATH=$PWD/python/src CONVT3D_LIBRARY=$build/libconvt3d.so PYTHONDONTWRITEBYTECODE=1
test_files() {
    local report=$logs/$1.xml
    shift
    # Small operations on several threads: waiting for each other, they needn't spin.
    OMP_WAIT_POLICY=passive "$python" -m pytest -p no:cacheprovider -q --junitxml="$report" "$@"
}
status=0
test_files pytorch-cases python/tests/models/test_pytorch_*.py || status=1
test_files models python/tests/models/test_models.py || status=1

{
    echo "# PyTorch's own cases"
    echo
    echo "\`make test-models\`, $(date +%F): what PyTorch's package ships as tests of ConvTranspose3d (its"
    echo "lists of operators and modules), on \`convt3d.torch\`; and the cases of its repository's"
    echo "test_convolution.py that concern this layer, in own words."
    echo
    "$python" python/tests/models/list_cases.py "$logs/pytorch-cases.xml"
} >docs/pytorch-cases.md
if [ "$rounds" != 0 ]; then
    "$python" python/tests/models/measure.py --rounds "$rounds" --out "$build/models.md"
    {
        echo "# Other people's models"
        echo
        echo "\`make test-models\`: networks of MONAI and of nnU-Net, and what \`convt3d.torch.accelerate()\` brings"
        echo "them. Their outputs, gradients and parameters after a step are compared with a float64 run"
        echo "in \`python/tests/models/test_models.py\`."
        echo
        cat "$build/models.md"
    } >docs/models.md
fi
exit "$status"
