/* test_threads: the same bytes from any number of threads, anybody's threads,
 * from many callers at once, after fork(), under signals; and cancelling.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "material.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

static uint64_t seed;

/* ThreadSanitizer gives up in a forked child that starts threads, unless told
 * not to. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
    return "die_after_fork=0";
}

/* ---- Layers to compute -------------------------------------------------- */

/* Real numbers, so that another order of additions shows. */
static layer make(const char *text, convt3d_direction direction) {
    convt3d_problem p;
    convt3d_error err;
    rng r = {seed};
    if (convt3d_problem_parse(text, &p, NULL, 0, &err)) fail_msg("%s", err.text);
    layer l = layer_make(&r, &p, direction, LAYER_DENSE);
    for (int role = 0; role < 4; role++) {
        for (int64_t i = 0; i < oracle_count(&p, (oracle_role)role); i++)
            l.value[role][i] = rng_normal(&r);
        if (layer_known(direction, (oracle_role)role)) layer_store(&l, (oracle_role)role);
    }
    return l;
}

static convt3d_plan *plan_for(const layer *l, int threads, const char *algorithm) {
    convt3d_plan *plan;
    convt3d_error err;
    convt3d_options o;
    convt3d_options_init(&o);
    o.threads = threads;
    o.algorithm = algorithm;
    if (convt3d_plan_create(&l->p, l->direction, &o, &plan, &err)) fail_msg("%s", err.text);
    return plan;
}

/* Runs over NaN and sums up the bytes of the result; 0 if the run fails.
 * Nothing of cmocka: callers may be threads or forked children. */
static uint64_t digest_of_run(const layer *l, const convt3d_plan *plan, const convt3d_run *run) {
    uint64_t hash = 1469598103934665603u;
    for (int role = 0; role < 4; role++)
        if (layer_unknown(l->direction, (oracle_role)role) && l->tensor[role].memory.map)
            memset(l->tensor[role].memory.data, 0xFF, l->tensor[role].memory.size);
    if (layer_run(l, plan, NULL, 1, CONVT3D_OVERWRITE, run, NULL)) return 0;
    for (int role = 0; role < 4; role++)
        for (size_t i = 0; i < l->tensor[role].memory.size; i++)
            if (layer_unknown(l->direction, (oracle_role)role))
                hash = (hash ^ l->tensor[role].memory.data[i]) * 1099511628211u;
    return hash;
}

static const char *const texts[] = {"n2ci16co33i4x7x19k3s2p1",     "n1ci3co5i6x7x9k3p1mreflect",
                                    "n3ci8co8g8i5x6x17k3s2p1op1",  "n1ci40co17i4k4s2p1f64",
                                    "n2ci9co2i7k5s3d2p4mcircular", "n1ci2co1i2x3x70k2s2"};
#define TEXTS (sizeof texts / sizeof *texts)

/* One plan of three threads and what one thread makes of it. */
typedef struct job {
    layer l;
    convt3d_plan *plan;
    uint64_t want;
} job;

static job job_make(const char *text, int direction) {
    job j = {.l = make(text, (convt3d_direction)direction)};
    convt3d_plan *single = plan_for(&j.l, 1, NULL);
    j.plan = plan_for(&j.l, 3, NULL);
    j.want = digest_of_run(&j.l, single, NULL);
    assert_true(j.want != 0);
    convt3d_plan_free(single);
    return j;
}

static void job_free(job *j) {
    convt3d_plan_free(j->plan);
    layer_free(&j->l);
}

/* ---- Any number of threads ---------------------------------------------- */

static void same_bytes_for_any_number_of_threads(void **state) {
    (void)state;
    static const int counts[] = {1, 2, 3, 7, 20};
    static const char *const algorithms[] = {NULL, "reference"};
    for (size_t t = 0; t < TEXTS; t++)
        for (int d = 0; d < 3; d++)
            for (int a = 0; a < (t < 2 ? 2 : 1); a++) { /* the reference is slow */
                layer l = make(texts[t], (convt3d_direction)d);
                uint64_t want = 0;
                for (int i = 0; i < 5; i++) {
                    convt3d_plan *plan = plan_for(&l, counts[i], algorithms[a]);
                    assert_int_equal(convt3d_plan_threads(plan), counts[i]);
                    /* Fewer than the plan has, and changing from call to call. */
                    for (int n = 0; n <= counts[i]; n += 1 + counts[i] / 3) {
                        convt3d_run run;
                        convt3d_run_init(&run);
                        run.threads = n;
                        uint64_t got = digest_of_run(&l, plan, &run);
                        if (!want) want = got;
                        if (!got || got != want)
                            fail_msg("%s, %s: %d of %d threads differ", texts[t],
                                     convt3d_direction_name((convt3d_direction)d), n, counts[i]);
                    }
                    convt3d_plan_free(plan);
                }
                layer_free(&l);
            }
}

