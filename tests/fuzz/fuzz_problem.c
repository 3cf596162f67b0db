/* fuzz_problem: any bytes as a problem string, and any bytes as a problem.
 * SPDX-License-Identifier: MIT
 *
 * A text that parses must format to a text that parses to the same problem, and
 * no shorter form may be longer than what was given.  A problem that is legal
 * must have the shapes that the oracle gives, and a plan or a named failure.
 * Nothing is computed, so sizes may be anything. */
#include "../oracle.h"
#include "require.h"

#include <stdlib.h>
#include <string.h>

static void check_failure(convt3d_status status, const convt3d_error *err) {
    REQUIRE(status == err->status);
    REQUIRE(err->text[0] && memchr(err->text, 0, sizeof err->text) && !strchr(err->text, '\n'));
}

static int same(const convt3d_problem *a, const convt3d_problem *b) {
    return a->dtype == b->dtype && a->padding_mode == b->padding_mode && !a->bias == !b->bias &&
           !memcmp(&a->batch, &b->batch, sizeof *a - offsetof(convt3d_problem, batch));
}

static void check_legal(const convt3d_problem *p) {
    int64_t shape[5], low[3], high[3];
    convt3d_error err = {CONVT3D_OK, ""};
    REQUIRE(convt3d_problem_output_shape(p, shape, &err) == CONVT3D_OK);
    REQUIRE(shape[0] == p->batch && shape[1] == p->out_channels);
    for (int a = 0; a < 3; a++) REQUIRE(shape[2 + a] == oracle_output_size(p, a));
    /* The range at output_padding 0 may be illegal where this size isn't. */
    if (!convt3d_problem_output_range(p, low, high, &err)) {
        convt3d_problem q = *p;
        for (int a = 0; a < 3; a++) REQUIRE(low[a] <= shape[2 + a] && shape[2 + a] <= high[a]);
        memset(q.output_padding, 0, sizeof q.output_padding);
        if (!convt3d_problem_set_output_size(&q, shape + 2, &err)) REQUIRE(same(p, &q));
    }
    char text[1024];
    size_t length = convt3d_problem_format(p, text, sizeof text);
    convt3d_problem again;
    REQUIRE(length < sizeof text && strlen(text) == length);
    REQUIRE(convt3d_problem_parse(text, &again, NULL, 0, &err) == CONVT3D_OK);
    REQUIRE(same(p, &again));
    /* A plan has tables of the kernel's taps: time and memory, not a fault. */
    if (p->kernel_size[2] > 4096) return;
    for (int d = CONVT3D_FORWARD; d <= CONVT3D_BACKWARD_WEIGHT; d++) {
        convt3d_plan *plan = NULL;
        convt3d_options options;
        convt3d_options_init(&options);
        options.threads = 2;
        convt3d_status status = convt3d_plan_create(p, (convt3d_direction)d, &options, &plan, &err);
        REQUIRE((status == CONVT3D_OK) == (plan != NULL));
        if (status) {
            check_failure(status, &err);
            continue;
        }
        REQUIRE(convt3d_plan_threads(plan) >= 1 && convt3d_plan_threads(plan) <= 2);
        REQUIRE(convt3d_plan_describe(plan, text, sizeof text) > 0);
        convt3d_plan_free(plan);
    }
}

static void try_text(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1), name[8];
    convt3d_problem p;
    convt3d_error err = {CONVT3D_OK, ""};
    if (!text) return;
    memcpy(text, data, size);
    text[size] = 0;
    convt3d_status status = convt3d_problem_parse(text, &p, name, sizeof name, &err);
    if (status)
        check_failure(status, &err);
    else {
        REQUIRE(memchr(name, 0, sizeof name));
        REQUIRE(convt3d_problem_format(&p, NULL, 0) <= strlen(text));
        check_legal(&p);
    }
    free(text);
}

/* The struct as its caller might fill it: small numbers from single bytes,
 * with extreme ones in between. */
static void try_struct(const uint8_t *data, size_t size) {
    static const int64_t extreme[] = {INT64_MIN,
                                      INT64_MAX,
                                      -((int64_t)1 << 40),
                                      (int64_t)1 << 40,
                                      (int64_t)1 << 62,
                                      (int64_t)INT32_MAX + 1,
                                      0x10000,
                                      -1};
    convt3d_problem p;
    convt3d_problem_init(&p);
    int64_t *field = &p.batch, *end = (int64_t *)(&p + 1);
    p.dtype = size && data[0] & 1 ? CONVT3D_FLOAT64 : CONVT3D_FLOAT32;
    p.padding_mode = (convt3d_padding_mode)(size ? data[0] / 2 % 5 : 0);
    for (size_t i = 1; i < size && field < end; i++, field++)
        *field = data[i] >= 0xF8 ? extreme[data[i] - 0xF8] : data[i];
    convt3d_error err = {CONVT3D_OK, ""};
    convt3d_status status = convt3d_problem_output_shape(&p, NULL, &err);
    if (status)
        check_failure(status, &err);
    else
        check_legal(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    if (data[0] & 0x80)
        try_struct(data + 1, size - 1);
    else
        try_text(data, size);
    return 0;
}
