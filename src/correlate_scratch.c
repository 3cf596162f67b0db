/* correlate_scratch: how far apart rows of the slab and of the tile are, and what scratch a
 * thread of forward and backward_input needs.
 * SPDX-License-Identifier: MIT */
#include "correlate.h"
#include "error.h"

#include <string.h>

/* Rows of the slab and of the tile.  Rows of runs are an odd number of cache
 * lines apart, or the channels of one position would share a cache's set. */
int convt3d_correlate_set_pitches(const convt3d_plan *plan, convt3d_cut *cut) {
    const int64_t lanes = plan->type->lanes;
    const int64_t line = CONVT3D_ALIGN / (int64_t)plan->geometry.element;
    if (max64(cut->row_length, cut->strip) > (INT64_MAX - 4 * (lanes + line)) / cut->run) return 0;
    cut->row_pitch = cut->row_length * cut->run;
    if (cut->flat > 1) cut->row_pitch *= cut->slab_rows[1];
    if (cut->run > 1 || cut->flat > 1)
        cut->row_pitch = (convt3d_ceil_div(cut->row_pitch, line) | 1) * line;
    const int64_t positions = cut->strip + (cut->flat - 1) * cut->row_length;
    cut->tile_pitch = convt3d_ceil_div(positions * cut->run, lanes) * lanes + lanes;
    return 1;
}

/* One part of the scratch: the larger of what the two cuts need. */
static int size_part(const convt3d_plan *plan, int64_t sizes[2][4], int64_t slack, size_t *total) {
    size_t bytes[2] = {0, 0}, element = plan->geometry.element;
    for (int i = 0; i < 2; i++) {
        if (!convt3d_bytes(sizes[i], 4, element, &bytes[i])) return 0;
    }
    if (!convt3d_grow(total, 1, bytes[0] > bytes[1] ? bytes[0] : bytes[1]) ||
        !convt3d_grow(total, (size_t)slack, element))
        return 0;
    *total = convt3d_round_up(*total);
    return 1;
}

int64_t convt3d_correlate_carries(const convt3d_correlate *c, const convt3d_cut *cut) {
    return cut->groups * c->m * (cut->rolling ? cut->block[0] : 1);
}

/* Lays out a thread's scratch: slab, tile rows, turned tile rows, full row, zeros, carries,
 * program, the two lists of source rows.  Tiles read and write past their ends, by less
 * than a vector. */
int convt3d_correlate_size_scratch(const convt3d_plan *plan, convt3d_correlate *c) {
    int64_t slab[2][4], tile[2][4], turned[2][4], row[2][4];
    const int64_t lanes = plan->type->lanes;
    const int64_t full = convt3d_folds_rows(plan) ? plan->geometry.axis[2].full : 0;
    size_t total = 0;
    for (int i = 0; i < 2; i++) {
        convt3d_cut *cut = &c->cut[i];
        if (!convt3d_correlate_set_pitches(plan, cut)) return 0;
        const int64_t together = max64(cut->together[0], cut->together[1]);
        const int64_t sizes[4][4] = {
            {cut->slab_rows[0], cut->flat > 1 ? 1 : cut->ring, cut->groups * c->k, cut->row_pitch},
            {max64(c->lanes, 1), together, cut->width, cut->tile_pitch},
            {cut->turned, cut->tile_pitch, cut->width + lanes, 1},
            {1, 1, cut->run, full}};
        memcpy(slab[i], sizes[0], sizeof slab[i]);
        memcpy(tile[i], sizes[1], sizeof tile[i]);
        memcpy(turned[i], sizes[2], sizeof turned[i]);
        memcpy(row[i], sizes[3], sizeof row[i]);
    }
    if (!size_part(plan, slab, lanes, &total)) return 0;
    c->at_tile = total;
    if (!size_part(plan, tile, 0, &total)) return 0;
    c->at_turned = total;
    if (!size_part(plan, turned, 0, &total)) return 0;
    c->at_full = total;
    if (!size_part(plan, row, 0, &total)) return 0;
    c->at_zero = total;
    c->zeros_bytes = (size_t)max64(CONVT3D_ZEROS_LENGTH + lanes, c->cut[0].tile_pitch) *
                     plan->geometry.element; /* no longer than the tile itself */
    if (!convt3d_grow(&total, 1, c->zeros_bytes)) return 0;
    c->at_carry = total = convt3d_round_up(total);
    if (c->stream && !convt3d_grow(&total,
                                   (size_t)max64(convt3d_correlate_carries(c, &c->cut[0]),
                                                 convt3d_correlate_carries(c, &c->cut[1])),
                                   sizeof(convt3d_carry)))
        return 0;
    c->at_asks = total = convt3d_round_up(total);
    if (c->cut[0].rolling || c->cut[1].rolling) {
        int64_t most = 0;
        for (int i = 0; i < 2; i++)
            most = max64(most, c->cut[i].slab_rows[0] * c->cut[i].ring * c->cut[i].groups);
        if (!convt3d_grow(&total, 1, sizeof(convt3d_asks)) ||
            !convt3d_grow(&total, (size_t)most, (size_t)c->k * sizeof(char *)))
            return 0;
    }
    c->at_program = total = convt3d_round_up(total);
    if (!convt3d_grow(&total, 1, sizeof(convt3d_program))) return 0;
    for (int a = 0; a < 2; a++) {
        const int64_t rows = max64(c->cut[0].slab_rows[a], c->cut[1].slab_rows[a]);
        c->at_list[a] = total = convt3d_round_up(total);
        if (!convt3d_grow(&total, (size_t)rows, sizeof(int64_t))) return 0;
        c->at_order = total = convt3d_round_up(total); /* of the last one, the height */
        if (!convt3d_grow(&total, (size_t)rows, sizeof(int64_t))) return 0;
    }
    c->thread_bytes = convt3d_round_up(total);
    return 1;
}
