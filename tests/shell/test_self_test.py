"""The self-test notices an engine that is wrong: `convt3d check` is linked here
with runs whose results are changed in one element behind its back.
SPDX-License-Identifier: MIT
"""

import glob
import os
import re
import subprocess

import pytest

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BUILD = os.environ.get("CONVT3D_BUILD", os.path.dirname(os.path.abspath(os.environ["CONVT3D"])))

# The rest of the command, as far as check needs it, and the three broken runs.
HARNESS = r"""
#include "cli.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *broken, *only; /* the run, and the type in its problem string, or "" */

int cli_fail(const char *format, ...) {
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    return CLI_FAILED;
}
int cli_fail_status(const convt3d_error *err) { return cli_fail("%s", err->text); }
int cli_run_options(const cli_args *args, convt3d_options *options) {
    convt3d_options_init(options);
    (void)args;
    return 0;
}
int cli_seed(const cli_args *args, uint64_t fallback, uint64_t *seed) {
    (void)args, (void)fallback;
    *seed = 5;
    return 0;
}
int cli_integer(const cli_args *args, cli_id id, int64_t least, int64_t most, int64_t fallback,
                int64_t *value) {
    (void)args, (void)id, (void)least, (void)most, (void)fallback;
    *value = 20;
    return 0;
}

static int is_meant(const char *text) {
    const char *at = strstr(text, only);
    return !*only || (at && at < strchr(text, '\n') && at[-1] != 'b');
}

/* Changes the last element, in every third run of the engine; or makes every
 * result zero. */
static void spoil(const char *name, const convt3d_plan *plan, const convt3d_tensor *result) {
    static int runs;
    char text[2000];
    int64_t at = 0;
    convt3d_plan_describe(plan, text, sizeof(text));
    if (strcmp(broken, "zeros") == 0) {
        size_t bytes = convt3d_dtype_size(result->dtype);
        for (int i = 0; i < result->rank; i++) bytes *= (size_t)result->size[i];
        memset(result->data, 0, bytes);
    }
    if (strcmp(name, broken) != 0 || !strstr(text, "algorithm: engine") || !is_meant(text) ||
        ++runs % 3)
        return;
    for (int i = 0; i < result->rank; i++) at += (result->size[i] - 1) * result->stride[i];
    if (result->dtype == CONVT3D_FLOAT64)
        ((double *)result->data)[at] += 1;
    else if (convt3d_dtype_size(result->dtype) == 2)
        ((uint16_t *)result->data)[at] ^= 1;
    else
        ((float *)result->data)[at] += 1;
}

convt3d_status __real_convt3d_forward(const convt3d_plan *, const convt3d_tensor *,
                                      const convt3d_tensor *, const convt3d_weights *,
                                      const convt3d_tensor *, const convt3d_tensor *,
                                      const convt3d_run *, convt3d_error *);
convt3d_status __wrap_convt3d_forward(const convt3d_plan *plan, const convt3d_tensor *x,
                                      const convt3d_tensor *w, const convt3d_weights *packed,
                                      const convt3d_tensor *b, const convt3d_tensor *y,
                                      const convt3d_run *run, convt3d_error *err) {
    convt3d_status status = __real_convt3d_forward(plan, x, w, packed, b, y, run, err);
    spoil("forward", plan, y);
    return status;
}
convt3d_status __real_convt3d_backward_input(const convt3d_plan *, const convt3d_tensor *,
                                             const convt3d_tensor *, const convt3d_weights *,
                                             const convt3d_tensor *, convt3d_write,
                                             const convt3d_run *, convt3d_error *);
convt3d_status __wrap_convt3d_backward_input(const convt3d_plan *plan, const convt3d_tensor *dy,
                                             const convt3d_tensor *w,
                                             const convt3d_weights *packed,
                                             const convt3d_tensor *dx, convt3d_write write,
                                             const convt3d_run *run, convt3d_error *err) {
    convt3d_status status = __real_convt3d_backward_input(plan, dy, w, packed, dx, write, run, err);
    spoil("grad_input", plan, dx);
    return status;
}
convt3d_status __real_convt3d_backward_weight(const convt3d_plan *, const convt3d_tensor *,
                                              const convt3d_tensor *, const convt3d_tensor *,
                                              const convt3d_tensor *, convt3d_write,
                                              const convt3d_run *, convt3d_error *);
convt3d_status __wrap_convt3d_backward_weight(const convt3d_plan *plan, const convt3d_tensor *x,
                                              const convt3d_tensor *dy, const convt3d_tensor *dw,
                                              const convt3d_tensor *db, convt3d_write write,
                                              const convt3d_run *run, convt3d_error *err) {
    convt3d_status status = __real_convt3d_backward_weight(plan, x, dy, dw, db, write, run, err);
    spoil("grad_weight", plan, dw);
    spoil("grad_bias", plan, db);
    return status;
}

/* An engine that takes no problem at all. */
convt3d_status __real_convt3d_plan_create(const convt3d_problem *, convt3d_direction,
                                          const convt3d_options *, convt3d_plan **,
                                          convt3d_error *);
convt3d_status __wrap_convt3d_plan_create(const convt3d_problem *problem,
                                          convt3d_direction direction,
                                          const convt3d_options *options, convt3d_plan **plan,
                                          convt3d_error *err) {
    if (strcmp(broken, "declined") == 0 && strcmp(options->algorithm, "engine") == 0)
        return CONVT3D_UNSUPPORTED;
    return __real_convt3d_plan_create(problem, direction, options, plan, err);
}

int main(int argc, char **argv) {
    cli_args args;
    memset(&args, 0, sizeof(args));
    broken = argc > 1 ? argv[1] : "";
    only = argc > 2 ? argv[2] : "";
    return cli_check.run(&args);
}
"""


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    """Linked with the objects of the static library that the command has."""
    folder = tmp_path_factory.mktemp("harness")
    source, program = folder / "harness.c", folder / "harness"
    source.write_text(HARNESS)
    wraps = [f"-Wl,--wrap=convt3d_{name}"
             for name in ("forward", "backward_input", "backward_weight", "plan_create")]
    sources = [os.path.join(TOP, "cli", name) for name in ("check.c", "check_data.c")]
    libraries = glob.glob(os.path.join(BUILD, "**", "libconvt3d.a"), recursive=True)
    library = min(libraries, key=len)  # others may be copies that a test installed
    subprocess.run(["cc", "-std=gnu99", "-I" + os.path.join(TOP, "include"), "-I" + TOP,
                    "-I" + os.path.join(TOP, "cli"), source, *sources, *wraps, library,
                    "-lpthread", "-lm", "-o", program], check=True)
    return program


