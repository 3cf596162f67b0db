/* test_options: options, environment variables, runs and packed weights as they
 * must not be, and NULL for every pointer of every function.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "material.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static convt3d_error err;

static convt3d_problem problem(const char *text) {
    convt3d_problem p;
    if (convt3d_problem_parse(text, &p, NULL, 0, &err)) fail_msg("%s", err.text);
    return p;
}

static convt3d_plan *plan_of(const char *text, convt3d_direction direction, int32_t threads,
                             const char *algorithm) {
    convt3d_problem p = problem(text);
    convt3d_plan *plan;
    convt3d_options o;
    convt3d_options_init(&o);
    o.threads = threads;
    o.algorithm = algorithm;
    if (convt3d_plan_create(&p, direction, &o, &plan, &err)) fail_msg("%s", err.text);
    return plan;
}

static void text_has(const char *word) {
    if (!strstr(err.text, word)) fail_msg("no '%s' in \"%s\"", word, err.text);
}

#define BASE "n2ci4co6g2i3x4x5k3s2p1"

/* ---- Options and environment -------------------------------------------- */

static void refuse_options(const convt3d_options *o, convt3d_direction direction,
                           convt3d_status want, const char *word, const char *other) {
    convt3d_problem p = problem(BASE);
    convt3d_plan *plan = (convt3d_plan *)&p;
    convt3d_status got = convt3d_plan_create(&p, direction, o, &plan, &err);
    if (got != want) fail_msg("%s: %s (%s)", word, convt3d_status_name(got), err.text);
    assert_null(plan);
    text_has(word);
    text_has(other);
}

static void options_out_of_range(void **state) {
    (void)state;
    static const int32_t threads[] = {-1, INT32_MIN, CONVT3D_MAX_THREADS + 1, 1000000, INT32_MAX};
    convt3d_options o;
    for (int i = 0; i < 5; i++) {
        char number[32];
        convt3d_options_init(&o);
        o.threads = threads[i];
        snprintf(number, sizeof number, "%d", (int)threads[i]);
        refuse_options(&o, CONVT3D_FORWARD, CONVT3D_ARG, "threads", number);
        text_has("1024");
    }
    convt3d_options_init(&o);
    o.isa = "nonsense";
    refuse_options(&o, CONVT3D_FORWARD, CONVT3D_ARG, "isa", "nonsense");
    text_has(convt3d_isa_name(0)); /* says which there are */
    convt3d_options_init(&o);
    o.algorithm = "nonsense";
    refuse_options(&o, CONVT3D_FORWARD, CONVT3D_ARG, "algorithm", "nonsense");
    text_has("reference");
    convt3d_options_init(&o);
    refuse_options(&o, (convt3d_direction)3, CONVT3D_ARG, "direction", "3");
    refuse_options(&o, (convt3d_direction)-1, CONVT3D_ARG, "direction", "-1");
    for (int i = 0; i < 2; i++) {
        o.struct_size = i ? sizeof o + 8 : 0;
        refuse_options(&o, CONVT3D_FORWARD, CONVT3D_ARG, "struct_size", "options");
    }
}

/* The instruction sets of this build that this CPU lacks, if any, must be
 * refused by name; those that it has must be used when forced. */
static void forced_instruction_sets(void **state) {
    (void)state;
    int known = 0;
    for (const char *name; (name = convt3d_isa_name(known)); known++) {
        convt3d_options o;
        convt3d_options_init(&o);
        o.isa = name;
        if (!convt3d_isa_supported(name)) {
            refuse_options(&o, CONVT3D_FORWARD, CONVT3D_UNSUPPORTED, "isa", name);
            continue;
        }
        convt3d_problem p = problem(BASE);
        convt3d_plan *plan;
        char text[4096], line[64];
        assert_int_equal(convt3d_plan_create(&p, CONVT3D_FORWARD, &o, &plan, &err), CONVT3D_OK);
        assert_true(convt3d_plan_describe(plan, text, sizeof text) < sizeof text);
        snprintf(line, sizeof line, "isa: %s\n", name);
        assert_non_null(strstr(text, line));
        convt3d_plan_free(plan);
    }
    assert_true(known >= 1);
    assert_null(convt3d_isa_name(-1));
    assert_null(convt3d_isa_name(known + 5));
    assert_int_equal(convt3d_isa_supported("nonsense"), 0);
}

