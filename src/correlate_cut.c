/* correlate_cut: how forward and backward_input are cut into tasks and tiles.
 * SPDX-License-Identifier: MIT */
#include "correlate.h"
#include "tiles.h"

#include <math.h>

static const double OWN_CACHE = 768 * 1024, ROLLING_CACHE = 448 * 1024, SHARED_CACHE = 3072 * 1024,
                    TERM_CACHE = 1152 * 1024, MANY_TERMS_CACHE = 3072 * 1024,
                    MANY_TERMS = 704 * 1024;
static const double HEAVY_WEIGHTS = 1024 * 1024, SHARED_WEIGHTS = 512 * 1024,
                    NEAR_WEIGHTS = 192 * 1024;

enum {
    TERM_POSITIONS = 512 /* that share a reading of weights: as many as still fit the cache */
};

/* ---- Tasks ---------------------------------------------------------------------- */

static int64_t sources_of(const convt3d_plan *plan, const convt3d_correlate *c, int a,
                          int64_t results) {
    const convt3d_axis *axis = &c->axis[a];
    return plan->direction == CONVT3D_FORWARD ? convt3d_inputs_of_outputs(axis, results)
                                              : convt3d_outputs_of_inputs(axis, results);
}

/* The source rows along the height from the first to the last that one result row takes, in
 * backward_input or with merged phases; both rise with the result row. */
static int64_t window_of(const convt3d_correlate *c) {
    const convt3d_axis *axis = &c->axis[1];
    return (axis->kernel - 1) * axis->dilation + 1;
}

static void set_block(const convt3d_plan *plan, const convt3d_correlate *c, convt3d_cut *cut, int a,
                      int64_t block) {
    cut->block[a] = block;
    cut->blocks[a] = convt3d_ceil_div(c->results[a], block);
    cut->slab_rows[a] = sources_of(plan, c, a, block);
    if (a == 1)
        cut->ring = cut->rolling ? min64(window_of(c), cut->slab_rows[1]) : cut->slab_rows[1];
}

/* The packed weights of 'width' result channels. */
static double weight_bytes(const convt3d_plan *plan, const convt3d_correlate *c, int64_t width) {
    const double channel = c->terms ? 2.0 * c->terms : (double)plan->geometry.element;
    return (double)c->taps * (double)c->k * (double)width * channel;
}

static double slab_bytes(const convt3d_plan *plan, const convt3d_correlate *c,
                         const convt3d_cut *cut) {
    const double channel = c->terms ? 2.0 * c->terms : (double)plan->geometry.element;
    return (double)cut->slab_rows[0] * (double)cut->ring * (double)cut->groups * (double)c->k *
           (double)cut->row_length * (double)cut->run * channel;
}

static double tasks_of(const convt3d_cut *cut) {
    return (double)cut->runs * (double)cut->group_blocks * (double)cut->strips *
           (double)cut->blocks[0] * (double)cut->blocks[1];
}

static void split_units(convt3d_cut *cut, double wanted) {
    double tasks = tasks_of(cut);
    cut->unit_splits = 1;
    if (tasks > 0 && tasks < wanted && !cut->rolling)
        cut->unit_splits =
            max64(1, min64(cut->units * cut->groups, (int64_t)(wanted / tasks + 0.999)));
}

/* The same number of blocks, of as equal sizes as can be. */
static int64_t equal(const convt3d_cut *cut, const convt3d_correlate *c, int a, int64_t unit) {
    const int64_t block = convt3d_ceil_div(c->results[a], cut->blocks[a]);
    return min64(convt3d_ceil_div(block, unit) * unit, cut->block[a]);
}

/* Squared, the part of a long row's positions that are results: its depths are as far apart as
 * the source rows need. */
static double fullness(const convt3d_plan *plan, const convt3d_correlate *c,
                       const convt3d_cut *cut) {
    const int64_t stride = c->axis[1].stride;
    const int forward = plan->direction == CONVT3D_FORWARD;
    const double rows = (double)convt3d_ceil_div(cut->block[1], forward ? stride : 1);
    const double sources = (double)convt3d_ceil_div(cut->slab_rows[1], forward ? 1 : stride);
    return sources > rows ? rows * rows / (sources * sources) : 1;
}

