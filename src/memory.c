/* memory: blocks that a run works in.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Large blocks come fresh from the system in each call, which then finds them a page for
 * every 4 KiB that is touched: a quarter of the time of layers with heavy weights.  With
 * the advice it is one for every 2 MiB.  It is only advice: its failure changes nothing. */
void *convt3d_allocate(size_t bytes) {
    void *memory = malloc(bytes);
#ifdef MADV_HUGEPAGE
    const size_t worth = (size_t)4 << 20;
    if (memory && bytes >= worth) {
        const size_t page = (size_t)sysconf(_SC_PAGESIZE);
        const uintptr_t first = ((uintptr_t)memory + page - 1) / page * page;
        const uintptr_t last = ((uintptr_t)memory + bytes) / page * page;
        madvise((void *)first, last - first, MADV_HUGEPAGE);
    }
#endif
    return memory;
}
