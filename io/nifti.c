/* nifti: reading NIfTI-1 and NIfTI-2 volumes, .nii and .nii.gz.
 *
 * libnifti2 knows the header: its structs, versions and byte order.  Its own
 * readers are not used: they believe the header's sizes before the file's, warn
 * on stderr and read missing data as zeros.  Here the header is checked first,
 * and the data come through the same source as all other files.
 * SPDX-License-Identifier: MIT */
#include "private.h"

#include <inttypes.h>
#include <math.h>
#include <nifti2_io.h>
#include <stddef.h>
#include <string.h>

/* What is wanted of either header. */
typedef struct nifti_facts {
    int swap; /* the file has the other byte order */
    char magic[4];
    int64_t dim[8];
    int datatype;
    double vox_offset, scl_slope, scl_inter;
    io_space space;
} nifti_facts;

/* The two headers have the same fields in other places and types. */
#define COPY_FACTS(facts, h)                                                                       \
    do {                                                                                           \
        memcpy((facts)->magic, (h)->magic, 4);                                                     \
        for (int i_ = 0; i_ < 8; i_++) {                                                           \
            (facts)->dim[i_] = (h)->dim[i_];                                                       \
            (facts)->space.pixdim[i_] = (double)(h)->pixdim[i_];                                   \
        }                                                                                          \
        for (int i_ = 0; i_ < 4; i_++) {                                                           \
            (facts)->space.srow[0][i_] = (double)(h)->srow_x[i_];                                  \
            (facts)->space.srow[1][i_] = (double)(h)->srow_y[i_];                                  \
            (facts)->space.srow[2][i_] = (double)(h)->srow_z[i_];                                  \
        }                                                                                          \
        (facts)->datatype = (h)->datatype;                                                         \
        (facts)->vox_offset = (double)(h)->vox_offset;                                             \
        (facts)->scl_slope = (double)(h)->scl_slope;                                               \
        (facts)->scl_inter = (double)(h)->scl_inter;                                               \
        (facts)->space.qform_code = (h)->qform_code;                                               \
        (facts)->space.sform_code = (h)->sform_code;                                               \
        (facts)->space.quatern[0] = (double)(h)->quatern_b;                                        \
        (facts)->space.quatern[1] = (double)(h)->quatern_c;                                        \
        (facts)->space.quatern[2] = (double)(h)->quatern_d;                                        \
        (facts)->space.qoffset[0] = (double)(h)->qoffset_x;                                        \
        (facts)->space.qoffset[1] = (double)(h)->qoffset_y;                                        \
        (facts)->space.qoffset[2] = (double)(h)->qoffset_z;                                        \
        memcpy((facts)->space.descrip, (h)->descrip, 80);                                          \
    } while (0)

/* ---- the header --------------------------------------------------------------- */

/* The header's own size: 348 or 540 in either byte order, else 0. */
static int header_size(int32_t sizeof_hdr, int *swap) {
    int32_t swapped = (int32_t)__builtin_bswap32((uint32_t)sizeof_hdr);
    *swap = swapped == 348 || swapped == 540;
    int32_t size = *swap ? swapped : sizeof_hdr;
    return size == 348 || size == 540 ? size : 0;
}

static convt3d_status read_header(io_stream *stream, nifti_facts *facts, convt3d_error *err) {
    const char *path = stream->source->path;
    union {
        nifti_1_header one;
        nifti_2_header two;
        int32_t size;
        char bytes[sizeof(nifti_2_header)];
    } header;
    memset(&header, 0, sizeof header);
    convt3d_status status = io_stream_read(stream, &header, sizeof header.size, err);
    if (status) return status;
    int size = header_size(header.size, &facts->swap);
    if (!size)
        return io_fail(err, CONVT3D_FORMAT, path,
                       "not a NIfTI file: header size %d isn't 348 or 540", header.size);
    status = io_stream_read(stream, header.bytes + sizeof header.size,
                            size - (int64_t)sizeof header.size, err);
    if (status) return status;
    int version = nifti_header_version(header.bytes, (size_t)size);
    if (version != (size == 348 ? 1 : 2))
        return io_fail(err, CONVT3D_FORMAT, path, "not a NIfTI file: bad magic");
    if (version == 1) {
        if (facts->swap) nifti_swap_as_nifti1(&header.one);
        COPY_FACTS(facts, &header.one);
        facts->space.xyzt_units = (unsigned char)header.one.xyzt_units;
    } else {
        if (facts->swap) nifti_swap_as_nifti2(&header.two);
        COPY_FACTS(facts, &header.two);
        facts->space.xyzt_units = header.two.xyzt_units;
    }
    facts->space.descrip[79] = '\0';
    facts->space.nifti_version = version;
    facts->space.present = 1;
    return CONVT3D_OK;
}