/* The part of the threads' time in which all have work, if tasks take as long as each other. */
static double balance(const convt3d_plan *plan, const convt3d_cut *cut) {
    const double rounds = tasks_of(cut) / plan->threads;
    return rounds <= 1 ? 1 : rounds / ceil(rounds);
}

/* The largest blocks whose slab fits the cache, of the shape that packs the fewest
 * source rows again and again.  Blocks of one stride share all of their source rows:
 * they are cut only where they must. */
static void choose_shape(const convt3d_plan *plan, const convt3d_correlate *c, convt3d_cut *cut,
                         double cache, const int64_t unit[2]) {
    convt3d_cut best = *cut;
    double most = 0;
    /* Of terms that are run as one as many as can be: weights are read once for all. */
    const int many = c->terms && cut->flat > 1;
    for (int64_t d = unit[0];; d *= 2) {
        for (int64_t h = cut->rolling ? c->results[1] : unit[1];; h = many ? h + unit[1] : 2 * h) {
            set_block(plan, c, cut, 0, min64(d, c->results[0]));
            set_block(plan, c, cut, 1, min64(h, c->results[1]));
            for (int a = 0; a < 2 && many; a++)
                set_block(plan, c, cut, a, equal(cut, c, a, unit[a]));
            const double rows = (double)cut->block[0] * (double)cut->block[1];
            const double bytes = slab_bytes(plan, c, cut);
            const double score = rows / (bytes + 4096) *
                                 (many ? rows * balance(plan, cut) * fullness(plan, c, cut) : 1);
            if ((bytes <= cache || most == 0) && score > most) {
                best = *cut;
                most = score;
            }
            if (h >= c->results[1] || bytes > cache) break;
        }
        if (d >= c->results[0]) break;
    }
    *cut = best;
}

/* The rows of backward_input and of merged phases share many source rows: where the weights
 * all stay close, they are computed height after height, and no source row is gathered twice
 * for one depth. */
static int rolls(const convt3d_plan *plan, const convt3d_correlate *c, const convt3d_cut *cut) {
    const int64_t many = 8; /* channels: fewer are gathered in no time */
    const int dense = plan->direction == CONVT3D_BACKWARD_INPUT || convt3d_is_merged(c);
    return dense && c->k * cut->groups >= many && cut->run == 1 && cut->flat == 1 &&
           cut->strips == 1 && !cut->by_phase && c->axis[1].mode == CONVT3D_ZEROS &&
           window_of(c) >= c->axis[1].stride && /* 1 with merged phases */
           weight_bytes(plan, c, c->m) * (double)cut->groups <= SHARED_WEIGHTS;
}

/* Blocks that fit the cache, of which there are enough to share out; layers whose
 * weights are what is large are shared out by channels, so that the weights are read
 * once.  Results don't depend on it. */
static void choose_blocks(const convt3d_plan *plan, const convt3d_correlate *c, convt3d_cut *cut,
                          double cache) {
    const double weights = weight_bytes(plan, c, c->m);
    /* Of many terms of weights each task reads all. */
    const double wanted = (c->terms && weights > HEAVY_WEIGHTS ? 1.0 : 4.0) * plan->threads;
    const int heavy = weights > HEAVY_WEIGHTS && cut->units >= 2 * plan->threads;
    int64_t unit[2] = {1, 1};
    cut->rolling = rolls(plan, c, cut);
    for (int a = 0; a < 2 && plan->direction == CONVT3D_FORWARD; a++)
        unit[a] = min64(c->axis[a].stride, c->results[a]);
    for (int a = 0; a < 2; a++) set_block(plan, c, cut, a, unit[a]);
    /* Those that come next have to be there as well. */
    if (cut->rolling && cut->groups == 1) cache = ROLLING_CACHE;
    if (slab_bytes(plan, c, cut) > cache) unit[0] = unit[1] = 1;
    choose_shape(plan, c, cut, cache, unit);
    while (!heavy && tasks_of(cut) < wanted) {
        int a = cut->block[0] > unit[0] ? 0 : 1;
        if (cut->rolling && cut->block[1] > cut->block[0] && cut->block[1] > unit[1]) a = 1;
        if (cut->block[a] <= unit[a]) break;
        const int64_t half = convt3d_ceil_div((cut->block[a] + 1) / 2, unit[a]) * unit[a];
        set_block(plan, c, cut, a, half < cut->block[a] ? half : cut->block[a] - unit[a]);
    }
    split_units(cut, wanted / 2 > plan->threads ? wanted / 2 : plan->threads);
}

