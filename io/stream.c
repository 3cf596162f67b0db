/* stream: a source read from its first byte to its last, through zlib if it is
 * gzip.
 * SPDX-License-Identifier: MIT */
#include "private.h"

#include <limits.h>

/* Deflate can't do better than 258 bytes from 2 bits: a file of n bytes holds
 * at most 1032n, whatever its header claims. */
enum {
    DEFLATE_MOST = 1032
};

convt3d_status io_stream_open(io_source *source, io_stream *stream, convt3d_error *err) {
    unsigned char magic[2] = {0, 0};
    stream->source = source;
    stream->gzip = 0;
    stream->ended = 0;
    stream->z = (z_stream){.next_in = NULL};
    source->at = 0;
    if (source->size >= 2) {
        convt3d_status status = io_source_read(source, magic, 2, err);
        if (status) return status;
        source->at = 0;
    }
    if (magic[0] != 0x1f || magic[1] != 0x8b) return CONVT3D_OK;
    /* 15 + 16: the largest window, and gzip's header and checksum required. */
    if (inflateInit2(&stream->z, 15 + 16) != Z_OK)
        return io_fail_nomem(err, source->path, 1u << 15);
    stream->gzip = 1;
    return CONVT3D_OK;
}

void io_stream_close(io_stream *stream) {
    if (stream->gzip) inflateEnd(&stream->z);
    stream->gzip = 0;
}

int64_t io_stream_most(const io_stream *stream) {
    int64_t size = stream->source->size;
    if (!stream->gzip) return size;
    return size > INT64_MAX / DEFLATE_MOST ? INT64_MAX : size * DEFLATE_MOST;
}

/* Gives zlib more of the file; leaves it without input where the file ends. */
static convt3d_status refill(io_stream *stream, convt3d_error *err) {
    io_source *source = stream->source;
    int64_t left = source->size - source->at;
    if (stream->z.avail_in || !left) return CONVT3D_OK;
    int64_t n = left < IO_CHUNK ? left : IO_CHUNK;
    convt3d_status status = io_source_read(source, stream->chunk, n, err);
    if (status) return status;
    stream->z.next_in = stream->chunk;
    stream->z.avail_in = (uInt)n;
    return CONVT3D_OK;
}

/* One call of inflate().  A gzip file may hold several members in a row, which
 * together are one stream. */
static convt3d_status inflate_some(io_stream *stream, convt3d_error *err) {
    const char *path = stream->source->path;
    convt3d_status status = refill(stream, err);
    if (status) return status;
    if (!stream->z.avail_in) return io_fail(err, CONVT3D_FORMAT, path, "gzip data are cut short");
    if (stream->ended && inflateReset(&stream->z) != Z_OK)
        return io_fail(err, CONVT3D_FORMAT, path, "bad gzip data");
    stream->ended = 0;
    int result = inflate(&stream->z, Z_NO_FLUSH);
    if (result == Z_STREAM_END) stream->ended = 1;
    if (result == Z_MEM_ERROR) return io_fail_nomem(err, path, 1u << 15);
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
        return io_fail(err, CONVT3D_FORMAT, path, "bad gzip data: %s",
                       stream->z.msg ? stream->z.msg : "unknown error");
    return CONVT3D_OK;
}

convt3d_status io_stream_read(io_stream *stream, void *buffer, int64_t bytes, convt3d_error *err) {
    if (!stream->gzip) return io_source_read(stream->source, buffer, bytes, err);
    stream->z.next_out = buffer;
    while (bytes > 0) {
        uInt step = bytes < INT_MAX ? (uInt)bytes : INT_MAX;
        stream->z.avail_out = step;
        convt3d_status status = inflate_some(stream, err);
        if (status) return status;
        bytes -= step - stream->z.avail_out;
    }
    return CONVT3D_OK;
}

convt3d_status io_stream_skip(io_stream *stream, int64_t bytes, convt3d_error *err) {
    unsigned char nowhere[4096];
    while (bytes > 0) {
        int64_t n = bytes < (int64_t)sizeof nowhere ? bytes : (int64_t)sizeof nowhere;
        convt3d_status status = io_stream_read(stream, nowhere, n, err);
        if (status) return status;
        bytes -= n;
    }
    return CONVT3D_OK;
}

convt3d_status io_stream_end(io_stream *stream, convt3d_error *err) {
    const io_source *source = stream->source;
    unsigned char extra;
    /* zlib compares the checksum only when it is asked to go on. */
    while (stream->gzip && !(stream->ended && !stream->z.avail_in && source->at == source->size)) {
        stream->z.next_out = &extra;
        stream->z.avail_out = 1;
        convt3d_status status = inflate_some(stream, err);
        if (status) return status;
        if (!stream->z.avail_out)
            return io_fail(err, CONVT3D_FORMAT, source->path, "bytes after the data");
    }
    if (source->at != source->size)
        return io_fail(err, CONVT3D_FORMAT, source->path, "%lld bytes after the data",
                       (long long)(source->size - source->at));
    return CONVT3D_OK;
}