def run(harness, broken, only=""):
    return subprocess.run([harness, broken, only], capture_output=True, text=True, timeout=300)


def test_right_engine_passes(harness):
    result = run(harness, "nothing")
    assert result.returncode == 0 and result.stderr == "", result


@pytest.mark.parametrize("broken", ["forward", "grad_input", "grad_weight", "grad_bias"])
def test_broken_engine_is_found(harness, broken):
    """With the problem string that shows it."""
    result = run(harness, broken)
    assert result.returncode == 1, result
    assert "differs from the reference for " in result.stderr
    assert "k" in result.stderr.split("reference for ")[1] and "in the place of" in result.stderr


@pytest.mark.parametrize("dtype", ["f64", "bf16", "f16"])
@pytest.mark.parametrize("broken", ["forward", "grad_input", "grad_weight", "grad_bias"])
def test_an_engine_broken_in_one_type_is_found(harness, broken, dtype):
    result = run(harness, broken, dtype)
    assert result.returncode == 1, result
    text = result.stderr.split("reference for ")[1].split(":")[0]
    assert re.search(r"(?<!b)" + dtype, text), result.stderr


def test_zeros_equal_to_zeros_are_no_success(harness):
    result = run(harness, "zeros")
    assert result.returncode == 1 and "was zero" in result.stderr, result


def test_engine_that_declines_everything_is_no_success(harness):
    result = run(harness, "declined")
    assert result.returncode == 1 and "declined every problem" in result.stderr, result
