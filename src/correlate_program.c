/* correlate_program: what a result row takes, as segments of packed weights and of the
 * slab.
 * SPDX-License-Identifier: MIT */
#include "correlate.h"

/* ---- Depth and height: which source rows, through which taps ---------------------- */

/* Both directions' view of "what meets result row r on this axis". */
typedef struct pairs {
    convt3d_meet meet;
    const convt3d_axis *axis;
    int forward;
    int64_t k, source, result;
} pairs;

static pairs pairs_of(const convt3d_task *t, int a, int64_t result) {
    pairs p = {.axis = &t->c->axis[a],
               .forward = t->plan->direction == CONVT3D_FORWARD,
               .k = -1,
               .result = result};
    if (p.forward) p.meet = convt3d_meet_first(p.axis, result);
    return p;
}

static int next_pair(pairs *p) {
    if (p->forward) {
        int more = convt3d_meet_next(&p->meet);
        p->k = p->meet.k;
        p->source = p->meet.i;
        return more;
    }
    while (++p->k < p->axis->kernel) {
        p->source = convt3d_fold(p->axis, p->result * p->axis->stride + p->k * p->axis->dilation);
        if (p->source >= 0) return 1;
    }
    return 0;
}

static void list_sources(convt3d_task *t, int a) {
    t->listed[a] = 0;
    for (int64_t result = t->first[a]; result < t->end[a]; result++) {
        if (convt3d_stopped(&t->call->job, t->thread)) return;
        pairs p = pairs_of(t, a, result);
        while (next_pair(&p)) t->listed[a] = convt3d_list_add(t->list[a], t->listed[a], p.source);
    }
}

/* Where the slab holds the listed source rows: in their order, in a ring if it holds but
 * some, or, where backward_input runs several result rows as one, those of one stride phase
 * after another. */
static void order_rows(const convt3d_task *t) {
    const int64_t most[2] = {t->cut->slab_rows[0], t->cut->ring};
    const int flat[2] = {t->cut->deep > 1, t->cut->flat > 1};
    for (int a = 0; a < 2; a++) {
        const convt3d_axis *axis = &t->c->axis[a];
        const int parted = flat[a] && t->plan->direction != CONVT3D_FORWARD;
        const int64_t phases = parted ? axis->stride : 1;
        int64_t next = 0;
        for (int64_t phase = 0; phase < phases; phase++) {
            int64_t row = phase * most[0] * t->cut->phase_rows;
            for (int64_t i = 0; i < t->listed[a]; i++) {
                if ((t->list[a][i] + axis->before) % phases != phase) continue;
                t->order[a][i] = next++ % most[a];
                if (a == 0) continue;
                t->term_order[i] = t->cut->flat == 1 ? t->order[a][i] : row;
                row++;
            }
        }
    }
}

void convt3d_correlate_list(convt3d_task *t) {
    list_sources(t, 0);
    list_sources(t, 1);
    order_rows(t);
}

int64_t convt3d_correlate_needed(const convt3d_task *t, int64_t h) {
    int64_t last = -1;
    pairs p = pairs_of(t, 1, h);
    while (next_pair(&p)) last = max64(last, p.source);
    return last < 0 ? 0 : convt3d_list_place(t->list[1], t->listed[1], last) + 1;
}

/* The place of a source row in the slab, on one axis. */
static int64_t place(const convt3d_task *t, int a, int64_t source) {
    const int64_t *order = a == 1 && t->terms ? t->term_order : t->order[a];
    return order[convt3d_list_place(t->list[a], t->listed[a], source)];
}

/* ---- Programs -------------------------------------------------------------------------- */

static void start_program(const convt3d_task *t) {
    t->program->segments = t->program->steps = 0;
}

/* A place for one more segment of the program's last step: where there is none, what
 * is there is run, and the step goes on in a new program. */
static convt3d_segment *add_segment(const convt3d_task *t, int64_t unit0, int64_t unit1) {
    convt3d_program *p = t->program;
    if (p->segments == CONVT3D_SEGMENTS) {
        convt3d_step rest = p->step[p->steps - 1];
        convt3d_correlate_run(t, unit0, unit1);
        start_program(t);
        rest.accumulate = 1;
        rest.segment = rest.count = 0;
        p->step[p->steps++] = rest;
    }
    p->step[p->steps - 1].count++;
    return &p->segment[p->segments++];
}

