/* array: arrays that own their memory, and walks over them.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {[IO_BOOL] = {"bool", 1},   [IO_U8] = {"uint8", 1},      [IO_I8] = {"int8", 1},
              [IO_U16] = {"uint16", 2},  [IO_I16] = {"int16", 2},     [IO_U32] = {"uint32", 4},
              [IO_I32] = {"int32", 4},   [IO_U64] = {"uint64", 8},    [IO_I64] = {"int64", 8},
              [IO_F16] = {"float16", 2}, [IO_BF16] = {"bfloat16", 2}, [IO_F32] = {"float32", 4},
              [IO_F64] = {"float64", 8}};

size_t io_dtype_size(io_dtype dtype) {
    return dtype >= IO_BOOL && dtype <= IO_F64 ? dtypes[dtype].size : 0;
}

const char *io_dtype_name(io_dtype dtype) {
    return dtype >= IO_BOOL && dtype <= IO_F64 ? dtypes[dtype].name : "unknown dtype";
}

static const io_dtype of_core[] = {[CONVT3D_FLOAT32] = IO_F32,
                                   [CONVT3D_FLOAT64] = IO_F64,
                                   [CONVT3D_BFLOAT16] = IO_BF16,
                                   [CONVT3D_FLOAT16] = IO_F16};
enum {
    CORE_DTYPES = sizeof of_core / sizeof *of_core
};

io_dtype io_dtype_of(convt3d_dtype dtype) {
    return (unsigned)dtype < CORE_DTYPES ? of_core[dtype] : (io_dtype)0;
}

convt3d_dtype io_dtype_core(io_dtype dtype) {
    unsigned core = dtype ? CORE_DTYPES - 1 : 0;
    while (core && of_core[core] != dtype) core--;
    return (convt3d_dtype)core;
}

void io_array_free(io_array *array) {
    free(array->owned);
    memset(array, 0, sizeof *array);
}

int64_t io_shape_bytes(io_dtype dtype, int32_t rank, const int64_t *size) {
    /* Zeros count as ones here: an empty array has strides too. */
    int64_t bytes = (int64_t)io_dtype_size(dtype);
    int empty = 0;
    for (int32_t i = 0; i < rank; i++) {
        if (size[i] == 0)
            empty = 1;
        else if (__builtin_mul_overflow(bytes, size[i], &bytes))
            return -1;
    }
    return empty ? 0 : bytes;
}

/* Calloc() takes large blocks from the system, zeroed when they are first
 * touched; by then the advice has made that one fault in 2 MiB and not in
 * 4 KiB.  It is only advice: its failure changes nothing. */
static void *allocate(size_t bytes) {
    void *memory = calloc(1, bytes);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (memory && bytes >= (size_t)4 << 20) {
        uintptr_t first = ((uintptr_t)memory + page - 1) / page * page;
        uintptr_t last = ((uintptr_t)memory + bytes) / page * page;
        madvise((void *)first, last - first, MADV_HUGEPAGE);
    }
    return memory;
}

enum {
    ALIGNMENT = 64
}; /* a cache line, and the widest vector */

convt3d_status io_array_create(io_dtype dtype, int32_t rank, const int64_t *size, io_array *array,
                               convt3d_error *err) {
    return io_array_create_for("array", dtype, rank, size, array, err);
}

convt3d_status io_array_create_for(const char *path, io_dtype dtype, int32_t rank,
                                   const int64_t *size, io_array *array, convt3d_error *err) {
    memset(array, 0, sizeof *array);
    if (!io_dtype_size(dtype))
        return io_fail(err, CONVT3D_DTYPE, path, "dtype %d is unknown", (int)dtype);
    if (rank < 0 || rank > IO_MAX_RANK)
        return io_fail(err, CONVT3D_ARG, path, "rank %d isn't in 0..%d", (int)rank, IO_MAX_RANK);
    for (int32_t i = 0; i < rank; i++)
        if (size[i] < 0)
            return io_fail(err, CONVT3D_ARG, path, "size %lld on axis %d is below 0",
                           (long long)size[i], (int)i);
    int64_t bytes = io_shape_bytes(dtype, rank, size);
    if (bytes < 0 || bytes > PTRDIFF_MAX - ALIGNMENT)
        return io_fail(err, CONVT3D_OVERFLOW, path, "its bytes can't be counted in 64 bits");
    void *owned = allocate((size_t)bytes + ALIGNMENT);
    if (!owned) return io_fail_nomem(err, path, (size_t)bytes + ALIGNMENT);
    array->owned = owned;
    array->data = (void *)(((uintptr_t)owned + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    array->dtype = dtype;
    array->rank = rank;
    int64_t stride = 1;
    for (int32_t i = rank; i-- > 0;) {
        array->size[i] = size[i];
        array->stride[i] = stride;
        if (size[i]) stride *= size[i];
    }
    return CONVT3D_OK;
}

int io_array_step(const io_array *array, int32_t axes, int64_t *index, int64_t *offset) {
    for (int32_t i = axes; i-- > 0;) {
        *offset += array->stride[i];
        if (++index[i] < array->size[i]) return 1;
        *offset -= array->stride[i] * array->size[i];
        index[i] = 0;
    }
    return 0;
}

/* Elements go out in runs that lie together in memory, as long as there are. */
convt3d_status io_writer_array(io_writer *writer, const io_array *array, convt3d_error *err) {
    size_t element = io_dtype_size(array->dtype);
    int64_t index[IO_MAX_RANK] = {0}, offset = 0, run = 1;
    for (int32_t i = 0; i < array->rank; i++)
        if (!array->size[i]) return CONVT3D_OK;
    int32_t axes = array->rank;
    while (axes > 0 && (array->size[axes - 1] == 1 || array->stride[axes - 1] == run))
        run *= array->size[--axes];
    const char *data = array->data;
    do {
        convt3d_status status =
            io_writer_write(writer, data + offset * (int64_t)element, (size_t)run * element, err);
        if (status) return status;
    } while (io_array_step(array, axes, index, &offset));
    return CONVT3D_OK;
}

/* Reverses the bytes of each of 'count' elements. */
void io_swap_bytes(void *data, int64_t count, size_t size) {
    uint16_t *two = data;
    uint32_t *four = data;
    uint64_t *eight = data;
    for (int64_t i = 0; i < count; i++) {
        if (size == 2)
            two[i] = __builtin_bswap16(two[i]);
        else if (size == 4)
            four[i] = __builtin_bswap32(four[i]);
        else if (size == 8)
            eight[i] = __builtin_bswap64(eight[i]);
    }
}
