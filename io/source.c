/* source: the bytes of a regular file, or of memory that stands for one.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static convt3d_status check_file(io_source *source, convt3d_error *err) {
    struct stat st;
    if (fstat(source->fd, &st) != 0)
        return io_fail_system(err, source->path, "can't be read", errno);
    if (S_ISDIR(st.st_mode)) return io_fail_system(err, source->path, "can't be read", EISDIR);
    if (!S_ISREG(st.st_mode))
        return io_fail(err, CONVT3D_IO, source->path, "can't be read: not a regular file");
    if (st.st_size == 0) return io_fail(err, CONVT3D_IO, source->path, "the file is empty");
    source->size = st.st_size;
    return CONVT3D_OK;
}

convt3d_status io_source_open(const char *path, io_source *source, convt3d_error *err) {
    *source = (io_source){.path = path, .fd = -1};
    /* O_NONBLOCK: else a FIFO without a writer would never let us look at it. */
    source->fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (source->fd < 0) return io_fail_system(err, path, "can't be opened", errno);
    convt3d_status status = check_file(source, err);
    if (status) io_source_close(source);
    return status;
}

io_source io_source_memory(const char *path, const void *bytes, size_t size) {
    return (io_source){.path = path, .memory = bytes, .fd = -1, .size = (int64_t)size};
}

void io_source_close(io_source *source) {
    if (source->fd >= 0) close(source->fd);
    source->fd = -1;
}

/* read(), not mmap(): a file that shrinks while it is read is then an error
 * like any other, and not a SIGBUS. */
convt3d_status io_source_read(io_source *source, void *buffer, int64_t bytes, convt3d_error *err) {
    if (bytes > source->size - source->at)
        return io_fail(err, CONVT3D_FORMAT, source->path,
                       "cut short: %lld bytes needed after the first %lld, but the file has %lld",
                       (long long)bytes, (long long)source->at, (long long)source->size);
    if (source->memory) {
        if (bytes) memcpy(buffer, source->memory + source->at, (size_t)bytes);
        source->at += bytes;
        return CONVT3D_OK;
    }
    char *to = buffer;
    while (bytes > 0) {
        ssize_t n = pread(source->fd, to, (size_t)bytes, source->at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return io_fail_system(err, source->path, "can't be read", errno);
        if (n == 0)
            return io_fail(err, CONVT3D_IO, source->path,
                           "the file shrank to %lld bytes while it was read",
                           (long long)source->at);
        to += n;
        source->at += n;
        bytes -= n;
    }
    return CONVT3D_OK;
}
