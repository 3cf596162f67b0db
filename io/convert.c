/* convert: any dtype that files hold to one of the library's.
 * SPDX-License-Identifier: MIT */
#include "private.h"

#include <string.h>

/* One loop per pair of types; each conversion rounds once, to nearest. */
#define LOOP(TYPE, VALUE)                                                                          \
    do {                                                                                           \
        const TYPE *from = in;                                                                     \
        if (f32)                                                                                   \
            for (int64_t i = 0; i < count; i++) f32[i] = (float)(VALUE);                           \
        else                                                                                       \
            for (int64_t i = 0; i < count; i++) f64[i] = (double)(VALUE);                          \
    } while (0)

static void from_integers(io_dtype dtype, const void *in, int64_t count, float *f32, double *f64) {
    switch (dtype) {
    case IO_BOOL:
        LOOP(uint8_t, from[i] != 0);
        break;
    case IO_U8:
        LOOP(uint8_t, from[i]);
        break;
    case IO_I8:
        LOOP(int8_t, from[i]);
        break;
    case IO_U16:
        LOOP(uint16_t, from[i]);
        break;
    case IO_I16:
        LOOP(int16_t, from[i]);
        break;
    case IO_U32:
        LOOP(uint32_t, from[i]);
        break;
    case IO_I32:
        LOOP(int32_t, from[i]);
        break;
    case IO_U64:
        LOOP(uint64_t, from[i]);
        break;
    case IO_I64:
        LOOP(int64_t, from[i]);
        break;
    default: /* floats: convt3d_convert() knows them */
        break;
    }
}

/* A double that becomes the same 16 bits as this integer would: of what is beyond its 53
 * bits, only whether there is any can matter to a rounding to so much fewer. */
static double to_fewer(uint64_t size) {
    enum {
        BEYOND = 0x7ff
    };
    if (size >> 53) size = (size | (size & BEYOND ? BEYOND + 1 : 0)) & ~(uint64_t)BEYOND;
    return (double)size;
}

static void from_large_integers(io_dtype dtype, const void *in, int64_t count, double *to) {
    const uint64_t *from = in; /* of int64, the bits */
    for (int64_t i = 0; i < count; i++) {
        int negative = dtype == IO_I64 && from[i] >> 63;
        to[i] = negative ? -to_fewer(0 - from[i]) : to_fewer(from[i]);
    }
}

/* Integers to 16 bits, by way of doubles, a chunk at a time. */
static convt3d_status integers_to_half(io_dtype from, const void *in, int64_t count,
                                       convt3d_dtype dtype, uint16_t *out, convt3d_error *err) {
    enum {
        CHUNK = 1024
    };
    double chunk[CHUNK];
    const char *bytes = in;
    for (int64_t i = 0; i < count; i += CHUNK) {
        int64_t n = count - i < CHUNK ? count - i : CHUNK;
        const char *at = bytes + i * (int64_t)io_dtype_size(from);
        if (from == IO_U64 || from == IO_I64)
            from_large_integers(from, at, n, chunk);
        else
            from_integers(from, at, n, NULL, chunk);
        convt3d_status status = convt3d_convert(out + i, dtype, chunk, CONVT3D_FLOAT64, n, err);
        if (status) return status;
    }
    return CONVT3D_OK;
}

static convt3d_status convert(io_dtype from, const void *in, int64_t count, convt3d_dtype dtype,
                              void *out, convt3d_error *err) {
    if (io_dtype_core(from))
        return convt3d_convert(out, dtype, in, io_dtype_core(from), count, err);
    if (convt3d_dtype_size(dtype) == 2) return integers_to_half(from, in, count, dtype, out, err);
    from_integers(from, in, count, dtype == CONVT3D_FLOAT32 ? out : NULL,
                  dtype == CONVT3D_FLOAT64 ? out : NULL);
    return CONVT3D_OK;
}

/* The number of elements, if they lie in a stretch of memory of that many
 * elements that begins with the first; else -1.  Such an array is converted as
 * the stretch, and its strides stay true. */
static int64_t dense_count(const io_array *array) {
    int64_t count = 1, last = 0;
    for (int32_t i = 0; i < array->rank; i++) {
        if (array->size[i] == 0) return 0;
        if (array->size[i] == 1) continue;
        if (array->stride[i] < 1) return -1;
        count *= array->size[i];
        last += array->stride[i] * (array->size[i] - 1);
    }
    return last == count - 1 ? count : -1;
}

/* A copy in C order. */
static convt3d_status copy_dense(const io_array *array, io_array *copy, convt3d_error *err) {
    convt3d_status status = io_array_create(array->dtype, array->rank, array->size, copy, err);
    if (status) return status;
    int64_t element = (int64_t)io_dtype_size(array->dtype);
    int64_t index[IO_MAX_RANK] = {0}, offset = 0;
    const char *from = array->data;
    char *to = copy->data;
    do {
        memcpy(to, from + offset * element, (size_t)element);
        to += element;
    } while (io_array_step(array, array->rank, index, &offset));
    copy->space = array->space;
    return CONVT3D_OK;
}

convt3d_status io_array_convert(io_array *array, convt3d_dtype dtype, convt3d_error *err) {
    io_dtype to = io_dtype_of(dtype);
    if (!to)
        return io_fail(err, CONVT3D_DTYPE, "array",
                       "dtype %d is none of float32, float64, bfloat16 and float16", (int)dtype);
    if (array->dtype == to) return CONVT3D_OK;
    convt3d_status status;
    if (dense_count(array) < 0) {
        io_array dense;
        status = copy_dense(array, &dense, err);
        if (status) return status;
        io_array_free(array);
        *array = dense;
    }
    io_array result;
    status = io_array_create(to, array->rank, array->size, &result, err);
    if (status) return status;
    status = convert(array->dtype, array->data, dense_count(array), dtype, result.data, err);
    if (status) {
        io_array_free(&result);
        return status;
    }
    memcpy(result.stride, array->stride, sizeof result.stride);
    result.space = array->space;
    io_array_free(array);
    *array = result;
    return CONVT3D_OK;
}