static void set_strips(const convt3d_correlate *c, convt3d_cut *cut, int64_t strips) {
    enum {
        UNIT = 8 /* positions: whole vectors, whatever the run */
    };
    int64_t strip = convt3d_ceil_div(convt3d_ceil_div(c->positions, strips), UNIT) * UNIT;
    const convt3d_part *last = &c->part[c->parts - 1];
    cut->strip = c->lane_length;
    cut->strips = 1;
    cut->row_length = c->row_length;
    if (strips == 1 || strip >= c->positions) return;
    cut->strip = strip;
    cut->strips = convt3d_ceil_div(c->positions, strip);
    cut->row_length = last->before + last->reach + c->parts * strip;
}

/* Samples side by side: about two cache lines of them, so that most lines are
 * written whole, in equal shares, and strips of rows so that a few result rows'
 * sources fit the shared cache.  Where they don't, fewer samples. */
static void choose_run(const convt3d_plan *plan, const convt3d_correlate *c, convt3d_cut *cut,
                       double cache) {
    enum {
        ROWS = 4,  /* result rows along the height */
        STRIP = 16 /* the fewest positions */
    };
    const convt3d_geometry *g = &plan->geometry;
    const int64_t line = CONVT3D_RUN_BYTES / (int64_t)g->element;
    const int64_t run = min64(max64(g->batch, 1), line);
    const int64_t depth =
        plan->direction == CONVT3D_FORWARD ? min64(c->axis[0].stride, c->results[0]) : 1;
    const double rows = (double)sources_of(plan, c, 0, depth) *
                        (double)sources_of(plan, c, 1, min64(ROWS, c->results[1])) * (double)c->k *
                        (double)g->element;
    double one;
    int64_t most = line;
    set_strips(c, cut, 1);
    for (int64_t n = 2;
         !convt3d_folds_rows(plan) && rows * (double)run * (double)cut->row_length > cache &&
         c->positions / n >= STRIP;
         n *= 2)
        set_strips(c, cut, n);
    one = (double)sources_of(plan, c, 0, 1) * (double)sources_of(plan, c, 1, 1) * (double)c->k *
              (double)cut->row_length +
          (double)c->lanes * (double)CONVT3D_MAX_ROWS * (double)cut->strip;
    if (convt3d_folds_rows(plan)) one += (double)g->axis[2].full;
    while (most > 1 && (double)most * one * (double)g->element > cache) most--;
    if (most > plan->type->lanes) most -= most % plan->type->lanes;
    cut->runs = convt3d_ceil_div(g->batch, most);
    cut->run = cut->runs ? convt3d_ceil_div(g->batch, cut->runs) : 1;
}

/* ---- Tiles --------------------------------------------------------------------------- */

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

/* Over all pieces of a row. */
static double row_cycles(const convt3d_plan *plan, const convt3d_correlate *c,
                         const convt3d_cut *cut, int64_t turned) {
    enum {
        ENOUGH = 64 /* pieces, to know what a row takes */
    };
    double sum = 0;
    for (int64_t i = 0; i < c->lanes; i++) {
        const convt3d_lane *lane = &c->lane[i];
        const convt3d_piece whole = {lane->q0, lane->q1, lane->tap0, lane->tap1};
        const int64_t pieces = c->clip ? min64(lane->piece1 - lane->piece0, ENOUGH) : 1;
        for (int64_t j = 0; j < pieces; j++) {
            const convt3d_piece *piece = c->clip ? &c->piece[lane->piece0 + j] : &whole;
            const int64_t positions =
                min64(piece->q1 - piece->q0, cut->strip) + (cut->flat - 1) * cut->flat_pitch;
            sum +=
                (double)(piece->tap1 - piece->tap0) * piece_cycles(plan, c, cut, turned, positions);
        }
    }
    return sum;
}

/* The unit's weights through all taps of one stride phase should stay in a core's own
 * cache while rows pass by. */