/* Packed weights or raw ones, any strides, any alignment, scratch from here or
 * there: all of it is about memory, none of it about numbers. */
static void same_bytes_from_any_memory(void **state) {
    (void)state;
    rng r = {seed + 1};
    int turns = test_count(36);
    for (size_t t = 0; t < TEXTS; t++)
        for (int turn = 0; turn < turns; turn++) {
            int d = turn % 3;
            job j = job_make(texts[t], d);
            layer l = layer_make(&r, &j.l.p, (convt3d_direction)d, 0);
            convt3d_weights *packed = NULL;
            convt3d_run run;
            for (int role = 0; role < 4; role++) {
                int64_t count = oracle_count(&l.p, (oracle_role)role);
                if (!layer_known((convt3d_direction)d, (oracle_role)role)) continue;
                memcpy(l.value[role], j.l.value[role], (size_t)count * sizeof(real));
                layer_store(&l, (oracle_role)role);
                /* A layout that repeats elements holds others than were meant. */
                memcpy(j.l.value[role], l.value[role], (size_t)count * sizeof(real));
                layer_store(&j.l, (oracle_role)role);
            }
            if (d != CONVT3D_BACKWARD_WEIGHT && turn % 2)
                assert_int_equal(
                    convt3d_weights_pack(j.plan, &l.tensor[ORACLE_WEIGHT].tensor, &packed, NULL),
                    CONVT3D_OK);
            convt3d_run_init(&run);
            run.scratch_size = convt3d_plan_scratch_size(j.plan, 0, packed != NULL) + 61;
            guarded scratch = guarded_alloc(run.scratch_size, 1);
            run.scratch = scratch.data + rng_between(&r, 0, 61);
            run.scratch_size -= 61;
            assert_true(digest_of_run(&j.l, j.plan, NULL) != 0);
            assert_int_equal(layer_run(&l, j.plan, packed, 1, CONVT3D_OVERWRITE, &run, NULL),
                             CONVT3D_OK);
            for (int role = 0; role < 4; role++) {
                if (!layer_unknown((convt3d_direction)d, (oracle_role)role)) continue;
                material_load(&l.tensor[role], l.value[role]);
                material_load(&j.l.tensor[role], j.l.value[role]);
                for (int64_t i = 0; i < oracle_count(&l.p, (oracle_role)role); i++)
                    assert_true(l.value[role][i] == j.l.value[role][i]);
            }
            convt3d_weights_free(packed);
            guarded_free(&scratch);
            layer_free(&l);
            job_free(&j);
        }
}

/* ---- Many callers ------------------------------------------------------- */

enum {
    CALLERS = 16,
    CALLS = 6
};

typedef struct caller {
    pthread_t id;
    const convt3d_plan *plan; /* shared by all */
    layer l;                  /* its own */
    uint64_t want;
    int wrong;
} caller;

static void *call_often(void *arg) {
    caller *c = arg;
    for (int i = 0; i < CALLS; i++) c->wrong += digest_of_run(&c->l, c->plan, NULL) != c->want;
    return NULL;
}

static void sixteen_callers_share_a_plan(void **state) {
    (void)state;
    for (int d = 0; d < 3; d++) {
        job j = job_make(texts[0], d);
        caller callers[CALLERS];
        for (int i = 0; i < CALLERS; i++)
            callers[i] =
                (caller){.plan = j.plan, .l = make(texts[0], (convt3d_direction)d), .want = j.want};
        for (int i = 0; i < CALLERS; i++)
            assert_int_equal(pthread_create(&callers[i].id, NULL, call_often, &callers[i]), 0);
        for (int i = 0; i < CALLERS; i++) pthread_join(callers[i].id, NULL);
        for (int i = 0; i < CALLERS; i++) {
            assert_int_equal(callers[i].wrong, 0);
            layer_free(&callers[i].l);
        }
        job_free(&j);
    }
}

/* Other people's threads may have little stack. */
static void *all_on_a_small_stack(void *arg) {
    job *j = arg;
    convt3d_plan *plan = NULL;
    convt3d_weights *packed = NULL;
    uintptr_t wrong = digest_of_run(&j->l, j->plan, NULL) != j->want;
    wrong += convt3d_plan_create(&j->l.p, j->l.direction, NULL, &plan, NULL) != CONVT3D_OK;
    if (j->l.direction != CONVT3D_BACKWARD_WEIGHT)
        wrong += convt3d_weights_pack(plan, &j->l.tensor[ORACLE_WEIGHT].tensor, &packed, NULL) !=
                 CONVT3D_OK;
    convt3d_weights_free(packed);
    convt3d_plan_free(plan);
    return (void *)wrong;
}

