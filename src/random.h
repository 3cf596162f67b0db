/* random: the generator behind the default initial values.  It gives the very
 * numbers of PyTorch's CPU generator, so that a seed means the same there and
 * here.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_RANDOM_H
#define CONVT3D_RANDOM_H

#include "convt3d.h"

#define CONVT3D_RANDOM_STATE 624

typedef struct convt3d_random {
    uint32_t state[CONVT3D_RANDOM_STATE];
    int next; /* the state word that the next draw uses */
} convt3d_random;

/* As torch.manual_seed(seed). */
void convt3d_random_seed(convt3d_random *random, uint64_t seed);

/* As tensor.uniform_(from, to) on a contiguous tensor of 'count' elements. */
void convt3d_random_uniform(convt3d_random *random, void *data, convt3d_dtype dtype, int64_t count,
                            double from, double to);

#endif
