/* material: random numbers, problems, tensors and guarded memory for tests.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "material.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- Random numbers ----------------------------------------------------- */

/* splitmix64: any seed is a good seed, and the state is one word. */
uint64_t rng_next(rng *r) {
    uint64_t z = r->state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

int64_t rng_between(rng *r, int64_t low, int64_t high) {
    return low + (int64_t)(rng_next(r) % (uint64_t)(high - low + 1));
}

int rng_chance(rng *r, int percent) {
    return rng_between(r, 0, 99) < percent;
}

double rng_normal(rng *r) {
    double u = ((double)(rng_next(r) >> 11) + 1) * 0x1p-53, v = (double)(rng_next(r) >> 11);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v * 0x1p-53);
}

uint64_t test_seed(int argc, char **argv) {
    const char *text = argc > 1 ? argv[1] : getenv("CONVT3D_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : 20240607;
    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    return seed;
}

int test_count(int count) {
    const char *text = getenv("CONVT3D_TEST_PERCENT");
    return text ? count * atoi(text) / 100 + 1 : count;
}

/* ---- Problems ----------------------------------------------------------- */

static int64_t pick(rng *r, const int64_t *from, size_t count) {
    return from[rng_next(r) % count];
}
#define PICK(r, table) pick(r, table, sizeof(table) / sizeof *(table))

/* Numbers of channels around the widths of tiles and vectors. */
static void random_channels(rng *r, convt3d_problem *p) {
    static const int64_t odd[] = {1, 2, 3, 15, 16, 17, 31, 33, 47};
    int64_t kind = rng_between(r, 0, 9);
    p->in_channels = rng_between(r, 1, 4);
    p->out_channels = rng_between(r, 1, 4);
    if (kind < 3) p->out_channels = PICK(r, odd);
    if (kind == 2 || kind == 3) p->in_channels = PICK(r, odd);
    if (kind < 6) return;
    p->groups = kind == 6 ? PICK(r, odd) : rng_between(r, 2, 4);
    p->in_channels = p->groups * (kind > 7 ? rng_between(r, 1, 4) : 1);
    p->out_channels = p->groups * (kind > 6 ? rng_between(r, 1, 4) : 1);
}

static void random_axis(rng *r, convt3d_problem *p, int a) {
    static const int64_t small[] = {1, 1, 1, 2, 2, 3, 4};
    static const int64_t widths[] = {3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33};
    p->input_size[a] = a == 2 && rng_chance(r, 60) ? PICK(r, widths) : rng_between(r, 1, 6);
    p->kernel_size[a] = rng_between(r, 1, 5);
    p->stride[a] = PICK(r, small);
    p->dilation[a] = PICK(r, small);
    int64_t most = p->stride[a] > p->dilation[a] ? p->stride[a] : p->dilation[a];
    if (rng_chance(r, 50)) p->output_padding[a] = rng_between(r, 0, most - 1);
}

/* Up to two more than the kernel's reach: layers that crop into the input. */
static void random_padding(rng *r, convt3d_problem *p, int a) {
    int64_t reach = p->dilation[a] * (p->kernel_size[a] - 1);
    p->padding_before[a] = rng_between(r, 0, reach + 2);
    p->padding_after[a] = rng_chance(r, 50) ? p->padding_before[a] : rng_between(r, 0, reach + 2);
    /* Smaller and smaller until it is legal, which 0 always is. */
    for (;;) {
        int64_t out = oracle_output_size(p, a);
        int64_t limit = p->padding_mode == CONVT3D_REFLECT    ? out - 1
                        : p->padding_mode == CONVT3D_CIRCULAR ? out
                                                              : INT64_MAX;
        if (out >= 1 && p->padding_before[a] <= limit && p->padding_after[a] <= limit) return;
        p->padding_before[a] /= 2;
        p->padding_after[a] = p->padding_after[a] * 2 / 3;
    }
}

void random_problem(rng *r, int64_t most_products, convt3d_problem *p) {
    do {
        convt3d_problem_init(p);
        static const int64_t dtypes[] = {CONVT3D_FLOAT32, CONVT3D_FLOAT32, CONVT3D_FLOAT32,
                                         CONVT3D_FLOAT64, CONVT3D_FLOAT64, CONVT3D_BFLOAT16,
                                         CONVT3D_FLOAT16};
        p->dtype = (convt3d_dtype)PICK(r, dtypes);
        if (rng_chance(r, 50)) p->padding_mode = (convt3d_padding_mode)rng_between(r, 1, 3);
        p->bias = rng_chance(r, 50);
        p->batch = rng_between(r, 1, 3);
        random_channels(r, p);
        for (int a = 0; a < 3; a++) random_axis(r, p, a);
        if (rng_chance(r, 20)) /* cubes, as in most real layers */
            for (int a = 1; a < 3; a++) {
                p->kernel_size[a] = p->kernel_size[0];
                p->stride[a] = p->stride[0];
                p->dilation[a] = p->dilation[0];
                p->output_padding[a] = p->output_padding[0];
            }
        if (rng_chance(r, 70))
            for (int a = 0; a < 3; a++) random_padding(r, p, a);
    } while (oracle_products(p) > most_products ||
             oracle_count(p, ORACLE_OUTPUT) > most_products / 4);
    if (rng_chance(r, 3)) p->batch = 0;
}

const char *problem_text(const convt3d_problem *p) {
    static char text[512];
    convt3d_problem_format(p, text, sizeof text);
    return text;
}

/* ---- Memory and tensors ------------------------------------------------- */

guarded guarded_alloc(size_t size, int at_end) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (size + page - 1) / page * page;
    guarded g = {NULL, room + 2 * page, NULL, size};
    g.map = mmap(NULL, g.map_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.map == MAP_FAILED) abort();
    if (room && mprotect(g.map + page, room, PROT_READ | PROT_WRITE)) abort();
    g.data = g.map + page + (at_end ? room - size : 0);
    memset(g.data, 0xFF, size);
    return g;
}

