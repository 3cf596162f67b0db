/* view: a picture of a volume, its three middle slices side by side.
 * SPDX-License-Identifier: MIT */
#include "cli.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    GAP = 8,
    LARGEST = 384
}; /* pixels: between slices, of the longest edge */

/* One channel of one sample, as float, and how to show its axes. */
typedef struct volume {
    const float *data;
    int64_t size[3], stride[3];
    double extent[3];   /* in mm, or in voxels */
    int flip_row[3];    /* as rows, the last index on top */
    int flip_column[3]; /* as columns, the last index on the left */
    float low, high;    /* black and white */
} volume;

/* A slice: the axis that is cut, and those that become rows and columns. */
typedef struct slice {
    int cut, row, column;
    int64_t width, height;
} slice;

/* Superior and anterior go up, right and (seen from the side) anterior to the
 * right.  The diagonal is enough to tell where an axis points; a volume that
 * lies askew is shown as it is stored. */
static void find_directions(const io_space *space, volume *v) {
    const double *q = space->quatern;
    double b = q[0] * q[0], c = q[1] * q[1], d = q[2] * q[2], a = 1 - b - c - d;
    double diagonal[3] = {a + b - c - d, a + c - b - d,
                          (a + d - b - c) * (space->pixdim[0] < 0 ? -1 : 1)};
    for (int x = 0; x < 3; x++) {
        double along = space->sform_code > 0   ? space->srow[x][x]
                       : space->qform_code > 0 ? diagonal[x]
                                               : 1;
        double step = fabs(space->pixdim[1 + x]);
        v->flip_row[2 - x] = along >= 0;
        v->flip_column[2 - x] = along < 0;
        v->extent[2 - x] *= step > 0 && isfinite(step) ? step : 1;
    }
}

static int pick(const cli_args *args, const io_array *array, int axis, cli_id id, int64_t *offset) {
    int64_t index;
    if (cli_integer(args, id, 0, INT64_MAX, 0, &index)) return CLI_USAGE;
    int64_t size = axis >= 0 ? array->size[axis] : 1;
    if (index >= size)
        return cli_fail("%s: %" PRId64 " is beyond the file; legal are 0 to %" PRId64,
                        cli_option_name(id), index, size - 1);
    if (axis >= 0) *offset += index * array->stride[axis];
    return 0;
}

