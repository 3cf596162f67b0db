/* fail: how every function of io/ reports a failure.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "private.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A long path must leave room for what is wrong with it; its end says more
 * than its beginning. */
enum {
    PATH_SHOWN = 200
};

convt3d_status io_fail(convt3d_error *err, convt3d_status status, const char *path,
                       const char *format, ...) {
    if (!err) return status;
    size_t length = strlen(path);
    const char *cut = length > PATH_SHOWN ? "..." : "";
    if (length > PATH_SHOWN) path += length - PATH_SHOWN;
    err->status = status;
    int n = snprintf(err->text, sizeof err->text, "%s%s: ", cut, path);
    va_list args;
    va_start(args, format);
    vsnprintf(err->text + n, sizeof err->text - (size_t)n, format, args);
    va_end(args);
    for (char *c = err->text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f) *c = '?';
    return status;
}

convt3d_status io_fail_system(convt3d_error *err, const char *path, const char *what, int error) {
    char text[128];
    return io_fail(err, CONVT3D_IO, path, "%s: %s", what, strerror_r(error, text, sizeof text));
}

convt3d_status io_fail_nomem(convt3d_error *err, const char *path, size_t bytes) {
    return io_fail(err, CONVT3D_NOMEM, path, "out of memory: %zu bytes needed", bytes);
}

convt3d_status io_fail_written(convt3d_error *err, const char *path, io_dtype dtype) {
    return io_fail(err, CONVT3D_DTYPE, path,
                   "only float32, float64, bfloat16 and float16 are written, not %s",
                   io_dtype_name(dtype));
}
