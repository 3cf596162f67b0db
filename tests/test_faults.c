/* test_faults: memory and threads that can't be had.
 * SPDX-License-Identifier: MIT
 *
 * The linker puts the functions below before the C library's (--wrap), so that
 * the n-th allocation, or every one from the n-th on, can be made to fail. */
#define _GNU_SOURCE
#include "material.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

/* ThreadSanitizer gives up in a forked child that starts threads, unless told
 * not to. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
    return "die_after_fork=0";
}

/* ---- Failing on demand -------------------------------------------------- */

/* Workers allocate too, so all of this is atomic. */
static int allocations, fail_at, fail_after, failed, creations, creations_allowed = 1 << 30;

static int fails(void) {
    int n = __atomic_add_fetch(&allocations, 1, __ATOMIC_SEQ_CST);
    int now = (fail_at && n == fail_at) || (fail_after && n >= fail_after);
    if (now) __atomic_add_fetch(&failed, 1, __ATOMIC_SEQ_CST);
    return now;
}

static void arm(int once, int from_then_on) {
    allocations = failed = 0;
    fail_at = once;
    fail_after = from_then_on;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
int __real_posix_memalign(void **out, size_t alignment, size_t size);
int __real_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*main)(void *),
                          void *arg);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
int __wrap_posix_memalign(void **out, size_t alignment, size_t size);
int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*main)(void *),
                          void *arg);

void *__wrap_malloc(size_t size) {
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size) {
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size) {
    return fails() ? NULL : __real_realloc(old, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size) {
    return fails() ? NULL : __real_aligned_alloc(alignment, size);
}

int __wrap_posix_memalign(void **out, size_t alignment, size_t size) {
    return fails() ? ENOMEM : __real_posix_memalign(out, alignment, size);
}

int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*main)(void *),
                          void *arg) {
    if (__atomic_add_fetch(&creations, 1, __ATOMIC_SEQ_CST) > creations_allowed) return EAGAIN;
    return __real_pthread_create(id, attr, main, arg);
}

/* ---- What is made to fail ----------------------------------------------- */

/* One layer with all that a call of each kind needs, made before the failures. */
typedef struct stage {
    layer l;
    convt3d_options options;
    convt3d_plan *plan;
    convt3d_weights *packed;
    convt3d_module *module;
    convt3d_error err;
} stage;

#define BASE "n2ci5co6i3x4x9k3s2p1mreflect"

static stage stage_make(const char *text, convt3d_direction direction, const char *algorithm) {
    stage s;
    rng r = {3};
    convt3d_problem p;
    memset(&s, 0, sizeof s);
    if (convt3d_problem_parse(text, &p, NULL, 0, &s.err)) fail_msg("%s", s.err.text);
    s.l = layer_make(&r, &p, direction, LAYER_DENSE);
    for (int role = 0; role < 4; role++) {
        for (int64_t i = 0; i < oracle_count(&p, (oracle_role)role); i++)
            s.l.value[role][i] = rng_normal(&r);
        if (layer_known(direction, (oracle_role)role)) layer_store(&s.l, (oracle_role)role);
    }
    convt3d_options_init(&s.options);
    s.options.threads = 3;
    s.options.algorithm = algorithm;
    if (convt3d_plan_create(&p, direction, &s.options, &s.plan, &s.err)) fail_msg("%s", s.err.text);
    if (direction != CONVT3D_BACKWARD_WEIGHT &&
        convt3d_weights_pack(s.plan, &s.l.tensor[ORACLE_WEIGHT].tensor, &s.packed, &s.err))
        fail_msg("%s", s.err.text);
    return s;
}

static void stage_free(stage *s) {
    convt3d_module_free(s->module);
    convt3d_weights_free(s->packed);
    convt3d_plan_free(s->plan);
    layer_free(&s->l);
}

static void wipe(stage *s) {
    for (int role = 0; role < 4; role++)
        if (layer_unknown(s->l.direction, (oracle_role)role) && s->l.tensor[role].memory.map)
            memset(s->l.tensor[role].memory.data, 0xFF, s->l.tensor[role].memory.size);
}

static int untouched(const stage *s) {
    for (int role = 0; role < 4; role++)
        if (layer_unknown(s->l.direction, (oracle_role)role) &&
            !material_untouched(&s->l.tensor[role]))
            return 0;
    return 1;
}

