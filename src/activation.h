/* activation: the functions that forward may apply to its output, by name and by
 * the C library's mathematics.  The float32 kernels are in kernels/activate.inc.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_ACTIVATION_H
#define CONVT3D_ACTIVATION_H

#include "convt3d.h"

/* f(x) in double: the reference, and every ISA's float64. */
double convt3d_activation_value(convt3d_activation activation, double negative_slope, double x);

#endif
