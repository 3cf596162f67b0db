/* safetensors: reading .safetensors files.
 *
 * A file is: the header's length (8 bytes, little-endian), the header (JSON:
 * name -> dtype, shape, data_offsets), the data.  jansson reads the JSON, after
 * a scan that bounds what it may be made to build; all that the header says is
 * checked against the file once, on opening.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "private.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* The format's own limit on the header, and ours on the values in it: jansson
 * needs a few hundred bytes for each.  150,000 tensors have a million. */
enum {
    HEADER_MOST = 100000000,
    VALUES_MOST = 1 << 20,
    DEPTH_MOST = 3
};

static const char metadata_key[] = "__metadata__";

typedef struct tensor_entry {
    const char *name; /* owned by the JSON */
    const char *dtype_name;
    io_dtype dtype; /* 0: a type of the format that io doesn't compute with */
    int64_t rank;
    int64_t size[IO_MAX_RANK];
    int64_t begin, end; /* in the data */
} tensor_entry;

struct io_safetensors {
    io_source source;
    char *path;
    json_t *header;
    tensor_entry *entries;
    int count;
    int64_t data; /* where the data begin, and their bytes */
    int64_t data_size;
};

/* The types of the format; a few have less than 8 bits. */
static const struct {
    const char *name;
    io_dtype dtype;
    int bits;
} types[] = {{"BOOL", IO_BOOL, 8},
             {"U8", IO_U8, 8},
             {"I8", IO_I8, 8},
             {"U16", IO_U16, 16},
             {"I16", IO_I16, 16},
             {"U32", IO_U32, 32},
             {"I32", IO_I32, 32},
             {"U64", IO_U64, 64},
             {"I64", IO_I64, 64},
             {"F16", IO_F16, 16},
             {"BF16", IO_BF16, 16},
             {"F32", IO_F32, 32},
             {"F64", IO_F64, 64},
             {"F8_E4M3", (io_dtype)0, 8},
             {"F8_E5M2", (io_dtype)0, 8},
             {"F8_E8M0", (io_dtype)0, 8},
             {"C64", (io_dtype)0, 64},
             {"F4", (io_dtype)0, 4},
             {"F6_E2M3", (io_dtype)0, 6},
             {"F6_E3M2", (io_dtype)0, 6}};

static convt3d_status bad_entry(const io_safetensors *file, const char *name, const char *what,
                                convt3d_error *err) {
    return io_fail(err, CONVT3D_FORMAT, file->path, "bad safetensors header: tensor '%.80s': %s",
                   name, what);
}

/* ---- the JSON ----------------------------------------------------------------- */

/* Counts brackets and commas outside of strings.  Whether the text is JSON at
 * all is for jansson to say. */
static int is_modest(const char *text, size_t length) {
    int depth = 0, quoted = 0;
    long values = 0;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (quoted) {
            if (c == '\\')
                i++;
            else if (c == '"')
                quoted = 0;
            continue;
        }
        quoted = c == '"';
        depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        values += c == ',';
        if (depth > DEPTH_MOST || values > VALUES_MOST) return 0;
    }
    return 1;
}

static convt3d_status parse_json(io_safetensors *file, const char *text, size_t length,
                                 convt3d_error *err) {
    json_error_t error;
    if (text[0] != '{')
        return io_fail(err, CONVT3D_FORMAT, file->path,
                       "bad safetensors header: no '{' at its start");
    if (!is_modest(text, length))
        return io_fail(err, CONVT3D_FORMAT, file->path,
                       "bad safetensors header: nested deeper than %d, or more than %d values",
                       DEPTH_MOST, VALUES_MOST);
    io_json_begin();
    file->header = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (!file->header && io_json_short_of_memory()) return io_fail_nomem(err, file->path, length);
    if (!file->header)
        return io_fail(err, CONVT3D_FORMAT, file->path, "bad safetensors header: byte %d: %s",
                       error.position, error.text);
    return CONVT3D_OK;
}

static convt3d_status read_header(io_safetensors *file, convt3d_error *err) {
    unsigned char bytes[8];
    convt3d_status status = io_source_read(&file->source, bytes, sizeof bytes, err);
    if (status) return status;
    uint64_t length = 0;
    for (int i = 8; i-- > 0;) length = length << 8 | bytes[i];
    int64_t most = file->source.size - 8;
    if (most > HEADER_MOST) most = HEADER_MOST;
    if (length < 2 || length > (uint64_t)most)
        return io_fail(err, CONVT3D_FORMAT, file->path,
                       "bad safetensors header: its length %" PRIu64 " isn't in 2..%" PRId64,
                       length, most);
    file->data = 8 + (int64_t)length;
    file->data_size = file->source.size - file->data;
    char *text = malloc((size_t)length);
    if (!text) return io_fail_nomem(err, file->path, (size_t)length);
    status = io_source_read(&file->source, text, (int64_t)length, err);
    if (!status) status = parse_json(file, text, (size_t)length, err);
    free(text);
    return status;
}

