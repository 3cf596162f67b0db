/* json: tells jansson's failures for want of memory from all others, which it
 * doesn't always do itself.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "private.h"

#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>

static __thread int short_of_memory;

static void *allocate(size_t bytes) {
    void *memory = malloc(bytes);
    if (!memory) short_of_memory = 1;
    return memory;
}

static void set_functions(void) {
    json_set_alloc_funcs(allocate, free);
}

void io_json_begin(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, set_functions);
    short_of_memory = 0;
}

int io_json_short_of_memory(void) {
    return short_of_memory;
}
