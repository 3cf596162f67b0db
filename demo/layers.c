/* The demo's layers: runs each problem string of the command line on random
 * data, times it, and checks a random sample of outputs against the layer's
 * definition, summed here in double.
 * SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 199309L /* clock_gettime */
#include <convt3d.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    SAMPLES = 2000,
    RUNS = 3
};

/* Everything that one layer needs while it is looked at. */
typedef struct demo_layer {
    convt3d_problem problem;
    convt3d_module *module;
    convt3d_tensor input, output;
    int64_t output_shape[5];
    uint64_t random;
} demo_layer;

/* A small generator (xorshift) is enough: the data need only be different. */
static uint64_t next_random(demo_layer *layer) {
    layer->random ^= layer->random << 13;
    layer->random ^= layer->random >> 7;
    layer->random ^= layer->random << 17;
    return layer->random >> 11;
}

static int64_t element_count(const int64_t shape[5]) {
    return shape[0] * shape[1] * shape[2] * shape[3] * shape[4];
}

static int prepare(demo_layer *layer, const char *text, convt3d_error *err) {
    convt3d_problem *p = &layer->problem;
    layer->random = 88172645463325252u;
    if (convt3d_problem_parse(text, p, NULL, 0, err) ||
        convt3d_problem_output_shape(p, layer->output_shape, err) ||
        convt3d_module_create(p, NULL, &layer->module, err) ||
        convt3d_module_fill(layer->module, CONVT3D_FILL_DEFAULT, 1, err))
        return 1;
    int64_t shape[5] = {p->batch, p->in_channels, p->input_size[0], p->input_size[1],
                        p->input_size[2]};
    int64_t inputs = element_count(shape), outputs = element_count(layer->output_shape);
    float *x = malloc((size_t)inputs * sizeof *x), *y = malloc((size_t)outputs * sizeof *y);
    layer->input = convt3d_tensor_dense(x, CONVT3D_FLOAT32, 5, shape);
    layer->output = convt3d_tensor_dense(y, CONVT3D_FLOAT32, 5, layer->output_shape);
    if (!x || !y) {
        snprintf(err->text, sizeof err->text, "no memory for %lld values",
                 (long long)(inputs + outputs));
        return 1;
    }
    for (int64_t i = 0; i < inputs; i++)
        x[i] = (float)next_random(layer) * 0x1p-52f - 1.0f; /* -1 to 1 */
    /* What the run must replace; also gives the pages their memory before the clock runs. */
    for (int64_t i = 0; i < outputs; i++) y[i] = NAN;
    return 0;
}

/* The input index that tap k brings to output o on axis a; -1 if there is none. */
static int64_t source_of(const convt3d_problem *p, int a, int64_t o, int64_t k) {
    int64_t at = o + p->padding_before[a] - k * p->dilation[a];
    if (at < 0 || at % p->stride[a]) return -1;
    return at / p->stride[a] < p->input_size[a] ? at / p->stride[a] : -1;
}

static float value_at(const convt3d_tensor *t, const int64_t at[5]) {
    int64_t offset = 0;
    for (int axis = 0; axis < 5; axis++) offset += at[axis] * t->stride[axis];
    return ((const float *)t->data)[offset];
}

