/* fuzz_array: what must hold of anything that a reader of io/ returns.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_FUZZ_ARRAY_H
#define CONVT3D_FUZZ_ARRAY_H

#include "io/private.h"
#include "require.h"

#include <string.h>

static void fuzz_check_failure(convt3d_status status, const convt3d_error *err,
                               const io_array *array) {
    REQUIRE(status == err->status);
    REQUIRE(status == CONVT3D_FORMAT || status == CONVT3D_DTYPE || status == CONVT3D_SHAPE ||
            status == CONVT3D_NOTFOUND);
    REQUIRE(memchr(err->text, 0, sizeof err->text) && strncmp(err->text, "input: ", 7) == 0);
    REQUIRE(!array->data && !array->owned);
}

/* Converts the array to float64 and visits all of it: a stride that leads out
 * of its memory is seen by the sanitizers.  Frees it. */
static void fuzz_check_array(io_array *array, size_t file_size) {
    int64_t index[IO_MAX_RANK] = {0}, offset = 0, count = 1;
    for (int i = 0; i < array->rank; i++) count *= array->size[i];
    /* In proportion to the file: deflate's best, and int16 scaled to float64. */
    REQUIRE(count <= (int64_t)file_size * 1032 * 8);
    convt3d_status status = io_array_convert(array, CONVT3D_FLOAT64, NULL);
    /* The strides of an empty array may fit 64 bits only until it is widened. */
    REQUIRE(status == CONVT3D_OK || (status == CONVT3D_OVERFLOW && count == 0));
    if (status) {
        io_array_free(array);
        return;
    }
    double sum = 0;
    if (count) {
        do sum += ((double *)array->data)[offset];
        while (io_array_step(array, array->rank, index, &offset) && --count);
        REQUIRE(count == 1);
    }
    volatile double kept = sum;
    (void)kept;
    io_array_free(array);
}

#endif
