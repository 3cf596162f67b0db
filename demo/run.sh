#!/bin/sh
# The main job on real input: the two layers of the reference page, then a real
# MR volume doubled in size.  Usage: demo/run.sh BUILD_FOLDER
# SPDX-License-Identifier: MIT
set -eu

build=$1
here=$(dirname "$0")
out=$build/demo
mkdir -p "$out"
# Each command is shown first, as it can be typed.
convt3d() {
    echo "  \$ $build/convt3d $*"
    "$build/convt3d" "$@"
}

echo "1. The two layers of the reference page, in C (demo/layers.c)"
cc -O2 -std=c99 -Wall -Wextra -I include "$here/layers.c" "$build/libconvt3d.a" -pthread -lm \
    -o "$out/layers"
"$out/layers" n20ci16co33i10x50x100k3s2 n20ci16co33i10x50x100k3x5x2s2x1x1p0x4x2

echo
echo "2. An MR volume, doubled by a trilinear layer in the shell"
volume=$(dpkg -L mricron-data 2>/dev/null | grep '/ch2\.nii\.gz$' || true)
if [ -z "$volume" ]; then
    echo "demo: Debian's package mricron-data, which brings ch2.nii.gz, is not installed" >&2
    exit 1
fi
convt3d init --in-channels 1 --out-channels 1 --stride 2 --fill trilinear \
    --padding-mode replicate --output "$out/double.safetensors"
start=$(date +%s.%N)
convt3d forward --input "$volume" --module "$out/double.safetensors" --output "$out/ch2-doubled.nii"
end=$(date +%s.%N)
echo "$start $end" | awk '{ printf "  took    %.2f s, files included; the layer alone:\n", $2 - $1 }'
"$out/layers" ci1co1i181x217x181k4s2p1mreplicatenb
python3 "$here/check_doubled.py" "$volume" "$out/ch2-doubled.nii"
convt3d view "$out/ch2-doubled.nii" --output "$out/ch2-doubled.png"

echo
echo "Done.  The doubled volume and its middle slices:"
for file in "$out/ch2-doubled.nii" "$out/ch2-doubled.png"; do
    echo "  $file ($(($(wc -c <"$file") / 1000)) kB)"
done
