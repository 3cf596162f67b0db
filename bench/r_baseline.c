/* r_baseline: the C call that bench/r_package.R compares the R package with: a
 * forward run into a fresh output, timed from its allocation to its end.
 * SPDX-License-Identifier: MIT */
#define R_NO_REMAP
#include "convt3d.h"

#include <R.h>
#include <Rinternals.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void check(convt3d_status status, const convt3d_error *err) {
    if (status) Rf_error("%s", err->text);
}

/* Seconds of one call.  'huge' asks for huge pages, as the R package does. */
SEXP r_baseline(SEXP problem_string, SEXP input, SEXP weight, SEXP bias, SEXP huge) {
    static convt3d_plan *plan;
    static convt3d_problem planned;
    convt3d_problem p;
    convt3d_error err;
    int64_t shape[5];
    check(convt3d_problem_parse(CHAR(STRING_ELT(problem_string, 0)), &p, NULL, 0, &err), &err);
    check(convt3d_problem_output_shape(&p, shape, &err), &err);
    if (!plan || memcmp(&p, &planned, sizeof p)) {
        convt3d_plan_free(plan);
        check(convt3d_plan_create(&p, CONVT3D_FORWARD, NULL, &plan, &err), &err);
        planned = p;
    }
    void *from = TYPEOF(input) == RAWSXP ? (void *)RAW(input) : (void *)REAL(input);
    void *taps = TYPEOF(weight) == RAWSXP ? (void *)RAW(weight) : (void *)REAL(weight);
    void *add = TYPEOF(bias) == RAWSXP ? (void *)RAW(bias) : (void *)REAL(bias);
    int64_t in[5] = {p.batch, p.in_channels, p.input_size[0], p.input_size[1], p.input_size[2]};
    int64_t w[5] = {p.in_channels, p.out_channels / p.groups, p.kernel_size[0], p.kernel_size[1],
                    p.kernel_size[2]};
    size_t bytes = p.dtype == CONVT3D_FLOAT32 ? 4 : 8;
    for (int a = 0; a < 5; a++) bytes *= (size_t)shape[a];

    double start = now();
    char *output = malloc(bytes);
    if (!output) Rf_error("no memory for the output");
    if (Rf_asLogical(huge)) {
        uintptr_t at = ((uintptr_t)output + 4095) / 4096 * 4096;
        madvise((void *)at, bytes - 4096, MADV_HUGEPAGE);
    }
    convt3d_tensor x = convt3d_tensor_dense(from, p.dtype, 5, in);
    convt3d_tensor k = convt3d_tensor_dense(taps, p.dtype, 5, w);
    convt3d_tensor b = convt3d_tensor_dense(add, p.dtype, 1, &p.out_channels);
    convt3d_tensor y = convt3d_tensor_dense(output, p.dtype, 5, shape);
    convt3d_status status = convt3d_forward(plan, &x, &k, NULL, &b, &y, NULL, &err);
    double seconds = now() - start;
    free(output);
    check(status, &err);
    return Rf_ScalarReal(seconds);
}