static io_dtype dtype_of(int datatype) {
    switch (datatype) {
    case DT_UINT8:
        return IO_U8;
    case DT_INT8:
        return IO_I8;
    case DT_UINT16:
        return IO_U16;
    case DT_INT16:
        return IO_I16;
    case DT_UINT32:
        return IO_U32;
    case DT_INT32:
        return IO_I32;
    case DT_UINT64:
        return IO_U64;
    case DT_INT64:
        return IO_I64;
    case DT_FLOAT32:
        return IO_F32;
    case DT_FLOAT64:
        return IO_F64;
    default:
        return (io_dtype)0;
    }
}

/* Axes that dim[0] leaves out are 1, whatever stands there. */
static convt3d_status check_dims(nifti_facts *facts, const char *path, convt3d_error *err) {
    if (facts->dim[0] < 1 || facts->dim[0] > 7)
        return io_fail(err, CONVT3D_FORMAT, path,
                       "bad NIfTI header: dim[0] = %" PRId64 " isn't 1..7", facts->dim[0]);
    for (int i = 1; i < 8; i++) {
        if (i > facts->dim[0]) facts->dim[i] = 1;
        if (facts->dim[i] < 1)
            return io_fail(err, CONVT3D_FORMAT, path,
                           "bad NIfTI header: dim[%d] = %" PRId64 " is below 1", i, facts->dim[i]);
    }
    if (facts->dim[6] > 1 || facts->dim[7] > 1)
        return io_fail(err, CONVT3D_SHAPE, path,
                       "dimensions 6 and 7 are %" PRId64 " and %" PRId64
                       ", but must be 1: x, y, z, time and channel are all that is read",
                       facts->dim[6], facts->dim[7]);
    return CONVT3D_OK;
}

/* Checks what the header says of the data, and how far away they begin. */
static convt3d_status check_data(nifti_facts *facts, const char *path, int64_t *skip,
                                 convt3d_error *err) {
    int64_t first = facts->space.nifti_version == 1 ? 352 : 544;
    int64_t after_header = first - 4;
    double offset = facts->vox_offset;
    if (facts->magic[1] != '+')
        return io_fail(err, CONVT3D_FORMAT, path,
                       "a pair of .hdr and .img can't be read; make it one .nii file");
    if (offset == 0) offset = (double)first; /* some writers leave it to the reader */
    if (!(offset >= (double)first && offset < 0x1p53) || offset != floor(offset))
        return io_fail(err, CONVT3D_FORMAT, path,
                       "bad NIfTI header: vox_offset %g isn't a whole number >= %" PRId64,
                       facts->vox_offset, first);
    *skip = (int64_t)offset - after_header;
    if (!dtype_of(facts->datatype))
        return io_fail(err, CONVT3D_DTYPE, path,
                       "NIfTI datatype %d (%s) can't be read; real numbers of 8 to 64 bits can",
                       facts->datatype, nifti_datatype_string(facts->datatype));
    /* A slope of 0 or NaN means that there is none. */
    if (facts->scl_slope == 0 || isnan(facts->scl_slope)) {
        facts->scl_slope = 1;
        facts->scl_inter = 0;
    }
    if (!isfinite(facts->scl_slope) || !isfinite(facts->scl_inter))
        return io_fail(err, CONVT3D_FORMAT, path,
                       "bad NIfTI header: scl_slope %g and scl_inter %g aren't both finite",
                       facts->scl_slope, facts->scl_inter);
    return CONVT3D_OK;
}