void guarded_free(guarded *g) {
    if (g->map) munmap(g->map, g->map_size);
    *g = (guarded){0};
}

/* Fills 'order' with the axes from the innermost to the outermost. */
static void axis_order(rng *r, layout how, int rank, int order[5]) {
    for (int i = 0; i < rank; i++) order[i] = how == LAYOUT_REVERSED ? i : rank - 1 - i;
    int channel = rank - 4; /* in front of the three axes of space */
    if (how == LAYOUT_CHANNELS_LAST && rank >= 4) {
        order[0] = channel;
        for (int i = 1; i < 4; i++) order[i] = rank - i;
    }
    if (how == LAYOUT_PERMUTED)
        for (int i = rank - 1; i > 0; i--) {
            int j = (int)rng_between(r, 0, i), swap = order[i];
            order[i] = order[j];
            order[j] = swap;
        }
}

/* Sets the strides, and returns the number of elements spanned and, in *first,
 * which of them is element (0, 0, ...). */
static int64_t place(rng *r, convt3d_tensor *t, layout how, int64_t *first) {
    static const int64_t nonsense[] = {0, -7, 1, 12345, (int64_t)1 << 40};
    int order[5];
    int64_t step = 1, low = 0, high = 0;
    axis_order(r, how, t->rank, order);
    for (int i = 0; i < t->rank; i++) {
        int axis = order[i];
        int64_t size = t->size[axis];
        if (how == LAYOUT_SLICE) step *= rng_between(r, 1, 2);
        t->stride[axis] = step;
        if (how == LAYOUT_NEGATIVE && rng_chance(r, 60)) t->stride[axis] = -step;
        if (how == LAYOUT_REPEATED && rng_chance(r, 50)) t->stride[axis] = 0;
        *(t->stride[axis] < 0 ? &low : &high) += (size - 1) * t->stride[axis];
        if (t->stride[axis]) step *= size;
        if (how == LAYOUT_SLICE) step += rng_between(r, 0, 2);
        /* The stride of a single element is never taken: it may say anything. */
        if (size == 1 && how != LAYOUT_DENSE && rng_chance(r, 30))
            t->stride[axis] = PICK(r, nonsense);
    }
    *first = -low;
    return high - low + 1;
}

material material_make(rng *r, const convt3d_problem *p, convt3d_dtype dtype, oracle_role role,
                       layout how, int unbatched) {
    int64_t shape[5], count = oracle_count(p, role), first;
    int rank = oracle_shape(p, role, shape), drop = unbatched && rank == 5 && role != ORACLE_WEIGHT;
    material m;
    m.tensor = convt3d_tensor_dense(NULL, dtype, rank - drop, shape + drop);
    m.memory = (guarded){0};
    if (count == 0) return m; /* nothing to point at */
    int64_t span = place(r, &m.tensor, how, &first);
    size_t lead = how == LAYOUT_SLICE ? 1 : 0, each = convt3d_dtype_size(dtype);
    m.memory = guarded_alloc(((size_t)span + lead) * each, rng_chance(r, 50));
    m.tensor.data = m.memory.data + ((size_t)first + lead) * each;
    return m;
}

void material_free(material *m) {
    guarded_free(&m->memory);
}

