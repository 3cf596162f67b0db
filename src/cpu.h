/* cpu: what this machine has.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_CPU_H
#define CONVT3D_CPU_H

#include "convt3d.h"
#include "kernel.h"

/* The kernels of a forced isa, of $CONVT3D_ISA, or the best that this CPU has. */
convt3d_status convt3d_kernels_choose(const char *isa, const convt3d_kernels **kernels,
                                      convt3d_error *err);

/* The number of threads asked for (0: $CONVT3D_NUM_THREADS, or all CPUs). */
convt3d_status convt3d_threads_choose(int32_t asked, int32_t *threads, convt3d_error *err);

#endif
