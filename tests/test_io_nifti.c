/* test_io_nifti: NIfTI volumes as they should be, and where they lie in space.
 * SPDX-License-Identifier: MIT */
#include "files.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Writes the file that 'f' describes and loads it. */
static io_array load_made(const files_nifti *f, int gzip) {
    size_t size, packed;
    unsigned char *bytes = files_nifti_bytes(f, &size);
    if (gzip) {
        unsigned char *small = files_gzip(bytes, size, &packed);
        files_put(files_path("a.nii.gz"), small, packed);
        free(small);
    } else {
        files_put(files_path("a.nii.gz"), bytes, size);
    }
    free(bytes);
    return files_load(files_path("a.nii.gz"));
}

/* The element at (t, channel, z, y, x), as a double. */
static double at(const io_array *a, int64_t t, int64_t c, int64_t z, int64_t y, int64_t x) {
    const int64_t index[5] = {t, c, z, y, x};
    int64_t offset = 0;
    for (int i = 0; i < 5; i++) offset += index[i] * a->stride[i];
    return a->dtype == IO_F32 ? (double)((float *)a->data)[offset] : ((double *)a->data)[offset];
}

static void check_size(const io_array *a, io_dtype dtype, int64_t n, int64_t c, int64_t d,
                       int64_t h, int64_t w) {
    const int64_t want[5] = {n, c, d, h, w};
    assert_string_equal(io_dtype_name(a->dtype), io_dtype_name(dtype));
    assert_int_equal(a->rank, 5);
    for (int i = 0; i < 5; i++) assert_int_equal(a->size[i], want[i]);
}

/* ---- reading -------------------------------------------------------------------- */

static void both_versions_orders_and_gzip_are_read(void **state) {
    (void)state;
    for (int kind = 0; kind < 8; kind++) {
        files_nifti f = files_nifti_default(kind & 1 ? 2 : 1);
        f.swap = kind >> 1 & 1;
        io_array array = load_made(&f, kind >> 2);
        check_size(&array, IO_F32, 1, 1, 2, 3, 4);
        assert_true(array.space.present);
        assert_int_equal(array.space.nifti_version, f.version);
        for (int z = 0; z < 2; z++)
            for (int y = 0; y < 3; y++)
                for (int x = 0; x < 4; x++)
                    assert_true(at(&array, 0, 0, z, y, x) == 12 * z + 4 * y + x);
        io_array_free(&array);
    }
}

