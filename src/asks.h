/* asks: source rows that will be packed next, asked for while those before them are
 * multiplied: packing then finds them in a core's own cache.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_ASKS_H
#define CONVT3D_ASKS_H

#include "geometry.h"
#include "kernel.h"

enum {
    CONVT3D_ASK_BYTES = 4096, /* of a row: a CPU foresees the rest of such long ones */
    CONVT3D_ASK_ROWS = 8      /* with a segment at most */
};

typedef struct convt3d_asks {
    int64_t bytes;             /* of a row */
    int64_t count, next, each; /* rows; the next one; how many with a segment */
    int64_t segments;          /* that have been run since the rows were listed */
    const char *row[];
} convt3d_asks;

/* An empty list where there was none. */
static inline void convt3d_asks_init(convt3d_asks *asks) {
    *asks = (convt3d_asks){.each = 1};
}

/* An empty list, before rows are added; what was there is forgotten. */
static inline void convt3d_asks_clear(convt3d_asks *asks, int64_t bytes) {
    asks->count = asks->next = 0;
    asks->bytes = min64(bytes, CONVT3D_ASK_BYTES);
}

/* After the last row: as many a segment as the segments since the last time would have
 * needed. */
static inline void convt3d_asks_ready(convt3d_asks *asks) {
    asks->each = asks->segments ? convt3d_ceil_div(asks->count, asks->segments) : 1;
    asks->each = min64(asks->each, CONVT3D_ASK_ROWS);
    asks->segments = 0;
}

/* What a call of the tile's kernel is to ask for; 'asks' may be NULL. */
static inline void convt3d_asks_take(convt3d_asks *asks, convt3d_tile *tile) {
    if (!asks) return;
    tile->ask = asks->row + asks->next;
    tile->ask_each = asks->each;
    tile->ask_bytes = asks->bytes;
    tile->asks = min64(asks->count - asks->next, asks->each * tile->count);
    asks->next += tile->asks;
    asks->segments += tile->count;
}

#endif