/* ---- the entries -------------------------------------------------------------- */

static convt3d_status parse_dtype(const io_safetensors *file, tensor_entry *entry, int *bits,
                                  convt3d_error *err) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(entry->dtype_name, types[i].name) == 0) {
            entry->dtype = types[i].dtype;
            *bits = types[i].bits;
            return CONVT3D_OK;
        }
    return io_fail(err, CONVT3D_DTYPE, file->path, "tensor '%.80s' has the unknown dtype '%.40s'",
                   entry->name, entry->dtype_name);
}

/* Reads the shape, and the bits that it makes; a shape with a zero in it must
 * be countable too. */
static convt3d_status parse_shape(const io_safetensors *file, tensor_entry *entry,
                                  const json_t *shape, int64_t *bits, convt3d_error *err) {
    int empty = 0;
    entry->rank = (int64_t)json_array_size(shape);
    for (size_t i = 0; i < json_array_size(shape); i++) {
        const json_t *value = json_array_get(shape, i);
        if (!json_is_integer(value) || json_integer_value(value) < 0)
            return bad_entry(file, entry->name, "'shape' isn't all integers >= 0", err);
        int64_t size = json_integer_value(value);
        if (i < IO_MAX_RANK) entry->size[i] = size;
        if (size == 0)
            empty = 1;
        else if (__builtin_mul_overflow(*bits, size, bits))
            return bad_entry(file, entry->name, "'shape' is beyond 64 bits", err);
    }
    if (empty) *bits = 0;
    return CONVT3D_OK;
}

static convt3d_status parse_entry(const io_safetensors *file, tensor_entry *entry,
                                  const json_t *value, convt3d_error *err) {
    const json_t *dtype = json_object_get(value, "dtype"), *shape = json_object_get(value, "shape");
    const json_t *offsets = json_object_get(value, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (!json_is_string(dtype) || !json_is_array(shape) || json_array_size(offsets) != 2 ||
        !json_is_integer(begin) || !json_is_integer(end) || json_object_size(value) != 3)
        return bad_entry(file, entry->name,
                         "it must have a 'dtype', a 'shape' and two 'data_offsets', and no more",
                         err);
    entry->dtype_name = json_string_value(dtype);
    entry->begin = json_integer_value(begin);
    entry->end = json_integer_value(end);
    if (entry->begin < 0 || entry->end < entry->begin || entry->end > file->data_size)
        return io_fail(err, CONVT3D_FORMAT, file->path,
                       "bad safetensors header: tensor '%.80s': data_offsets %" PRId64 ", %" PRId64
                       " aren't in order in 0..%" PRId64,
                       entry->name, entry->begin, entry->end, file->data_size);
    int type_bits = 0;
    convt3d_status status = parse_dtype(file, entry, &type_bits, err);
    if (status) return status;
    int64_t bits = type_bits;
    status = parse_shape(file, entry, shape, &bits, err);
    if (status) return status;
    if (bits % 8 || bits / 8 != entry->end - entry->begin)
        return bad_entry(file, entry->name,
                         "'shape' and 'dtype' don't make as many bytes as "
                         "'data_offsets'",
                         err);
    return CONVT3D_OK;
}

static convt3d_status check_metadata(const io_safetensors *file, json_t *metadata,
                                     convt3d_error *err) {
    const char *key;
    json_t *value;
    int strings = json_is_object(metadata);
    json_object_foreach(metadata, key, value) strings &= json_is_string(value);
    if (!strings)
        return io_fail(err, CONVT3D_FORMAT, file->path,
                       "bad safetensors header: __metadata__ isn't all strings");
    return CONVT3D_OK;
}

static convt3d_status parse_entries(io_safetensors *file, convt3d_error *err) {
    size_t members = json_object_size(file->header);
    const char *key;
    json_t *value;
    file->entries = calloc(members + 1, sizeof *file->entries);
    if (!file->entries)
        return io_fail_nomem(err, file->path, (members + 1) * sizeof *file->entries);
    json_object_foreach(file->header, key, value) {
        convt3d_status status;
        if (strcmp(key, metadata_key) == 0) {
            status = check_metadata(file, value, err);
        } else {
            tensor_entry *entry = &file->entries[file->count++];
            entry->name = key;
            status = parse_entry(file, entry, value, err);
        }
        if (status) return status;
    }
    return CONVT3D_OK;
}

/* ---- the data as a whole -------------------------------------------------------- */

static int by_place(const void *a, const void *b) {
    const tensor_entry *x = *(const tensor_entry *const *)a, *y = *(const tensor_entry *const *)b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

/* Every byte of the data belongs to exactly one tensor: what can hide between
 * tensors, or in two, has no business in the file. */
static convt3d_status check_cover(const io_safetensors *file, convt3d_error *err) {
    size_t bytes = ((size_t)file->count + 1) * sizeof(tensor_entry *);
    const tensor_entry **order = malloc(bytes);
    if (!order) return io_fail_nomem(err, file->path, bytes);
    for (int i = 0; i < file->count; i++) order[i] = &file->entries[i];
    qsort(order, (size_t)file->count, sizeof *order, by_place);
    int64_t at = 0;
    convt3d_status status = CONVT3D_OK;
    for (int i = 0; i < file->count && !status; i++) {
        if (order[i]->begin != at)
            status = bad_entry(file, order[i]->name,
                               order[i]->begin < at ? "its data overlap another tensor's"
                                                    : "there is a hole before its data",
                               err);
        at = order[i]->end;
    }
    free(order);
    if (!status && at != file->data_size)
        status =
            io_fail(err, CONVT3D_FORMAT, file->path,
                    "bad safetensors file: %" PRId64 " bytes after the data", file->data_size - at);
    return status;
}

/* ---- the interface ---------------------------------------------------------------- */

convt3d_status io_safetensors_parse(io_source *source, io_safetensors **out, convt3d_error *err) {
    io_safetensors *file = calloc(1, sizeof *file);
    *out = NULL;
    if (!file) {
        io_source_close(source);
        return io_fail_nomem(err, source->path, sizeof *file);
    }
    file->source = *source;
    file->source.at = 0;
    file->path = strdup(source->path);
    if (!file->path) {
        convt3d_status status = io_fail_nomem(err, source->path, strlen(source->path) + 1);
        io_safetensors_close(file);
        return status;
    }
    file->source.path = file->path;
    convt3d_status status = read_header(file, err);
    if (!status) status = parse_entries(file, err);
    if (!status) status = check_cover(file, err);
    if (status)
        io_safetensors_close(file);
    else
        *out = file;
    return status;
}

convt3d_status io_safetensors_open(const char *path, io_safetensors **file, convt3d_error *err) {
    io_source source;
    *file = NULL;
    convt3d_status status = io_source_open(path, &source, err);
    return status ? status : io_safetensors_parse(&source, file, err);
}

void io_safetensors_close(io_safetensors *file) {
    if (!file) return;
    io_source_close(&file->source);
    json_decref(file->header);
    free(file->entries);
    free(file->path);
    free(file);
}

int io_safetensors_count(const io_safetensors *file) {
    return file->count;
}

const char *io_safetensors_tensor_name(const io_safetensors *file, int index) {
    return index >= 0 && index < file->count ? file->entries[index].name : NULL;
}

const char *io_safetensors_metadata(const io_safetensors *file, const char *key) {
    return json_string_value(json_object_get(json_object_get(file->header, metadata_key), key));
}

/* "a, b, c", and how many don't fit. */
static void list_names(const io_safetensors *file, char *text, size_t size) {
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < file->count; i++) {
        const char *name = file->entries[i].name;
        if (used + strlen(name) + 32 > size) {
            snprintf(text + used, size - used, "%s%d more", i ? " and " : "", file->count - i);
            return;
        }
        used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "", name);
    }
}

