/* test_calls: tensors, pointers, plans and runs as they must not be.  Every
 * refusal names what is wrong, and leaves every output byte as it was.
 * SPDX-License-Identifier: MIT */
#include "material.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* One sound call, of which each test spoils a part. */
typedef struct call {
    layer l;
    convt3d_plan *plan;
    const convt3d_plan *used_plan;
    const convt3d_tensor *tensor[4]; /* into l, or NULL */
    const convt3d_weights *packed;
    convt3d_write write;
    convt3d_run run;
    const convt3d_run *used_run;
    convt3d_error err;
} call;

/* What the header calls the tensor of a role, by direction. */
static const char *const names[3][4] = {{"input", "weight", "output", "bias"},
                                        {"grad_input", "weight", "grad_output", NULL},
                                        {"input", "grad_weight", "grad_output", "grad_bias"}};

static rng random_source = {99};

static call *call_make(call *c, const char *text, convt3d_direction direction) {
    convt3d_problem p;
    convt3d_options o;
    memset(c, 0, sizeof *c);
    convt3d_run_init(&c->run);
    convt3d_options_init(&o);
    o.threads = 2;
    if (convt3d_problem_parse(text, &p, NULL, 0, &c->err) ||
        convt3d_plan_create(&p, direction, &o, &c->plan, &c->err))
        fail_msg("%s", c->err.text);
    c->l = layer_make(&random_source, &p, direction, LAYER_DENSE);
    c->used_plan = c->plan;
    c->used_run = &c->run;
    for (int role = 0; role < 4; role++) {
        if (!names[direction][role]) continue;
        c->tensor[role] = &c->l.tensor[role].tensor;
        for (int64_t i = 0; i < oracle_count(&p, (oracle_role)role); i++)
            c->l.value[role][i] = (real)(i % 5);
        if (layer_known(direction, (oracle_role)role)) layer_store(&c->l, (oracle_role)role);
    }
    return c;
}

static void call_free(call *c) {
    convt3d_plan_free(c->plan);
    layer_free(&c->l);
}

static convt3d_status call_now(call *c) {
    const convt3d_tensor *x = c->tensor[ORACLE_INPUT], *w = c->tensor[ORACLE_WEIGHT];
    const convt3d_tensor *y = c->tensor[ORACLE_OUTPUT], *b = c->tensor[ORACLE_BIAS];
    c->err = (convt3d_error){CONVT3D_OK, ""};
    switch (c->l.direction) {
    case CONVT3D_FORWARD:
        return convt3d_forward(c->used_plan, x, w, c->packed, b, y, c->used_run, &c->err);
    case CONVT3D_BACKWARD_INPUT:
        return convt3d_backward_input(c->used_plan, y, w, c->packed, x, c->write, c->used_run,
                                      &c->err);
    default:
        return convt3d_backward_weight(c->used_plan, x, y, w, b, c->write, c->used_run, &c->err);
    }
}

static void must_succeed(call *c, const char *what) {
    if (call_now(c)) fail_msg("%s: %s", what, c->err.text);
}

/* Refused with this status and these words, nothing written. */
static void must_refuse(call *c, const char *what, convt3d_status want, const char *word,
                        const char *other_word) {
    convt3d_status got = call_now(c);
    if (got != want)
        fail_msg("%s, %s: %s instead of %s (%s)", what, convt3d_direction_name(c->l.direction),
                 convt3d_status_name(got), convt3d_status_name(want), c->err.text);
    assert_int_equal(c->err.status, want);
    if (word && !strstr(c->err.text, word)) fail_msg("%s: no '%s' in %s", what, word, c->err.text);
    if (other_word && !strstr(c->err.text, other_word))
        fail_msg("%s: no '%s' in %s", what, other_word, c->err.text);
    for (int role = 0; role < 4; role++)
        if (layer_unknown(c->l.direction, (oracle_role)role))
            assert_true(material_untouched(&c->l.tensor[role]));
}

#define EACH_CALL(c, text)                                                                         \
    for (int direction = 0; direction < 3; direction++)                                            \
        for (call c, *one = call_make(&c, text, (convt3d_direction)direction); one;                \
             call_free(&c), one = NULL)
#define BASE "n2ci4co6g2i3x4x5k3s2p1"

/* ---- Pointers ----------------------------------------------------------- */

