/* correlate_tiles: the tiles of forward and backward_input, rows that are run as one long row,
 * and what a result row costs.
 * SPDX-License-Identifier: MIT */
#include "correlate.h"
#include "tiles.h"

static const double OWN_CACHE = 768 * 1024, NEAR_WEIGHTS = 192 * 1024;

enum {
    TERM_POSITIONS = 512, /* that share a reading of weights: as many as still fit the cache */
    ENOUGH = 64           /* pieces, to know what a row takes */
};

/* The packed weights of 'width' result channels. */
double convt3d_correlate_weight_bytes(const convt3d_plan *plan, const convt3d_correlate *c,
                                      int64_t width) {
    const double channel = c->terms ? 2.0 * c->terms : (double)plan->geometry.element;
    return (double)c->taps * (double)c->k * (double)width * channel;
}

/* Cycles that some positions take for each source channel of each tap, for all result
 * channels: with vectors along positions, or ('turned' > 0) that many along channels. */
static double piece_cycles(const convt3d_plan *plan, const convt3d_correlate *c,
                           const convt3d_cut *cut, int64_t turned, int64_t positions) {
    const int64_t lanes = plan->type->lanes, channels = min64(c->panel, c->m);
    const int64_t count = positions * cut->run;
    if (!turned)
        return convt3d_tiles_choose(plan->type, channels, convt3d_ceil_div(count, lanes), 1, 0)
                   .cycles *
               (double)c->m / (double)channels;
    const int64_t columns = c->panel / lanes / turned * c->panels;
    const double turning = (double)count * (double)c->m / (4.0 * (double)max64(c->k, 1));
    return convt3d_tiles_choose(plan->type, count, turned, 0, turned).cycles * (double)columns +
           turning;
}

/* What a lane is run as, a few pieces being enough to know what it takes: number j, as long as a
 * strip lets it be, and as rows that are run as one make it. */
static int64_t pieces_of(const convt3d_correlate *c, int64_t lane) {
    return c->clip ? min64(c->lane[lane].piece1 - c->lane[lane].piece0, ENOUGH) : 1;
}

static convt3d_piece piece_of(const convt3d_correlate *c, const convt3d_cut *cut, int64_t lane,
                              int64_t j) {
    const convt3d_lane *l = &c->lane[lane];
    convt3d_piece piece = {l->q0, l->q1, l->tap0, l->tap1};
    if (c->clip) piece = c->piece[l->piece0 + j];
    piece.q1 =
        piece.q0 + min64(piece.q1 - piece.q0, cut->strip) + (cut->flat - 1) * cut->flat_pitch;
    return piece;
}

/* Over all pieces of a row. */
static double row_cycles(const convt3d_plan *plan, const convt3d_correlate *c,
                         const convt3d_cut *cut, int64_t turned) {
    double sum = 0;
    for (int64_t i = 0; i < c->lanes; i++) {
        for (int64_t j = 0; j < pieces_of(c, i); j++) {
            const convt3d_piece p = piece_of(c, cut, i, j);
            sum += (double)(p.tap1 - p.tap0) * piece_cycles(plan, c, cut, turned, p.q1 - p.q0);
        }
    }
    return sum;
}

/* The unit's weights through all taps of one stride phase should stay in a core's own
 * cache while rows pass by. */
double convt3d_correlate_phase_bytes(const convt3d_plan *plan, const convt3d_correlate *c,
                                     int64_t width) {
    const convt3d_axis *axis = c->axis;
    double bytes = convt3d_correlate_weight_bytes(plan, c, width);
    for (int a = 0; a < 2 && plan->direction == CONVT3D_FORWARD; a++)
        bytes /= (double)min64(axis[a].kernel, convt3d_tap_period(&axis[a]));
    return bytes;
}

/* With merged phases the width's are stored together: units of whole ones. */
static void whole_phases(const convt3d_plan *plan, const convt3d_correlate *c, convt3d_cut *cut) {
    const int64_t phases = c->merged[2];
    int64_t width = convt3d_ceil_div(cut->width, phases) * phases;
    if (phases == 1) return;
    while (width > phases &&
           (width > CONVT3D_MAX_ROWS || !plan->type->gemm[width - 1][cut->vectors - 1]))
        width -= phases;
    while (cut->vectors > 1 && !plan->type->gemm[width - 1][cut->vectors - 1]) cut->vectors--;
    cut->width = cut->rows = width;
}

