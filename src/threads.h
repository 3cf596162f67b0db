/* threads: one parallel loop, with cancelling and progress.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_THREADS_H
#define CONVT3D_THREADS_H

#include "convt3d.h"

/* The threads of one run, and how far it is.  Lives on the caller's stack. */
typedef struct convt3d_job {
    const convt3d_run *run;
    int threads;
    int cancelled;        /* atomic */
    int64_t done, tasks;  /* of the loop that runs; 'done' atomic */
    double before, until; /* how far the run is when that loop starts and ends: 0 to 1 */
    int64_t last_poll;    /* of the calling thread's clock, in ms */
} convt3d_job;

/* 'run' has been checked; its thread number, or the plan's. */
void convt3d_job_init(convt3d_job *job, const convt3d_run *run, int threads);

/* Calls task(arg, index, thread) for every index in 0..tasks-1, each once, on
 * up to job->threads threads (fewer if they can't be started); 'thread' is
 * below job->threads and no two calls at one time share it.  All threads work
 * with the caller's floating-point control.  'until' is how far the run is when
 * this loop ends, from 0 to 1. */
void convt3d_parallel(convt3d_job *job, double until, int64_t tasks,
                      void (*task)(void *arg, int64_t index, int thread), void *arg);

/* To be asked inside of long tasks, every millisecond or so: nonzero means
 * return at once. */
int convt3d_stopped(convt3d_job *job, int thread);

#endif
