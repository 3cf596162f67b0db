/* openmp: a run on the threads of the host's OpenMP.
 *
 * The library itself uses none (threads.c says why).  A host that does has threads that
 * spin for milliseconds after each of its loops, and takes ours for other programs.
 * SPDX-License-Identifier: MIT */
#include "convt3d.h"

typedef struct region {
    const convt3d_openmp *openmp;
    int threads;
    convt3d_body body;
    void *arg;
} region;

/* A team may be smaller than asked for: inside another region it is of one thread. */
static void region_body(void *data) {
    const region *r = data;
    int team = r->openmp->num_threads();
    for (int t = r->openmp->thread_num(); t < r->threads; t += team) r->body(r->arg, t);
}

void convt3d_openmp_parallel(void *openmp, int threads, convt3d_body body, void *arg) {
    region r = {openmp, threads, body, arg};
    if (threads > 1)
        r.openmp->parallel(region_body, &r, (unsigned)threads, 0);
    else
        body(arg, 0);
}