static void set_units(const convt3d_plan *plan, const convt3d_correlate *c, convt3d_cut *cut) {
    cut->by_phase =
        plan->direction == CONVT3D_FORWARD &&
        (cut->flat > 1 || convt3d_correlate_weight_bytes(plan, c, cut->width) > NEAR_WEIGHTS);
    cut->in_panel = convt3d_ceil_div(c->panel, cut->width);
    cut->units = (c->panels - 1) * cut->in_panel +
                 convt3d_ceil_div(c->m - (c->panels - 1) * c->panel, cut->width);
}

/* How many kernel rows a result row takes, on average. */
static double pairs_of_row(const convt3d_plan *plan, const convt3d_correlate *c) {
    double pairs = 1;
    for (int a = 0; a < 2; a++) {
        pairs *= (double)c->axis[a].kernel;
        if (plan->direction == CONVT3D_FORWARD) pairs /= (double)c->axis[a].stride;
    }
    return pairs;
}

double convt3d_correlate_row_products(const convt3d_plan *plan, const convt3d_correlate *c) {
    double sum = 0;
    for (int64_t i = 0; i < c->lanes; i++)
        sum +=
            (double)(c->lane[i].tap1 - c->lane[i].tap0) * (double)(c->lane[i].q1 - c->lane[i].q0);
    return sum * pairs_of_row(plan, c) * (double)c->k * (double)c->m;
}

/* A result row's share of the cycles that all weights take, from the shared cache. */
static double weight_cycles(const convt3d_plan *plan, const convt3d_correlate *c) {
    const double bytes_a_cycle = 5;
    return convt3d_correlate_weight_bytes(plan, c, c->m) / bytes_a_cycle /
           ((double)c->results[0] * (double)c->results[1]);
}

/* How many depths are run as one. */
static int64_t deep_of(const convt3d_plan *plan, const convt3d_correlate *c,
                       const convt3d_cut *cut) {
    const int forward = plan->direction == CONVT3D_FORWARD;
    const int64_t depths = convt3d_ceil_div(c->results[0], forward ? c->axis[0].stride : 1);
    const int64_t rows = convt3d_ceil_div(c->results[1], forward ? c->axis[1].stride : 1);
    if (!c->terms || cut->flat < rows || cut->flat == 1 || c->axis[0].mode != CONVT3D_ZEROS)
        return 1;
    return max64(1, min64(depths, TERM_POSITIONS / (cut->flat * cut->flat_pitch)));
}

/* Two tiles below each other hide each other's latency; one by itself doesn't. */
static double term_tiles(int64_t positions) {
    const int64_t rest = positions % CONVT3D_TERM_ROWS, alone = rest && rest <= CONVT3D_TERM_TILE;
    return 2 * (double)(convt3d_ceil_div(positions, CONVT3D_TERM_ROWS) - alone) +
           1.65 * (double)alone;
}

/* Tiles of terms; float32's, for the rows that need them, have the same units. */
static double choose_term_tiles(const convt3d_plan *plan, const convt3d_correlate *c,
                                convt3d_cut *cut) {
    const int64_t lanes = plan->type->lanes;
    const int64_t deep = deep_of(plan, c, cut);
    double row_tiles = 0, tap_tiles = 0;
    cut->turned = 1;
    cut->width = min64(CONVT3D_TERM_COLUMNS, c->panel);
    cut->vectors = cut->width / lanes;
    cut->rows =
        convt3d_tiles_choose(plan->type, CONVT3D_MAX_ROWS, cut->vectors, 0, cut->vectors).rows;
    set_units(plan, c, cut);
    for (int64_t i = 0; i < c->lanes; i++) {
        for (int64_t j = 0; j < pieces_of(c, i); j++) {
            const convt3d_piece p = piece_of(c, cut, i, j);
            const double tiles = term_tiles((p.q1 - p.q0) * cut->run * deep) / (double)deep;
            row_tiles += tiles;
            tap_tiles += tiles * (double)(p.tap1 - p.tap0);
        }
    }
    return convt3d_correlate_term_cycles(c, (double)cut->flat, row_tiles,
                                         tap_tiles * pairs_of_row(plan, c)) +
           weight_cycles(plan, c) * (double)cut->flat;
}

/* Returns the cycles of a row, or of those that are run as one; but for terms for each source
 * channel of each kernel row. */