/* The address of the element at this place in the dense order. */
static unsigned char *element(const convt3d_tensor *t, int64_t index) {
    int64_t offset = 0;
    for (int a = t->rank - 1; a >= 0; a--) {
        int64_t i = index % t->size[a];
        if (i) offset += i * t->stride[a];
        index /= t->size[a];
    }
    return (unsigned char *)t->data + offset * (int64_t)convt3d_dtype_size(t->dtype);
}

static int64_t element_count(const convt3d_tensor *t) {
    int64_t count = 1;
    for (int a = 0; a < t->rank; a++) count *= t->size[a];
    return count;
}

real material_round(convt3d_dtype dtype, real value) {
    const int brain = dtype == CONVT3D_BFLOAT16;
    const int digits = brain ? 8 : 11, lowest = brain ? -126 : -14;
    const real most = brain ? 0x1.fep127L : 65504;
    if (dtype == CONVT3D_FLOAT32) return (real)(float)value;
    if (dtype == CONVT3D_FLOAT64) return (real)(double)value;
    if (value == 0 || !isfinite(value)) return value;
    const int exponent = ilogbl(value) > lowest ? ilogbl(value) : lowest;
    const real rounded = ldexpl(rintl(ldexpl(value, digits - 1 - exponent)), exponent - digits + 1);
    return fabsl(rounded) > most ? copysignl(INFINITY, value) : rounded;
}

/* The bits of a number of 16 bits that is one already, and back. */
static uint16_t encode(convt3d_dtype dtype, real value) {
    const int fraction = dtype == CONVT3D_BFLOAT16 ? 7 : 10;
    const int bias = dtype == CONVT3D_BFLOAT16 ? 127 : 15, top = 2 * bias + 1;
    const unsigned sign = signbit(value) ? 0x8000 : 0, one = 1u << fraction;
    if (isnan(value)) return (uint16_t)((unsigned)top << fraction | one / 2);
    if (isinf(value)) return (uint16_t)(sign | (unsigned)top << fraction);
    if (fabsl(value) < ldexpl(1, 1 - bias))
        return (uint16_t)(sign | (unsigned)ldexpl(fabsl(value), bias - 1 + fraction));
    const int exponent = ilogbl(value);
    const unsigned rest = (unsigned)ldexpl(fabsl(value), fraction - exponent) - one;
    return (uint16_t)(sign | (unsigned)(exponent + bias) << fraction | rest);
}

static real decode(convt3d_dtype dtype, uint16_t bits) {
    const int fraction = dtype == CONVT3D_BFLOAT16 ? 7 : 10;
    const int bias = dtype == CONVT3D_BFLOAT16 ? 127 : 15, top = 2 * bias + 1;
    const int exponent = (bits & 0x7fff) >> fraction, one = 1 << fraction;
    const int rest = bits & (one - 1);
    real value = exponent ? ldexpl(one + rest, exponent - bias - fraction)
                          : ldexpl(rest, 1 - bias - fraction);
    if (exponent == top) value = rest ? NAN : INFINITY;
    return bits & 0x8000 ? -value : value;
}

void material_store(const material *m, const real *values) {
    const convt3d_dtype dtype = m->tensor.dtype;
    for (int64_t i = 0, count = element_count(&m->tensor); i < count; i++) {
        const double wide = (double)values[i];
        const float narrow = (float)values[i];
        const uint16_t half = convt3d_dtype_size(dtype) == sizeof half
                                  ? encode(dtype, material_round(dtype, values[i]))
                                  : 0;
        const void *from = dtype == CONVT3D_FLOAT64   ? (const void *)&wide
                           : dtype == CONVT3D_FLOAT32 ? (const void *)&narrow
                                                      : (const void *)&half;
        memcpy(element(&m->tensor, i), from, convt3d_dtype_size(dtype));
    }
}

void material_load(const material *m, real *values) {
    for (int64_t i = 0, count = element_count(&m->tensor); i < count; i++) {
        const unsigned char *from = element(&m->tensor, i);
        double wide;
        float narrow;
        uint16_t half;
        switch (m->tensor.dtype) {
        case CONVT3D_FLOAT64:
            memcpy(&wide, from, sizeof wide);
            values[i] = wide;
            break;
        case CONVT3D_FLOAT32:
            memcpy(&narrow, from, sizeof narrow);
            values[i] = narrow;
            break;
        default:
            memcpy(&half, from, sizeof half);
            values[i] = decode(m->tensor.dtype, half);
        }
    }
}

int material_untouched(const material *m) {
    for (size_t i = 0; i < m->memory.size; i++)
        if (m->memory.data[i] != 0xFF) return 0;
    return 1;
}

