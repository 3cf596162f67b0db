/* npy: NumPy's .npy files, versions 1 to 3.
 *
 * The header is a Python dictionary in text.  It is read by the small grammar
 * below and never evaluated: three keys, each once, with a string, a boolean
 * and a tuple of numbers.
 * SPDX-License-Identifier: MIT */
#include "private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const unsigned char magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

typedef struct npy_header {
    io_dtype dtype;
    int swap; /* the file is big-endian */
    int fortran;
    int32_t rank;
    int64_t size[IO_MAX_RANK];
} npy_header;

/* ---- the text --------------------------------------------------------------- */

typedef struct npy_text {
    const char *at, *end;
    const char *path;
    convt3d_error *err;
} npy_text;

static convt3d_status bad(const npy_text *text, const char *what) {
    return io_fail(text->err, CONVT3D_FORMAT, text->path, "bad .npy header: %s", what);
}

static void skip_space(npy_text *text) {
    while (text->at < text->end && (*text->at == ' ' || *text->at == '\n' || *text->at == '\t'))
        text->at++;
}

/* Takes 'word' if it is next. */
static int take(npy_text *text, const char *word) {
    size_t length = strlen(word);
    skip_space(text);
    if ((size_t)(text->end - text->at) < length || memcmp(text->at, word, length) != 0) return 0;
    text->at += length;
    return 1;
}

/* A string without escapes: no legal key or dtype has one. */
static convt3d_status take_string(npy_text *text, char *to, size_t room) {
    skip_space(text);
    if (text->at == text->end || (*text->at != '\'' && *text->at != '"'))
        return bad(text, "a string is missing");
    char quote = *text->at++;
    size_t length = 0;
    while (text->at < text->end && *text->at != quote) {
        if (length + 1 >= room || *text->at == '\\') return bad(text, "a string is too long");
        to[length++] = *text->at++;
    }
    if (text->at == text->end) return bad(text, "a string has no end");
    text->at++;
    to[length] = '\0';
    return CONVT3D_OK;
}

static convt3d_status take_size(npy_text *text, int64_t *size) {
    skip_space(text);
    int64_t value = 0;
    const char *first = text->at;
    for (; text->at < text->end && *text->at >= '0' && *text->at <= '9'; text->at++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, *text->at - '0', &value))
            return bad(text, "a size in 'shape' is beyond 64 bits");
    if (text->at == first) return bad(text, "'shape' isn't a tuple of sizes >= 0");
    take(text, "L"); /* Python 2 wrote long integers so */
    *size = value;
    return CONVT3D_OK;
}

/* (a,) or (a, b, ...), with or without a last comma; but (a) is no tuple. */
static convt3d_status take_shape(npy_text *text, npy_header *header) {
    if (!take(text, "(")) return bad(text, "'shape' isn't a tuple");
    int comma = 1;
    while (!take(text, ")")) {
        if (!comma) return bad(text, "a comma or the last bracket is missing in 'shape'");
        if (header->rank == IO_MAX_RANK) return bad(text, "'shape' has more than 8 axes");
        convt3d_status status = take_size(text, &header->size[header->rank]);
        if (status) return status;
        header->rank++;
        comma = take(text, ",");
    }
    if (header->rank == 0) return bad(text, "'shape' is empty: an array with axes is needed");
    if (header->rank == 1 && !comma) return bad(text, "'shape' isn't a tuple");
    return CONVT3D_OK;
}

/* The kinds of number, as in "<f4": byte order, kind, size. */
static io_dtype dtype_of(const char *kind) {
    static const char names[][3] = {
        [IO_BOOL] = "b1", [IO_U8] = "u1",  [IO_I8] = "i1",  [IO_U16] = "u2",
        [IO_I16] = "i2",  [IO_U32] = "u4", [IO_I32] = "i4", [IO_U64] = "u8",
        [IO_I64] = "i8",  [IO_F16] = "f2", [IO_F32] = "f4", [IO_F64] = "f8"};
    for (size_t i = IO_BOOL; i < sizeof names / sizeof *names; i++)
        if (names[i][0] && strcmp(kind, names[i]) == 0) return (io_dtype)i;
    return (io_dtype)0;
}