convt3d_status io_safetensors_fail_choice(const io_safetensors *file, const char *name,
                                          convt3d_error *err) {
    char names[256];
    list_names(file, names, sizeof names);
    if (!file->count) return io_fail(err, CONVT3D_NOTFOUND, file->path, "holds no tensors");
    if (!name)
        return io_fail(err, CONVT3D_NOTFOUND, file->path,
                       "say which tensor is meant, as FILE:NAME; it has %s", names);
    return io_fail(err, CONVT3D_NOTFOUND, file->path, "no tensor '%.80s'; it has %s", name, names);
}

convt3d_status io_safetensors_read(io_safetensors *file, const char *name, io_array *array,
                                   convt3d_error *err) {
    const tensor_entry *entry = NULL;
    memset(array, 0, sizeof *array);
    for (int i = 0; i < file->count && !entry; i++)
        if (strcmp(file->entries[i].name, name) == 0) entry = &file->entries[i];
    if (!entry) return io_safetensors_fail_choice(file, name, err);
    if (!entry->dtype)
        return io_fail(err, CONVT3D_DTYPE, file->path,
                       "tensor '%.80s' has dtype %s, which can't be read", name, entry->dtype_name);
    if (entry->rank > IO_MAX_RANK)
        return io_fail(err, CONVT3D_SHAPE, file->path,
                       "tensor '%.80s' has %" PRId64 " axes; %d can be read", name, entry->rank,
                       IO_MAX_RANK);
    convt3d_status status = io_array_create_for(file->path, entry->dtype, (int32_t)entry->rank,
                                                entry->size, array, err);
    if (status) return status;
    file->source.at = file->data + entry->begin;
    status = io_source_read(&file->source, array->data, entry->end - entry->begin, err);
    if (status) io_array_free(array);
    return status;
}
