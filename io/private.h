/* private: what the rooms of io/ share, and nobody else sees.
 *
 * Bytes come from an io_source (a file or memory, so that tests and fuzzers
 * need no file), through an io_stream where they may be compressed, and leave
 * through an io_writer.  Every parser takes a source and checks a size against
 * the source's before it allocates.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_IO_PRIVATE_H
#define CONVT3D_IO_PRIVATE_H

#include "io.h"

#include <zlib.h>

/* Arrays are kept in the host's byte order and written as they are kept, but
 * safetensors files are little-endian by definition. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "io/ writes little-endian files from memory: this host needs a swap in io_writer_array()"
#endif

/* ---- fail.c --------------------------------------------------------------- */

/* Fills 'err', if there is one, with "path: text", and returns 'status'.  Bytes
 * that could steer a terminal are replaced: names inside files are not ours. */
convt3d_status io_fail(convt3d_error *err, convt3d_status status, const char *path,
                       const char *format, ...) __attribute__((format(printf, 4, 5)));

/* IO, with what the system says about 'error' (an errno value). */
convt3d_status io_fail_system(convt3d_error *err, const char *path, const char *what, int error);

convt3d_status io_fail_nomem(convt3d_error *err, const char *path, size_t bytes);

/* DTYPE: no kind of file is written with elements of this type. */
convt3d_status io_fail_written(convt3d_error *err, const char *path, io_dtype dtype);

/* ---- source.c ------------------------------------------------------------- */

typedef struct io_source {
    const char *path;            /* for messages; not owned */
    const unsigned char *memory; /* NULL: a file */
    int fd;
    int64_t size;
    int64_t at; /* where the next read begins; may be set */
} io_source;

/* IO for anything but a regular file that isn't empty. */
convt3d_status io_source_open(const char *path, io_source *source, convt3d_error *err);
io_source io_source_memory(const char *path, const void *bytes, size_t size);
void io_source_close(io_source *source);

/* Exactly 'bytes' bytes: FORMAT if the file never had them, IO if it had them
 * when it was opened. */
convt3d_status io_source_read(io_source *source, void *buffer, int64_t bytes, convt3d_error *err);

/* ---- stream.c ------------------------------------------------------------- */

#define IO_CHUNK 65536

/* The bytes of a source, decompressed if they are gzip. */
typedef struct io_stream {
    io_source *source;
    int gzip;
    int ended; /* a gzip member ended, and no other has begun */
    z_stream z;
    unsigned char chunk[IO_CHUNK];
} io_stream;

convt3d_status io_stream_open(io_source *source, io_stream *stream, convt3d_error *err);
void io_stream_close(io_stream *stream);
convt3d_status io_stream_read(io_stream *stream, void *buffer, int64_t bytes, convt3d_error *err);
convt3d_status io_stream_skip(io_stream *stream, int64_t bytes, convt3d_error *err);
/* FORMAT unless all bytes were read (and, in gzip, their checksum is right). */
convt3d_status io_stream_end(io_stream *stream, convt3d_error *err);
/* A bound on the bytes there can be, for checking a size before allocating. */
int64_t io_stream_most(const io_stream *stream);

/* ---- link.c --------------------------------------------------------------- */

/* Follows the symbolic links that 'path' ends in, also to a file that doesn't
 * exist yet; *target is to be freed. */
convt3d_status io_link_resolve(const char *path, char **target, convt3d_error *err);

/* ---- writer.c ------------------------------------------------------------- */

/* An output file that appears whole or not at all.  After a failure only
 * io_writer_abort() may follow; io_writer_commit() aborts by itself. */
typedef struct io_writer {
    const char *path; /* for messages; not owned */
    char *target;     /* 'path' with its links resolved */
    char *temporary;  /* NULL: a device or pipe, written in place */
    int fd;
    int mode;    /* of the file that is replaced, or -1 */
    z_stream *z; /* NULL: not compressed */
    size_t used;
    unsigned char chunk[IO_CHUNK];
} io_writer;

convt3d_status io_writer_open(io_writer *writer, const char *path, int gzip, convt3d_error *err);
convt3d_status io_writer_write(io_writer *writer, const void *data, size_t bytes,
                               convt3d_error *err);
/* All elements of 'array' in C order. */
convt3d_status io_writer_array(io_writer *writer, const io_array *array, convt3d_error *err);
convt3d_status io_writer_commit(io_writer *writer, convt3d_error *err);
void io_writer_abort(io_writer *writer);

/* ---- safetensors_write.c -------------------------------------------------- */

/* Around any use of jansson: whether memory was short since the beginning. */
void io_json_begin(void);
int io_json_short_of_memory(void);

/* ---- array.c -------------------------------------------------------------- */

/* The bytes of a dense array, or -1 if they, or a stride, overflow. */
int64_t io_shape_bytes(io_dtype dtype, int32_t rank, const int64_t *size);

/* io_array_create() with a path for its messages. */
convt3d_status io_array_create_for(const char *path, io_dtype dtype, int32_t rank,
                                   const int64_t *size, io_array *array, convt3d_error *err);

/* Steps 'index' over the first 'axes' axes in C order, and 'offset' with it.
 * Returns 0 when it has come round to the first element. */
int io_array_step(const io_array *array, int32_t axes, int64_t *index, int64_t *offset);

void io_swap_bytes(void *data, int64_t count, size_t size);

/* ---- the formats ---------------------------------------------------------- */

/* Each reads the whole source. */
convt3d_status io_npy_read(io_source *source, io_array *array, convt3d_error *err);
convt3d_status io_nifti_read(io_source *source, io_array *array, convt3d_error *err);

/* Takes the source over, also on failure; *file is NULL then. */
convt3d_status io_safetensors_parse(io_source *source, io_safetensors **file, convt3d_error *err);

/* NOTFOUND, with the names that there are; 'name' NULL: none was given. */
convt3d_status io_safetensors_fail_choice(const io_safetensors *file, const char *name,
                                          convt3d_error *err);

convt3d_status io_npy_write(const char *path, const io_array *array, convt3d_error *err);
convt3d_status io_nifti_write(const char *path, int gzip, const io_array *array,
                              convt3d_error *err);

#endif
