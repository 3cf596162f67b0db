/* error: how every function of the core reports a failure.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_ERROR_H
#define CONVT3D_ERROR_H

#include "convt3d.h"

#if defined(__GNUC__)
#define CONVT3D_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define CONVT3D_PRINTF(fmt, args)
#endif

/* Fills 'err', if there is one, and returns 'status': return convt3d_fail(...). */
convt3d_status convt3d_fail(convt3d_error *err, convt3d_status status, const char *format, ...)
    CONVT3D_PRINTF(3, 4);

/* NOMEM, naming what the bytes were for. */
convt3d_status convt3d_fail_nomem(convt3d_error *err, const char *what, size_t bytes);

/* "depth", "height", "width". */
const char *convt3d_axis_name(int axis);

/* A text that is built piece by piece into a buffer that may be too small:
 * 'length' goes on counting, as snprintf does. */
typedef struct convt3d_text {
    char *buffer;
    size_t size;
    size_t length;
} convt3d_text;

void convt3d_text_add(convt3d_text *text, const char *format, ...) CONVT3D_PRINTF(2, 3);

#endif