static double choose_tiles(const convt3d_plan *plan, const convt3d_correlate *c, convt3d_cut *cut) {
    if (c->terms) return choose_term_tiles(plan, c, cut);
    const int64_t lanes = plan->type->lanes, most = c->panel / lanes;
    const int64_t positions =
        (min64(c->lane_length, cut->strip) + (cut->flat - 1) * cut->flat_pitch) * cut->run;
    const int64_t channels = min64(c->panel, c->m);
    convt3d_tiles tiles =
        convt3d_tiles_choose(plan->type, channels, convt3d_ceil_div(positions, lanes), 1, 0);
    double best = row_cycles(plan, c, cut, 0);
    cut->turned = 0;
    cut->vectors = tiles.vectors;
    cut->rows = tiles.rows;
    cut->width = tiles.rows;
    for (int64_t v = 1; v <= most && c->panel % lanes == 0 && !convt3d_is_merged(c); v++) {
        if (most % v) continue; /* equal units only */
        double cycles = row_cycles(plan, c, cut, v);
        if (convt3d_correlate_phase_bytes(plan, c, v * lanes) > OWN_CACHE) cycles *= 1.1;
        if (cycles >= best) continue;
        best = cycles;
        tiles = convt3d_tiles_choose(plan->type, positions, v, 0, v);
        cut->turned = 1;
        cut->vectors = v;
        cut->rows = tiles.rows;
        cut->width = v * lanes;
    }
    whole_phases(plan, c, cut);
    set_units(plan, c, cut);
    return best;
}

/* How far behind each other rows are that are run as one; parts of terms lie by themselves. */
static int64_t flat_pitch_of(const convt3d_plan *plan, const convt3d_correlate *c) {
    int64_t reach = 0;
    if (!c->terms || plan->direction == CONVT3D_FORWARD) return c->row_length;
    for (int64_t p = 0; p < c->parts; p++) reach = max64(reach, c->part[p].reach);
    return reach + c->lane_length;
}

/* Short rows: as many in one as make some vectors, if that costs less for each. */
void convt3d_correlate_choose_flat(const convt3d_plan *plan, const convt3d_correlate *c,
                                   convt3d_cut *cut) {
    enum {
        POSITIONS = 96,
        SHORT = 16, /* what a row takes besides its sums counts, too */
        LONG = 64,
        LONG_ENOUGH = 32 /* to be streamed: whole lines need rows in their order */
    };
    const int64_t phases = plan->direction == CONVT3D_FORWARD ? c->axis[1].stride : 1;
    const int64_t rows = convt3d_ceil_div(c->results[1], phases);
    const int64_t out = plan->geometry.axis[2].out * (int64_t)plan->geometry.stored;
    const int in_order = c->stream && out % CONVT3D_ALIGN && phases > 1;
    cut->flat = cut->deep = 1;
    cut->flat_pitch = flat_pitch_of(plan, c);
    convt3d_cut flat = *cut;
    const double one = choose_tiles(plan, c, cut);
    if (c->clip || cut->run > 1 || cut->strips > 1 ||
        c->lane_length > (in_order ? LONG_ENOUGH : LONG) || c->axis[1].stride > CONVT3D_TEETH ||
        c->axis[1].mode != CONVT3D_ZEROS || c->axis[2].mode != CONVT3D_ZEROS)
        return;
    flat.flat = min64(
        rows, convt3d_ceil_div(c->terms ? TERM_POSITIONS : POSITIONS, max64(flat.flat_pitch, 1)));
    const double most = (c->lane_length > SHORT ? 0.95 : 1) * one * (double)flat.flat;
    if (flat.flat <= 1 || choose_tiles(plan, c, &flat) > most) return;
    *cut = flat;
    cut->deep = deep_of(plan, c, cut);
}

/* As many depths of a block, in equal shares. */
void convt3d_correlate_limit_deep(const convt3d_plan *plan, const convt3d_correlate *c,
                                  convt3d_cut *cut) {
    const int forward = plan->direction == CONVT3D_FORWARD;
    const int64_t depths = convt3d_ceil_div(cut->block[0], forward ? c->axis[0].stride : 1);
    const int64_t rows = convt3d_ceil_div(cut->block[1], forward ? c->axis[1].stride : 1);
    if (!c->terms || cut->flat < rows || cut->flat == 1 || c->axis[0].mode != CONVT3D_ZEROS) return;
    const int64_t most = max64(1, TERM_POSITIONS / ((rows + 1) * cut->flat_pitch));
    cut->deep = convt3d_ceil_div(depths, convt3d_ceil_div(depths, most));
}

double convt3d_correlate_row_cycles(const convt3d_plan *plan, const convt3d_correlate *c,
                                    const convt3d_cut *cut) {
    const double a_multiply_add = 0.575; /* two a cycle, at best */
    convt3d_cut copy = *cut;
    const double cycles = choose_tiles(plan, c, &copy) / (double)cut->flat;
    if (c->terms) return cycles;
    return cycles * pairs_of_row(plan, c) * (double)c->k * a_multiply_add + weight_cycles(plan, c);
}