static void small_stacks(void **state) {
    (void)state;
    for (size_t t = 0; t < TEXTS; t++)
        for (int d = 0; d < 3; d++) {
            job j = job_make(texts[t], d);
            pthread_attr_t attr;
            pthread_t id;
            void *wrong;
            pthread_attr_init(&attr);
            assert_int_equal(pthread_attr_setstacksize(&attr, 64 << 10), 0);
            assert_int_equal(pthread_create(&id, &attr, all_on_a_small_stack, &j), 0);
            pthread_join(id, &wrong);
            assert_null(wrong);
            pthread_attr_destroy(&attr);
            job_free(&j);
        }
}

/* Inside of an OpenMP region each thread calls; without OpenMP, one does. */
static void inside_of_openmp(void **state) {
    (void)state;
    job j = job_make(texts[0], 0);
    layer own[4];
    int wrong = 0;
    for (int i = 0; i < 4; i++) own[i] = make(texts[0], CONVT3D_FORWARD);
#ifdef _OPENMP
#pragma omp parallel for num_threads(4) reduction(+ : wrong)
#endif
    for (int i = 0; i < 4; i++) wrong += digest_of_run(&own[i], j.plan, NULL) != j.want;
    assert_int_equal(wrong, 0);
    for (int i = 0; i < 4; i++) layer_free(&own[i]);
    job_free(&j);
}

/* ---- The host's threads ------------------------------------------------- */

typedef struct host {
    char order; /* 's'erial, 'r'everse, 't'hreads */
    int threads, calls;
    int bodies[64]; /* how often body(arg, t) ran */
} host;

typedef struct host_thread {
    pthread_t id;
    convt3d_body body;
    void *arg;
    int t;
} host_thread;

static void *host_main(void *arg) {
    host_thread *h = arg;
    h->body(h->arg, h->t);
    return NULL;
}

static void host_parallel(void *data, int threads, convt3d_body body, void *arg) {
    host *h = data;
    host_thread others[64];
    h->calls++;
    if (threads > h->threads) h->threads = threads;
    for (int i = 0; i < threads; i++) {
        int t = h->order == 'r' ? threads - 1 - i : i;
        h->bodies[t]++;
        if (h->order != 't') body(arg, t);
    }
    if (h->order != 't') return;
    for (int t = 1; t < threads; t++) {
        others[t] = (host_thread){.body = body, .arg = arg, .t = t};
        if (pthread_create(&others[t].id, NULL, host_main, &others[t])) abort();
    }
    body(arg, 0);
    for (int t = 1; t < threads; t++) pthread_join(others[t].id, NULL);
}

static void threads_of_the_host(void **state) {
    (void)state;
    int spread[3] = {0, 0, 0};
    for (size_t i = 0; i < TEXTS; i++)
        for (int d = 0; d < 3; d++) {
            job j = job_make(texts[i], d);
            for (const char *order = "srt"; *order; order++) {
                host h = {.order = *order};
                convt3d_run run;
                convt3d_run_init(&run);
                run.parallel = host_parallel;
                run.parallel_data = &h;
                assert_true(digest_of_run(&j.l, j.plan, &run) == j.want);
                assert_true(h.calls > 0 && h.threads <= 3);
                if (h.threads > spread[d]) spread[d] = h.threads;
                run.threads = 1;
                assert_true(digest_of_run(&j.l, j.plan, &run) == j.want);
            }
            job_free(&j);
        }
    /* Work that is never shared out would prove nothing here. */
    for (int d = 0; d < 3; d++) assert_int_equal(spread[d], 3);
}

/* A team of fewer threads than asked for, one after another. */
static struct { int team, now, asked; } small;

static void small_team(void (*body)(void *), void *data, unsigned threads, unsigned flags) {
    assert_int_equal(flags, 0);
    small.asked = (int)threads;
    for (small.now = 0; small.now < small.team; small.now++) body(data);
}
static int small_thread(void) {
    return small.now;
}
static int small_size(void) {
    return small.team;
}

#ifdef _OPENMP
#include <omp.h>
void GOMP_parallel(void (*body)(void *), void *data, unsigned threads, unsigned flags);
#endif

