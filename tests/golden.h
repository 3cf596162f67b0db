/* golden: the files of tests/golden, which tools/make_golden.py makes.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_TESTS_GOLDEN_H
#define CONVT3D_TESTS_GOLDEN_H

#include "io/io.h"
#include "oracle.h"

/* An open file of tests/golden; ends the test if there is none. */
io_safetensors *golden_open(const char *file);

/* The tensor "name/part"; ends the test unless it is there, dense, and of this
 * type.  Free it with io_array_free(). */
io_array golden_read(io_safetensors *file, const char *name, const char *part, io_dtype dtype);

/* Calls 'each' for every line of a text file of tests/golden, without its
 * newline; returns their number. */
int golden_lines(const char *file, void (*each)(char *line, void *data), void *data);

int64_t golden_count(const io_array *array);

/* The array's values (float32 or float64), to be freed. */
real *golden_values(const io_array *array);

/* A view of the whole array. */
convt3d_tensor golden_tensor(const io_array *array);

/* 64 bits of FNV-1a, as tools/make_golden.py hashes parameters. */
uint64_t golden_hash(const void *bytes, size_t size);

#endif
