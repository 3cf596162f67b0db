#!/bin/bash
# Makes the R package from a copy, so that a checkout stays as it is.
# Usage: tools/r-package.sh BUILD_FOLDER copy|install|package|check|findings
#   copy     BUILD_FOLDER/r/tree: the package with the library's sources in it
#   install  BUILD_FOLDER/r/lib: the copy, installed; nothing to do if it is there
#   package  BUILD_FOLDER/r/convt3d_VERSION.tar.gz, vignettes included
#   check    R CMD check --as-cran of that; fails on anything but "New submission"
#   findings what the last check had to say
# SPDX-License-Identifier: MIT
set -eu
cd "$(dirname "$0")/.."

mkdir -p "$1/r"
work=$(cd "$1/r" && pwd)
version=$(sed -n 's/^Version: *//p' r/DESCRIPTION)
tarball=$work/convt3d_$version.tar.gz

# Not what an outer make was called with: R's has its own variables.
MAKEFLAGS=-j$(nproc 2>/dev/null || echo 2)
# R asks systemd for the time zone where nothing else tells it, and warns.
export MAKEFLAGS TZ="${TZ:-UTC}"

# Runs a command with its output in a log, which is shown if it fails.
logged() {
    local log=$work/$1.log start=$SECONDS
    shift
    "$@" >"$log" 2>&1 || {
        tail -n 60 "$log"
        echo "r-package: failed: $*"
        return 1
    }
    echo "$(basename "$log" .log): $((SECONDS - start)) s"
}

copy() {
    rm -rf "$work/tree"
    mkdir -p "$work/tree/tests"
    cp -Rp include src r "$work/tree/"
    cp -Rp tests/golden "$work/tree/tests/"
    rm -rf "$work/tree/r/src/core" "$work/tree/r/tests/testthat/golden"
    "$work/tree/r/cleanup"
    (cd "$work/tree/r" && Rscript --vanilla bootstrap.R)
}

install() {
    local sum stamp=$work/lib/convt3d.sha256
    copy
    sum=$(cd "$work/tree/r" && find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum)
    [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$sum" ] || return 0
    rm -rf "${work:?}/lib"
    mkdir -p "$work/lib"
    logged install R CMD INSTALL --no-docs --library="$work/lib" "$work/tree/r"
    echo "$sum" >"$stamp"
}

package() {
    copy
    rm -f "$work"/convt3d_*.tar.gz
    (cd "$work" && logged build R CMD build tree/r)
    echo "built $tarball"
}

# Every paragraph of R CMD check's log that isn't well, except the note of a package
# that CRAN hasn't seen, where it says nothing else.  Fails where there is one.
findings() {
    awk '
        function flush() {
            if (bad && !(block ~ /^\* checking CRAN incoming/ && bad == "NOTE" && rest == "")) {
                printf "%s", block
                found = 1
            }
            block = rest = bad = ""
        }
        # A verdict ends the first line, or comes on a line of its own.
        function judge(line) {
            if (match(line, /(^|[ \]])(ERROR|WARNING|NOTE)$/)) {
                bad = substr(line, RSTART, RLENGTH)
                gsub(/[^A-Z]/, "", bad)
            }
        }
        /^Status: / { ended = 1; flush(); next }
        /^\* / { flush(); block = $0 "\n"; judge($0); next }
        { block = block $0 "\n" }
        /^ *(\[[^]]*\] *)?(ERROR|WARNING|NOTE)$/ { judge($0); next }
        !/^(Maintainer: .*|New submission|)$/ { rest = rest $0 }
        END {
            flush()
            if (!ended) print "R CMD check ended in the middle"
            exit found || !ended
        }' "$work/convt3d.Rcheck/00check.log"
}

check() {
    local start
    package
    start=$SECONDS
    rm -rf "$work/convt3d.Rcheck"
    # Nothing from a network: neither CRAN's index nor what time it is.  The
    # manual in plain fonts, without a gigabyte of others.  R asks for some
    # locale in UTF-8 anyway, and Debian always has this one.  CRAN's limit of two
    # threads shows as processor time.
    export _R_CHECK_EXAMPLE_TIMING_CPU_TO_ELAPSED_THRESHOLD_=2.5
    export _R_CHECK_TEST_TIMING_CPU_TO_ELAPSED_THRESHOLD_=2.5
    export _R_CHECK_VIGNETTE_TIMING_CPU_TO_ELAPSED_THRESHOLD_=2.5
    env _R_CHECK_CRAN_INCOMING_REMOTE_=false _R_CHECK_SYSTEM_CLOCK_=false \
        R_DEFAULT_INTERNET_TIMEOUT=5 R_RD4PDF=times,hyper R_TEXI2DVICMD=emulation LC_ALL=C.UTF-8 \
        R CMD check --as-cran --output="$work" "$tarball" || true
    echo "check: $((SECONDS - start)) s"
    findings
}

case ${2-} in
copy | install | package | check | findings) "$2" ;;
*)
    sed -n '3,8p' "$0" >&2
    exit 2
    ;;
esac
