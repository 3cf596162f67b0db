/* load: io_load() and io_save(), which find out what kind of file it is.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "private.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

typedef enum file_kind {
    KIND_UNKNOWN,
    KIND_NPY,
    KIND_SAFETENSORS,
    KIND_NIFTI,
    KIND_NIFTI_GZ
} file_kind;

/* ---- what a spec means -------------------------------------------------------- */

typedef struct file_spec {
    char *path;
    char *name; /* of the tensor, within path's memory; NULL: none given */
} file_spec;

static convt3d_status split_at(const char *spec, const char *colon, file_spec *out,
                               convt3d_error *err) {
    out->name = NULL;
    out->path = strdup(spec);
    if (!out->path) return io_fail_nomem(err, spec, strlen(spec) + 1);
    if (colon) {
        out->path[colon - spec] = '\0';
        out->name = out->path + (colon - spec) + 1;
    }
    return CONVT3D_OK;
}

/* The colon of "x.safetensors:name", or NULL. */
static const char *name_colon(const char *spec) {
    const char *found = strcasestr(spec, ".safetensors:");
    return found ? strchr(found, ':') : NULL;
}

/* Names and paths may hold colons: what exists as a file is one, and the first
 * colon after a path that exists begins the name. */
static convt3d_status split_existing(const char *spec, file_spec *out, convt3d_error *err) {
    struct stat st;
    if (stat(spec, &st) == 0) return split_at(spec, NULL, out, err);
    for (const char *c = strchr(spec, ':'); c; c = strchr(c + 1, ':')) {
        convt3d_status status = split_at(spec, c, out, err);
        if (status || stat(out->path, &st) == 0) return status;
        free(out->path);
    }
    return split_at(spec, name_colon(spec), out, err);
}

static int ends_with(const char *path, const char *ending) {
    size_t n = strlen(path), m = strlen(ending);
    return n >= m && strcasecmp(path + n - m, ending) == 0;
}

static file_kind kind_of_name(const char *path) {
    if (ends_with(path, ".npy")) return KIND_NPY;
    if (ends_with(path, ".safetensors")) return KIND_SAFETENSORS;
    if (ends_with(path, ".nii")) return KIND_NIFTI;
    if (ends_with(path, ".nii.gz")) return KIND_NIFTI_GZ;
    return KIND_UNKNOWN;
}

/* ---- loading ------------------------------------------------------------------ */

/* The content decides.  A safetensors file begins with the length of its
 * header, which may look like NIfTI's 348; but the brace behind it can't.  For
 * a damaged file the ending says which reader shall explain the damage. */
static convt3d_status find_kind(io_source *source, file_kind *kind, convt3d_error *err) {
    unsigned char first[9] = {0};
    int64_t n = source->size < (int64_t)sizeof first ? source->size : (int64_t)sizeof first;
    convt3d_status status = io_source_read(source, first, n, err);
    source->at = 0;
    if (status) return status;
    uint32_t word =
        first[0] | (uint32_t)first[1] << 8 | (uint32_t)first[2] << 16 | (uint32_t)first[3] << 24;
    uint32_t swapped = __builtin_bswap32(word);
    if (n >= 6 && memcmp(first, "\x93NUMPY", 6) == 0)
        *kind = KIND_NPY;
    else if (first[0] == 0x1f && first[1] == 0x8b)
        *kind = KIND_NIFTI_GZ;
    else if (first[8] == '{' && first[7] == 0)
        *kind = KIND_SAFETENSORS;
    else if (word == 348 || word == 540 || swapped == 348 || swapped == 540)
        *kind = KIND_NIFTI;
    else
        *kind = kind_of_name(source->path);
    if (*kind == KIND_UNKNOWN)
        return io_fail(err, CONVT3D_FORMAT, source->path,
                       "neither a .npy, a .safetensors nor a NIfTI file");
    return CONVT3D_OK;
}

