/* correlate_cut: how forward and backward_input are cut into tasks and tiles.
 * SPDX-License-Identifier: MIT */
#include "correlate.h"
#include "tiles.h"

#include <math.h>

static const double OWN_CACHE = 768 * 1024, ROLLING_CACHE = 448 * 1024, SHARED_CACHE = 3072 * 1024,
                    TERM_CACHE = 1152 * 1024, MANY_TERMS_CACHE = 3072 * 1024,
                    MANY_TERMS = 704 * 1024;
static const double HEAVY_WEIGHTS = 1024 * 1024, SHARED_WEIGHTS = 512 * 1024;

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

/* The part of a long row's positions that are results: its depths are as far apart as the
 * source rows need. */
static double fullness(const convt3d_plan *plan, const convt3d_correlate *c,
                       const convt3d_cut *cut) {
    const int64_t stride = c->axis[1].stride;
    const int forward = plan->direction == CONVT3D_FORWARD;
    const double rows = (double)convt3d_ceil_div(cut->block[1], forward ? stride : 1);
    const double sources = (double)convt3d_ceil_div(cut->slab_rows[1], forward ? 1 : stride);
    return sources > rows ? rows / sources : 1;
}

/* The part of the threads' time in which all have work, if tasks take as long as each other. */
static double balance(const convt3d_plan *plan, const convt3d_cut *cut) {
    const double rounds = tasks_of(cut) / plan->threads;
    return rounds <= 1 ? 1 : rounds / ceil(rounds);
}

/* Cycles that a result row of a block takes as terms: its products, those between the rows, and
 * its share of the weights and of splitting the slab. */
static double term_row_cycles(const convt3d_plan *plan, const convt3d_correlate *c,
                              const convt3d_cut *cut) {
    const double product = 0.02, byte_of_weights = 0.2, byte_of_slab = 0.2;
    const double rows = (double)cut->block[0] * (double)cut->block[1];
    const double shared = byte_of_weights * convt3d_correlate_weight_bytes(plan, c, c->m) +
                          byte_of_slab * slab_bytes(plan, c, cut);
    return (product * convt3d_correlate_row_products(plan, c) / fullness(plan, c, cut) +
            shared / rows) /
           balance(plan, cut);
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
            const double score = many ? 1 / term_row_cycles(plan, c, cut) : rows / (bytes + 4096);
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
           convt3d_correlate_weight_bytes(plan, c, c->m) * (double)cut->groups <= SHARED_WEIGHTS;
}

/* Blocks that fit the cache, of which there are enough to share out; layers whose
 * weights are what is large are shared out by channels, so that the weights are read
 * once.  Results don't depend on it. */
static void choose_blocks(const convt3d_plan *plan, const convt3d_correlate *c, convt3d_cut *cut,
                          double cache) {
    const double weights = convt3d_correlate_weight_bytes(plan, c, c->m);
    /* Of many terms of weights each task reads all. */
    const double wanted = (c->terms && weights > HEAVY_WEIGHTS ? 1.0 : 4.0) * plan->threads;
    const int shares = cut->units >= 2 * plan->threads || cut->units % plan->threads == 0;
    const int heavy = weights > HEAVY_WEIGHTS && shares;
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

/* Units that share a program: few, so that their weights and sums stay close, but
 * for thin ones it is the program that costs. */
static void choose_together(const convt3d_plan *plan, const convt3d_correlate *c,
                            convt3d_cut *cut) {
    const int64_t element = (int64_t)plan->geometry.element, units = cut->units * cut->groups;
    const double tile =
        (double)max64(c->lanes, 1) * (double)cut->width * (double)cut->tile_pitch * (double)element;
    const double weights = convt3d_correlate_phase_bytes(plan, c, cut->width);
    const int64_t line = convt3d_ceil_div(CONVT3D_CHANNEL_BYTES, cut->width * element);
    int64_t near = 1;
    const double most = c->terms ? 384 * 1024 : 24 * 1024;
    while (near < units && (double)(near + 1) * (c->terms ? tile : tile + weights) < most) near++;
    cut->together[0] = near;
    /* With rows in their order, all taps of a unit have to stay close. */
    const double all =
        cut->by_phase ? weights : convt3d_correlate_weight_bytes(plan, c, cut->width);
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
    return convt3d_correlate_phase_bytes(plan, c, cut->width) > MANY_TERMS ? MANY_TERMS_CACHE
                                                                           : TERM_CACHE;
}

static void finish_cut(const convt3d_plan *plan, const convt3d_correlate *c, convt3d_cut *cut) {
    convt3d_correlate_choose_flat(plan, c, cut);
    choose_groups(plan, c, cut);
    choose_blocks(plan, c, cut, cache_of(plan, c, cut));
    convt3d_correlate_limit_deep(plan, c, cut);
    if (!convt3d_correlate_set_pitches(plan, c, cut)) return;
    choose_together(plan, c, cut);
    choose_chunk(plan, c, cut);
}

void convt3d_correlate_choose_cuts(const convt3d_plan *plan, convt3d_correlate *c) {
    const convt3d_geometry *g = &plan->geometry;
    int forward = plan->direction == CONVT3D_FORWARD;
    double bytes =
        (double)g->stored * (double)g->batch * (double)(forward ? g->out_channels : g->in_channels);
    for (int a = 0; a < 3; a++) bytes *= (double)(forward ? g->axis[a].out : g->axis[a].in);
    c->stream = bytes > CONVT3D_STREAM_BYTES;
    c->cut[0].run = 1;
    c->cut[0].runs = g->batch;
    set_strips(c, &c->cut[0], 1);
    finish_cut(plan, c, &c->cut[0]);
    c->cut[1] = c->cut[0];
    c->cycles = convt3d_correlate_row_cycles(plan, c, &c->cut[0]);
    c->cut[1] = c->cut[0];
    if (convt3d_is_merged(c)) return;
    choose_run(plan, c, &c->cut[1], SHARED_CACHE);
    finish_cut(plan, c, &c->cut[1]);
    /* Very short rows: samples make them longer, whatever the order of memory. */
    if (c->cut[1].run >= CONVT3D_SAMPLES && c->lane_length <= CONVT3D_SHORT_ROW &&
        c->cut[1].strips == 1)
        c->cut[0] = c->cut[1];
}