static double phase_bytes(const convt3d_plan *plan, const convt3d_correlate *c, int64_t width) {
    const convt3d_axis *axis = c->axis;
    double bytes = weight_bytes(plan, c, width);
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
    cut->by_phase = plan->direction == CONVT3D_FORWARD &&
                    (cut->flat > 1 || weight_bytes(plan, c, cut->width) > NEAR_WEIGHTS);
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

/* A result row's share of the cycles that all weights take, from the shared cache. */
static double weight_cycles(const convt3d_plan *plan, const convt3d_correlate *c) {
    const double bytes_a_cycle = 5;
    return weight_bytes(plan, c, c->m) / bytes_a_cycle /
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
        const convt3d_lane *lane = &c->lane[i];
        const convt3d_piece whole = {lane->q0, lane->q1, lane->tap0, lane->tap1};
        const int64_t pieces = c->clip ? lane->piece1 - lane->piece0 : 1;
        for (int64_t j = 0; j < pieces; j++) {
            const convt3d_piece *piece = c->clip ? &c->piece[lane->piece0 + j] : &whole;
            const int64_t positions =
                min64(piece->q1 - piece->q0, cut->strip) + (cut->flat - 1) * cut->flat_pitch;
            const double tiles = term_tiles(positions * cut->run * deep) / (double)deep;
            row_tiles += tiles;
            tap_tiles += tiles * (double)(piece->tap1 - piece->tap0);
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
        if (phase_bytes(plan, c, v * lanes) > OWN_CACHE) cycles *= 1.1;
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
static void choose_flat(const convt3d_plan *plan, const convt3d_correlate *c, convt3d_cut *cut) {
    enum {
        POSITIONS = 96,
        SHORT = 16, /* what a row takes besides its sums counts, too */
        LONG = 64,
        LONG_ENOUGH = 32 /* to be streamed: whole lines need rows in their order */
    };
    const int64_t phases = plan->direction == CONVT3D_FORWARD ? c->axis[1].stride : 1;
    const int64_t rows = convt3d_ceil_div(c->results[1], phases);
    const int64_t out = plan->geometry.axis[2].out * (int64_t)plan->geometry.element;
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
static void limit_deep(const convt3d_plan *plan, const convt3d_correlate *c, convt3d_cut *cut) {
    const int forward = plan->direction == CONVT3D_FORWARD;
    const int64_t depths = convt3d_ceil_div(cut->block[0], forward ? c->axis[0].stride : 1);
    const int64_t rows = convt3d_ceil_div(cut->block[1], forward ? c->axis[1].stride : 1);
    if (!c->terms || cut->flat < rows || cut->flat == 1 || c->axis[0].mode != CONVT3D_ZEROS) return;
    const int64_t most = max64(1, TERM_POSITIONS / ((rows + 1) * cut->flat_pitch));
    cut->deep = convt3d_ceil_div(depths, convt3d_ceil_div(depths, most));
}

/* Units that share a program: few, so that their weights and sums stay close, but
 * for thin ones it is the program that costs. */
static void choose_together(const convt3d_plan *plan, const convt3d_correlate *c,
                            convt3d_cut *cut) {
    const int64_t element = (int64_t)plan->geometry.element, units = cut->units * cut->groups;
    const double tile =
        (double)max64(c->lanes, 1) * (double)cut->width * (double)cut->tile_pitch * (double)element;
    const double weights = phase_bytes(plan, c, cut->width);
    const int64_t line = convt3d_ceil_div(CONVT3D_CHANNEL_BYTES, cut->width * element);
    int64_t near = 1;
    const double most = c->terms ? 384 * 1024 : 24 * 1024;
    while (near < units && (double)(near + 1) * (c->terms ? tile : tile + weights) < most) near++;
    cut->together[0] = near;
    /* With rows in their order, all taps of a unit have to stay close. */
    const double all = cut->by_phase ? weights : weight_bytes(plan, c, cut->width);
    cut->share = max64(near, min64(units, (int64_t)(SHARED_WEIGHTS / (all > 1 ? all : 1))));
    if (cut->rolling) cut->share = units;
    cut->together[1] = max64(near, min64(units, line));
    if ((double)cut->together[1] * tile > 128 * 1024) cut->together[1] = near;
    cut->share = max64(cut->share, cut->together[1]);
}

/* Where a task's slab is larger than a core's own cache, every unit would read all of it
 * from afar: a panel's units take a part of the channels in turn. */
static void choose_chunk(const convt3d_plan *plan, const convt3d_correlate *c, convt3d_cut *cut) {
    enum {
        CHANNELS = 256
    };
    const int64_t units = min64(cut->in_panel, cut->units);
    cut->chunk = max64(c->k, 1);
    cut->by_chunk = 0;
    if (cut->turned || c->k < CHANNELS / 2 || units < 2 || cut->groups > 1 ||
        slab_bytes(plan, c, cut) < OWN_CACHE)
        return;
    cut->by_chunk = 1;
    cut->chunk = CHANNELS;
    for (int i = 0; i < 2; i++) cut->together[i] = max64(cut->together[i], units);
    cut->share = max64(cut->share, cut->together[1]);
}

/* ---- The two cuts ---------------------------------------------------------------------- */

/* Groups of a task: thin ones are taken together, so that what a row takes is worked
 * out once for all of them. */
static void choose_groups(const convt3d_plan *plan, const convt3d_correlate *c, convt3d_cut *cut) {
    const convt3d_geometry *g = &plan->geometry;
    int64_t most = 1;
    if (c->m * c->k <= 16) most = max64(1, 16 / max64(max64(c->m, c->k), 1));
    cut->group_blocks = convt3d_ceil_div(g->groups, min64(most, g->groups));
    cut->groups = convt3d_ceil_div(g->groups, cut->group_blocks);
}

/* A core's own cache holds the slab of one sample; that of a run may take more,
 * since its rows are read from one end to the other.  Where a unit's terms of weights fill the
 * cache by themselves, many positions have to share them, wherever the slab is. */
static double cache_of(const convt3d_plan *plan, const convt3d_correlate *c,
                       const convt3d_cut *cut) {
    if (cut->run > 1) return SHARED_CACHE;
    if (!c->terms) return OWN_CACHE;
    return phase_bytes(plan, c, cut->width) > MANY_TERMS ? MANY_TERMS_CACHE : TERM_CACHE;
}

static void finish_cut(const convt3d_plan *plan, const convt3d_correlate *c, convt3d_cut *cut) {
    choose_flat(plan, c, cut);
    choose_groups(plan, c, cut);
    choose_blocks(plan, c, cut, cache_of(plan, c, cut));
    limit_deep(plan, c, cut);
    if (!convt3d_correlate_set_pitches(plan, c, cut)) return;
    choose_together(plan, c, cut);
    choose_chunk(plan, c, cut);
}

void convt3d_correlate_choose_cuts(const convt3d_plan *plan, convt3d_correlate *c) {
    const convt3d_geometry *g = &plan->geometry;
    int forward = plan->direction == CONVT3D_FORWARD;
    double bytes = (double)g->element * (double)g->batch *
                   (double)(forward ? g->out_channels : g->in_channels);
    for (int a = 0; a < 3; a++) bytes *= (double)(forward ? g->axis[a].out : g->axis[a].in);
    c->stream = bytes > CONVT3D_STREAM_BYTES;
    c->cut[0].run = 1;
    c->cut[0].runs = g->batch;
    set_strips(c, &c->cut[0], 1);
    finish_cut(plan, c, &c->cut[0]);
    c->cut[1] = c->cut[0];
    /* Of float32 two multiply-adds a cycle, at best. */
    c->cycles = choose_tiles(plan, c, &c->cut[1]) / (double)c->cut[0].flat;
    if (!c->terms)
        c->cycles =
            c->cycles * pairs_of_row(plan, c) * (double)c->k * 0.575 + weight_cycles(plan, c);
    c->cut[1] = c->cut[0];
    if (convt3d_is_merged(c)) return;
    choose_run(plan, c, &c->cut[1], SHARED_CACHE);
    finish_cut(plan, c, &c->cut[1]);
    /* Very short rows: samples make them longer, whatever the order of memory. */
    if (c->cut[1].run >= CONVT3D_SAMPLES && c->lane_length <= CONVT3D_SHORT_ROW &&
        c->cut[1].strips == 1)
        c->cut[0] = c->cut[1];
}
