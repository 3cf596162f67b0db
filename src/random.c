/* random: MT19937 (Matsumoto and Nishimura 1998), drawn from as PyTorch does.
 *
 * The generator is a linear recurrence over 624 words of 32 bits; a draw takes
 * the next word and tempers it.  What is PyTorch's own, and not the paper's, is
 * the way from bits to floating point: see convt3d_random_uniform().
 * SPDX-License-Identifier: MIT */
#include "random.h"

#include <math.h>

enum {
    WORDS = CONVT3D_RANDOM_STATE,
    MIDDLE = 397 /* the paper's m: how far ahead the recurrence looks */
};

void convt3d_random_seed(convt3d_random *random, uint64_t seed) {
    /* PyTorch takes 64 bits of seed but its CPU generator is seeded by the low
     * 32 of them: seeds that differ by 2^32 give the same values. */
    uint32_t word = (uint32_t)seed;
    for (int i = 0; i < WORDS; i++) {
        random->state[i] = word;
        word = UINT32_C(1812433253) * (word ^ word >> 30) + (uint32_t)i + 1;
    }
    random->next = WORDS;
}

/* One step of the recurrence for all words, in place: word i needs only words
 * that this pass hasn't reached (i, i+1) or has already renewed (i+m-n). */
static void renew(convt3d_random *random) {
    uint32_t *s = random->state;
    for (int i = 0; i < WORDS; i++) {
        uint32_t joined =
            (s[i] & UINT32_C(0x80000000)) | (s[(i + 1) % WORDS] & UINT32_C(0x7fffffff));
        uint32_t twist = joined & 1 ? UINT32_C(0x9908b0df) : 0;
        s[i] = s[(i + MIDDLE) % WORDS] ^ joined >> 1 ^ twist;
    }
    random->next = 0;
}

static uint32_t draw32(convt3d_random *random) {
    if (random->next == WORDS) renew(random);
    uint32_t x = random->state[random->next++];
    x ^= x >> 11;
    x ^= x << 7 & UINT32_C(0x9d2c5680);
    x ^= x << 15 & UINT32_C(0xefc60000);
    return x ^ x >> 18;
}

/* The first of the two draws is the high half. */
static uint64_t draw64(convt3d_random *random) {
    uint64_t high = draw32(random);
    return high << 32 | draw32(random);
}

void convt3d_random_uniform(convt3d_random *random, void *data, convt3d_dtype dtype, int64_t count,
                            double from, double to) {
    /* The low bits of a draw, as many as the significand holds, are a fraction
     * r in [0, 1).  r*(to - from) + from is rounded once: a product rounded on
     * its own would change half of all values by one bit. */
    if (dtype == CONVT3D_FLOAT32) {
        float *out = data;
        float start = (float)from;
        float range = (float)to - start;
        for (int64_t i = 0; i < count; i++) {
            float r = (float)(draw32(random) & UINT32_C(0xffffff)) * 0x1p-24f;
            out[i] = fmaf(r, range, start);
        }
    } else {
        double *out = data;
        double range = to - from;
        for (int64_t i = 0; i < count; i++) {
            double r = (double)(draw64(random) & UINT64_C(0x1fffffffffffff)) * 0x1p-53;
            out[i] = fma(r, range, from);
        }
    }
}
