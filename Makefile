# A thin front over CMake: the commands that a person types.
# SPDX-License-Identifier: MIT
.POSIX:
.PHONY: all build demo test asan tsan lint fuzz format install clean r-package r-check \
    python-package test-models bench bench-peers bench-scaling bench-plan bench-python

BUILD = build
PREFIX = /usr/local
# Seconds that each fuzz target runs under 'make fuzz'.
FUZZ_SECONDS = 900
# Part of the random cases that 'make asan' and 'make tsan' run.
ASAN_PERCENT = 15
TSAN_PERCENT = 5
CMAKE_FLAGS =
JOBS = $$(nproc 2>/dev/null || echo 2)
# What CMake has to say of a fault it says on stderr; the rest would hide the answer.
COMPILE = cmake --build $(BUILD) --parallel $(JOBS)
CONFIGURE = cmake -S . -DCMAKE_INSTALL_PREFIX=$(PREFIX) $(CMAKE_FLAGS)

all: build

build:
	@tools/install-deps.sh --check build
	@$(CONFIGURE) -B $(BUILD) >/dev/null
	@$(COMPILE)

demo:
	@tools/install-deps.sh demo
	@$(CONFIGURE) -B $(BUILD) >/dev/null
	@echo "Building convt3d ..."
	@$(COMPILE) --target convt3d_command convt3d_static >/dev/null
	@demo/run.sh $(BUILD)

test:
	@tools/install-deps.sh test r
	@$(CONFIGURE) -B $(BUILD) -DCONVT3D_BUILD_TESTS=ON >/dev/null
	@$(COMPILE)
	@tools/run-tests --build $(BUILD)

# The C tests and the fuzz corpora once more, with the compiler watching.  What is
# random runs a part of its cases, since the sanitizers make each 2 to 20 times slower.
asan:
	@tools/install-deps.sh test
	@$(CONFIGURE) -B $(BUILD)/asan -DCONVT3D_BUILD_TESTS=ON -DCONVT3D_SANITIZE=address,undefined >/dev/null
	@cmake --build $(BUILD)/asan --parallel $(JOBS)
	@CONVT3D_TEST_PERCENT=$(ASAN_PERCENT) tools/run-tests --build $(BUILD)/asan --suites c,corpora

tsan:
	@tools/install-deps.sh test
	@$(CONFIGURE) -B $(BUILD)/tsan -DCONVT3D_BUILD_TESTS=ON -DCONVT3D_SANITIZE=thread >/dev/null
	@cmake --build $(BUILD)/tsan --parallel $(JOBS)
	@CONVT3D_TEST_PERCENT=$(TSAN_PERCENT) tools/run-tests --build $(BUILD)/tsan --suites c,corpora

lint:
	@tools/install-deps.sh lint test r
	@tools/lint.sh $(BUILD)

# The R package as a file to install anywhere, its vignettes built: BUILD/r/convt3d_*.tar.gz.
r-package:
	@tools/install-deps.sh r
	@tools/r-package.sh $(BUILD) package

r-check:
	@tools/install-deps.sh r r-check
	@tools/r-package.sh $(BUILD) check

fuzz:
	@tools/install-deps.sh fuzz test
	@$(CONFIGURE) -B $(BUILD)/fuzz -DCONVT3D_BUILD_TESTS=ON -DCMAKE_C_COMPILER=clang \
	    -DCONVT3D_SANITIZE=fuzzer-no-link,address,undefined >/dev/null
	@cmake --build $(BUILD)/fuzz --parallel $(JOBS)
	@tools/fuzz.sh $(BUILD)/fuzz $(FUZZ_SECONDS)

# The Python package as files to install anywhere: BUILD/python/convt3d-*.tar.gz and *.whl.
python-package:
	@tools/install-deps.sh build test
	@tools/python-package.sh $(BUILD)

# PyTorch's own cases and other people's models, with PyTorch's time and this layer's.
# Writes docs/models.md and docs/pytorch-cases.md.
test-models: build
	@tools/install-deps.sh test
	@tools/test-models.sh $(BUILD)

# Against the libraries that are there; LAYERS=a,b runs a part of bench/layers.txt.
LAYERS =
PEERS_PYTHON = $(BUILD)/bench/peers/bin/python
BENCH_PYTHON = $$([ -x $(PEERS_PYTHON) ] && echo $(PEERS_PYTHON) || echo python3)
bench: build
	@$(BENCH_PYTHON) bench/compare.py --layers "$(LAYERS)" --out $(BUILD)/bench

# This library alone: by threads, sizes and instruction sets, and its scratch; plans and packing.
bench-scaling: build
	@$(BENCH_PYTHON) bench/scaling.py --layers "$(LAYERS)" --out $(BUILD)/bench

bench-plan: build
	@$(BENCH_PYTHON) bench/plan.py --layers "$(LAYERS)" --out $(BUILD)/bench

# What Python costs, and PyTorch's own layer against this one, through PyTorch.
bench-python: build
	@$(BENCH_PYTHON) bench/python_package.py --layers "$(LAYERS)" --out $(BUILD)/bench

bench-peers:
	@tools/install-deps.sh build test
	@tools/install-peers.sh $(BUILD)/bench/peers

format:
	git ls-files -z '*.c' '*.h' '*.inc' | xargs -0 clang-format -i

install: build
	cmake --install $(BUILD)

# What 'R CMD INSTALL r' leaves in a checkout goes as well.
clean:
	rm -rf $(BUILD) r/src/core r/tests/testthat/golden
	@r/cleanup