int material_gaps_untouched(const material *m) {
    if (!m->memory.map) return 1;
    size_t each = convt3d_dtype_size(m->tensor.dtype);
    unsigned char *ours = calloc(m->memory.size, 1);
    if (!ours) abort();
    for (int64_t i = 0, count = element_count(&m->tensor); i < count; i++)
        memset(ours + (element(&m->tensor, i) - m->memory.data), 1, each);
    int intact = 1;
    for (size_t i = 0; i < m->memory.size; i++)
        if (!ours[i] && m->memory.data[i] != 0xFF) intact = 0;
    free(ours);
    return intact;
}

/* ---- A layer and all its tensors ---------------------------------------- */

int layer_unknown(convt3d_direction direction, oracle_role role) {
    switch (direction) {
    case CONVT3D_FORWARD:
        return role == ORACLE_OUTPUT;
    case CONVT3D_BACKWARD_INPUT:
        return role == ORACLE_INPUT;
    default:
        return role == ORACLE_WEIGHT || role == ORACLE_BIAS;
    }
}

int layer_known(convt3d_direction direction, oracle_role role) {
    if (direction == CONVT3D_BACKWARD_INPUT && role == ORACLE_BIAS) return 0;
    return !layer_unknown(direction, role);
}

/* Of a tensor: the problem's, or sometimes float32, where it may be. */
static convt3d_dtype choose_dtype(rng *r, const convt3d_problem *p, convt3d_direction direction,
                                  oracle_role role) {
    int may = role == ORACLE_BIAS || (role == ORACLE_WEIGHT && layer_unknown(direction, role));
    if (convt3d_dtype_size(p->dtype) > 2 || !may || !rng_chance(r, 40)) return p->dtype;
    return CONVT3D_FLOAT32;
}

layer layer_make(rng *r, const convt3d_problem *p, convt3d_direction direction, int flags) {
    layer l;
    l.p = *p;
    l.direction = direction;
    for (int role = 0; role < 4; role++) {
        int layouts = layer_unknown(direction, (oracle_role)role) ? LAYOUT_REPEATED : LAYOUT_COUNT;
        layout how = flags & LAYER_DENSE ? LAYOUT_DENSE : (layout)rng_between(r, 0, layouts - 1);
        const convt3d_dtype dtype =
            flags & LAYER_ONE_DTYPE ? p->dtype : choose_dtype(r, p, direction, (oracle_role)role);
        int64_t count = oracle_count(p, (oracle_role)role);
        l.tensor[role] = material_make(r, p, dtype, (oracle_role)role, how,
                                       flags & LAYER_UNBATCHED && p->batch == 1);
        l.value[role] = malloc((size_t)(count + 1) * sizeof(real));
        if (!l.value[role]) abort();
        for (int64_t i = 0; i < count; i++) l.value[role][i] = NAN;
    }
    return l;
}

void layer_free(layer *l) {
    for (int role = 0; role < 4; role++) {
        material_free(&l->tensor[role]);
        free(l->value[role]);
    }
}

real layer_round(const layer *l, int role, real value) {
    return material_round(l->tensor[role].tensor.dtype, value);
}

void layer_store(layer *l, oracle_role role) {
    material_store(&l->tensor[role], l->value[role]);
    material_load(&l->tensor[role], l->value[role]);
}

void layer_protect(const layer *l) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE); /* the guards stay unreadable */
    for (int role = 0; role < 4; role++) {
        const guarded *g = &l->tensor[role].memory;
        if (g->map && layer_known(l->direction, (oracle_role)role))
            mprotect(g->map + page, g->map_size - 2 * page, PROT_READ);
    }
}

convt3d_status layer_run(const layer *l, const convt3d_plan *plan, const convt3d_weights *packed,
                         int with_bias, convt3d_write write, const convt3d_run *run,
                         convt3d_error *err) {
    const convt3d_tensor *x = &l->tensor[ORACLE_INPUT].tensor;
    const convt3d_tensor *w = packed ? NULL : &l->tensor[ORACLE_WEIGHT].tensor;
    const convt3d_tensor *b = with_bias ? &l->tensor[ORACLE_BIAS].tensor : NULL;
    const convt3d_tensor *y = &l->tensor[ORACLE_OUTPUT].tensor;
    switch (l->direction) {
    case CONVT3D_FORWARD:
        return convt3d_forward(plan, x, w, packed, b, y, run, err);
    case CONVT3D_BACKWARD_INPUT:
        return convt3d_backward_input(plan, y, w, packed, x, write, run, err);
    default:
        return convt3d_backward_weight(plan, x, y, w, b, write, run, err);
    }
}
