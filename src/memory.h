/* memory: blocks that a run works in.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_MEMORY_H
#define CONVT3D_MEMORY_H

#include <stddef.h>

/* As malloc(), for free(); a large block on huge pages, where the system has them. */
void *convt3d_allocate(size_t bytes);

#endif