static convt3d_segment segment_of(const convt3d_task *t, int64_t weights, int64_t slab,
                                  int64_t channels) {
    return (convt3d_segment){
        .a = t->cut->turned ? slab : weights, .b = t->cut->turned ? weights : slab, .k = channels};
}

/* A tap's segments of terms. */
static void add_terms(const convt3d_task *t, int64_t tap, int64_t slab, int64_t unit0,
                      int64_t unit1) {
    const convt3d_correlate *c = t->c;
    const int64_t each = convt3d_term_segment(c);
    for (int64_t block = 0; block < c->term_blocks; block += each) {
        const int64_t weights = (tap * c->term_blocks + block) * c->terms * CONVT3D_TERM_BLOCK;
        const int64_t k = block * CONVT3D_TERM_BLOCK;
        *add_segment(t, unit0, unit1) =
            segment_of(t, weights, slab + block * c->terms * t->cut->term_pitch,
                       min64(each * CONVT3D_TERM_BLOCK, c->k - k));
    }
}

/* All segments of one step: those of its pairs and taps that as many phases have. */
static void add_segments(const convt3d_task *t, int few, int64_t lane, const convt3d_piece *piece,
                         int64_t unit0, int64_t unit1) {
    const convt3d_correlate *c = t->c;
    const convt3d_program *p = t->program;
    const int64_t pitch = t->cut->row_pitch;
    const int64_t shift = max64(c->lane[lane].q0, t->q0) - c->lane[lane].q0;
    for (int64_t k = 0; k < c->k; k += c->k_block) {
        for (int64_t i = 0; i < p->pairs; i++) {
            if (p->pair[i].few != (few & 3)) continue;
            for (int64_t j = piece->tap0; j < piece->tap1; j++) {
                if (convt3d_is_few(c, 2, c->tap[j].k) != (few >> 2)) continue;
                const int64_t x =
                    c->tap[j].offset + shift - convt3d_correlate_shift(t, c->tap_part[j]);
                const int64_t tap = p->pair[i].kernel_row * c->axis[2].kernel + c->tap[j].k;
                const int64_t slab = p->pair[i].slab + x * t->run;
                const int64_t end = min64(k + c->k_block, c->k);
                if (t->terms) {
                    add_terms(t, tap, slab + convt3d_correlate_part_shift(t, c->tap_part[j]), unit0,
                              unit1);
                    continue;
                }
                for (int64_t from = k; from < end; from += t->cut->chunk)
                    *add_segment(t, unit0, unit1) =
                        segment_of(t, (tap * c->k + from) * c->panel, slab + from * pitch,
                                   min64(t->cut->chunk, end - from));
            }
        }
    }
}

/* One piece of a lane, through the pairs gathered so far, always in the same order: with
 * merged phases, taps that all phases have come before those that some have. */
static void add_step(const convt3d_task *t, int64_t lane, const convt3d_piece *piece,
                     int accumulate, int64_t unit0, int64_t unit1) {
    convt3d_program *p = t->program;
    const int kinds = convt3d_is_uneven(t->c) ? 8 : 1;
    for (int few = 0; few < kinds; few++) {
        /* Terms' sums depend on where a step is cut: never by what came before it. */
        if (p->steps == CONVT3D_STEPS || (p->apart && p->segments)) {
            convt3d_correlate_run(t, unit0, unit1);
            start_program(t);
        }
        p->step[p->steps++] = (convt3d_step){.few = few,
                                             .lane = lane,
                                             .q0 = piece->q0,
                                             .q1 = piece->q1,
                                             .segment = p->segments,
                                             .accumulate = accumulate || few};
        add_segments(t, few, lane, piece, unit0, unit1);
        /* The first step is where sums start: it is there with no segments, too. */
        if (few && !p->step[p->steps - 1].count) p->steps--;
    }
}

/* ---- A result row ----------------------------------------------------------------------- */

/* Where the walk over a result row's pairs of depth and height is. */
typedef struct walk {
    pairs depth, height;
    int64_t slab_d;
    int inside; /* a depth is at hand */
} walk;

static walk walk_of(const convt3d_task *t, int64_t d) {
    return (walk){.depth = pairs_of(t, 0, d)};
}

