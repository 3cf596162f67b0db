/* tensor: from the caller's descriptions to views that are known to fit.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_TENSOR_H
#define CONVT3D_TENSOR_H

#include "problem.h"

/* A checked tensor, always with five axes (bias: one, the rest of size 1).
 * Strides are in elements; those of axes of size 1 are 0. */
typedef struct convt3d_view {
    char *data;
    convt3d_dtype dtype;
    int64_t size[5];
    int64_t stride[5];
    uintptr_t low, high; /* the byte range it touches; low == high if empty */
    const char *name;
} convt3d_view;

typedef enum convt3d_role {
    CONVT3D_ROLE_DATA,   /* (N, C, D, H, W), or (C, D, H, W) where N is 1 */
    CONVT3D_ROLE_WEIGHT, /* (in_channels, out_channels/groups, kD, kH, kW) */
    CONVT3D_ROLE_BIAS    /* (out_channels) */
} convt3d_role;

/* Checks a tensor against the five sizes (bias: one) that it must have, and the dtype; 'or_float':
 * it may also be float32 where the dtype is one of 16 bits. */
convt3d_status convt3d_view_check(const convt3d_tensor *tensor, const char *name, convt3d_role role,
                                  convt3d_dtype dtype, int or_float, const int64_t *shape,
                                  convt3d_view *view, convt3d_error *err);

/* An output must not overlap itself. */
convt3d_status convt3d_view_check_output(const convt3d_view *output, convt3d_error *err);

/* Nor the byte range of any other tensor of the call. */
convt3d_status convt3d_view_check_apart(const convt3d_view *output, const convt3d_view *other,
                                        convt3d_error *err);

#endif
