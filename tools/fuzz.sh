#!/bin/sh
# Runs every fuzz target of a build for some seconds, each from its corpus.
# Usage: tools/fuzz.sh BUILD_FOLDER SECONDS
# New inputs go to BUILD_FOLDER/corpus/, failing ones to BUILD_FOLDER/crash-*;
# a failure that is mended belongs into tests/fuzz/corpus/, where 'make test'
# replays it.
# SPDX-License-Identifier: MIT
set -eu

build=$1
seconds=$2
failed=0
for source in tests/fuzz/fuzz_*.c; do
    name=$(basename "$source" .c)
    what=${name#fuzz_}
    mkdir -p "$build/corpus/$what"
    echo "== $what: $seconds s"
    log=$build/$name.log
    if "$build/tests/$name" -max_total_time="$seconds" -timeout=60 -rss_limit_mb=4096 \
        -artifact_prefix="$build/crash-$what-" "$build/corpus/$what" \
        "tests/fuzz/corpus/$what" >"$log" 2>&1; then
        tail -n 1 "$log"
    else
        failed=$((failed + 1))
        tail -n 30 "$log"
    fi
done
echo "$failed targets failed"
[ "$failed" = 0 ]