/* ---- the data ----------------------------------------------------------------- */

/* An array of (t, dim 5, z, y, x), in the file's order: x, y, z, t, dim 5. */
static convt3d_status create(const nifti_facts *facts, io_stream *stream, io_array *array,
                             convt3d_error *err) {
    const int64_t *dim = facts->dim;
    const int64_t size[5] = {dim[4], dim[5], dim[3], dim[2], dim[1]};
    io_dtype dtype = dtype_of(facts->datatype);
    int64_t bytes = io_shape_bytes(dtype, 5, size);
    if (bytes < 0 || bytes > io_stream_most(stream))
        return io_fail(err, CONVT3D_FORMAT, stream->source->path,
                       "cut short: %" PRId64 " x %" PRId64 " x %" PRId64 " x %" PRId64 " x %" PRId64
                       " voxels of %s don't fit in the file",
                       dim[1], dim[2], dim[3], dim[4], dim[5], io_dtype_name(dtype));
    convt3d_status status = io_array_create_for(stream->source->path, dtype, 5, size, array, err);
    if (status) return status;
    int64_t volume = dim[1] * dim[2] * dim[3];
    array->stride[0] = volume;
    array->stride[1] = volume * dim[4];
    return CONVT3D_OK;
}

/* Calculated in double and rounded once; a float holds every integer of 16
 * bits, and what needs more becomes double. */
static convt3d_status scale(const nifti_facts *facts, io_array *array, convt3d_error *err) {
    if (facts->scl_slope == 1 && facts->scl_inter == 0) return CONVT3D_OK;
    int wide = io_dtype_size(array->dtype) > 2 && array->dtype != IO_F32;
    convt3d_status status = io_array_convert(array, wide ? CONVT3D_FLOAT64 : CONVT3D_FLOAT32, err);
    if (status) return status;
    int64_t count = 1;
    for (int i = 0; i < 5; i++) count *= array->size[i];
    float *f32 = array->data;
    double *f64 = array->data;
    for (int64_t i = 0; i < count; i++) {
        if (wide)
            f64[i] = f64[i] * facts->scl_slope + facts->scl_inter;
        else
            f32[i] = (float)((double)f32[i] * facts->scl_slope + facts->scl_inter);
    }
    return CONVT3D_OK;
}

static convt3d_status read_data(io_stream *stream, const nifti_facts *facts, io_array *array,
                                convt3d_error *err) {
    size_t element = io_dtype_size(array->dtype);
    int64_t count = 1;
    for (int i = 0; i < 5; i++) count *= array->size[i];
    convt3d_status status = io_stream_read(stream, array->data, count * (int64_t)element, err);
    if (!status) status = io_stream_end(stream, err);
    if (status) return status;
    if (facts->swap) io_swap_bytes(array->data, count, element);
    array->space = facts->space;
    return scale(facts, array, err);
}

static convt3d_status read_stream(io_stream *stream, io_array *array, convt3d_error *err) {
    const char *path = stream->source->path;
    nifti_facts facts;
    int64_t skip = 0;
    memset(&facts, 0, sizeof facts);
    convt3d_status status = read_header(stream, &facts, err);
    if (!status) status = check_dims(&facts, path, err);
    if (!status) status = check_data(&facts, path, &skip, err);
    if (!status) status = io_stream_skip(stream, skip, err);
    if (!status) status = create(&facts, stream, array, err);
    if (status) return status;
    status = read_data(stream, &facts, array, err);
    if (status) io_array_free(array);
    return status;
}

convt3d_status io_nifti_read(io_source *source, io_array *array, convt3d_error *err) {
    io_stream stream;
    memset(array, 0, sizeof *array);
    convt3d_status status = io_stream_open(source, &stream, err);
    if (status) return status;
    status = read_stream(&stream, array, err);
    io_stream_close(&stream);
    return status;
}
