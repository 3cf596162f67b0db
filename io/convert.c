/* convert: any dtype that files hold to float32 or float64.
 * SPDX-License-Identifier: MIT */
#include "private.h"

#include <math.h>
#include <string.h>

/* Binary16, exactly: every half is a float32.  Normal numbers and zeros move
 * by a change of exponent; subnormals are whole multiples of 2^-24. */
static float from_half(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = half >> 10 & 31, fraction = half & 1023;
    uint32_t bits = sign | (exponent + 112) << 23 | fraction << 13;
    if (exponent == 31) bits = sign | 0x7f800000 | fraction << 13; /* Inf, NaN */
    float value;
    memcpy(&value, &bits, sizeof value);
    if (exponent == 0) {
        value = ldexpf((float)fraction, -24);
        return sign ? -value : value;
    }
    return value;
}

static float from_bfloat16(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* One loop per pair of types; each conversion rounds once, to nearest.  A
 * float64 beyond float32 becomes Inf, as IEEE 754 has it. */
#define LOOP(TYPE, VALUE)                                                                          \
    do {                                                                                           \
        const TYPE *from = in;                                                                     \
        if (f32)                                                                                   \
            for (int64_t i = 0; i < count; i++) f32[i] = (float)(VALUE);                           \
        else                                                                                       \
            for (int64_t i = 0; i < count; i++) f64[i] = (double)(VALUE);                          \
    } while (0)

static void convert(io_dtype dtype, const void *in, int64_t count, float *f32, double *f64) {
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
    case IO_F16:
        LOOP(uint16_t, from_half(from[i]));
        break;
    case IO_BF16:
        LOOP(uint16_t, from_bfloat16(from[i]));
        break;
    case IO_F32:
        LOOP(float, from[i]);
        break;
    case IO_F64:
        LOOP(double, from[i]);
        break;
    }
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
    if (dtype != CONVT3D_FLOAT32 && dtype != CONVT3D_FLOAT64)
        return io_fail(err, CONVT3D_DTYPE, "array", "dtype %d is neither float32 nor float64",
                       (int)dtype);
    io_dtype to = dtype == CONVT3D_FLOAT32 ? IO_F32 : IO_F64;
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
    convert(array->dtype, array->data, dense_count(array), to == IO_F32 ? result.data : NULL,
            to == IO_F64 ? result.data : NULL);
    memcpy(result.stride, array->stride, sizeof result.stride);
    result.space = array->space;
    io_array_free(array);
    *array = result;
    return CONVT3D_OK;
}
