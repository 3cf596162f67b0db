/* files: a folder of its own for each test of io/, and bytes in it.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "files.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char folder[256];
const char *files_case = "";

int files_setup(void **state) {
    (void)state;
    files_case = "";
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/convt3d-test-XXXXXX", base && base[0] ? base : "/tmp");
    if (!mkdtemp(folder)) return -1;
    /* Some tests give up root, and must reach it still. */
    return chmod(folder, 0777);
}

/* Removes what is in 'path', which may be a folder, and then itself. */
static void remove_all(const char *path) {
    DIR *dir = opendir(path);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char inner[1024];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name);
        struct stat st;
        if (lstat(inner, &st) == 0 && S_ISDIR(st.st_mode))
            remove_all(inner);
        else
            unlink(inner);
    }
    if (dir) closedir(dir);
    rmdir(path);
}

int files_teardown(void **state) {
    (void)state;
    remove_all(folder);
    return 0;
}

const char *files_path(const char *name) {
    static char paths[8][512];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

int files_count(void) {
    int count = -2; /* . and .. */
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    while (readdir(dir)) count++;
    closedir(dir);
    return count;
}

void files_put(const char *path, const void *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

unsigned char *files_get(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file) fail_msg("%s isn't there", path);
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    unsigned char *bytes = malloc(*size + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *size, file), *size);
    fclose(file);
    return bytes;
}

void files_ok(convt3d_status status, const convt3d_error *err) {
    if (status) fail_msg("%s: %s", convt3d_status_name(status), err->text);
}

void files_refused(convt3d_status status, const convt3d_error *err, convt3d_status want,
                   const char *words) {
    char list[256];
    if (status != want)
        fail_msg("%s: %s, not %s: %s", files_case, convt3d_status_name(status),
                 convt3d_status_name(want), status ? err->text : "");
    assert_int_equal(err->status, status);
    snprintf(list, sizeof list, "%s", words);
    for (char *word = strtok(list, "|"); word; word = strtok(NULL, "|"))
        if (!strstr(err->text, word)) fail_msg("%s: no '%s' in: %s", files_case, word, err->text);
}

void files_load_refused(const char *spec, convt3d_status want, const char *words) {
    io_array array;
    convt3d_error err = {CONVT3D_OK, ""};
    memset(&array, 0x5a, sizeof array);
    files_refused(io_load(spec, &array, &err), &err, want, words);
    assert_null(array.data);
    assert_null(array.owned);
}

io_array files_numbers(int32_t rank, const int64_t *size) {
    io_array array;
    convt3d_error err;
    int64_t count = 1;
    files_ok(io_array_create(IO_F32, rank, size, &array, &err), &err);
    for (int32_t i = 0; i < rank; i++) count *= size[i];
    for (int64_t i = 0; i < count; i++) ((float *)array.data)[i] = (float)i;
    return array;
}

