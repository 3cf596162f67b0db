/* files: a folder of its own for each test of io/, and bytes in it.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_TESTS_FILES_H
#define CONVT3D_TESTS_FILES_H

#include "io/private.h"

/* cmocka's set-up and tear-down: makes and removes the folder. */
int files_setup(void **state);
int files_teardown(void **state);

/* The path of 'name' in the folder; good until the eighth call after it. */
const char *files_path(const char *name);
/* How many files the folder holds, hidden ones included. */
int files_count(void);

void files_put(const char *path, const void *bytes, size_t size);
/* To be freed. */
unsigned char *files_get(const char *path, size_t *size);

/* What a failure message calls the present row of a table; reset by the set-up. */
extern const char *files_case;

/* Fails the test, with the text, if 'status' isn't OK. */
void files_ok(convt3d_status status, const convt3d_error *err);
/* Fails the test unless 'status' is 'want' and the text has all of 'words',
 * which are separated by bars. */
void files_refused(convt3d_status status, const convt3d_error *err, convt3d_status want,
                   const char *words);

/* Loads 'spec' and expects to be refused, with an array that is empty. */
void files_load_refused(const char *spec, convt3d_status want, const char *words);

/* Lets the process have this much more memory, so that what a header only
 * claims can't be asked for unnoticed; 0 lifts the limit. */
void files_allow_memory(size_t more);

/* These fail the test if the file layer fails. */
io_array files_load(const char *spec);
void files_save(const char *spec, const io_array *array);
void files_convert(io_array *array, convt3d_dtype dtype);

/* 'stride' may be NULL; strides of axes of size 1 aren't looked at. */
void files_check_shape(const io_array *array, io_dtype dtype, int32_t rank, const int64_t *size,
                       const int64_t *stride);
/* Both arrays, float32, have the same shape and elements. */
void files_check_equal(const io_array *a, const io_array *b);

/* A dense float32 array of this shape, of the values 0, 1, 2, ... */
io_array files_numbers(int32_t rank, const int64_t *size);

/* A .nii file of voxels 0, 1, 2, ... for tests to change: version 1 or 2,
 * 'swap' for the other byte order.  It is written from the standard's table of
 * offsets, without the library that reads it. */
typedef struct files_nifti {
    int version, swap;
    int64_t dim[8];
    int datatype, bytes; /* of a voxel; 2 uint8, 4 int16, 16 float32, 64 float64 */
    double slope, inter;
    double vox_offset; /* as the header has it */
    size_t gap;        /* bytes between header and data */
    int qform_code, sform_code, units;
    double pixdim[8], quatern[3], qoffset[3], srow[12];
} files_nifti;

files_nifti files_nifti_default(int version);
/* To be freed. */
unsigned char *files_nifti_bytes(const files_nifti *file, size_t *size);
/* gzip of 'bytes'; to be freed. */
unsigned char *files_gzip(const void *bytes, size_t size, size_t *packed);

#endif
