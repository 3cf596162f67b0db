/* number: what dtypes there are, and arrays from one to another.
 * SPDX-License-Identifier: MIT */
#include "number.h"
#include "error.h"

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {[CONVT3D_FLOAT32] = {"float32", 4},
              [CONVT3D_FLOAT64] = {"float64", 8},
              [CONVT3D_BFLOAT16] = {"bfloat16", 2},
              [CONVT3D_FLOAT16] = {"float16", 2}};

static int is_known(convt3d_dtype dtype) {
    return (unsigned)dtype < sizeof dtypes / sizeof *dtypes;
}

const char *convt3d_dtype_name(convt3d_dtype dtype) {
    return is_known(dtype) ? dtypes[dtype].name : NULL;
}

size_t convt3d_dtype_size(convt3d_dtype dtype) {
    return is_known(dtype) ? dtypes[dtype].size : 0;
}

/* The nearest float, or, of the two around the value, the one whose last bit is 1: another
 * rounding, to fewer bits, then comes to what it would have come to at once. */
static float to_odd(double value) {
    const float near = (float)value;
    uint32_t bits = convt3d_bits(near);
    if ((double)near == value || value != value || bits & 1) return near;
    const int beyond = value < 0 ? (double)near < value : (double)near > value;
    bits += beyond ? UINT32_MAX : 1; /* one less, where 'near' is beyond it */
    return convt3d_float(bits);
}

/* These two are specialised where the dtype is a constant. */
#define INLINE static inline __attribute__((always_inline))

INLINE double get(convt3d_dtype dtype, const void *from) {
    float single;
    double dual;
    uint16_t half;
    switch (dtype) {
    case CONVT3D_FLOAT32:
        memcpy(&single, from, sizeof single);
        return (double)single;
    case CONVT3D_FLOAT64:
        memcpy(&dual, from, sizeof dual);
        return dual;
    default:
        memcpy(&half, from, sizeof half);
        return (double)(dtype == CONVT3D_BFLOAT16 ? convt3d_from_bf16(half)
                                                  : convt3d_from_f16(half));
    }
}

INLINE void put(convt3d_dtype dtype, void *to, double value) {
    const float single = (float)value;
    uint16_t half;
    switch (dtype) {
    case CONVT3D_FLOAT32:
        memcpy(to, &single, sizeof single);
        break;
    case CONVT3D_FLOAT64:
        memcpy(to, &value, sizeof value);
        break;
    default:
        half = dtype == CONVT3D_BFLOAT16 ? convt3d_to_bf16(to_odd(value))
                                         : convt3d_to_f16(to_odd(value));
        memcpy(to, &half, sizeof half);
    }
}

double convt3d_number_get(convt3d_dtype dtype, const void *from) {
    return get(dtype, from);
}

void convt3d_number_put(convt3d_dtype dtype, void *to, double value) {
    put(dtype, to, value);
}

convt3d_status convt3d_array_check(const void *data, const char *name, convt3d_dtype dtype,
                                   const char *dtype_name, int64_t count, convt3d_error *err) {
    const int64_t element = (int64_t)convt3d_dtype_size(dtype);
    if (!element)
        return convt3d_fail(err, CONVT3D_DTYPE, "%s is %d, but must be 1 to 4 (convt3d_dtype)",
                            dtype_name, (int)dtype);
    if (count < 0)
        return convt3d_fail(err, CONVT3D_ARG, "count is %lld, but must be >= 0", (long long)count);
    if (count > (int64_t)(PTRDIFF_MAX / element))
        return convt3d_fail(err, CONVT3D_OVERFLOW,
                            "count is %lld, but no more than %lld elements of %s fit into memory",
                            (long long)count, (long long)(PTRDIFF_MAX / element),
                            convt3d_dtype_name(dtype));
    if (!data && count)
        return convt3d_fail(err, CONVT3D_ARG, "%s is NULL, but count is %lld", name,
                            (long long)count);
    return CONVT3D_OK;
}

/* A loop for each pair of dtypes, the constants of which it is made of. */
#define LOOP(to_type, from_type)                                                                   \
    case from_type:                                                                                \
        for (int64_t i = 0; i < count; i++)                                                        \
            put(to_type, (char *)to + i * (int64_t)dtypes[to_type].size,                           \
                get(from_type, (const char *)from + i * (int64_t)dtypes[from_type].size));         \
        break;
#define LOOPS(to_type)                                                                             \
    case to_type:                                                                                  \
        switch (from_dtype) {                                                                      \
            LOOP(to_type, CONVT3D_FLOAT32)                                                         \
            LOOP(to_type, CONVT3D_FLOAT64)                                                         \
            LOOP(to_type, CONVT3D_BFLOAT16)                                                        \
            LOOP(to_type, CONVT3D_FLOAT16)                                                         \
        }                                                                                          \
        break;

convt3d_status convt3d_convert(void *to, convt3d_dtype to_dtype, const void *from,
                               convt3d_dtype from_dtype, int64_t count, convt3d_error *err) {
    convt3d_status status = convt3d_array_check(to, "to", to_dtype, "to_dtype", count, err);
    if (!status) status = convt3d_array_check(from, "from", from_dtype, "from_dtype", count, err);
    if (status) return status;
    switch (to_dtype) {
        LOOPS(CONVT3D_FLOAT32)
        LOOPS(CONVT3D_FLOAT64)
        LOOPS(CONVT3D_BFLOAT16)
        LOOPS(CONVT3D_FLOAT16)
    }
    return CONVT3D_OK;
}
