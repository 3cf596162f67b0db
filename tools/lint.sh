#!/bin/bash
# Everything that reads the sources without running them.  Prints what each
# tool found, goes on after a failure, and ends with the number of failures.
# Usage: tools/lint.sh BUILD_FOLDER
# SPDX-License-Identifier: MIT
set -u

build=$1
failed=0
step() {
    echo "-- $1"
    shift
    "$@" || {
        failed=$((failed + 1))
        echo "-- failed"
    }
}

formatted() {
    git ls-files -z '*.c' '*.h' '*.inc' | xargs -0 clang-format --dry-run -Werror
}

# Both compilers, tests included; nothing is shown but warnings.
warnings() {
    local log=$build/lint-$1.log
    cmake -S . -B "$build/lint-$1" --log-level=WARNING -DCMAKE_C_COMPILER="$1" \
        -DCONVT3D_BUILD_TESTS=ON -DCONVT3D_WERROR=ON -DCMAKE_EXPORT_COMPILE_COMMANDS=ON >/dev/null || return
    if ! cmake --build "$build/lint-$1" --parallel "$(nproc)" -- -k >"$log" 2>&1; then
        grep -A 5 -E 'error|warning' "$log" | head -n 60
        return 1
    fi
}

demo_and_examples() {
    cc -std=c99 -Wall -Wextra -Werror -I include -fsyntax-only demo/*.c examples/*.c
}

# One file each: clang-tidy 14 reports false va_list errors from the second on.
tidy() {
    git ls-files -z 'src/*.c' 'io/*.c' 'cli/*.c' |
        xargs -0 -n 1 -P "$(nproc)" clang-tidy --quiet -p "$build/lint-clang" 2>/dev/null
}

scripts() {
    git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck
}

python_compiles() {
    git ls-files '*.py' tools/run-tests | PYTHONDONTWRITEBYTECODE=1 python3 -c '
import sys
for path in sys.stdin.read().split():
    with open(path, encoding="utf-8") as source:
        compile(source.read(), path, "exec")'
}

manual() {
    mandoc -T lint -W warning docs/man/*.1
}

step "clang-format" formatted
step "gcc -Wall -Wextra -Werror" warnings gcc
step "clang -Wall -Wextra -Werror" warnings clang
step "demo and examples: -Wall -Wextra -Werror" demo_and_examples
step "clang-tidy" tidy
step "shellcheck" scripts
step "python compiles" python_compiles
step "manual page" manual
echo "lint: $failed failed"
[ "$failed" = 0 ]