/* The result's bytes, summed up so that they can be compared. */
static uint64_t digest(const stage *s) {
    uint64_t hash = 1469598103934665603u;
    for (int role = 0; role < 4; role++)
        for (size_t i = 0; i < s->l.tensor[role].memory.size; i++)
            if (layer_unknown(s->l.direction, (oracle_role)role))
                hash = (hash ^ s->l.tensor[role].memory.data[i]) * 1099511628211u;
    return hash;
}

typedef convt3d_status action(stage *s);

static convt3d_status create_plan(stage *s) {
    convt3d_plan *plan;
    convt3d_status status =
        convt3d_plan_create(&s->l.p, s->l.direction, &s->options, &plan, &s->err);
    if (status && plan) return CONVT3D_OK; /* must be NULL: let the caller complain */
    convt3d_plan_free(plan);
    return status;
}

static convt3d_status pack_weights(stage *s) {
    convt3d_weights *packed;
    convt3d_status status =
        convt3d_weights_pack(s->plan, &s->l.tensor[ORACLE_WEIGHT].tensor, &packed, &s->err);
    if (status && packed) return CONVT3D_OK;
    convt3d_weights_free(packed);
    return status;
}

static convt3d_status run_raw(stage *s) {
    return layer_run(&s->l, s->plan, NULL, 1, CONVT3D_OVERWRITE, NULL, &s->err);
}

static convt3d_status run_packed(stage *s) {
    return layer_run(&s->l, s->plan, s->packed, 1, CONVT3D_OVERWRITE, NULL, &s->err);
}

static convt3d_status create_module(stage *s) {
    convt3d_module *module;
    convt3d_status status = convt3d_module_create(&s->l.p, &s->options, &module, &s->err);
    if (status && module) return CONVT3D_OK;
    convt3d_module_free(module);
    return status;
}

/* A new module each time: an old one keeps its plans. */
static convt3d_status run_module(stage *s) {
    int at = fail_at, after = fail_after;
    fail_at = fail_after = 0;
    int before = allocations;
    convt3d_module_free(s->module);
    if (convt3d_module_create(&s->l.p, &s->options, &s->module, &s->err)) return CONVT3D_ARG;
    allocations = before;
    fail_at = at;
    fail_after = after;
    const convt3d_tensor *x = &s->l.tensor[ORACLE_INPUT].tensor;
    const convt3d_tensor *y = &s->l.tensor[ORACLE_OUTPUT].tensor;
    if (s->l.direction == CONVT3D_FORWARD)
        return convt3d_module_forward(s->module, x, y, NULL, &s->err);
    convt3d_tensor other = *x; /* the input of a backward call is any input */
    other.data = s->l.tensor[ORACLE_BIAS].tensor.data;
    memset(other.stride, 0, sizeof other.stride);
    return convt3d_module_backward(s->module, &other, y, x, NULL, &s->err);
}

static convt3d_status fill_module(stage *s) {
    if (!s->module && convt3d_module_create(&s->l.p, &s->options, &s->module, &s->err))
        return s->err.status;
    return convt3d_module_fill(s->module, CONVT3D_FILL_DEFAULT, 7, &s->err);
}

/* ---- The n-th allocation ------------------------------------------------ */

/* Fails allocation n, or all from n on; 1 if there was an n-th. A worker that
 * can't be had is no error, so OK with the right bytes is fine as well. */
static int fail_one(stage *s, action *act, const char *what, int n, int from_then_on, uint64_t want,
                    int *refused) {
    wipe(s);
    s->err = (convt3d_error){CONVT3D_OK, ""};
    arm(from_then_on ? 0 : n, from_then_on ? n : 0);
    convt3d_status status = act(s);
    int reached = failed;
    arm(0, 0);
    if (status == CONVT3D_OK && reached) {
        if (digest(s) != want) fail_msg("%s, allocation %d: wrong bytes", what, n);
    } else if (status == CONVT3D_NOMEM && reached) {
        if (!untouched(s)) fail_msg("%s, allocation %d: outputs were touched", what, n);
        if (s->err.status != CONVT3D_NOMEM || !strpbrk(s->err.text, "0123456789"))
            fail_msg("%s: how many bytes? %s", what, s->err.text);
        ++*refused;
    } else if (status) {
        fail_msg("%s, allocation %d: %s", what, n, s->err.text);
    }
    return reached > 0;
}