/* A view into the array, whatever its order in memory. */
static int choose_volume(const cli_args *args, const io_array *array, volume *v) {
    char text[CLI_SHAPE_TEXT];
    int64_t offset = 0;
    int first = array->rank - 3;
    if (first < 0 || first > 2)
        return cli_fail("%s has shape %s; a volume has 3 axes (D, H, W), 4 or 5", args->operand,
                        cli_shape_text(array->rank, array->size, text));
    for (int i = 0; i < array->rank; i++)
        if (array->size[i] < 1)
            return cli_fail("%s has shape %s: there is nothing to see", args->operand,
                            cli_shape_text(array->rank, array->size, text));
    int status = pick(args, array, first - 2, CLI_OPT_BATCH, &offset);
    if (status == 0) status = pick(args, array, first - 1, CLI_OPT_CHANNEL, &offset);
    if (status) return status;
    v->data = (const float *)array->data + offset;
    for (int a = 0; a < 3; a++) {
        v->size[a] = array->size[first + a];
        v->stride[a] = array->stride[first + a];
        v->extent[a] = (double)v->size[a];
    }
    if (array->space.present) find_directions(&array->space, v);
    return 0;
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Black and white at the 1st and 99th percentile of a sample: single bright
 * voxels would leave the rest dark. */
static int find_contrast(volume *v) {
    enum {
        SAMPLES = 1000000
    };
    int64_t total = v->size[0] * v->size[1] * v->size[2], step = total / SAMPLES + 1;
    float *sample = malloc(SAMPLES * sizeof(float));
    size_t count = 0;
    if (!sample) return cli_fail("%zu bytes of memory could not be had", SAMPLES * sizeof(float));
    for (int64_t i = 0; i < total; i += step) {
        int64_t w = i % v->size[2], h = i / v->size[2] % v->size[1],
                d = i / v->size[2] / v->size[1];
        float value = v->data[d * v->stride[0] + h * v->stride[1] + w * v->stride[2]];
        if (isfinite(value)) sample[count++] = value;
    }
    v->low = 0;
    v->high = 1;
    if (count > 0) {
        qsort(sample, count, sizeof(*sample), ascending);
        v->low = sample[count / 100];
        v->high = sample[count - 1 - count / 100];
        if (!(v->high > v->low)) {
            v->low = sample[0];
            v->high = sample[count - 1];
        }
    }
    free(sample);
    return 0;
}

/* The two neighbours of the middle of a pixel, and the second one's share. */
static double locate(int64_t pixel, int64_t pixels, int64_t size, int reversed, int64_t at[2]) {
    double x = ((double)pixel + 0.5) * (double)size / (double)pixels - 0.5;
    if (reversed) x = (double)(size - 1) - x;
    x = x < 0 ? 0 : x > (double)(size - 1) ? (double)(size - 1) : x;
    at[0] = (int64_t)x;
    at[1] = at[0] + 1 < size ? at[0] + 1 : at[0];
    return x - (double)at[0];
}

static uint8_t grey(const volume *v, double value) {
    double level = 255 * (value - v->low) / ((double)v->high - v->low);
    if (!(level > 0)) return 0; /* NaN, too, and a volume that is all one value */
    return level > 255 ? 255 : (uint8_t)lround(level);
}

/* Interpolates between voxels, so that a small volume is no mosaic. */
static void draw(const volume *v, const slice *s, uint8_t *pixels, int64_t row_length) {
    const float *plane = v->data + v->size[s->cut] / 2 * v->stride[s->cut];
    for (int64_t y = 0; y < s->height; y++) {
        int64_t row[2], column[2];
        double down = locate(y, s->height, v->size[s->row], v->flip_row[s->row], row);
        for (int64_t x = 0; x < s->width; x++) {
            double right =
                locate(x, s->width, v->size[s->column], v->flip_column[s->column], column);
            double value[2];
            for (int i = 0; i < 2; i++) {
                const float *line = plane + row[i] * v->stride[s->row];
                double left = line[column[0] * v->stride[s->column]];
                double next = line[column[1] * v->stride[s->column]];
                value[i] = right > 0 ? left + right * (next - left) : left;
            }
            pixels[y * row_length + x] =
                grey(v, down > 0 ? value[0] + down * (value[1] - value[0]) : value[0]);
        }
    }
}

/* However flat a volume is, it can be seen. */
static int64_t to_pixels(double extent, double scale) {
    double pixels = floor(extent * scale + 0.5);
    return pixels < 1 ? 1 : (int64_t)pixels;
}

static int save(const volume *v, const char *path) {
    /* Sagittal, coronal, axial. */
    slice slices[3] = {{2, 0, 1, 0, 0}, {1, 0, 2, 0, 0}, {0, 1, 2, 0, 0}};
    double longest = fmax(v->extent[0], fmax(v->extent[1], v->extent[2]));
    int64_t width = 2 * GAP, height = 1, left = 0;
    convt3d_error err;
    for (int i = 0; i < 3; i++) {
        slices[i].width = to_pixels(v->extent[slices[i].column], LARGEST / longest);
        slices[i].height = to_pixels(v->extent[slices[i].row], LARGEST / longest);
        width += slices[i].width;
        if (slices[i].height > height) height = slices[i].height;
    }
    uint8_t *pixels = calloc((size_t)height, (size_t)width);
    if (!pixels) return cli_fail("%" PRId64 " bytes of memory could not be had", height * width);
    for (int i = 0; i < 3; i++) {
        int64_t top = (height - slices[i].height) / 2;
        draw(v, &slices[i], pixels + top * width + left, width);
        left += slices[i].width + GAP;
    }
    cli_phase_enter(CLI_PHASE_SAVE);
    convt3d_status status = io_png_write(path, pixels, width, height, &err);
    free(pixels);
    return status == CONVT3D_OK ? 0 : cli_fail_status(&err);
}

static int view(const cli_args *args) {
    static const char *const endings[] = {".png", ""};
    const char *path = args->text[CLI_OPT_OUTPUT];
    io_array array = {0};
    volume v = {0};
    int64_t index;
    convt3d_error err;
    int status = cli_output_check("--output", path, endings);
    if (status == 0) status = cli_integer(args, CLI_OPT_CHANNEL, 0, INT64_MAX, 0, &index);
    if (status == 0) status = cli_integer(args, CLI_OPT_BATCH, 0, INT64_MAX, 0, &index);
    if (status) return status;
    if (io_load(args->operand, &array, &err) != CONVT3D_OK ||
        io_array_convert(&array, CONVT3D_FLOAT32, &err) != CONVT3D_OK)
        status = cli_fail_status(&err);
    if (status == 0) status = choose_volume(args, &array, &v);
    if (status == 0) status = find_contrast(&v);
    if (status == 0) status = save(&v, path);
    io_array_free(&array);
    return status;
}

const cli_command cli_view = {
    .name = "view",
    .synopsis = "X --output=P.png",
    .summary = "Draw the three middle slices of a volume.",
    .takes = CLI_SET(CLI_OPT_OUTPUT) | CLI_SET(CLI_OPT_CHANNEL) | CLI_SET(CLI_OPT_BATCH),
    .needs = CLI_SET(CLI_OPT_OUTPUT),
    .has_operand = 1,
    .run = view,
};