/* One output from the definition; *size is the sum of the magnitudes added. */
static double defined(const demo_layer *layer, const int64_t o[5], double *size) {
    const convt3d_problem *p = &layer->problem;
    const convt3d_tensor *weight = convt3d_module_weight(layer->module);
    const convt3d_tensor *bias = convt3d_module_bias(layer->module);
    double sum = bias ? (double)((const float *)bias->data)[o[1]] : 0.0;
    int64_t inputs = p->in_channels / p->groups, outputs = p->out_channels / p->groups, k[3];
    *size = fabs(sum);
    for (k[0] = 0; k[0] < p->kernel_size[0]; k[0]++)
        for (k[1] = 0; k[1] < p->kernel_size[1]; k[1]++)
            for (k[2] = 0; k[2] < p->kernel_size[2]; k[2]++) {
                int64_t x[5] = {o[0], 0, source_of(p, 0, o[2], k[0]), source_of(p, 1, o[3], k[1]),
                                source_of(p, 2, o[4], k[2])};
                if (x[2] < 0 || x[3] < 0 || x[4] < 0) continue;
                int64_t w[5] = {0, o[1] % outputs, k[0], k[1], k[2]};
                for (int64_t c = 0; c < inputs; c++) {
                    x[1] = w[0] = o[1] / outputs * inputs + c;
                    double term = (double)value_at(&layer->input, x) * (double)value_at(weight, w);
                    sum += term;
                    *size += fabs(term);
                }
            }
    return sum;
}

/* Compares random outputs with the definition; returns the number that lie
 * further off than K+2 roundings of what was added can carry them. */
static int check(demo_layer *layer, double *worst) {
    const convt3d_problem *p = &layer->problem;
    double terms = (double)(p->in_channels / p->groups * p->kernel_size[0] * p->kernel_size[1] *
                            p->kernel_size[2]);
    double bound = (terms + 2) * 0x1p-24;
    int wrong = 0;
    *worst = 0;
    for (int i = 0; i < SAMPLES; i++) {
        int64_t o[5];
        for (int axis = 0; axis < 5; axis++)
            o[axis] = (int64_t)(next_random(layer) % (uint64_t)layer->output_shape[axis]);
        double size, error = fabs((double)value_at(&layer->output, o) - defined(layer, o, &size));
        wrong += !(error <= bound * size); /* a NaN is wrong, too */
        if (error > *worst) *worst = error;
    }
    return wrong;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The best of a few runs: the first one also plans. */
static int timed_runs(demo_layer *layer, double *best, convt3d_error *err) {
    *best = INFINITY;
    for (int i = 0; i < RUNS; i++) {
        double start = seconds();
        if (convt3d_module_forward(layer->module, &layer->input, &layer->output, NULL, err))
            return 1;
        *best = fmin(*best, seconds() - start);
    }
    return 0;
}

static void print_shape(const char *name, const int64_t s[5]) {
    printf("  %-7s %lldx%lldx%lldx%lldx%lld\n", name, (long long)s[0], (long long)s[1],
           (long long)s[2], (long long)s[3], (long long)s[4]);
}

static int demonstrate(const char *text) {
    demo_layer layer;
    convt3d_error err;
    char description[512];
    double best, worst;
    memset(&layer, 0, sizeof layer);
    int failed = prepare(&layer, text, &err) || timed_runs(&layer, &best, &err);
    if (failed) {
        fprintf(stderr, "demo: %s: %s\n", text, err.text);
    } else {
        const convt3d_problem *p = &layer.problem;
        double flop = 2.0 * (double)element_count(layer.input.size) *
                      (double)(p->out_channels / p->groups) *
                      (double)(p->kernel_size[0] * p->kernel_size[1] * p->kernel_size[2]);
        convt3d_module_describe(layer.module, description, sizeof description);
        printf("  %.*s\n", (int)strcspn(description, "\n"), description);
        print_shape("input", layer.input.size);
        print_shape("output", layer.output_shape);
        printf("  took    %.1f ms, %.1f GFLOP/s\n", 1e3 * best, 1e-9 * flop / best);
        if (p->padding_mode == CONVT3D_ZEROS) {
            int wrong = check(&layer, &worst);
            printf("  checked %d random outputs against the definition: %d wrong, largest "
                   "difference %.2g\n",
                   SAMPLES, wrong, worst);
            failed = wrong > 0;
        }
    }
    free(layer.input.data);
    free(layer.output.data);
    convt3d_module_free(layer.module);
    return failed;
}

int main(int argc, char **argv) {
    int failed = 0;
    for (int i = 1; i < argc; i++) failed |= demonstrate(argv[i]);
    return failed;
}