static size_t heap_in_use(void) {
    return mallinfo2().uordblks;
}

/* Every n, once and from then on; 'refusals' at least must be met. */
static void fail_each(stage *s, action *act, const char *what, int refusals) {
    wipe(s);
    for (int i = 0; i < 8; i++) /* threads, caches and freed lists reach their size */
        if (act(s)) fail_msg("%s: %s", what, s->err.text);
    uint64_t want = digest(s);
    int refused = 0;
    for (int from_then_on = 0; from_then_on < 2; from_then_on++)
        for (int n = 1;; n++) {
            int reached = 1;
            for (int i = 0; i < 8 && reached; i++)
                reached = fail_one(s, act, what, n, from_then_on, want, &refused);
            if (!reached) break;
            size_t before = heap_in_use();
            for (int i = 0; i < 8; i++) fail_one(s, act, what, n, from_then_on, want, &refused);
            if (heap_in_use() > before + 64)
                fail_msg("%s, allocation %d: %zu bytes leak", what, n, heap_in_use() - before);
            assert_true(n < 1000);
        }
    if (refused < refusals) fail_msg("%s: only %d refusals", what, refused);
    wipe(s);
    if (act(s) || digest(s) != want) fail_msg("%s: wrong after failures", what);
}

static void allocations_that_fail(void **state) {
    (void)state;
    static const char *const algorithms[] = {NULL, "reference"};
    for (int a = 0; a < 2; a++)
        for (int d = 0; d < 3; d++) {
            stage s = stage_make(BASE, (convt3d_direction)d, algorithms[a]);
            fail_each(&s, create_plan, "convt3d_plan_create", 16);
            if (d != CONVT3D_BACKWARD_WEIGHT) {
                fail_each(&s, pack_weights, "convt3d_weights_pack", 16);
                fail_each(&s, run_packed, "a run with packed weights", 16);
            }
            fail_each(&s, run_raw, "a run", 16);
            stage_free(&s);
        }
}

static void allocations_of_modules_that_fail(void **state) {
    (void)state;
    for (int d = 0; d < 2; d++) {
        stage s = stage_make(BASE, (convt3d_direction)d, NULL);
        fail_each(&s, create_module, "convt3d_module_create", 32);
        fail_each(&s, run_module, d ? "convt3d_module_backward" : "convt3d_module_forward", 32);
        fail_each(&s, fill_module, "convt3d_module_fill", 0);
        stage_free(&s);
    }
}

/* A run that is given its scratch needs no memory at all. */
static void runs_with_scratch_allocate_nothing(void **state) {
    (void)state;
    for (int d = 0; d < 3; d++) {
        stage s = stage_make(BASE, (convt3d_direction)d, NULL);
        convt3d_run run;
        if (run_raw(&s)) fail_msg("%s", s.err.text); /* starts the threads */
        uint64_t want = digest(&s);
        convt3d_run_init(&run);
        run.scratch_size = convt3d_plan_scratch_size(s.plan, 0, 0);
        guarded scratch = guarded_alloc(run.scratch_size, 1);
        run.scratch = scratch.data;
        wipe(&s);
        arm(0, 1);
        convt3d_status status = layer_run(&s.l, s.plan, NULL, 1, CONVT3D_OVERWRITE, &run, &s.err);
        int count = allocations;
        arm(0, 0);
        if (status) fail_msg("%s", s.err.text);
        assert_int_equal(count, 0);
        assert_true(digest(&s) == want);
        guarded_free(&scratch);
        stage_free(&s);
    }
}

/* ---- Threads that can't be started -------------------------------------- */

/* In children, which start without workers. */
static void threads_that_fail_to_start(void **state) {
    (void)state;
    for (int d = 0; d < 3; d++) {
        stage s = stage_make(BASE, (convt3d_direction)d, NULL);
        if (run_raw(&s)) fail_msg("%s", s.err.text);
        uint64_t want = digest(&s);
        for (int allowed = 0; allowed < 3; allowed++) {
            pid_t child = fork();
            if (child == 0) {
                alarm(30);
                wipe(&s);
                creations = 0;
                creations_allowed = allowed;
                convt3d_status status = run_raw(&s);
                _exit(status || digest(&s) != want ? 1 : creations <= allowed ? 2 : 0);
            }
            int how = -1;
            assert_true(child > 0 && waitpid(child, &how, 0) == child);
            /* Asking for 3 threads, all the bytes, and a creation that failed;
             * two allowed are all that is wanted. */
            assert_true(WIFEXITED(how));
            assert_int_equal(WEXITSTATUS(how), allowed == 2 ? 2 : 0);
        }
        stage_free(&s);
    }
}