static void integers_are_swapped_too(void **state) {
    (void)state;
    static const struct {
        int datatype, bytes;
        io_dtype dtype;
    } types[] = {{2, 1, IO_U8},    {256, 1, IO_I8}, {512, 2, IO_U16},  {4, 2, IO_I16},
                 {768, 4, IO_U32}, {8, 4, IO_I32},  {1280, 8, IO_U64}, {1024, 8, IO_I64},
                 {16, 4, IO_F32},  {64, 8, IO_F64}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        for (int swap = 0; swap < 2; swap++) {
            files_nifti f = files_nifti_default(1);
            f.swap = swap;
            f.datatype = types[i].datatype;
            f.bytes = types[i].bytes;
            io_array array = load_made(&f, 0);
            check_size(&array, types[i].dtype, 1, 1, 2, 3, 4);
            assert_int_equal(io_array_convert(&array, CONVT3D_FLOAT64, NULL), CONVT3D_OK);
            assert_true(at(&array, 0, 0, 1, 2, 3) == 23 && at(&array, 0, 0, 0, 0, 1) == 1);
            io_array_free(&array);
        }
}

/* The file's order is x, y, z, t, channel, whatever the array's is. */
static void time_is_the_batch_and_dimension_5_the_channel(void **state) {
    (void)state;
    files_nifti f = files_nifti_default(1);
    const int64_t dim[8] = {5, 2, 3, 4, 5, 6, 77, 88}; /* the last two don't count */
    memcpy(f.dim, dim, sizeof dim);
    io_array array = load_made(&f, 0);
    check_size(&array, IO_F32, 5, 6, 4, 3, 2);
    assert_true(at(&array, 0, 0, 0, 0, 1) == 1);
    assert_true(at(&array, 0, 0, 0, 1, 0) == 2);
    assert_true(at(&array, 0, 0, 1, 0, 0) == 6);
    assert_true(at(&array, 1, 0, 0, 0, 0) == 24);
    assert_true(at(&array, 0, 1, 0, 0, 0) == 120);
    assert_true(at(&array, 4, 5, 3, 2, 1) == 719);
    io_array_free(&array);
    f.dim[0] = 4;
    array = load_made(&f, 0);
    check_size(&array, IO_F32, 5, 1, 4, 3, 2);
    io_array_free(&array);
    f.dim[0] = 1;
    array = load_made(&f, 0);
    check_size(&array, IO_F32, 1, 1, 1, 1, 2);
    io_array_free(&array);
}

static void slope_and_intercept_are_applied(void **state) {
    (void)state;
    static const struct {
        int datatype, bytes;
        io_dtype dtype;
    } cases[] = {{2, 1, IO_F32}, {512, 2, IO_F32},  {16, 4, IO_F32},
                 {8, 4, IO_F64}, {1024, 8, IO_F64}, {64, 8, IO_F64}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        files_nifti f = files_nifti_default(2);
        f.datatype = cases[i].datatype;
        f.bytes = cases[i].bytes;
        f.slope = 0.1;
        f.inter = -3;
        io_array array = load_made(&f, 0);
        check_size(&array, cases[i].dtype, 1, 1, 2, 3, 4);
        double want = 23 * 0.1 - 3;
        assert_true(at(&array, 0, 0, 1, 2, 3) == (array.dtype == IO_F32 ? (float)want : want));
        io_array_free(&array);
    }
}

static void no_slope_leaves_the_type_alone(void **state) {
    (void)state;
    const double slopes[3] = {0, NAN, 1}, inters[3] = {5, NAN, 0};
    for (int i = 0; i < 3; i++) {
        files_nifti f = files_nifti_default(1);
        f.datatype = 2;
        f.bytes = 1;
        f.slope = slopes[i];
        f.inter = inters[i];
        io_array array = load_made(&f, 0);
        check_size(&array, IO_U8, 1, 1, 2, 3, 4);
        assert_int_equal(((uint8_t *)array.data)[23], 23);
        io_array_free(&array);
    }
}

static void extensions_and_an_offset_of_0_are_read_over(void **state) {
    (void)state;
    for (int version = 1; version <= 2; version++)
        for (int i = 0; i < 4; i++) {
            files_nifti f = files_nifti_default(version);
            if (i & 1)
                f.vox_offset = 0;
            else
                f.vox_offset += (double)(f.gap = 4 + 32) - 4;
            io_array array = load_made(&f, i >> 1);
            assert_true(at(&array, 0, 0, 1, 2, 3) == 23);
            io_array_free(&array);
        }
}

static void gzip_of_several_members_is_one_file(void **state) {
    (void)state;
    files_nifti f = files_nifti_default(1);
    size_t size, one, two;
    unsigned char *bytes = files_nifti_bytes(&f, &size);
    unsigned char *first = files_gzip(bytes, 350, &one);
    unsigned char *second = files_gzip(bytes + 350, size - 350, &two);
    unsigned char *both = malloc(one + two);
    assert_non_null(both);
    memcpy(both, first, one);
    memcpy(both + one, second, two);
    files_put(files_path("a.nii.gz"), both, one + two);
    io_array array = files_load(files_path("a.nii.gz"));
    assert_true(at(&array, 0, 0, 1, 2, 3) == 23);
    io_array_free(&array);
    free(bytes);
    free(first);
    free(second);
    free(both);
}

/* ---- writing ---------------------------------------------------------------------- */

static void check_round_trip(const char *name, int32_t rank, const int64_t *size, io_dtype dtype,
                             int version) {
    io_array array = files_numbers(rank, size);
    if (dtype == IO_F64)
        assert_int_equal(io_array_convert(&array, CONVT3D_FLOAT64, NULL), CONVT3D_OK);
    files_save(files_path(name), &array);
    io_array back = files_load(files_path(name));
    int64_t full[5] = {1, 1, 1, 1, 1};
    memcpy(full + 5 - rank, size, sizeof *size * (size_t)rank);
    check_size(&back, dtype, full[0], full[1], full[2], full[3], full[4]);
    assert_int_equal(back.space.nifti_version, version);
    int64_t index[5] = {0}, offset = 0, count = 0;
    do assert_true(at(&back, index[0], index[1], index[2], index[3], index[4]) == (double)count++);
    while (io_array_step(&back, 5, index, &offset));
    io_array_free(&array);
    io_array_free(&back);
}

static void written_volumes_are_read_back(void **state) {
    (void)state;
    const int64_t small[5] = {2, 3, 4, 5, 6}, long_axis[3] = {1, 2, 40000};
    for (int32_t rank = 3; rank <= 5; rank++)
        for (int i = 0; i < 4; i++)
            check_round_trip(i & 1 ? "a.nii.gz" : "a.nii", rank, small + 5 - rank,
                             i & 2 ? IO_F64 : IO_F32, 1);
    check_round_trip("a.nii", 3, long_axis, IO_F32, 2);
    check_round_trip("a.nii.gz", 3, long_axis, IO_F64, 2);
}

/* The bytes that the standard asks for, by their offsets. */
static void written_headers_are_what_the_standard_says(void **state) {
    (void)state;
    io_array array = files_numbers(5, (const int64_t[]){2, 3, 4, 5, 6});
    files_save(files_path("a.nii"), &array);
    size_t size;
    unsigned char *h = files_get(files_path("a.nii"), &size);
    int16_t dim[8], code[3];
    float offset, srow[12];
    memcpy(dim, h + 40, sizeof dim);
    memcpy(code, h + 68, sizeof code);
    memcpy(&offset, h + 108, sizeof offset);
    memcpy(srow, h + 280, sizeof srow);
    const int16_t want[8] = {5, 6, 5, 4, 2, 3, 1, 1}, codes[3] = {1007, 16, 32};
    const float identity[12] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0};
    assert_int_equal(size, 352 + 4 * 720);
    assert_memory_equal(h, "\x5c\1\0\0", 4);
    assert_memory_equal(h + 344, "n+1", 4);
    assert_memory_equal(dim, want, sizeof dim);
    assert_memory_equal(code, codes, sizeof code);
    assert_true(offset == 352);
    assert_memory_equal(srow, identity, sizeof srow);
    assert_int_equal(h[38], 'r');    /* regular */
    assert_int_equal(h[123], 2 | 8); /* mm, s */
    free(h);
    io_array_free(&array);
}