static void openmp_of_the_host(void **state) {
    (void)state;
    convt3d_openmp hosts[2] = {{small_team, small_thread, small_size}};
    int count = 1;
#ifdef _OPENMP
    hosts[count++] = (convt3d_openmp){GOMP_parallel, omp_get_thread_num, omp_get_num_threads};
#endif
    for (size_t i = 0; i < TEXTS; i++)
        for (int d = 0; d < 3; d++) {
            job j = job_make(texts[i], d);
            for (int h = 0; h < count; h++)
                for (small.team = 1; small.team <= 3; small.team++) {
                    convt3d_run run;
                    convt3d_run_init(&run);
                    run.parallel = convt3d_openmp_parallel;
                    run.parallel_data = &hosts[h];
                    small.asked = 0;
                    assert_true(digest_of_run(&j.l, j.plan, &run) == j.want);
                    assert_true(h || i || small.asked == 3); /* work is shared out */
                    run.threads = 1;
                    small.asked = 0;
                    assert_true(digest_of_run(&j.l, j.plan, &run) == j.want);
                    assert_int_equal(small.asked, 0);
                }
            job_free(&j);
        }
}

/* ---- After fork() ------------------------------------------------------- */

/* 0 if a forked child gets the right bytes, on three threads, in time. */
static int fork_and_run(const job *j) {
    int how = -1;
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        for (int i = 0; i < 3; i++)
            if (digest_of_run(&j->l, j->plan, NULL) != j->want) _exit(1);
        _exit(0);
    }
    if (child < 0 || waitpid(child, &how, 0) != child) return -1;
    return WIFEXITED(how) ? WEXITSTATUS(how) : 1000 + WTERMSIG(how);
}

static void fork_after_use(void **state) {
    (void)state;
    for (int d = 0; d < 3; d++) {
        job j = job_make(texts[0], d);
        assert_true(digest_of_run(&j.l, j.plan, NULL) == j.want);
        for (int i = 0; i < 5; i++) assert_int_equal(fork_and_run(&j), 0);
        assert_true(digest_of_run(&j.l, j.plan, NULL) == j.want);
        job_free(&j);
    }
}

typedef struct forker {
    pthread_t id;
    job j;
    int wrong;
} forker;

static void *fork_often(void *arg) {
    forker *f = arg;
    for (int i = 0; i < 5; i++) {
        f->wrong += digest_of_run(&f->j.l, f->j.plan, NULL) != f->j.want;
        f->wrong += fork_and_run(&f->j) != 0;
    }
    return NULL;
}

/* While others fork, or are in the middle of a call. */
static void threads_that_fork_at_once(void **state) {
    (void)state;
    forker forkers[2];
    for (int i = 0; i < 2; i++) forkers[i] = (forker){.j = job_make(texts[i], 0)};
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&forkers[i].id, NULL, fork_often, &forkers[i]), 0);
    for (int i = 0; i < 2; i++) {
        pthread_join(forkers[i].id, NULL);
        assert_int_equal(forkers[i].wrong, 0);
    }
    for (int i = 0; i < 2; i++) job_free(&forkers[i].j);
}

/* ---- Signals ------------------------------------------------------------ */

static volatile sig_atomic_t signals;

static void count_signal(int number) {
    (void)number;
    signals++;
}

/* A thousand interruptions a second, without SA_RESTART. */
static void storm_of_signals(void **state) {
    (void)state;
    struct sigaction action, old;
    struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    memset(&action, 0, sizeof action);
    action.sa_handler = count_signal;
    sigaction(SIGALRM, &action, &old);
    job jobs[3];
    for (int d = 0; d < 3; d++) jobs[d] = job_make(texts[0], d);
    signals = 0;
    setitimer(ITIMER_REAL, &often, NULL);
    int wrong = 0;
    for (int turn = 0; turn < 2000 && (signals < 100 || turn < 10); turn++)
        for (int d = 0; d < 3; d++)
            wrong += digest_of_run(&jobs[d].l, jobs[d].plan, NULL) != jobs[d].want;
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &old, NULL);
    assert_int_equal(wrong, 0);
    assert_true(signals >= 50);
    for (int d = 0; d < 3; d++) job_free(&jobs[d]);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bytes_for_any_number_of_threads),
        cmocka_unit_test(same_bytes_from_any_memory),
        cmocka_unit_test(sixteen_callers_share_a_plan),
        cmocka_unit_test(small_stacks),
        cmocka_unit_test(threads_of_the_host),
        cmocka_unit_test(openmp_of_the_host),
        cmocka_unit_test(fork_after_use),
        cmocka_unit_test(threads_that_fork_at_once),
        cmocka_unit_test(storm_of_signals),
        cmocka_unit_test(inside_of_openmp),
    };
    seed = test_seed(argc, argv);
    return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
