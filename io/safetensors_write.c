/* safetensors_write: writing .safetensors files.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "private.h"

#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory ------------------------------------------------------------------- */

/* jansson doesn't always tell a failed allocation from bad text, and may go on
 * without a value; so they are noted where they happen. */
static __thread int short_of_memory;

static void *allocate(size_t bytes) {
    void *memory = malloc(bytes);
    if (!memory) short_of_memory = 1;
    return memory;
}

static void set_functions(void) {
    json_set_alloc_funcs(allocate, free);
}

void io_json_begin(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, set_functions);
    short_of_memory = 0;
}

int io_json_short_of_memory(void) {
    return short_of_memory;
}

/* ---- the header ---------------------------------------------------------------- */

/* Adds 'value' (which is taken over) under a key that isn't there yet.  Fails
 * for text that isn't UTF-8, which JSON can't hold. */
static convt3d_status add(json_t *object, const char *path, const char *key, json_t *value,
                          convt3d_error *err) {
    if (json_object_get(object, key)) {
        json_decref(value);
        return io_fail(err, CONVT3D_ARG, path, "the name '%.80s' is there twice", key);
    }
    if (json_object_set_new(object, key, value) != 0)
        return io_fail(err, CONVT3D_ARG, path, "'%.80s' or its value isn't UTF-8 text", key);
    return CONVT3D_OK;
}

/* The strings of __metadata__, if there are any. */
static convt3d_status add_metadata(json_t *header, const char *path, const char *const *metadata,
                                   int pairs, convt3d_error *err) {
    if (!pairs) return CONVT3D_OK;
    json_t *strings = json_object();
    convt3d_status status = add(header, path, "__metadata__", strings, err);
    for (int i = 0; i < pairs && !status; i++)
        status = add(strings, path, metadata[2 * i], json_string(metadata[2 * i + 1]), err);
    return status;
}

/* What the format calls the types that are written; NULL for any other. */
static const char *type_name(io_dtype dtype) {
    switch (dtype) {
    case IO_F16:
        return "F16";
    case IO_BF16:
        return "BF16";
    case IO_F32:
        return "F32";
    case IO_F64:
        return "F64";
    default:
        return NULL;
    }
}

static convt3d_status add_tensor(json_t *header, const char *path, const io_named *tensor,
                                 int64_t *offset, convt3d_error *err) {
    const io_array *array = tensor->array;
    if (!tensor->name[0] || strcmp(tensor->name, "__metadata__") == 0)
        return io_fail(err, CONVT3D_ARG, path, "a tensor can't have the name '%s'", tensor->name);
    int64_t begin = *offset, bytes = io_shape_bytes(array->dtype, array->rank, array->size);
    if (bytes < 0 || __builtin_add_overflow(begin, bytes, offset))
        return io_fail(err, CONVT3D_OVERFLOW, path, "its bytes can't be counted in 64 bits");
    json_t *shape = json_array();
    for (int32_t i = 0; i < array->rank; i++)
        json_array_append_new(shape, json_integer(array->size[i]));
    json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", type_name(array->dtype), "shape",
                              shape, "data_offsets", (json_int_t)begin, (json_int_t)*offset);
    return add(header, path, tensor->name, entry, err);
}

/* Large elements first, so that every tensor is aligned if the data are: the
 * order that other readers expect.  Returns
 * the tensor at 'index' in it. */
static const io_named *in_order(const io_named *tensors, int count, int index) {
    for (size_t size = 8; size >= 2; size /= 2)
        for (int i = 0; i < count; i++)
            if (io_dtype_size(tensors[i].array->dtype) == size && index-- == 0) return &tensors[i];
    return NULL;
}

static convt3d_status write_header(io_writer *writer, const json_t *header, convt3d_error *err) {
    char *text = json_dumps(header, JSON_COMPACT);
    if (!text) return io_fail_nomem(err, writer->path, 1u << 12);
    size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)(padded >> 8 * i);
    convt3d_status status = io_writer_write(writer, bytes, sizeof bytes, err);
    if (!status) status = io_writer_write(writer, text, length, err);
    if (!status) status = io_writer_write(writer, "       ", padded - length, err);
    free(text);
    return status;
}

static convt3d_status write_file(const char *path, const json_t *header, const io_named *tensors,
                                 int count, convt3d_error *err) {
    io_writer writer;
    convt3d_status status = io_writer_open(&writer, path, 0, err);
    if (status) return status;
    status = write_header(&writer, header, err);
    for (int i = 0; i < count && !status; i++)
        status = io_writer_array(&writer, in_order(tensors, count, i)->array, err);
    if (!status) return io_writer_commit(&writer, err);
    io_writer_abort(&writer);
    return status;
}

convt3d_status io_safetensors_write(const char *path, const io_named *tensors, int count,
                                    const char *const *metadata, int pairs, convt3d_error *err) {
    for (int i = 0; i < count; i++)
        if (!type_name(tensors[i].array->dtype))
            return io_fail_written(err, path, tensors[i].array->dtype);
    io_json_begin();
    json_t *header = json_object();
    if (!header) return io_fail_nomem(err, path, 1u << 12);
    int64_t offset = 0;
    convt3d_status status = add_metadata(header, path, metadata, pairs, err);
    for (int i = 0; i < count && !status; i++)
        status = add_tensor(header, path, in_order(tensors, count, i), &offset, err);
    /* Also where jansson went on without a size or a name. */
    if (io_json_short_of_memory()) status = io_fail_nomem(err, path, 1u << 12);
    if (!status) status = write_file(path, header, tensors, count, err);
    json_decref(header);
    return status;
}
