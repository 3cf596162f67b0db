/* threads: a pool that survives fork(), a failed start and dlclose().
 *
 * OpenMP isn't used: its runtime ends the process when a thread can't be
 * started and hangs a forked child.  Here idle workers wait in a list; a call
 * takes the ones it finds, starts more if there are too few, and makes do with
 * those that it gets.  Nothing is owed to a worker between calls, so a forked
 * child just forgets them.
 * SPDX-License-Identifier: MIT */
#include "threads.h"
#include "tiles.h"

#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

typedef struct team team;

typedef struct worker {
    pthread_t id;
    pthread_cond_t wake;
    struct worker *next; /* in the idle list */
    team *work;          /* what to do now; NULL: wait */
    int index;
    int quit;
    int waiting; /* atomic: there is neither work nor a reason to quit */
} worker;

/* The threads of one parallel loop. */
struct team {
    convt3d_body body;
    void *arg;
    int running; /* workers that haven't finished; atomic */
    pthread_cond_t finished;
};

static struct {
    pthread_mutex_t lock; /* guards all that follows, and every team and worker */
    worker *idle;
    int ready; /* fork handlers are set: 1, couldn't be: -1 */
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void before_fork(void) {
    pthread_mutex_lock(&pool.lock);
}

static void after_fork_in_parent(void) {
    pthread_mutex_unlock(&pool.lock);
}

static void after_fork_in_child(void) {
    /* The workers didn't come along.  Their descriptions did. */
    for (worker *w = pool.idle, *next; w; w = next) {
        next = w->next;
        free(w);
    }
    pool.idle = NULL;
    pthread_mutex_init(&pool.lock, NULL);
}

/* At exit and dlclose(): no thread may outlive its code. */
__attribute__((destructor)) static void end_idle_workers(void) {
    for (;;) {
        pthread_mutex_lock(&pool.lock);
        worker *w = pool.idle;
        if (w) {
            pool.idle = w->next;
            w->quit = 1;
            __atomic_store_n(&w->waiting, 0, __ATOMIC_RELAXED);
            pthread_cond_signal(&w->wake);
        }
        pthread_mutex_unlock(&pool.lock);
        if (!w) return;
        pthread_join(w->id, NULL);
        pthread_cond_destroy(&w->wake);
        free(w);
    }
}

/* Looks for a while, without the lock, whether a number has become 0.  A thread that
 * goes to sleep between two calls may be woken on its caller's core, and wait there
 * for milliseconds: calls one after another find it awake.  Whoever needs the core
 * gets it. */
static void look(const int *number) {
    enum {
        NANOSECONDS = 200000,
        LOOKS = 64 /* between two looks at the clock */
    };
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        for (int i = 0; i < LOOKS; i++) {
            if (__atomic_load_n(number, __ATOMIC_RELAXED) == 0) return;
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
        sched_yield();
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - start.tv_sec) * 1000000000L + now.tv_nsec - start.tv_nsec < NANOSECONDS);
}

static void *worker_main(void *arg) {
    worker *w = arg;
    pthread_mutex_lock(&pool.lock);
    while (!w->quit) {
        team *work = w->work;
        if (!work) {
            pthread_cond_wait(&w->wake, &pool.lock);
            continue;
        }
        pthread_mutex_unlock(&pool.lock);
        work->body(work->arg, w->index);
        pthread_mutex_lock(&pool.lock);
        w->work = NULL;
        w->next = pool.idle;
        pool.idle = w;
        __atomic_store_n(&w->waiting, 1, __ATOMIC_RELAXED);
        if (__atomic_sub_fetch(&work->running, 1, __ATOMIC_RELAXED) == 0)
            pthread_cond_signal(&work->finished);
        pthread_mutex_unlock(&pool.lock);
        look(&w->waiting);
        pthread_mutex_lock(&pool.lock);
    }
    pthread_mutex_unlock(&pool.lock);
    return NULL;
}

/* A worker that has its first work already; NULL if none can be had.  Signals
 * are the host's business, so workers take none. */