static void space_of_a_volume_is_kept(void **state) {
    (void)state;
    for (int version = 1; version <= 2; version++) {
        files_nifti f = files_nifti_default(version);
        f.qform_code = 1;
        f.sform_code = 4;
        f.units = 10;
        for (int i = 0; i < 12; i++) f.srow[i] = i + 0.5;
        for (int i = 0; i < 3; i++) f.quatern[i] = 0.25 * i, f.qoffset[i] = -i - 1;
        for (int i = 0; i < 8; i++) f.pixdim[i] = i ? i : -1;
        io_array array = load_made(&f, 0);
        const io_space *s = &array.space;
        assert_int_equal(s->qform_code, 1);
        assert_int_equal(s->sform_code, 4);
        assert_int_equal(s->xyzt_units, 10);
        assert_memory_equal(s->srow, f.srow, sizeof f.srow);
        assert_memory_equal(s->quatern, f.quatern, sizeof f.quatern);
        assert_memory_equal(s->qoffset, f.qoffset, sizeof f.qoffset);
        assert_memory_equal(s->pixdim, f.pixdim, sizeof f.pixdim);
        strcpy(array.space.descrip, "somebody's brain");
        files_save(files_path("b.nii"), &array);
        io_array back = files_load(files_path("b.nii"));
        assert_memory_equal(&back.space, &array.space, sizeof back.space);
        io_array_free(&array);
        io_array_free(&back);
    }
}

/* ---- following the layer ----------------------------------------------------------- */

/* Where the sform puts a voxel, in mm. */
static void place(const io_space *s, const double voxel[3], double mm[3]) {
    for (int r = 0; r < 3; r++) {
        mm[r] = s->srow[r][3];
        for (int a = 0; a < 3; a++) mm[r] += s->srow[r][a] * voxel[a];
    }
}

/* Where the qform does, for a turn by 90 degrees about z with qfac -1: the
 * matrix (0 -1 0; 1 0 0; 0 0 -1), written down and not computed. */
static void place_turned(const io_space *s, const double voxel[3], double mm[3]) {
    const double *size = s->pixdim;
    mm[0] = s->qoffset[0] - size[2] * voxel[1];
    mm[1] = s->qoffset[1] + size[1] * voxel[0];
    mm[2] = s->qoffset[2] - size[3] * voxel[2];
}

static void output_voxels_lie_where_the_layer_puts_them(void **state) {
    (void)state;
    io_space in = {.present = 1,
                   .qform_code = 1,
                   .sform_code = 1,
                   .pixdim = {-1, 2, 3, 4, 1, 1, 1, 1},
                   .quatern = {0, 0, sqrt(0.5)},
                   .qoffset = {10, 20, 30},
                   .srow = {{1, 2, 3, 4}, {-5, 6, 7, 8}, {9, 10, -11, 12}}};
    const double scale[3] = {0.5, 0.25, 2}, shift[3] = {-0.25, 3, 1.5};
    io_space out = io_space_follow(&in, scale, shift);
    for (int i = 0; i < 8; i++) {
        const double o[3] = {i & 1, i >> 1 & 1, i >> 2};
        double x[3], want[3], got[3];
        for (int a = 0; a < 3; a++) x[a] = scale[a] * o[a] + shift[a];
        place(&in, x, want);
        place(&out, o, got);
        for (int r = 0; r < 3; r++) assert_true(fabs(want[r] - got[r]) < 1e-12);
        place_turned(&in, x, want);
        place_turned(&out, o, got);
        for (int r = 0; r < 3; r++) assert_true(fabs(want[r] - got[r]) < 1e-12);
    }
    assert_true(out.pixdim[1] == 1 && out.pixdim[2] == 0.75 && out.pixdim[3] == 8);
    assert_true(out.pixdim[0] == -1 && out.pixdim[4] == 1);
    in.present = 0;
    out = io_space_follow(&in, scale, shift);
    assert_memory_equal(&out, &in, sizeof out);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, files_setup, files_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(both_versions_orders_and_gzip_are_read),
        TEST(integers_are_swapped_too),
        TEST(time_is_the_batch_and_dimension_5_the_channel),
        TEST(slope_and_intercept_are_applied),
        TEST(no_slope_leaves_the_type_alone),
        TEST(extensions_and_an_offset_of_0_are_read_over),
        TEST(gzip_of_several_members_is_one_file),
        TEST(written_volumes_are_read_back),
        TEST(written_headers_are_what_the_standard_says),
        TEST(space_of_a_volume_is_kept),
        TEST(output_voxels_lie_where_the_layer_puts_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