static void environment(void **state) {
    (void)state;
    static const char *const garbage[] = {"",        "x",         "-1",  "0",
                                          "1000000", "3 threads", "1e1", "99999999999999999999"};
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
        convt3d_problem p = problem(BASE);
        convt3d_plan *plan = NULL;
        setenv("CONVT3D_NUM_THREADS", garbage[i], 1);
        convt3d_status status = convt3d_plan_create(&p, CONVT3D_FORWARD, NULL, &plan, &err);
        unsetenv("CONVT3D_NUM_THREADS");
        /* An empty variable may count as none. */
        if (!*garbage[i] && !status) {
            convt3d_plan_free(plan);
            continue;
        }
        assert_int_equal(status, CONVT3D_ARG);
        text_has("CONVT3D_NUM_THREADS");
        text_has(garbage[i]);
        text_has("1024");
    }
    setenv("CONVT3D_NUM_THREADS", "3", 1);
    convt3d_plan *plan = plan_of(BASE, CONVT3D_FORWARD, 0, NULL);
    assert_int_equal(convt3d_plan_threads(plan), 3);
    convt3d_plan_free(plan);
    plan = plan_of(BASE, CONVT3D_FORWARD, 2, NULL); /* an option wins */
    assert_int_equal(convt3d_plan_threads(plan), 2);
    convt3d_plan_free(plan);
    unsetenv("CONVT3D_NUM_THREADS");
    plan = plan_of(BASE, CONVT3D_FORWARD, 0, NULL);
    assert_int_equal(convt3d_plan_threads(plan), convt3d_cpu_count());
    convt3d_plan_free(plan);
    setenv("CONVT3D_ISA", "nonsense", 1);
    refuse_options(NULL, CONVT3D_FORWARD, CONVT3D_ARG, "CONVT3D_ISA", "nonsense");
    unsetenv("CONVT3D_ISA");
}

/* The CPUs are those that this process may use, not those that there are. */
static void cpus_of_this_process(void **state) {
    (void)state;
    cpu_set_t all, one;
    int first = 0;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    assert_int_equal(convt3d_cpu_count(), CPU_COUNT(&all));
    while (!CPU_ISSET(first, &all)) first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    int count = convt3d_cpu_count();
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
    assert_int_equal(count, 1);
}

/* ---- Runs and packed weights -------------------------------------------- */

typedef struct setup {
    layer l;
    convt3d_plan *plan;
} setup;

static setup make(const char *text, convt3d_direction direction) {
    rng r = {5};
    convt3d_problem p = problem(text);
    setup s = {layer_make(&r, &p, direction, LAYER_DENSE), plan_of(text, direction, 2, NULL)};
    for (int role = 0; role < 4; role++) {
        for (int64_t i = 0; i < oracle_count(&p, (oracle_role)role); i++)
            s.l.value[role][i] = (real)(i % 7);
        if (layer_known(direction, (oracle_role)role)) layer_store(&s.l, (oracle_role)role);
    }
    return s;
}

static void free_setup(setup *s) {
    layer_free(&s->l);
    convt3d_plan_free(s->plan);
}

static void refuse_run(const setup *s, const convt3d_plan *plan, const convt3d_weights *packed,
                       convt3d_write write, const convt3d_run *run, convt3d_status want,
                       const char *word) {
    convt3d_status got = layer_run(&s->l, plan, packed, 0, write, run, &err);
    if (got != want) fail_msg("%s: %s (%s)", word, convt3d_status_name(got), err.text);
    text_has(word);
    for (int role = 0; role < 4; role++)
        if (layer_unknown(s->l.direction, (oracle_role)role))
            assert_true(material_untouched(&s->l.tensor[role]));
}