static void null_pointers(void **state) {
    (void)state;
    EACH_CALL(c, BASE) {
        c.used_plan = NULL;
        must_refuse(&c, "no plan", CONVT3D_ARG, "plan", "NULL");
        c.used_plan = c.plan;
        for (int role = 0; role < 4; role++) {
            const convt3d_tensor *kept = c.tensor[role];
            /* A bias may be left out, and so may one of the two gradients. */
            if (!kept || role == ORACLE_BIAS) continue;
            if (direction == CONVT3D_BACKWARD_WEIGHT && role == ORACLE_WEIGHT) continue;
            c.tensor[role] = NULL;
            must_refuse(&c, "no tensor", CONVT3D_ARG, names[direction][role], "NULL");
            c.tensor[role] = kept;
            void *data = c.l.tensor[role].tensor.data;
            c.l.tensor[role].tensor.data = NULL;
            must_refuse(&c, "no data", CONVT3D_ARG, names[direction][role], "NULL");
            c.l.tensor[role].tensor.data = data;
        }
        if (direction == CONVT3D_BACKWARD_WEIGHT) {
            const convt3d_tensor *bias = c.tensor[ORACLE_BIAS];
            c.tensor[ORACLE_WEIGHT] = c.tensor[ORACLE_BIAS] = NULL;
            must_refuse(&c, "no gradient", CONVT3D_ARG, "grad_weight", "grad_bias");
            c.tensor[ORACLE_BIAS] = bias;
            c.tensor[ORACLE_INPUT] = NULL;
            must_succeed(&c, "grad_bias alone needs no input");
        }
        c.used_run = NULL;
        must_succeed(&c, "no run means all defaults");
    }
}

/* A call without an err, or with every other pointer wrong, may not crash. */
static void null_error(void **state) {
    (void)state;
    EACH_CALL(c, BASE) {
        const convt3d_tensor *x = c.tensor[0], *w = c.tensor[1], *y = c.tensor[2];
        c.l.tensor[0].tensor.size[1]++;
        convt3d_status status =
            direction == CONVT3D_FORWARD ? convt3d_forward(c.plan, x, w, NULL, NULL, y, NULL, NULL)
            : direction == CONVT3D_BACKWARD_INPUT
                ? convt3d_backward_input(c.plan, y, w, NULL, x, CONVT3D_OVERWRITE, NULL, NULL)
                : convt3d_backward_weight(c.plan, x, y, w, NULL, CONVT3D_OVERWRITE, NULL, NULL);
        assert_int_equal(status, CONVT3D_SHAPE);
        c.l.tensor[0].tensor.size[1]--;
    }
}

/* ---- Tensors ------------------------------------------------------------ */

static void types_and_ranks(void **state) {
    (void)state;
    EACH_CALL(c, BASE)
    for (int role = 0; role < 4; role++) {
        static const int32_t ranks[] = {0, 1, 2, 3, 4, 6, -1, INT32_MAX};
        convt3d_tensor *t = &c.l.tensor[role].tensor, kept = *t;
        const char *name = names[direction][role];
        if (!name) continue;
        t->dtype = CONVT3D_FLOAT64;
        must_refuse(&c, "mixed types", CONVT3D_DTYPE, name, "float64");
        t->dtype = CONVT3D_BFLOAT16;
        must_refuse(&c, "mixed types", CONVT3D_DTYPE, name, "bfloat16");
        for (int dtype = 0; dtype <= 5; dtype += 5) {
            t->dtype = (convt3d_dtype)dtype;
            must_refuse(&c, "unknown type", CONVT3D_DTYPE, name, "float32");
        }
        *t = kept;
        for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) {
            char number[32];
            if (ranks[i] == kept.rank) continue;
            t->rank = ranks[i];
            snprintf(number, sizeof number, "%d", (int)ranks[i]);
            must_refuse(&c, "rank", CONVT3D_SHAPE, name, number);
        }
        *t = kept;
    }
}

static void sizes(void **state) {
    (void)state;
    EACH_CALL(c, BASE)
    for (int role = 0; role < 4; role++) {
        convt3d_tensor *t = &c.l.tensor[role].tensor, kept = *t;
        const char *name = names[direction][role];
        if (!name) continue;
        for (int a = 0; a < t->rank; a++) {
            const int64_t wrong[] = {kept.size[a] + 1, kept.size[a] - 1, 0, -1,
                                     INT64_MIN,        INT64_MAX};
            for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
                char got[32], want[32];
                if (wrong[i] == kept.size[a]) continue;
                t->size[a] = wrong[i];
                snprintf(got, sizeof got, "%" PRId64, wrong[i]);
                snprintf(want, sizeof want, "%" PRId64, kept.size[a]);
                must_refuse(&c, "size", CONVT3D_SHAPE, name, got);
                must_refuse(&c, "size", CONVT3D_SHAPE, name, want);
                static const char *const axes[] = {"depth", "height", "width"};
                if (a >= 2) must_refuse(&c, "size", CONVT3D_SHAPE, axes[a - 2], NULL);
            }
            *t = kept;
        }
    }
}

