/* random: MT19937 (Matsumoto and Nishimura 1998), drawn from as PyTorch does.
 *
 * The generator is a linear recurrence over 624 words of 32 bits; a draw takes
 * the next word and tempers it.  What is PyTorch's own, and not the paper's, is
 * the way from bits to floating point: see convt3d_random_uniform().
 * SPDX-License-Identifier: MIT */
#include "error.h"
#include "number.h"
#include "problem.h"
#include "random.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

enum {
    WORDS = CONVT3D_RANDOM_STATE,
    MIDDLE = 397 /* the paper's m: how far ahead the recurrence looks */
};

void convt3d_generator_seed(convt3d_generator *generator, uint64_t seed) {
    if (!generator) return;
    /* PyTorch takes 64 bits of seed but its CPU generator is seeded by the low
     * 32 of them: seeds that differ by 2^32 give the same values. */
    uint32_t word = (uint32_t)seed;
    for (int i = 0; i < WORDS; i++) {
        generator->state[i] = word;
        word = UINT32_C(1812433253) * (word ^ word >> 30) + (uint32_t)i + 1;
    }
    generator->next = WORDS;
    generator->kept = 0;
    generator->normal = 0;
}

/* One step of the recurrence for all words, in place: word i needs only words
 * that this pass hasn't reached (i, i+1) or has already renewed (i+m-n). */
static void renew(convt3d_generator *generator) {
    uint32_t *s = generator->state;
    for (int i = 0; i < WORDS; i++) {
        uint32_t joined =
            (s[i] & UINT32_C(0x80000000)) | (s[(i + 1) % WORDS] & UINT32_C(0x7fffffff));
        uint32_t twist = joined & 1 ? UINT32_C(0x9908b0df) : 0;
        s[i] = s[(i + MIDDLE) % WORDS] ^ joined >> 1 ^ twist;
    }
    generator->next = 0;
}

static uint32_t draw32(convt3d_generator *generator) {
    if (generator->next == WORDS) renew(generator);
    uint32_t x = generator->state[generator->next++];
    x ^= x >> 11;
    x ^= x << 7 & UINT32_C(0x9d2c5680);
    x ^= x << 15 & UINT32_C(0xefc60000);
    return x ^ x >> 18;
}

/* The first of the two draws is the high half. */
static uint64_t draw64(convt3d_generator *generator) {
    uint64_t high = draw32(generator);
    return high << 32 | draw32(generator);
}

static float fraction32(convt3d_generator *generator) {
    return (float)(draw32(generator) & UINT32_C(0xffffff)) * 0x1p-24f;
}

/* A float as a dtype of 16 bits. */
static uint16_t narrow(convt3d_dtype dtype, float value) {
    uint16_t half;
    convt3d_number_put(dtype, &half, (double)value);
    return half;
}

/* The low bits of a draw, as many as the significand holds, are a fraction r in [0, 1).
 * r*(to - from) + from is rounded once: a product rounded on its own would change half of all
 * values by one bit.  What rounds up to 'to' becomes 'from'.  16 bits are float32's, rounded. */
void convt3d_random_uniform(convt3d_generator *generator, void *data, convt3d_dtype dtype,
                            int64_t count, double from, double to) {
    const float start = (float)from, end = (float)to, range = end - start;
    double *duals = data;
    float *singles = data;
    uint16_t *halves = data;
    if (dtype == CONVT3D_FLOAT64) {
        for (int64_t i = 0; i < count; i++) {
            const double r = (double)(draw64(generator) & UINT64_C(0x1fffffffffffff)) * 0x1p-53;
            const double value = fma(r, to - from, from);
            duals[i] = value == to ? from : value;
        }
    } else if (dtype == CONVT3D_FLOAT32) {
        for (int64_t i = 0; i < count; i++) {
            const float value = fmaf(fraction32(generator), range, start);
            singles[i] = value == end ? start : value;
        }
    } else {
        const uint16_t first = narrow(dtype, start), last = narrow(dtype, end);
        for (int64_t i = 0; i < count; i++) {
            const uint16_t value = narrow(dtype, fmaf(fraction32(generator), range, start));
            halves[i] = value == last ? first : value;
        }
    }
}

/* ---- Normal numbers --------------------------------------------------------- */

enum {
    BLOCK = 16, /* the numbers that are made together, where there are as many */
    HALF = BLOCK / 2
};

static const double TWO_PI = 6.283185307179586476925286766559;

/* Box and Muller 1958: two uniform numbers on (0, 1] give a radius and an angle.
 * A block's first half holds radii and its second half angles. */
static void transform32(float *block) {
    for (int i = 0; i < HALF; i++) {
        float radius = sqrtf(-2 * logf(1 - block[i]));
        float angle = (float)TWO_PI * block[HALF + i];
        block[i] = radius * cosf(angle);
        block[HALF + i] = radius * sinf(angle);
    }
}

static void transform64(double *block) {
    for (int i = 0; i < HALF; i++) {
        double radius = sqrt(-2 * log(1 - block[i]));
        double angle = TWO_PI * block[HALF + i];
        block[i] = radius * cos(angle);
        block[HALF + i] = radius * sin(angle);
    }
}

