/* io: files for the convt3d command.  .npy, .safetensors, NIfTI-1/2 (.nii,
 * .nii.gz) and PNG; the libraries behind them do JSON, gzip and pixels.
 *
 * The core library knows memory, never files; this folder knows files, never
 * the layer.  Promises: memory in proportion to the file; nothing in a file is
 * evaluated or trusted; an output file appears whole or not at all (temporary
 * file in the same folder, fsync, rename).  On failure a function frees what
 * it made, and 'err' names the path.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_IO_H
#define CONVT3D_IO_H

#include "convt3d.h"

/* Element types that files hold. */
typedef enum io_dtype {
    IO_BOOL = 1,
    IO_U8,
    IO_I8,
    IO_U16,
    IO_I16,
    IO_U32,
    IO_I32,
    IO_U64,
    IO_I64,
    IO_F16,
    IO_BF16,
    IO_F32,
    IO_F64
} io_dtype;

size_t io_dtype_size(io_dtype dtype);
const char *io_dtype_name(io_dtype dtype); /* "float32", "uint8", ... */

/* The same type in the library's words, and back; 0 where there is none. */
convt3d_dtype io_dtype_core(io_dtype dtype);
io_dtype io_dtype_of(convt3d_dtype dtype);

#define IO_MAX_RANK 8

/* Where a volume lies in space, as NIfTI has it; kept so that an output can
 * follow its input (io_nifti_follow). */
typedef struct io_space {
    int present;       /* 0: the file had none */
    int nifti_version; /* 1 or 2 */
    int xyzt_units;
    int qform_code, sform_code;
    double pixdim[8];  /* as in the header; pixdim[0] is qfac */
    double quatern[3]; /* b, c, d */
    double qoffset[3]; /* x, y, z */
    double srow[3][4]; /* voxel index (x, y, z, 1) -> mm */
    char descrip[80];
} io_space;

/* An array that owns its memory; strides in elements, any order. */
typedef struct io_array {
    void *data;  /* the first element */
    void *owned; /* what io_array_free() frees */
    io_dtype dtype;
    int32_t rank;
    int64_t size[IO_MAX_RANK];
    int64_t stride[IO_MAX_RANK];
    io_space space;
} io_array;

void io_array_free(io_array *array); /* also of a zeroed one; zeroes it */

/* A dense new array of this shape, zero-filled; large ones ask for huge pages. */
convt3d_status io_array_create(io_dtype dtype, int32_t rank, const int64_t *size, io_array *array,
                               convt3d_error *err);

/* Reads an array from "file.npy", "file.safetensors:name" (the name may be left
 * out if the file holds one tensor), "file.nii" or "file.nii.gz"; the kind is
 * told by the content, not by the ending.  NIfTI gives rank 5 (N, C, D, H, W) =
 * (t, dim 5, z, y, x) as strides over the file's own order, without a copy,
 * scl_slope and scl_inter applied (then dtype is F32, or F64 where the file's
 * type needs it). */
convt3d_status io_load(const char *spec, io_array *array, convt3d_error *err);

/* Converts to a type of the library, each element rounded once, keeping the order in
 * memory where possible.  No-op if it is that already. */
convt3d_status io_array_convert(io_array *array, convt3d_dtype dtype, convt3d_error *err);

/* Writes by ending: .npy (C order), .safetensors or .safetensors:name (one
 * tensor, "tensor" if no name is given), .nii, .nii.gz (space from
 * array->space; identity-like defaults if it has none).  ARG for any other
 * ending; DTYPE for what io_save_check() says. */
convt3d_status io_save(const char *spec, const io_array *array, convt3d_error *err);

/* Whether such a file can hold elements of this type: safetensors holds every type of
 * the library, .npy all but bfloat16, NIfTI float32 and float64.  ARG, or DTYPE with
 * the kinds of file that can. */
convt3d_status io_save_check(const char *spec, io_dtype dtype, convt3d_error *err);

/* ---- safetensors files with several tensors ----------------------------- */

typedef struct io_safetensors io_safetensors; /* an open file: header checked */

convt3d_status io_safetensors_open(const char *path, io_safetensors **file, convt3d_error *err);
void io_safetensors_close(io_safetensors *file); /* NULL is fine */
int io_safetensors_count(const io_safetensors *file);
const char *io_safetensors_tensor_name(const io_safetensors *file, int index);
/* A string of __metadata__, or NULL. */
const char *io_safetensors_metadata(const io_safetensors *file, const char *key);
/* NOTFOUND, listing the names there are, if there is no such tensor. */
convt3d_status io_safetensors_read(io_safetensors *file, const char *name, io_array *array,
                                   convt3d_error *err);

typedef struct io_named {
    const char *name;
    const io_array *array;
} io_named;

/* metadata: 2*pairs strings, key and value in turn. */
convt3d_status io_safetensors_write(const char *path, const io_named *tensors, int count,
                                    const char *const *metadata, int pairs, convt3d_error *err);

/* ---- NIfTI space --------------------------------------------------------- */

/* The space of an output whose voxel o lies at input coordinate
 * scale[a]*o + shift[a], a = x, y, z (W, H, D). */
io_space io_space_follow(const io_space *input, const double scale[3], const double shift[3]);

/* ---- PNG ----------------------------------------------------------------- */

/* 8-bit grey, rows top to bottom. */
convt3d_status io_png_write(const char *path, const uint8_t *pixels, int64_t width, int64_t height,
                            convt3d_error *err);

#endif
