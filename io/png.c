/* png: grey pictures, by libpng.
 * SPDX-License-Identifier: MIT */
#include "private.h"

#include <inttypes.h>
#include <png.h>
#include <setjmp.h>

/* What libpng's callbacks need; they can report only by a jump. */
typedef struct png_target {
    io_writer writer;
    convt3d_status status;
    convt3d_error *err;
} png_target;

static void on_write(png_structp png, png_bytep data, png_size_t bytes) {
    png_target *target = png_get_io_ptr(png);
    target->status = io_writer_write(&target->writer, data, bytes, target->err);
    if (target->status) png_longjmp(png, 1);
}

/* Called after each file's end; the writer flushes by itself. */
static void on_flush(png_structp png) {
    (void)png;
}

/* Replaces libpng's own, which prints. */
static void on_error(png_structp png, png_const_charp text) {
    png_target *target = png_get_error_ptr(png);
    target->status = io_fail(target->err, CONVT3D_NOMEM, target->writer.path,
                             "the picture can't be encoded: %s", text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text) {
    (void)png;
    (void)text;
}

/* The jump comes back to this frame, so nothing here changes after setjmp(). */
static convt3d_status encode(png_target *target, png_structp png, png_infop info,
                             const uint8_t *pixels, int64_t width, int64_t height) {
    if (setjmp(png_jmpbuf(png))) return target->status;
    png_set_write_fn(png, target, on_write, on_flush);
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, 8, PNG_COLOR_TYPE_GRAY,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (int64_t y = 0; y < height; y++) png_write_row(png, pixels + y * width);
    png_write_end(png, NULL);
    return CONVT3D_OK;
}

convt3d_status io_png_write(const char *path, const uint8_t *pixels, int64_t width, int64_t height,
                            convt3d_error *err) {
    if (width < 1 || width > PNG_USER_WIDTH_MAX || height < 1 || height > PNG_USER_HEIGHT_MAX)
        return io_fail(err, CONVT3D_SHAPE, path,
                       "a picture can't be %" PRId64 " x %" PRId64 "; each may be 1..%d", width,
                       height, PNG_USER_WIDTH_MAX);
    png_target target = {.status = CONVT3D_OK, .err = err};
    convt3d_status status = io_writer_open(&target.writer, path, 0, err);
    if (status) return status;
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &target, on_error, on_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    status = info ? encode(&target, png, info, pixels, width, height)
                  : io_fail_nomem(err, path, 1u << 16);
    png_destroy_write_struct(&png, &info);
    if (!status) return io_writer_commit(&target.writer, err);
    io_writer_abort(&target.writer);
    return status;
}