static void runs_out_of_range(void **state) {
    (void)state;
    for (int d = 0; d < 3; d++) {
        setup s = make(BASE, (convt3d_direction)d);
        convt3d_run run;
        static const int32_t threads[] = {-1, 3, INT32_MIN, INT32_MAX};
        for (int i = 0; i < 4; i++) {
            convt3d_run_init(&run);
            run.threads = threads[i];
            refuse_run(&s, s.plan, NULL, CONVT3D_OVERWRITE, &run, CONVT3D_ARG, "threads");
            text_has("2");
        }
        convt3d_run_init(&run);
        run.struct_size--;
        refuse_run(&s, s.plan, NULL, CONVT3D_OVERWRITE, &run, CONVT3D_ARG, "struct_size");
        for (int i = -1; i < 3 && d != CONVT3D_FORWARD; i += 3)
            refuse_run(&s, s.plan, NULL, (convt3d_write)i, NULL, CONVT3D_ARG, "write");
        for (int other = 0; other < 3; other++) {
            convt3d_plan *plan = plan_of(BASE, (convt3d_direction)other, 2, NULL);
            if (other != d)
                refuse_run(&s, plan, NULL, CONVT3D_OVERWRITE, NULL, CONVT3D_ARG,
                           convt3d_direction_name((convt3d_direction)other));
            convt3d_plan_free(plan);
        }
        size_t need = convt3d_plan_scratch_size(s.plan, 0, 0);
        char number[32];
        snprintf(number, sizeof number, "%zu", need);
        convt3d_run_init(&run);
        guarded scratch = guarded_alloc(need, 1);
        for (int i = 0; i < 2 && need; i++) {
            run.scratch = scratch.data + 1;
            run.scratch_size = i ? 0 : need - 1;
            refuse_run(&s, s.plan, NULL, CONVT3D_OVERWRITE, &run, CONVT3D_ARG, number);
            text_has("scratch");
        }
        guarded_free(&scratch);
        free_setup(&s);
    }
}

/* A sample without batch axis needs a batch of 1. */
static void unbatched_needs_one_sample(void **state) {
    (void)state;
    for (int d = 0; d < 3; d++)
        for (int batch = 0; batch < 3; batch += 2) {
            setup s = make(batch ? "n2ci2co2i3k3" : "n0ci2co2i3k3", (convt3d_direction)d);
            for (int role = 0; role < 3; role += 2) {
                convt3d_tensor *t = &s.l.tensor[role].tensor, kept = *t;
                *t = convt3d_tensor_dense(kept.data, kept.dtype, 4, kept.size + 1);
                refuse_run(&s, s.plan, NULL, CONVT3D_OVERWRITE, NULL, CONVT3D_SHAPE, "4");
                *t = kept;
            }
            free_setup(&s);
        }
}

static void packed_weights_of_another_layer(void **state) {
    (void)state;
    static const char *const others[] = {
        "n2ci4co6g1i3x4x5k3s2p1",         "n2ci4co8g2i3x4x5k3s2p1", "n2ci4co6g2i3x4x5k3x3x2s2p1",
        "n2ci4co6g2i3x4x5k3s2p1f64",      "n2ci4co6g2i3x4x5k3s1p1", "n2ci4co6g2i3x4x5k3s2p1d2",
        "n2ci4co6g2i3x4x5k3s2p1mreflect", "n2ci4co6g2i3x4x5k3s2p0"};
    for (int d = 0; d < 2; d++) {
        setup s = make(BASE, (convt3d_direction)d);
        convt3d_weights *packed = NULL;
        size_t count = sizeof others / sizeof *others;
        /* Then the same layer's, but of the other direction or algorithm. */
        for (size_t i = 0; i < count + 2; i++) {
            const char *text = i < count ? others[i] : BASE;
            int direction = i == count ? 1 - d : d;
            const char *algorithm = i == count + 1 ? "reference" : NULL;
            setup other = make(text, (convt3d_direction)direction);
            convt3d_plan *plan = plan_of(text, (convt3d_direction)direction, 2, algorithm);
            assert_int_equal(
                convt3d_weights_pack(plan, &other.l.tensor[ORACLE_WEIGHT].tensor, &packed, &err),
                CONVT3D_OK);
            assert_true(convt3d_weights_size(packed) > 0);
            char text_now[4096];
            convt3d_plan_describe(s.plan, text_now, sizeof text_now);
            /* The same algorithm isn't another one. */
            if (!algorithm || !strstr(text_now, "\nalgorithm: reference"))
                refuse_run(&s, s.plan, packed, CONVT3D_OVERWRITE, NULL, CONVT3D_ARG, "packed");
            convt3d_weights_free(packed);
            convt3d_plan_free(plan);
            free_setup(&other);
        }
        free_setup(&s);
    }
}

