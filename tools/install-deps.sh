#!/bin/sh
# Installs what convt3d needs from Debian's packages, and only what is missing.
# Usage: tools/install-deps.sh [--check] [build|demo|test|lint|fuzz|r|r-check]...
#   --check  says what is missing and fails, but installs nothing
# Without a group: build.  Root, or a user who may use sudo, is needed only
# where something is missing.
# SPDX-License-Identifier: MIT
set -eu

check=
packages=
for word in "${@:-build}"; do
    base="gcc libc6-dev make cmake pkg-config libjansson-dev libpng-dev libnifti2-dev zlib1g-dev"
    case $word in
    --check) check=1 ;;
    build) packages="$packages $base" ;;
    demo) packages="$packages $base python3 python3-numpy mricron-data" ;;
    # python3-dev: PyTorch's compiler writes C++ that wants Python's header.
    test) packages="$packages $base g++ libcmocka-dev python3 python3-dev python3-numpy python3-pytest python3-venv" ;;
    lint) packages="$packages $base clang clang-format clang-tidy shellcheck mandoc r-cran-roxygen2" ;;
    fuzz) packages="$packages $base clang libclang-rt-14-dev" ;;
    r) packages="$packages gcc libc6-dev make r-base-core r-cran-testthat r-cran-jsonlite r-cran-knitr r-cran-markdown" ;;
    # What R CMD check --as-cran looks for: the PDF manual in plain fonts, and tools that
    # it runs on the code, configure, NEWS.md and documents.
    r-check)
        packages="$packages texlive-latex-base texlive-latex-recommended texlive-fonts-recommended"
        packages="$packages r-cran-codetools devscripts pandoc qpdf"
        ;;
    *)
        sed -n '3,5p' "$0" >&2
        exit 2
        ;;
    esac
done
[ -n "$packages" ] || packages=$base

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "This is not a Debian system; the build needs what Debian calls:$packages"
    exit 0
fi

missing=
for package in $packages; do
    case "$missing " in *" $package "*) continue ;; esac
    state=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) || state=
    case $state in ii*) ;; *) missing="$missing $package" ;; esac
done
[ -n "$missing" ] || exit 0

if [ -n "$check" ]; then
    echo "Missing Debian packages:$missing" >&2
    echo "Install them with: tools/install-deps.sh $*" | sed 's/ --check//' >&2
    exit 1
fi
sudo=
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "Missing Debian packages, and neither root nor sudo is at hand. As root, run:" >&2
        echo "    apt-get install$missing" >&2
        exit 1
    fi
    sudo=sudo
fi
echo "Installing from Debian's packages:$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# $sudo and $missing are lists of words, on purpose.
# shellcheck disable=SC2086
if ! {
    $sudo apt-get update &&
        $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
} >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "install-deps: apt-get failed, see above" >&2
    exit 1
fi