/* A weight as Conv3d has it gets a hint; a bias per group is no bias. */
static void likely_mistakes(void **state) {
    (void)state;
    EACH_CALL(c, "n1ci4co6i3k3") {
        convt3d_tensor *w = &c.l.tensor[ORACLE_WEIGHT].tensor;
        w->size[0] = 6;
        w->size[1] = 4;
        must_refuse(&c, "weight of a Conv3d", CONVT3D_SHAPE, names[direction][ORACLE_WEIGHT],
                    "swap");
    }
    EACH_CALL(c, BASE) {
        const int64_t lengths[] = {0, 1, 3, 5};
        for (int i = 0; i < 4 && names[direction][ORACLE_BIAS]; i++) {
            c.l.tensor[ORACLE_BIAS].tensor.size[0] = lengths[i];
            must_refuse(&c, "length of bias", CONVT3D_SHAPE, names[direction][ORACLE_BIAS], "6");
        }
    }
}

static void strides_beyond_memory(void **state) {
    (void)state;
    EACH_CALL(c, BASE)
    for (int role = 0; role < 4; role++) {
        static const int64_t strides[] = {INT64_MAX, INT64_MIN, (int64_t)1 << 61,
                                          -((int64_t)1 << 61)};
        convt3d_tensor *t = &c.l.tensor[role].tensor, kept = *t;
        for (int a = 0; a < t->rank && names[direction][role]; a++)
            for (int i = 0; i < 4; i++) {
                t->stride[a] = strides[i];
                must_refuse(&c, "stride", CONVT3D_OVERFLOW, names[direction][role], NULL);
                *t = kept;
            }
    }
}

/* Every unknown is NaN again. */
static void wipe_unknown(call *c) {
    for (int role = 0; role < 4; role++)
        if (layer_unknown(c->l.direction, (oracle_role)role))
            memset(c->l.tensor[role].memory.data, 0xFF, c->l.tensor[role].memory.size);
}

/* ---- Overlaps ----------------------------------------------------------- */

static void outputs_that_overlap_themselves(void **state) {
    (void)state;
    EACH_CALL(c, BASE)
    for (int role = 0; role < 4; role++) {
        convt3d_tensor *t = &c.l.tensor[role].tensor, kept = *t;
        if (!layer_unknown((convt3d_direction)direction, (oracle_role)role)) continue;
        for (int a = 0; a < t->rank; a++) {
            t->stride[a] = 0;
            must_refuse(&c, "zero stride", CONVT3D_ARG, names[direction][role], "overlaps itself");
            *t = kept;
            if (kept.stride[a] == 1) continue;
            t->stride[a]--;
            must_refuse(&c, "short stride", CONVT3D_ARG, names[direction][role], "overlaps itself");
            t->stride[a] = -t->stride[a];
            t->data = (float *)kept.data + (kept.size[a] - 1) * (kept.stride[a] - 1);
            must_refuse(&c, "short and negative", CONVT3D_ARG, names[direction][role],
                        "overlaps itself");
            *t = kept;
        }
    }
}

/* Overlapping by one element, at either end, is refused; touching is fine. */
static void outputs_that_overlap_inputs(void **state) {
    (void)state;
    EACH_CALL(c, BASE) {
        int last = direction == CONVT3D_BACKWARD_INPUT ? ORACLE_BIAS : 4;
        for (int out = 0; out < last; out++)
            for (int in = 0; in < last; in++) {
                if (in == out || !layer_unknown((convt3d_direction)direction, (oracle_role)out))
                    continue;
                /* Both in one piece of memory, one behind the other. */
                convt3d_tensor *a = &c.l.tensor[out].tensor, *b = &c.l.tensor[in].tensor;
                void *kept_a = a->data, *kept_b = b->data;
                size_t size_a = c.l.tensor[out].memory.size, size_b = c.l.tensor[in].memory.size;
                guarded both = guarded_alloc(size_a + size_b, 1);
                for (int order = 0; order < 2; order++) {
                    a->data = both.data + (order ? size_b : 0);
                    b->data = both.data + (order ? 0 : size_a);
                    memset(both.data, 0, both.size);
                    must_succeed(&c, "tensors that touch");
                    memset(both.data, 0xFF, both.size);
                    wipe_unknown(&c);
                    convt3d_tensor *second = order ? a : b;
                    second->data = (char *)second->data - 4;
                    must_refuse(&c, "overlap", CONVT3D_ARG, names[direction][out], "overlap");
                    must_refuse(&c, "overlap", CONVT3D_ARG, names[direction][in], "overlap");
                    for (size_t i = 0; i < both.size; i++) assert_int_equal(both.data[i], 0xFF);
                }
                a->data = kept_a;
                b->data = kept_b;
                guarded_free(&both);
            }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(null_pointers),
        cmocka_unit_test(null_error),
        cmocka_unit_test(types_and_ranks),
        cmocka_unit_test(sizes),
        cmocka_unit_test(likely_mistakes),
        cmocka_unit_test(strides_beyond_memory),
        cmocka_unit_test(outputs_that_overlap_themselves),
        cmocka_unit_test(outputs_that_overlap_inputs),
    };
    return cmocka_run_group_tests_name("calls", tests, NULL, NULL);
}