/* Takes the source over. */
static convt3d_status load_tensor(io_source *source, const char *name, io_array *array,
                                  convt3d_error *err) {
    io_safetensors *file;
    convt3d_status status = io_safetensors_parse(source, &file, err);
    if (status) return status;
    if (!name && io_safetensors_count(file) == 1) name = io_safetensors_tensor_name(file, 0);
    if (name)
        status = io_safetensors_read(file, name, array, err);
    else
        status = io_safetensors_fail_choice(file, NULL, err);
    io_safetensors_close(file);
    return status;
}

static convt3d_status load_file(const file_spec *spec, io_array *array, convt3d_error *err) {
    io_source source;
    file_kind kind;
    convt3d_status status = io_source_open(spec->path, &source, err);
    if (status) return status;
    status = find_kind(&source, &kind, err);
    if (!status && kind == KIND_SAFETENSORS) return load_tensor(&source, spec->name, array, err);
    if (!status && spec->name)
        status =
            io_fail(err, CONVT3D_ARG, spec->path,
                    "holds one array without a name, so ':%s' can't be read from it", spec->name);
    if (!status && kind == KIND_NPY)
        status = io_npy_read(&source, array, err);
    else if (!status)
        status = io_nifti_read(&source, array, err);
    io_source_close(&source);
    return status;
}

convt3d_status io_load(const char *spec, io_array *array, convt3d_error *err) {
    file_spec split;
    memset(array, 0, sizeof *array);
    convt3d_status status = split_existing(spec, &split, err);
    if (status) return status;
    status = load_file(&split, array, err);
    free(split.path);
    return status;
}

/* ---- saving ------------------------------------------------------------------- */

static convt3d_status fail_ending(const char *path, convt3d_error *err) {
    return io_fail(err, CONVT3D_ARG, path,
                   "the ending of an output must be .npy, .safetensors, .nii or .nii.gz");
}

/* Only safetensors has a name for bfloat16, and NIfTI has none for float16 either. */
static convt3d_status check_kind(const char *path, io_dtype dtype, convt3d_error *err) {
    file_kind kind = kind_of_name(path);
    if (!io_dtype_core(dtype)) return io_fail_written(err, path, dtype);
    if (kind == KIND_UNKNOWN) return fail_ending(path, err);
    if (kind == KIND_SAFETENSORS || io_dtype_size(dtype) > 2) return CONVT3D_OK;
    if (kind == KIND_NPY && dtype == IO_F16) return CONVT3D_OK;
    return io_fail(err, CONVT3D_DTYPE, path, "%s can't hold %s; %s can",
                   kind == KIND_NPY ? "a .npy file" : "a NIfTI file", io_dtype_name(dtype),
                   dtype == IO_F16 ? ".npy and .safetensors files" : "a .safetensors file");
}

convt3d_status io_save_check(const char *spec, io_dtype dtype, convt3d_error *err) {
    file_spec split;
    convt3d_status status = split_at(spec, name_colon(spec), &split, err);
    if (status) return status;
    status = check_kind(split.path, dtype, err);
    free(split.path);
    return status;
}

static convt3d_status save_file(const file_spec *spec, const io_array *array, convt3d_error *err) {
    const io_named tensor = {spec->name ? spec->name : "tensor", array};
    switch (kind_of_name(spec->path)) {
    case KIND_NPY:
        return io_npy_write(spec->path, array, err);
    case KIND_NIFTI:
        return io_nifti_write(spec->path, 0, array, err);
    case KIND_NIFTI_GZ:
        return io_nifti_write(spec->path, 1, array, err);
    case KIND_SAFETENSORS:
        return io_safetensors_write(spec->path, &tensor, 1, NULL, 0, err);
    default:
        break;
    }
    return fail_ending(spec->path, err);
}

convt3d_status io_save(const char *spec, const io_array *array, convt3d_error *err) {
    file_spec split;
    convt3d_status status = split_at(spec, name_colon(spec), &split, err);
    if (status) return status;
    status = check_kind(split.path, array->dtype, err);
    if (!status) status = save_file(&split, array, err);
    free(split.path);
    return status;
}
