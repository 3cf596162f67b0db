/* writer: an output file that appears whole or not at all.
 *
 * Everything goes into a temporary file beside the target, which takes the
 * target's place when it is complete and on the disk.  So a full disk, a kill
 * or a bad input leaves an old file as it was, and the output may be the very
 * file that was read.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "private.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static convt3d_status fail_write(io_writer *writer, int error, convt3d_error *err) {
    return io_fail_system(err, writer->path, "can't be written", error);
}

/* ---- open ----------------------------------------------------------------- */

/* A new file beside the target.  Made by open() and not by mkstemp(), so that
 * the umask and the folder's defaults give it its mode. */
static convt3d_status open_temporary(io_writer *writer, convt3d_error *err) {
    const char *slash = strrchr(writer->target, '/');
    int folder = slash ? (int)(slash - writer->target) + 1 : 0;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    unsigned long number = (unsigned long)now.tv_nsec;
    for (int tries = 0; tries < 1000; tries++, number++) {
        if (asprintf(&writer->temporary, "%.*s.convt3d-%lx-%lx", folder, writer->target,
                     (unsigned long)getpid(), number) < 0) {
            writer->temporary = NULL;
            return io_fail_nomem(err, writer->path, strlen(writer->target) + 64);
        }
        writer->fd = open(writer->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (writer->fd >= 0) return CONVT3D_OK;
        free(writer->temporary);
        writer->temporary = NULL;
        if (errno != EEXIST) break;
    }
    return fail_write(writer, errno, err);
}

/* Devices and pipes are never replaced by a file: they are written. */
static convt3d_status open_in_place(io_writer *writer, convt3d_error *err) {
    /* O_NONBLOCK: a FIFO that nobody reads is an error, not a wait. */
    writer->fd = open(writer->target, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (writer->fd < 0 && errno == ENXIO)
        return io_fail(err, CONVT3D_IO, writer->path, "can't be written: nobody reads the pipe");
    if (writer->fd < 0 || fcntl(writer->fd, F_SETFL, 0) != 0) return fail_write(writer, errno, err);
    return CONVT3D_OK;
}

static convt3d_status open_target(io_writer *writer, convt3d_error *err) {
    struct stat st;
    if (stat(writer->target, &st) != 0)
        return errno == ENOENT ? open_temporary(writer, err) : fail_write(writer, errno, err);
    if (S_ISDIR(st.st_mode)) return fail_write(writer, EISDIR, err);
    if (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode)) return open_in_place(writer, err);
    if (!S_ISREG(st.st_mode))
        return io_fail(err, CONVT3D_IO, writer->path, "can't be written: not a regular file");
    /* A rename asks the folder only; a write-protected file means it, though. */
    if (access(writer->target, W_OK) != 0) return fail_write(writer, errno, err);
    writer->mode = (int)(st.st_mode & 0777);
    return open_temporary(writer, err);
}

static convt3d_status start_gzip(io_writer *writer, convt3d_error *err) {
    writer->z = calloc(1, sizeof *writer->z);
    /* Level 1: float volumes shrink hardly more at the others, which take
     * several times as long.  15 + 16: gzip, without a time or name in it. */
    if (!writer->z ||
        deflateInit2(writer->z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
        free(writer->z);
        writer->z = NULL;
        return io_fail_nomem(err, writer->path, 1u << 18);
    }
    return CONVT3D_OK;
}

convt3d_status io_writer_open(io_writer *writer, const char *path, int gzip, convt3d_error *err) {
    writer->path = path;
    writer->target = writer->temporary = NULL;
    writer->fd = writer->mode = -1;
    writer->z = NULL;
    writer->used = 0;
    convt3d_status status = io_link_resolve(path, &writer->target, err);
    if (!status) status = open_target(writer, err);
    if (!status && gzip) status = start_gzip(writer, err);
    if (status) io_writer_abort(writer);
    return status;
}

/* ---- write ---------------------------------------------------------------- */

/* Writes all, and returns 0 or an errno value. */
static int write_all(int fd, const unsigned char *data, size_t bytes) {
    while (bytes > 0) {
        ssize_t n = write(fd, data, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        data += n;
        bytes -= (size_t)n;
    }
    return 0;
}

/* A closed pipe and a file size limit also send signals that end the process.
 * They are held back for this thread, and taken away if we caused them: our
 * caller learns of it from the status, and its own signals stay as they were. */
static convt3d_status write_quietly(io_writer *writer, const unsigned char *data, size_t bytes,
                                    convt3d_error *err) {
    sigset_t ours, before, pending;
    sigemptyset(&ours);
    sigaddset(&ours, SIGPIPE);
    sigaddset(&ours, SIGXFSZ);
    pthread_sigmask(SIG_BLOCK, &ours, &before);
    sigpending(&pending);
    int error = write_all(writer->fd, data, bytes);
    int caused = error == EPIPE ? SIGPIPE : error == EFBIG ? SIGXFSZ : 0;
    if (caused && !sigismember(&pending, caused)) {
        sigset_t one;
        sigemptyset(&one);
        sigaddset(&one, caused);
        const struct timespec now = {0, 0};
        sigtimedwait(&one, NULL, &now);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error ? fail_write(writer, error, err) : CONVT3D_OK;
}

static convt3d_status flush(io_writer *writer, convt3d_error *err) {
    size_t bytes = writer->used;
    writer->used = 0;
    return bytes ? write_quietly(writer, writer->chunk, bytes, err) : CONVT3D_OK;
}

/* 'mode' is Z_NO_FLUSH, or Z_FINISH for the end of the file. */
static convt3d_status compress_some(io_writer *writer, const void *data, uInt bytes, int mode,
                                    convt3d_error *err) {
    z_stream *z = writer->z;
    z->next_in = (Bytef *)(uintptr_t)data; /* zlib doesn't write to it */
    z->avail_in = bytes;
    do {
        z->next_out = writer->chunk;
        z->avail_out = IO_CHUNK;
        deflate(z, mode); /* can't fail: the stream is sound and there is room */
        writer->used = IO_CHUNK - z->avail_out;
        convt3d_status status = flush(writer, err);
        if (status) return status;
    } while (!z->avail_out);
    return CONVT3D_OK;
}

convt3d_status io_writer_write(io_writer *writer, const void *data, size_t bytes,
                               convt3d_error *err) {
    const unsigned char *from = data;
    while (writer->z && bytes) {
        uInt n = bytes < (1u << 30) ? (uInt)bytes : 1u << 30; /* zlib counts in 32 bits */
        convt3d_status status = compress_some(writer, from, n, Z_NO_FLUSH, err);
        if (status) return status;
        from += n;
        bytes -= n;
    }
    if (bytes > IO_CHUNK - writer->used) {
        convt3d_status status = flush(writer, err);
        if (status) return status;
        if (bytes >= IO_CHUNK) return write_quietly(writer, from, bytes, err);
    }
    if (bytes) memcpy(writer->chunk + writer->used, from, bytes);
    writer->used += bytes;
    return CONVT3D_OK;
}

/* ---- end ------------------------------------------------------------------ */

void io_writer_abort(io_writer *writer) {
    if (writer->z) deflateEnd(writer->z);
    free(writer->z);
    if (writer->fd >= 0) close(writer->fd);
    if (writer->temporary) unlink(writer->temporary);
    free(writer->temporary);
    free(writer->target);
    writer->z = NULL;
    writer->fd = -1;
    writer->temporary = writer->target = NULL;
}

/* Makes the new name last through a power cut.  The file is in its place
 * already, so what can't be done here is no failure. */
static void sync_folder(const char *target) {
    char *folder = strdup(target);
    if (!folder) return;
    char *slash = strrchr(folder, '/');
    if (slash) slash[1] = '\0';
    int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(folder);
}

static convt3d_status finish_file(io_writer *writer, convt3d_error *err) {
    if (writer->temporary) {
        if (writer->mode >= 0 && fchmod(writer->fd, (mode_t)writer->mode) != 0)
            return fail_write(writer, errno, err);
        if (fsync(writer->fd) != 0) return fail_write(writer, errno, err);
    }
    int closed = close(writer->fd);
    writer->fd = -1;
    if (closed != 0) return fail_write(writer, errno, err);
    if (!writer->temporary) return CONVT3D_OK;
    if (rename(writer->temporary, writer->target) != 0) return fail_write(writer, errno, err);
    free(writer->temporary);
    writer->temporary = NULL;
    sync_folder(writer->target);
    return CONVT3D_OK;
}

convt3d_status io_writer_commit(io_writer *writer, convt3d_error *err) {
    convt3d_status status = CONVT3D_OK;
    if (writer->z) status = compress_some(writer, NULL, 0, Z_FINISH, err);
    if (!status) status = flush(writer, err);
    if (!status) status = finish_file(writer, err);
    io_writer_abort(writer); /* frees; what is in place has no temporary any more */
    return status;
}