static void weights_given_twice_or_never(void **state) {
    (void)state;
    for (int d = 0; d < 2; d++) {
        setup s = make(BASE, (convt3d_direction)d);
        convt3d_weights *packed = NULL;
        convt3d_tensor *x = &s.l.tensor[ORACLE_INPUT].tensor,
                       *y = &s.l.tensor[ORACLE_OUTPUT].tensor;
        convt3d_tensor *w = &s.l.tensor[ORACLE_WEIGHT].tensor;
        assert_int_equal(convt3d_weights_pack(s.plan, w, &packed, &err), CONVT3D_OK);
        for (int both = 0; both < 2; both++) {
            convt3d_status status =
                d == 0 ? convt3d_forward(s.plan, x, both ? w : NULL, both ? packed : NULL, NULL, y,
                                         NULL, &err)
                       : convt3d_backward_input(s.plan, y, both ? w : NULL, both ? packed : NULL, x,
                                                CONVT3D_OVERWRITE, NULL, &err);
            assert_int_equal(status, CONVT3D_ARG);
            text_has("weight");
            text_has("packed");
            assert_true(material_untouched(&s.l.tensor[d == 0 ? ORACLE_OUTPUT : ORACLE_INPUT]));
        }
        convt3d_weights_free(packed);
        /* Packing refuses what running would refuse. */
        packed = (convt3d_weights *)&s;
        w->size[2]++;
        assert_int_equal(convt3d_weights_pack(s.plan, w, &packed, &err), CONVT3D_SHAPE);
        assert_null(packed);
        text_has("weight");
        free_setup(&s);
    }
    setup s = make(BASE, CONVT3D_BACKWARD_WEIGHT);
    convt3d_weights *packed = (convt3d_weights *)&s;
    assert_int_equal(convt3d_weights_pack(s.plan, &s.l.tensor[ORACLE_WEIGHT].tensor, &packed, &err),
                     CONVT3D_ARG);
    assert_null(packed);
    text_has("backward_weight");
    free_setup(&s);
}

/* ---- NULL --------------------------------------------------------------- */

#define REFUSED(call, word)                                                                        \
    do {                                                                                           \
        err.text[0] = 0;                                                                           \
        assert_int_equal(call, CONVT3D_ARG);                                                       \
        text_has(word);                                                                            \
        text_has("NULL");                                                                          \
    } while (0)