/* The next pair; 0: there is none. */
static int walk_on(const convt3d_task *t, walk *w, int64_t h, convt3d_pair *pair) {
    for (;;) {
        if (!w->inside) {
            if (!next_pair(&w->depth)) return 0;
            w->inside = 1;
            w->slab_d = place(t, 0, w->depth.source) * t->program_step[0];
            w->height = pairs_of(t, 1, h);
        }
        if (next_pair(&w->height)) {
            *pair = (convt3d_pair){.kernel_row = w->depth.k * t->c->axis[1].kernel + w->height.k,
                                   .slab = w->slab_d +
                                           place(t, 1, w->height.source) * t->program_step[1],
                                   .few = convt3d_is_few(t->c, 0, w->depth.k) |
                                          convt3d_is_few(t->c, 1, w->height.k) << 1};
            return 1;
        }
        w->inside = 0;
    }
}

/* The next pairs, as many as fit the program; 1 if there may be more. */
static int next_pairs(const convt3d_task *t, walk *w, int64_t h) {
    convt3d_program *p = t->program;
    for (p->pairs = 0; p->pairs < CONVT3D_PAIRS; p->pairs++) {
        if (!walk_on(t, w, h, &p->pair[p->pairs])) return 0;
    }
    return 1;
}

/* How many of the result rows from h on, 'apart' from each other, are one behind the
 * other: with the pairs of the first, each one slab row further on. */
static int64_t flat_rows(const convt3d_task *t, int64_t d, int64_t h, int64_t apart, int many) {
    const convt3d_program *p = t->program;
    int64_t rows = 1;
    if (many || t->by_pieces || t->row_by_row) return 1;
    if (t->terms && !convt3d_correlate_all_fit(t)) return 1;
    for (; rows < t->cut->flat && h + rows * apart < t->end[1]; rows++) {
        walk w = walk_of(t, d);
        convt3d_pair pair;
        int64_t i = 0;
        while (walk_on(t, &w, h + rows * apart, &pair)) {
            if (i == p->pairs || pair.kernel_row != p->pair[i].kernel_row ||
                pair.slab != p->pair[i].slab + rows * t->program_step[1])
                return rows;
            i++;
        }
        if (i < p->pairs) return rows;
    }
    return rows;
}

int64_t convt3d_correlate_depths(const convt3d_task *t, int64_t d, int64_t apart) {
    int64_t depths = 1;
    if (t->cut->deep == 1 || t->by_pieces || !t->terms || !convt3d_correlate_all_fit(t)) return 1;
    for (; depths < t->cut->deep && d + depths * apart < t->end[0]; depths++) {
        pairs first = pairs_of(t, 0, d), other = pairs_of(t, 0, d + depths * apart);
        int more, most;
        do {
            more = next_pair(&first);
            most = next_pair(&other);
            if (more != most) return depths;
            if (more && (first.k != other.k ||
                         place(t, 0, first.source) + depths != place(t, 0, other.source)))
                return depths;
        } while (more);
    }
    return depths;
}

/* All pairs of one piece, a program at a time. */
static void run_piece(const convt3d_task *t, int64_t lane, const convt3d_piece *piece,
                      int64_t unit0, int64_t unit1, int64_t d, int64_t h) {
    walk w = walk_of(t, d);
    for (int more = 1, accumulate = 0; more; accumulate = 1) {
        if (convt3d_stopped(&t->call->job, t->thread)) return;
        more = next_pairs(t, &w, h);
        if (accumulate && !t->program->pairs) return;
        add_step(t, lane, piece, accumulate, unit0, unit1);
        convt3d_correlate_run(t, unit0, unit1);
        start_program(t);
    }
}

/* A result row, and those that are run as one with it. */
typedef struct result {
    int64_t d, h, apart[2], rows, depths;
    int many; /* pairs: too many for one program */
} result;

/* The pieces of a lane that are to be run. */
static int64_t pieces_of(const convt3d_task *t, const convt3d_lane *lane) {
    return t->by_pieces ? lane->piece1 - lane->piece0 : 1;
}

/* What the result's rows take: all of it, or, where it is too much for one program,
 * what is left after the rest has been run for these units. */
