/* error: the text of a failure, and names for people.
 * SPDX-License-Identifier: MIT */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>

const char *convt3d_version(void) {
#define STRINGIFY(x)     #x
#define VERSION(a, b, c) STRINGIFY(a) "." STRINGIFY(b) "." STRINGIFY(c)
    return VERSION(CONVT3D_VERSION_MAJOR, CONVT3D_VERSION_MINOR, CONVT3D_VERSION_PATCH);
}

const char *convt3d_status_name(convt3d_status status) {
    static const char *const names[] = {"OK",       "ARG",    "SHAPE",       "DTYPE",
                                        "OVERFLOW", "NOMEM",  "UNSUPPORTED", "CANCELLED",
                                        "IO",       "FORMAT", "NOTFOUND"};
    size_t i = (size_t)status;
    return i < sizeof names / sizeof *names ? names[i] : "unknown status";
}

convt3d_status convt3d_fail(convt3d_error *err, convt3d_status status, const char *format, ...) {
    if (err) {
        va_list args;
        va_start(args, format);
        err->status = status;
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
        /* The caller's own strings may be quoted in it: it stays one line. */
        for (char *c = err->text; *c; c++) {
            if ((unsigned char)*c < ' ' || *c == 127) *c = '?';
        }
    }
    return status;
}

convt3d_status convt3d_fail_nomem(convt3d_error *err, const char *what, size_t bytes) {
    return convt3d_fail(err, CONVT3D_NOMEM, "out of memory: %s needs %zu bytes", what, bytes);
}

const char *convt3d_axis_name(int axis) {
    static const char *const names[3] = {"depth", "height", "width"};
    return names[axis];
}

void convt3d_text_add(convt3d_text *text, const char *format, ...) {
    size_t room = text->length < text->size ? text->size - text->length : 0;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(room ? text->buffer + text->length : NULL, room, format, args);
    va_end(args);
    if (n > 0) text->length += (size_t)n;
}
