/* random: the generator behind initial values.  It gives the very numbers of
 * PyTorch's CPU generator, so that a seed means the same there and here.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_RANDOM_H
#define CONVT3D_RANDOM_H

#include "convt3d.h"

#define CONVT3D_RANDOM_STATE 624

struct convt3d_generator {
    uint32_t state[CONVT3D_RANDOM_STATE];
    int next; /* the state word that the next draw uses */
    int kept; /* 1: 'normal' waits for the next small call for normal numbers */
    double normal;
};

/* convt3d_generator_uniform() for arguments that are known to be legal. */
void convt3d_random_uniform(convt3d_generator *generator, void *data, convt3d_dtype dtype,
                            int64_t count, double from, double to);

#endif