static void build(const convt3d_task *t, const result *r, int64_t unit0, int64_t unit1) {
    const convt3d_correlate *c = t->c;
    start_program(t);
    for (int64_t i = 0; i < c->lanes; i++) {
        const convt3d_lane *lane = &c->lane[i];
        const convt3d_piece whole = {lane->q0, lane->q1, lane->tap0, lane->tap1};
        const convt3d_piece *pieces = t->by_pieces ? &c->piece[lane->piece0] : &whole;
        /* Rising order: a tile may write beyond its piece, never before it. */
        for (int64_t j = 0; j < pieces_of(t, lane); j++) {
            convt3d_piece piece = pieces[j];
            piece.q0 = max64(piece.q0, t->q0);
            piece.q1 = min64(piece.q1, t->q1);
            if (piece.q0 >= piece.q1) continue;
            piece.q1 +=
                (r->rows - 1) * t->cut->flat_pitch + (r->depths - 1) * convt3d_depth_pitch(t->cut);
            if (r->many)
                run_piece(t, i, &piece, unit0, unit1, r->d, r->h);
            else
                add_step(t, i, &piece, 0, unit0, unit1);
        }
    }
}

/* Whether what build() makes fits one program, which then serves all units. */
static int fits_program(const convt3d_task *t, const result *r) {
    const convt3d_correlate *c = t->c;
    const int64_t each = t->program->pairs * convt3d_ceil_div(c->k, c->k_block) *
                         (t->terms ? convt3d_ceil_div(c->term_blocks, convt3d_term_segment(c))
                                   : convt3d_ceil_div(c->k_block, t->cut->chunk));
    int64_t steps = 0, segments = 0;
    if (r->many) return 0;
    for (int64_t i = 0; i < c->lanes && segments <= CONVT3D_SEGMENTS; i++) {
        const int64_t pieces = pieces_of(t, &c->lane[i]);
        steps += convt3d_is_uneven(c) ? 8 * pieces : pieces;
        segments += pieces * (c->lane[i].tap1 - c->lane[i].tap0) * each;
    }
    return steps <= CONVT3D_STEPS && segments <= CONVT3D_SEGMENTS;
}

static void store_rows(const convt3d_task *t, const result *r, int64_t unit0, int64_t unit1) {
    int64_t m0, m1;
    convt3d_correlate_channels(t, unit0, unit1, &m0, &m1);
    for (int64_t i = 0; i < r->depths; i++) {
        for (int64_t j = 0; j < r->rows && !convt3d_stopped(&t->call->job, t->thread); j++)
            convt3d_correlate_store(t, m0, m1, r->d + i * r->apart[0], r->h + j * r->apart[1],
                                    i * convt3d_depth_pitch(t->cut) + j * t->cut->flat_pitch);
    }
}

/* Whether all sources of a result row may be multiplied as terms. */
static int row_fits(const convt3d_task *t, int64_t d, int64_t h) {
    pairs depth = pairs_of(t, 0, d);
    if (convt3d_correlate_all_fit(t)) return 1;
    while (next_pair(&depth)) {
        pairs height = pairs_of(t, 1, h);
        while (next_pair(&height)) {
            const int64_t row = convt3d_list_place(t->list[1], t->listed[1], height.source);
            if (!convt3d_correlate_row_fits(t, place(t, 0, depth.source), t->order[1][row]))
                return 0;
        }
    }
    return 1;
}

int64_t convt3d_correlate_run_row(const convt3d_task *t, int64_t unit0, int64_t unit1,
                                  const int64_t at[2], const int64_t apart[2], int64_t depths) {
    const int64_t d = at[0], h = at[1];
    result r = {.d = d, .h = h, .apart = {apart[0], apart[1]}, .depths = depths};
    if (t->terms && !row_fits(t, d, h)) {
        convt3d_correlate_need_numbers(t->call);
        t = t->plain;
    }
    walk w = walk_of(t, d);
    r.many = next_pairs(t, &w, h);
    r.rows = flat_rows(t, d, h, apart[1], r.many);
    const int once = fits_program(t, &r);
    t->program->apart = t->terms && !once;
    if (once) build(t, &r, unit0, unit1);
    for (int64_t u = unit0; u < unit1; u += t->together) {
        const int64_t end = min64(u + t->together, unit1);
        if (convt3d_stopped(&t->call->job, t->thread)) break;
        if (!once) build(t, &r, u, end);
        convt3d_correlate_run(t, u, end);
        store_rows(t, &r, u, end);
    }
    return r.rows;
}