static convt3d_status take_descr(npy_text *text, npy_header *header) {
    char descr[32];
    skip_space(text);
    if (text->at < text->end && *text->at == '[')
        return io_fail(text->err, CONVT3D_DTYPE, text->path,
                       "structured arrays can't be read, only arrays of numbers");
    convt3d_status status = take_string(text, descr, sizeof descr);
    if (status) return status;
    char order = descr[0];
    int ordered = order == '<' || order == '>' || order == '=' || order == '|';
    header->dtype = ordered ? dtype_of(descr + 1) : (io_dtype)0;
    if (order == '|' && io_dtype_size(header->dtype) > 1) header->dtype = (io_dtype)0;
    header->swap = order == '>';
    if (ordered && strcmp(descr + 1, "V2") == 0)
        return io_fail(text->err, CONVT3D_DTYPE, text->path,
                       "dtype '%s' doesn't say what its 16 bits are; if they are bfloat16, for "
                       "which .npy has no name: a .safetensors file has one",
                       descr);
    if (!header->dtype)
        return io_fail(text->err, CONVT3D_DTYPE, text->path,
                       "dtype '%s' can't be read; it may be b1, u1 to u8, i1 to i8, f2, f4 or f8 "
                       "after one of < > = |",
                       descr);
    return CONVT3D_OK;
}

static convt3d_status take_order(npy_text *text, npy_header *header) {
    if (take(text, "True"))
        header->fortran = 1;
    else if (!take(text, "False"))
        return bad(text, "'fortran_order' is neither True nor False");
    return CONVT3D_OK;
}

/* One key and its value; 'seen' has a bit for each key. */
static convt3d_status take_entry(npy_text *text, npy_header *header, unsigned *seen) {
    static const struct {
        const char *name;
        convt3d_status (*take)(npy_text *text, npy_header *header);
    } keys[3] = {{"descr", take_descr}, {"fortran_order", take_order}, {"shape", take_shape}};
    char key[32];
    convt3d_status status = take_string(text, key, sizeof key);
    if (status) return status;
    if (!take(text, ":")) return bad(text, "a colon is missing");
    for (unsigned k = 0; k < 3; k++) {
        if (strcmp(key, keys[k].name) != 0) continue;
        if (*seen & 1u << k) return bad(text, "a key is there twice");
        *seen |= 1u << k;
        return keys[k].take(text, header);
    }
    return bad(text, "a key is none of 'descr', 'fortran_order', 'shape'");
}

static convt3d_status parse_header(npy_text *text, npy_header *header) {
    unsigned seen = 0;
    int comma = 1;
    if (!take(text, "{")) return bad(text, "it isn't a dictionary");
    while (!take(text, "}")) {
        if (!comma) return bad(text, "a comma or the last brace is missing");
        convt3d_status status = take_entry(text, header, &seen);
        if (status) return status;
        comma = take(text, ",");
    }
    if (seen != 7) return bad(text, "one of 'descr', 'fortran_order', 'shape' is missing");
    skip_space(text);
    return text->at == text->end ? CONVT3D_OK : bad(text, "text after the dictionary");
}

/* ---- reading ---------------------------------------------------------------- */

/* Magic, version and the length of the text, which is left next. */
static convt3d_status read_start(io_source *source, int64_t *length, convt3d_error *err) {
    unsigned char start[8], bytes[4] = {0};
    convt3d_status status = io_source_read(source, start, sizeof start, err);
    if (status) return status;
    if (memcmp(start, magic, sizeof magic) != 0)
        return io_fail(err, CONVT3D_FORMAT, source->path, "not a .npy file: bad magic");
    if (start[6] < 1 || start[6] > 3 || start[7] != 0)
        return io_fail(err, CONVT3D_FORMAT, source->path,
                       ".npy version %d.%d isn't 1.0, 2.0 or 3.0", start[6], start[7]);
    status = io_source_read(source, bytes, start[6] == 1 ? 2 : 4, err);
    if (status) return status;
    *length = bytes[0] | bytes[1] << 8 | (int64_t)bytes[2] << 16 | (int64_t)bytes[3] << 24;
    if (*length > source->size - source->at)
        return io_fail(err, CONVT3D_FORMAT, source->path,
                       "cut short: a header of %" PRId64 " bytes in a file of %" PRId64, *length,
                       source->size);
    return CONVT3D_OK;
}