static void transform(void *data, convt3d_dtype dtype, int64_t at) {
    if (dtype == CONVT3D_FLOAT32)
        transform32((float *)data + at);
    else
        transform64((double *)data + at);
}

/* All uniform numbers are drawn first.  What the whole blocks leave over is not
 * made from them: the last 16 elements, some of which are done already, are drawn
 * again. */
static void normal_blocks(convt3d_generator *generator, void *data, convt3d_dtype dtype,
                          int64_t count) {
    convt3d_random_uniform(generator, data, dtype, count, 0, 1);
    for (int64_t i = 0; i + BLOCK <= count; i += BLOCK) transform(data, dtype, i);
    if (count % BLOCK == 0) return;
    char *last = (char *)data + (size_t)(count - BLOCK) * convt3d_dtype_size(dtype);
    convt3d_random_uniform(generator, last, dtype, BLOCK, 0, 1);
    transform(last, dtype, 0);
}

/* One number of a pair: here the angle is drawn first. */
static double normal_single(convt3d_generator *generator) {
    double uniform[2];
    if (generator->kept) {
        generator->kept = 0;
        return generator->normal;
    }
    convt3d_random_uniform(generator, uniform, CONVT3D_FLOAT64, 2, 0, 1);
    double radius = sqrt(-2 * log1p(-uniform[1]));
    double angle = TWO_PI * uniform[0];
    generator->kept = 1;
    generator->normal = radius * sin(angle);
    return radius * cos(angle);
}

/* ---- The public generator ----------------------------------------------------- */

convt3d_status convt3d_generator_create(uint64_t seed, convt3d_generator **out,
                                        convt3d_error *err) {
    if (!out) return convt3d_fail(err, CONVT3D_ARG, "generator is NULL");
    convt3d_generator *generator = *out = malloc(sizeof *generator);
    if (!generator) return convt3d_fail_nomem(err, "a generator", sizeof *generator);
    convt3d_generator_seed(generator, seed);
    return CONVT3D_OK;
}

void convt3d_generator_free(convt3d_generator *generator) {
    free(generator);
}

/* What both distributions ask of their arguments. */
static convt3d_status check_data(const convt3d_generator *generator, const void *data,
                                 convt3d_dtype dtype, int64_t count, convt3d_error *err) {
    if (!generator) return convt3d_fail(err, CONVT3D_ARG, "generator is NULL");
    return convt3d_array_check(data, "data", dtype, "dtype", count, err);
}

static double largest(convt3d_dtype dtype) {
    switch (dtype) {
    case CONVT3D_FLOAT64:
        return DBL_MAX;
    case CONVT3D_FLOAT32:
        return (double)FLT_MAX;
    case CONVT3D_BFLOAT16:
        return 0x1.fep127;
    default:
        return 65504;
    }
}

static convt3d_status check_bounds(convt3d_dtype dtype, double from, double to,
                                   convt3d_error *err) {
    double limit = largest(dtype);
    /* Written so that a NaN fails. */
    if (!(fabs(from) <= limit))
        return convt3d_fail(err, CONVT3D_ARG, "from is %g, but must be within %g and %g for %s",
                            from, -limit, limit, convt3d_dtype_name(dtype));
    if (!(from <= to && to <= limit))
        return convt3d_fail(err, CONVT3D_ARG,
                            "to is %g, but must be within from, which is %g, and %g for %s", to,
                            from, limit, convt3d_dtype_name(dtype));
    double range = dtype == CONVT3D_FLOAT64 ? to - from : (double)((float)to - (float)from);
    if (!(range <= limit))
        return convt3d_fail(err, CONVT3D_ARG,
                            "from is %g and to is %g, but to - from must be <= %g for %s", from, to,
                            limit, convt3d_dtype_name(dtype));
    return CONVT3D_OK;
}

convt3d_status convt3d_generator_uniform(convt3d_generator *generator, void *data,
                                         convt3d_dtype dtype, int64_t count, double from, double to,
                                         convt3d_error *err) {
    convt3d_status status = check_data(generator, data, dtype, count, err);
    if (!status) status = check_bounds(dtype, from, to, err);
    if (!status) convt3d_random_uniform(generator, data, dtype, count, from, to);
    return status;
}

convt3d_status convt3d_generator_normal(convt3d_generator *generator, void *data,
                                        convt3d_dtype dtype, int64_t count, convt3d_error *err) {
    convt3d_status status = check_data(generator, data, dtype, count, err);
    if (!status && convt3d_dtype_size(dtype) < sizeof(float))
        return convt3d_fail(err, CONVT3D_DTYPE,
                            "dtype is %s, but normal numbers are of float32 or float64",
                            convt3d_dtype_name(dtype));
    if (status) return status;
    if (count >= BLOCK) {
        normal_blocks(generator, data, dtype, count);
        return CONVT3D_OK;
    }
    for (int64_t i = 0; i < count; i++) {
        double value = normal_single(generator);
        if (dtype == CONVT3D_FLOAT32)
            ((float *)data)[i] = (float)value;
        else
            ((double *)data)[i] = value;
    }
    return CONVT3D_OK;
}
