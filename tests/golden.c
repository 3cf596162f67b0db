/* golden: reading the files of tests/golden.
 * SPDX-License-Identifier: MIT */
#include "golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define FOLDER CONVT3D_SOURCE_DIR "/tests/golden/"

io_safetensors *golden_open(const char *name) {
    char path[1024];
    io_safetensors *file = NULL;
    convt3d_error err;
    snprintf(path, sizeof path, "%s%s", FOLDER, name);
    if (io_safetensors_open(path, &file, &err)) fail_msg("%s", err.text);
    return file;
}

io_array golden_read(io_safetensors *file, const char *name, const char *part, io_dtype dtype) {
    char key[128];
    io_array array;
    convt3d_error err;
    memset(&array, 0, sizeof array);
    snprintf(key, sizeof key, "%s/%s", name, part);
    if (io_safetensors_read(file, key, &array, &err)) fail_msg("%s", err.text);
    if (array.dtype != dtype)
        fail_msg("%s is %s, not %s", key, io_dtype_name(array.dtype), io_dtype_name(dtype));
    int64_t stride = 1;
    for (int i = array.rank - 1; i >= 0; i--) {
        assert_int_equal(array.stride[i], stride);
        stride *= array.size[i];
    }
    return array;
}

int golden_lines(const char *name, void (*each)(char *line, void *data), void *data) {
    char path[1024], line[512];
    int count = 0;
    snprintf(path, sizeof path, "%s%s", FOLDER, name);
    FILE *file = fopen(path, "r");
    if (!file) fail_msg("can't open %s", path);
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        each(line, data);
        count++;
    }
    fclose(file);
    return count;
}

int64_t golden_count(const io_array *array) {
    int64_t count = 1;
    for (int i = 0; i < array->rank; i++) count *= array->size[i];
    return count;
}

real *golden_values(const io_array *array) {
    int64_t count = golden_count(array);
    real *values = malloc((size_t)count * sizeof *values);
    assert_non_null(values);
    for (int64_t i = 0; i < count; i++)
        values[i] = array->dtype == IO_F32 ? (real)((const float *)array->data)[i]
                                           : (real)((const double *)array->data)[i];
    return values;
}

convt3d_tensor golden_tensor(const io_array *array) {
    convt3d_dtype dtype = array->dtype == IO_F32 ? CONVT3D_FLOAT32 : CONVT3D_FLOAT64;
    return convt3d_tensor_dense(array->data, dtype, array->rank, array->size);
}

uint64_t golden_hash(const void *bytes, size_t size) {
    const unsigned char *at = bytes;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < size; i++) hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    return hash;
}