static worker *start_worker(team *work, int index) {
    worker *w = calloc(1, sizeof *w);
    sigset_t all, old;
    if (!w) return NULL;
    w->work = work;
    w->index = index;
    pthread_cond_init(&w->wake, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = pthread_create(&w->id, NULL, worker_main, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (failed) {
        pthread_cond_destroy(&w->wake);
        free(w);
        return NULL;
    }
    return w;
}

/* Sets workers 1..threads-1 of the team going, or as many as there can be. */
static void team_start(team *work, int threads) {
    pthread_mutex_lock(&pool.lock);
    if (!pool.ready)
        pool.ready =
            pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) ? -1 : 1;
    for (int index = 1; index < threads && pool.ready > 0; index++) {
        worker *w = pool.idle;
        if (w) {
            pool.idle = w->next;
            w->work = work;
            w->index = index;
            __atomic_store_n(&w->waiting, 0, __ATOMIC_RELAXED);
            pthread_cond_signal(&w->wake);
        } else if (!start_worker(work, index)) {
            break;
        }
        __atomic_add_fetch(&work->running, 1, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&pool.lock);
}

/* ---- The loop ------------------------------------------------------------- */

/* A part of a loop's tasks. */
typedef struct range {
    int64_t next, end;                    /* 'next' atomic */
    char apart[64 - 2 * sizeof(int64_t)]; /* from the next one's cache line */
} range;

enum {
    RANGES = 64
};

/* Each thread starts with a range of its own, the same in every loop of as many tasks: what it
 * packed in one, it mostly finds in its own cache in the next.  Then it helps the others. */
typedef struct loop {
    convt3d_job *job;
    int ranges;
    range *range;
    void (*task)(void *arg, int64_t index, int thread);
    void *arg;
    fenv_t caller; /* rounding and the like, which a worker has from whoever started it */
} loop;

/* Read at every stop, a hundred times in a small layer: by the clock that is the fastest to read,
 * and a few milliseconds late. */
static int64_t clock_ms(void) {
    struct timespec now;
#ifdef CLOCK_MONOTONIC_COARSE
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
#else
    clock_gettime(CLOCK_MONOTONIC, &now);
#endif
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

enum {
    POLL_MS = 100
};

int convt3d_stopped(convt3d_job *job, int thread) {
    if (thread == 0 && job->run && job->run->poll) {
        int64_t now = clock_ms();
        if (now - job->last_poll >= POLL_MS) {
            double done = (double)__atomic_load_n(&job->done, __ATOMIC_RELAXED);
            double part = job->tasks > 0 ? done / (double)job->tasks : 0;
            job->last_poll = now;
            if (job->run->poll(job->run->poll_data,
                               job->before + (job->until - job->before) * part))
                __atomic_store_n(&job->cancelled, 1, __ATOMIC_RELAXED);
        }
    }
    return __atomic_load_n(&job->cancelled, __ATOMIC_RELAXED);
}

static void loop_body(void *arg, int thread) {
    loop *l = arg;
    fenv_t own;
    fegetenv(&own);
    fesetenv(&l->caller);
    for (int i = 0; i < l->ranges; i++) {
        range *r = &l->range[(thread + i) % l->ranges];
        while (!convt3d_stopped(l->job, thread)) {
            int64_t index = __atomic_fetch_add(&r->next, 1, __ATOMIC_RELAXED);
            if (index >= r->end) break;
            l->task(l->arg, index, thread);
            __atomic_fetch_add(&l->job->done, 1, __ATOMIC_RELAXED);
        }
    }
    fesetenv(&own);
}

/* Waits for the workers, polling meanwhile. */
static void team_wait(team *work, convt3d_job *job) {
    look(&work->running);
    pthread_mutex_lock(&pool.lock);
    while (__atomic_load_n(&work->running, __ATOMIC_RELAXED) > 0) {
        if (!job->run || !job->run->poll) {
            pthread_cond_wait(&work->finished, &pool.lock);
            continue;
        }
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += POLL_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_cond_timedwait(&work->finished, &pool.lock, &until);
        pthread_mutex_unlock(&pool.lock);
        convt3d_stopped(job, 0);
        pthread_mutex_lock(&pool.lock);
    }
    pthread_mutex_unlock(&pool.lock);
}

void convt3d_job_init(convt3d_job *job, const convt3d_run *run, int threads) {
    *job = (convt3d_job){.run = run, .threads = threads};
    if (run && run->poll) job->last_poll = clock_ms();
}

void convt3d_parallel(convt3d_job *job, double until, int64_t tasks,
                      void (*task)(void *arg, int64_t index, int thread), void *arg) {
    range range[RANGES];
    loop l = {.job = job, .range = range, .task = task, .arg = arg};
    int threads = tasks < job->threads ? (int)tasks : job->threads;
    l.ranges = threads < RANGES ? threads : RANGES;
    for (int i = 0; i < l.ranges; i++) {
        range[i].next = convt3d_part_start(tasks, l.ranges, i);
        range[i].end = convt3d_part_start(tasks, l.ranges, i + 1);
    }
    fegetenv(&l.caller);
    job->before = job->until;
    job->until = until;
    job->tasks = tasks;
    job->done = 0;
    if (job->run && job->run->parallel) {
        if (threads > 0) job->run->parallel(job->run->parallel_data, threads, loop_body, &l);
        return;
    }
    team work = {.body = loop_body, .arg = &l};
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC); /* whose hands nobody turns back */
    pthread_cond_init(&work.finished, &clock);
    pthread_condattr_destroy(&clock);
    if (threads > 1) team_start(&work, threads);
    loop_body(&l, 0);
    if (threads > 1) team_wait(&work, job);
    pthread_cond_destroy(&work.finished);
}