static void null_everywhere(void **state) {
    (void)state;
    convt3d_problem p = problem(BASE);
    convt3d_plan *plan = NULL;
    convt3d_weights *weights = NULL;
    convt3d_padding_mode mode;
    int64_t three[3] = {9, 9, 9};
    setup s = make(BASE, CONVT3D_FORWARD);
    const convt3d_tensor *w = &s.l.tensor[ORACLE_WEIGHT].tensor;
    REFUSED(convt3d_padding_mode_parse(NULL, &mode, &err), "name");
    REFUSED(convt3d_padding_mode_parse("zeros", NULL, &err), "mode");
    REFUSED(convt3d_problem_output_shape(NULL, NULL, &err), "problem");
    REFUSED(convt3d_problem_output_range(NULL, three, three, &err), "problem");
    REFUSED(convt3d_problem_output_range(&p, NULL, three, &err), "smallest");
    REFUSED(convt3d_problem_output_range(&p, three, NULL, &err), "largest");
    REFUSED(convt3d_problem_set_output_size(NULL, three, &err), "problem");
    REFUSED(convt3d_problem_set_output_size(&p, NULL, &err), "output_size");
    REFUSED(convt3d_problem_parse(NULL, &p, NULL, 0, &err), "text");
    REFUSED(convt3d_problem_parse(BASE, NULL, NULL, 0, &err), "problem");
    REFUSED(convt3d_plan_create(NULL, CONVT3D_FORWARD, NULL, &plan, &err), "problem");
    REFUSED(convt3d_plan_create(&p, CONVT3D_FORWARD, NULL, NULL, &err), "plan");
    REFUSED(convt3d_weights_pack(NULL, w, &weights, &err), "plan");
    REFUSED(convt3d_weights_pack(s.plan, NULL, &weights, &err), "weight");
    REFUSED(convt3d_weights_pack(s.plan, w, NULL, &err), "weights");
    assert_null(plan);
    assert_null(weights);
    /* Freeing nothing is nothing; asking nothing gives nothing. */
    convt3d_plan_free(NULL);
    convt3d_weights_free(NULL);
    convt3d_module_free(NULL);
    convt3d_problem_init(NULL);
    convt3d_options_init(NULL);
    convt3d_run_init(NULL);
    assert_int_equal(convt3d_plan_threads(NULL), 0);
    assert_int_equal(convt3d_plan_scratch_size(NULL, 1, 0), 0);
    assert_int_equal(convt3d_plan_describe(NULL, NULL, 0), 0);
    assert_int_equal(convt3d_weights_size(NULL), 0);
    assert_int_equal(convt3d_problem_format(NULL, NULL, 0), 0);
    assert_int_equal(convt3d_isa_supported(NULL), 0);
    assert_true(convt3d_cpu_name(NULL, 0) > 0);
    assert_true(convt3d_plan_describe(s.plan, NULL, 0) > 50);
    free_setup(&s);
}

/* The system reads the same name off the CPU, where it shows one. */
static void name_of_the_cpu(void **state) {
    (void)state;
    char name[128], line[512], small[4];
    size_t length = convt3d_cpu_name(name, sizeof name);
    assert_true(length > 0 && length == strlen(name));
    assert_int_equal(convt3d_cpu_name(small, sizeof small), length);
    assert_int_equal(strlen(small), length < 3 ? length : 3);
#if defined(__x86_64__)
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, "model name", 10)) continue;
        if (!strstr(line, name)) fail_msg("%s, but the system says %s", name, line);
        break;
    }
    if (file) fclose(file);
#else
    (void)line;
#endif
}

static void names_of_everything(void **state) {
    (void)state;
    for (int i = CONVT3D_OK; i <= CONVT3D_NOTFOUND; i++)
        for (int j = CONVT3D_OK; j < i; j++)
            assert_string_not_equal(convt3d_status_name((convt3d_status)i),
                                    convt3d_status_name((convt3d_status)j));
    assert_string_equal(convt3d_status_name(CONVT3D_SHAPE), "SHAPE");
    assert_non_null(convt3d_status_name((convt3d_status)99));
    assert_non_null(convt3d_status_name((convt3d_status)-1));
    assert_null(convt3d_padding_mode_name((convt3d_padding_mode)4));
    assert_null(convt3d_direction_name((convt3d_direction)3));
    assert_string_equal(convt3d_direction_name(CONVT3D_BACKWARD_WEIGHT), "backward_weight");
    for (int i = 0; i < 4; i++) {
        convt3d_padding_mode mode;
        const char *name = convt3d_padding_mode_name((convt3d_padding_mode)i);
        assert_int_equal(convt3d_padding_mode_parse(name, &mode, &err), CONVT3D_OK);
        assert_int_equal(mode, i);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_out_of_range),
        cmocka_unit_test(forced_instruction_sets),
        cmocka_unit_test(environment),
        cmocka_unit_test(cpus_of_this_process),
        cmocka_unit_test(runs_out_of_range),
        cmocka_unit_test(unbatched_needs_one_sample),
        cmocka_unit_test(packed_weights_of_another_layer),
        cmocka_unit_test(weights_given_twice_or_never),
        cmocka_unit_test(null_everywhere),
        cmocka_unit_test(name_of_the_cpu),
        cmocka_unit_test(names_of_everything),
    };
    return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
