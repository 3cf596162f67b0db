/* nifti_write: writing .nii and .nii.gz, laid out as nifti.c reads them.
 * SPDX-License-Identifier: MIT */
#include "private.h"

#include <inttypes.h>
#include <limits.h>
#include <nifti2_io.h>
#include <string.h>

/* Voxels of 1 mm, and the millimetres are the indices. */
static io_space default_space(void) {
    return (io_space){.present = 1,
                      .nifti_version = 1,
                      .xyzt_units = NIFTI_UNITS_MM | NIFTI_UNITS_SEC,
                      .sform_code = NIFTI_XFORM_ALIGNED_ANAT,
                      .pixdim = {1, 1, 1, 1, 1, 1, 1, 1},
                      .srow = {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}}};
}

/* (D, H, W), (C, D, H, W) and (N, C, D, H, W) as (C, N, D, H, W), which is the
 * order of the file in C order: x, y, z, time, channel, the first the fastest. */
static io_array file_order(const io_array *array) {
    io_array view = {.data = array->data, .dtype = array->dtype, .rank = 5};
    int32_t missing = 5 - array->rank;
    for (int32_t i = 0; i < 5; i++) {
        int32_t to = i == 0 ? 1 : i == 1 ? 0 : i;
        view.size[to] = i < missing ? 1 : array->size[i - missing];
        view.stride[to] = i < missing ? 0 : array->stride[i - missing];
    }
    return view;
}

/* Fills either header: the fields have the same names in both. */
#define FILL_HEADER(h, view, space)                                                                \
    do {                                                                                           \
        for (int i_ = 0; i_ < 5; i_++) (h)->dim[i_ + 1] = (view)->size[4 - i_];                    \
        (h)->dim[6] = (h)->dim[7] = 1;                                                             \
        (h)->dim[0] = (view)->size[0] > 1 ? 5 : (view)->size[1] > 1 ? 4 : 3;                       \
        /* Programs take dimension 5 for channels only if they are told so. */                     \
        (h)->intent_code = (view)->size[0] > 1 ? NIFTI_INTENT_VECTOR : NIFTI_INTENT_NONE;          \
        (h)->datatype = (view)->dtype == IO_F32 ? DT_FLOAT32 : DT_FLOAT64;                         \
        (h)->bitpix = (view)->dtype == IO_F32 ? 32 : 64;                                           \
        (h)->scl_slope = 1;                                                                        \
        (h)->xyzt_units = (space)->xyzt_units;                                                     \
        (h)->qform_code = (space)->qform_code;                                                     \
        (h)->sform_code = (space)->sform_code;                                                     \
        (h)->quatern_b = (space)->quatern[0];                                                      \
        (h)->quatern_c = (space)->quatern[1];                                                      \
        (h)->quatern_d = (space)->quatern[2];                                                      \
        (h)->qoffset_x = (space)->qoffset[0];                                                      \
        (h)->qoffset_y = (space)->qoffset[1];                                                      \
        (h)->qoffset_z = (space)->qoffset[2];                                                      \
        for (int i_ = 0; i_ < 8; i_++) (h)->pixdim[i_] = (space)->pixdim[i_];                      \
        for (int i_ = 0; i_ < 4; i_++) {                                                           \
            (h)->srow_x[i_] = (space)->srow[0][i_];                                                \
            (h)->srow_y[i_] = (space)->srow[1][i_];                                                \
            (h)->srow_z[i_] = (space)->srow[2][i_];                                                \
        }                                                                                          \
        memcpy((h)->descrip, (space)->descrip, 79);                                                \
    } while (0)

/* The header, and the four bytes after it that say that no extension follows. */
static convt3d_status write_header(io_writer *writer, const io_array *view, const io_space *space,
                                   convt3d_error *err) {
    int large = 0;
    for (int i = 0; i < 5; i++) large |= view->size[i] > SHRT_MAX;
    const char none[4] = {0};
    convt3d_status status;
    if (large || space->nifti_version == 2) {
        nifti_2_header two;
        memset(&two, 0, sizeof two);
        two.sizeof_hdr = sizeof two;
        memcpy(two.magic, "n+2\0\r\n\032\n", 8);
        two.vox_offset = sizeof two + sizeof none;
        FILL_HEADER(&two, view, space);
        status = io_writer_write(writer, &two, sizeof two, err);
    } else {
        nifti_1_header one;
        memset(&one, 0, sizeof one);
        one.sizeof_hdr = sizeof one;
        one.regular = 'r'; /* ANALYZE readers want to see it */
        memcpy(one.magic, "n+1", 4);
        one.vox_offset = sizeof one + sizeof none;
        FILL_HEADER(&one, view, space);
        status = io_writer_write(writer, &one, sizeof one, err);
    }
    return status ? status : io_writer_write(writer, none, sizeof none, err);
}

static convt3d_status check(const char *path, const io_array *array, convt3d_error *err) {
    if (array->rank < 3 || array->rank > 5)
        return io_fail(
            err, CONVT3D_SHAPE, path,
            "NIfTI can't hold an array of rank %d; it may be 3 (D, H, W), 4 (C, D, H, W) "
            "or 5 (N, C, D, H, W)",
            (int)array->rank);
    for (int32_t i = 0; i < array->rank; i++)
        if (array->size[i] < 1)
            return io_fail(err, CONVT3D_SHAPE, path,
                           "NIfTI can't hold an empty array: axis %d has size %" PRId64, (int)i,
                           array->size[i]);
    return CONVT3D_OK;
}

convt3d_status io_nifti_write(const char *path, int gzip, const io_array *array,
                              convt3d_error *err) {
    convt3d_status status = check(path, array, err);
    if (status) return status;
    io_array view = file_order(array);
    io_space space = array->space.present ? array->space : default_space();
    io_writer writer;
    status = io_writer_open(&writer, path, gzip, err);
    if (status) return status;
    status = write_header(&writer, &view, &space, err);
    if (!status) status = io_writer_array(&writer, &view, err);
    if (!status) return io_writer_commit(&writer, err);
    io_writer_abort(&writer);
    return status;
}