static convt3d_status read_header(io_source *source, npy_header *header, convt3d_error *err) {
    int64_t length = 0;
    convt3d_status status = read_start(source, &length, err);
    if (status) return status;
    char *bytes = malloc((size_t)length + 1);
    if (!bytes) return io_fail_nomem(err, source->path, (size_t)length + 1);
    status = io_source_read(source, bytes, length, err);
    npy_text text = {bytes, bytes + length, source->path, err};
    if (!status) status = parse_header(&text, header);
    free(bytes);
    return status;
}

/* The first axis is the fastest. */
static void set_fortran_strides(io_array *array) {
    int64_t stride = 1;
    for (int32_t i = 0; i < array->rank; i++) {
        array->stride[i] = stride;
        if (array->size[i]) stride *= array->size[i];
    }
}

convt3d_status io_npy_read(io_source *source, io_array *array, convt3d_error *err) {
    npy_header header = {.rank = 0};
    memset(array, 0, sizeof *array);
    source->at = 0;
    convt3d_status status = read_header(source, &header, err);
    if (status) return status;
    int64_t bytes = io_shape_bytes(header.dtype, header.rank, header.size);
    int64_t there = source->size - source->at;
    if (bytes < 0)
        return io_fail(err, CONVT3D_FORMAT, source->path, "'shape' is beyond 64 bits of bytes");
    if (bytes != there)
        return io_fail(err, CONVT3D_FORMAT, source->path,
                       "%s: 'shape' needs %" PRId64 " bytes of data, but the file has %" PRId64,
                       bytes > there ? "cut short" : "bytes after the data", bytes, there);
    status = io_array_create_for(source->path, header.dtype, header.rank, header.size, array, err);
    if (status) return status;
    status = io_source_read(source, array->data, bytes, err);
    if (status) {
        io_array_free(array);
        return status;
    }
    size_t element = io_dtype_size(header.dtype);
    if (header.swap) io_swap_bytes(array->data, bytes / (int64_t)element, element);
    if (header.fortran) set_fortran_strides(array);
    return CONVT3D_OK;
}

/* ---- writing ---------------------------------------------------------------- */

convt3d_status io_npy_write(const char *path, const io_array *array, convt3d_error *err) {
    char shape[IO_MAX_RANK * 24] = "", text[512], start[10];
    size_t used = 0;
    for (int32_t i = 0; i < array->rank; i++)
        used += (size_t)snprintf(shape + used, sizeof shape - used, "%" PRId64 ",%s",
                                 array->size[i], i + 1 < array->rank ? " " : "");
    /* NumPy aligns the data to 64 bytes with spaces; the last byte is \n. */
    int n =
        snprintf(text, sizeof text, "{'descr': '<f%d', 'fortran_order': False, 'shape': (%s), }",
                 (int)io_dtype_size(array->dtype), shape);
    size_t length = ((size_t)n + 1 + sizeof start + 63) / 64 * 64 - sizeof start;
    memset(text + n, ' ', length - (size_t)n);
    text[length - 1] = '\n';
    memcpy(start, magic, sizeof magic);
    start[6] = 1;
    start[7] = 0;
    start[8] = (char)(length & 255);
    start[9] = (char)(length >> 8);
    io_writer writer;
    convt3d_status status = io_writer_open(&writer, path, 0, err);
    if (status) return status;
    status = io_writer_write(&writer, start, sizeof start, err);
    if (!status) status = io_writer_write(&writer, text, length, err);
    if (!status) status = io_writer_array(&writer, array, err);
    if (!status) return io_writer_commit(&writer, err);
    io_writer_abort(&writer);
    return status;
}