void files_allow_memory(size_t more) {
    struct rlimit limit;
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%ld", &pages), 1);
    fclose(file);
    getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = more ? (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + more : limit.rlim_max;
    setrlimit(RLIMIT_AS, &limit);
}

/* ---- arrays --------------------------------------------------------------------- */

io_array files_load(const char *spec) {
    io_array array;
    convt3d_error err;
    files_ok(io_load(spec, &array, &err), &err);
    return array;
}

void files_save(const char *spec, const io_array *array) {
    convt3d_error err;
    files_ok(io_save(spec, array, &err), &err);
}

void files_convert(io_array *array, convt3d_dtype dtype) {
    convt3d_error err;
    files_ok(io_array_convert(array, dtype, &err), &err);
}

void files_check_shape(const io_array *array, io_dtype dtype, int32_t rank, const int64_t *size,
                       const int64_t *stride) {
    assert_string_equal(io_dtype_name(array->dtype), io_dtype_name(dtype));
    assert_int_equal(array->rank, rank);
    for (int32_t i = 0; i < rank; i++) {
        assert_int_equal(array->size[i], size[i]);
        if (stride && size[i] > 1) assert_int_equal(array->stride[i], stride[i]);
    }
}

void files_check_equal(const io_array *a, const io_array *b) {
    int64_t index[IO_MAX_RANK] = {0}, at_a = 0, at_b = 0;
    assert_int_equal(a->dtype, IO_F32);
    files_check_shape(b, IO_F32, a->rank, a->size, NULL);
    do {
        at_b = 0;
        for (int32_t i = 0; i < b->rank; i++) at_b += index[i] * b->stride[i];
        assert_true(((float *)a->data)[at_a] == ((float *)b->data)[at_b]);
    } while (io_array_step(a, a->rank, index, &at_a));
}

/* ---- NIfTI -------------------------------------------------------------------- */

files_nifti files_nifti_default(int version) {
    return (files_nifti){.version = version,
                         .dim = {3, 4, 3, 2, 1, 1, 1, 1},
                         .datatype = 16,
                         .bytes = 4,
                         .vox_offset = version == 1 ? 352 : 544,
                         .gap = 4,
                         .pixdim = {1, 1, 1, 1, 1, 1, 1, 1}};
}

/* Puts a number of 'bytes' bytes in the wanted order. */
static void put(unsigned char *to, int swap, const void *number, int bytes) {
    for (int i = 0; i < bytes; i++)
        to[swap ? bytes - 1 - i : i] = ((const unsigned char *)number)[i];
}

static void put_int(unsigned char *to, int swap, int64_t value, int bytes) {
    put(to, swap, &value, bytes); /* little-endian: the low bytes are the first */
}

static void put_real(unsigned char *to, int swap, double value, int bytes) {
    float single = (float)value;
    if (bytes == 4)
        put(to, swap, &single, 4);
    else
        put(to, swap, &value, 8);
}

/* Where NIfTI-1 and NIfTI-2 keep a field, and in how many bytes. */
typedef struct place {
    int at[2], bytes[2];
} place;

static const place dim_at = {{40, 16}, {2, 8}}, datatype_at = {{70, 12}, {2, 2}},
                   bitpix_at = {{72, 14}, {2, 2}}, pixdim_at = {{76, 104}, {4, 8}},
                   offset_at = {{108, 168}, {4, 8}}, slope_at = {{112, 176}, {4, 8}},
                   inter_at = {{116, 184}, {4, 8}}, units_at = {{123, 500}, {1, 4}},
                   qform_at = {{252, 344}, {2, 4}}, sform_at = {{254, 348}, {2, 4}},
                   quatern_at = {{256, 352}, {4, 8}}, qoffset_at = {{268, 376}, {4, 8}},
                   srow_at = {{280, 400}, {4, 8}}, magic_at = {{344, 4}, {4, 8}};

static void put_header(const files_nifti *f, unsigned char *h) {
    int v = f->version - 1, s = f->swap;
#define INT_FIELD(p, i, x)  put_int(h + (p).at[v] + (i) * (p).bytes[v], s, x, (p).bytes[v])
#define REAL_FIELD(p, i, x) put_real(h + (p).at[v] + (i) * (p).bytes[v], s, x, (p).bytes[v])
    put_int(h, s, v ? 540 : 348, 4);
    memcpy(h + magic_at.at[v], v ? "n+2\0\r\n\032\n" : "n+1", (size_t)magic_at.bytes[v]);
    for (int i = 0; i < 8; i++) INT_FIELD(dim_at, i, f->dim[i]);
    for (int i = 0; i < 8; i++) REAL_FIELD(pixdim_at, i, f->pixdim[i]);
    INT_FIELD(datatype_at, 0, f->datatype);
    INT_FIELD(bitpix_at, 0, 8 * f->bytes);
    if (v)
        INT_FIELD(offset_at, 0, (int64_t)f->vox_offset);
    else
        REAL_FIELD(offset_at, 0, f->vox_offset);
    REAL_FIELD(slope_at, 0, f->slope);
    REAL_FIELD(inter_at, 0, f->inter);
    INT_FIELD(units_at, 0, f->units);
    INT_FIELD(qform_at, 0, f->qform_code);
    INT_FIELD(sform_at, 0, f->sform_code);
    for (int i = 0; i < 3; i++) REAL_FIELD(quatern_at, i, f->quatern[i]);
    for (int i = 0; i < 3; i++) REAL_FIELD(qoffset_at, i, f->qoffset[i]);
    for (int i = 0; i < 12; i++) REAL_FIELD(srow_at, i, f->srow[i]);
}

unsigned char *files_nifti_bytes(const files_nifti *f, size_t *size) {
    size_t count = 1, header = f->version == 1 ? 348 : 540;
    for (int i = 1; i < 8; i++)
        if (i <= f->dim[0]) count *= (size_t)f->dim[i];
    *size = header + f->gap + count * (size_t)f->bytes;
    unsigned char *bytes = calloc(1, *size);
    assert_non_null(bytes);
    put_header(f, bytes);
    for (size_t i = 0; i < count; i++) {
        unsigned char *at = bytes + header + f->gap + i * (size_t)f->bytes;
        if (f->datatype == 16 || f->datatype == 64)
            put_real(at, f->swap, (double)i, f->bytes);
        else
            put_int(at, f->swap, (int64_t)i, f->bytes);
    }
    return bytes;
}

unsigned char *files_gzip(const void *bytes, size_t size, size_t *packed) {
    z_stream z = {.next_in = NULL};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    size_t room = deflateBound(&z, size) + 64;
    unsigned char *out = malloc(room);
    assert_non_null(out);
    z.next_in = (Bytef *)(uintptr_t)bytes;
    z.avail_in = (uInt)size;
    z.next_out = out;
    z.avail_out = (uInt)room;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    *packed = room - z.avail_out;
    deflateEnd(&z);
    return out;
}