/* ---- A limit on memory -------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LIMITED 0 /* sanitizers live on huge mappings */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define LIMITED 0
#endif
#endif
#ifndef LIMITED
#define LIMITED 1
#endif

/* 256 MiB of packed weights where 64 MiB are left: NOMEM, with the number. */
static int limited_child(stage *s, int pack) {
    convt3d_weights *packed = NULL;
    convt3d_status status;
    if (LIMITED) {
        struct rlimit limit;
        unsigned long pages = 0;
        FILE *file = fopen("/proc/self/statm", "r");
        if (!file || fscanf(file, "%lu", &pages) != 1) return 3;
        fclose(file);
        limit.rlim_cur = limit.rlim_max =
            (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + ((rlim_t)64 << 20);
        if (setrlimit(RLIMIT_AS, &limit)) return 3;
    } else {
        arm(0, 1);
    }
    if (pack)
        status =
            convt3d_weights_pack(s->plan, &s->l.tensor[ORACLE_WEIGHT].tensor, &packed, &s->err);
    else
        status = run_raw(s);
    if (status != CONVT3D_NOMEM || packed) return 1;
    /* Nine digits: hundreds of millions of bytes. */
    return strspn(strpbrk(s->err.text, "0123456789"), "0123456789") == 9 && untouched(s) ? 0 : 2;
}

static void memory_limit(void **state) {
    (void)state;
    for (int d = 0; d < 2; d++)
        for (int pack = 0; pack < 2; pack++) {
            /* The weight tensor is one number, seen 64 Mi times. */
            stage s = {.err = {CONVT3D_OK, ""}};
            convt3d_problem p, one;
            rng r = {1};
            assert_int_equal(convt3d_problem_parse("n1ci1024co1024i1k4", &p, NULL, 0, &s.err),
                             CONVT3D_OK);
            one = p;
            for (int a = 0; a < 3; a++) one.kernel_size[a] = 1;
            one.in_channels = one.out_channels = 1;
            s.l.p = p;
            s.l.direction = (convt3d_direction)d;
            for (int role = 0; role < 4; role++)
                s.l.tensor[role] = material_make(&r, role == ORACLE_WEIGHT ? &one : &p, p.dtype,
                                                 (oracle_role)role, LAYOUT_DENSE, 0);
            convt3d_tensor *w = &s.l.tensor[ORACLE_WEIGHT].tensor;
            oracle_shape(&p, ORACLE_WEIGHT, w->size);
            memset(w->stride, 0, sizeof w->stride);
            assert_int_equal(convt3d_plan_create(&p, s.l.direction, NULL, &s.plan, &s.err),
                             CONVT3D_OK);
            pid_t child = fork();
            if (child == 0) {
                alarm(60);
                _exit(limited_child(&s, pack));
            }
            int how = -1;
            assert_true(child > 0 && waitpid(child, &how, 0) == child);
            assert_true(WIFEXITED(how));
            assert_int_equal(WEXITSTATUS(how), 0);
            convt3d_plan_free(s.plan);
            for (int role = 0; role < 4; role++) material_free(&s.l.tensor[role]);
        }
}

static void test_generator(void **state) {
    (void)state;
    char here;
    convt3d_generator *generator = (convt3d_generator *)(void *)&here;
    convt3d_error err = {CONVT3D_OK, ""};
    arm(1, 0);
    convt3d_status status = convt3d_generator_create(1, &generator, &err);
    arm(0, 0);
    assert_int_equal(status, CONVT3D_NOMEM);
    assert_null(generator);
    assert_non_null(strpbrk(err.text, "0123456789"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generator),
        cmocka_unit_test(threads_that_fail_to_start),
        cmocka_unit_test(allocations_that_fail),
        cmocka_unit_test(allocations_of_modules_that_fail),
        cmocka_unit_test(runs_with_scratch_allocate_nothing),
        cmocka_unit_test(memory_limit),
    };
    return cmocka_run_group_tests_name("faults", tests, NULL, NULL);
}
