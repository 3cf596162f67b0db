/* test_io: files of every kind that io/ reads and writes, as they should be.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "files.h"

#include <math.h>
#include <png.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/* ---- conversion ------------------------------------------------------------------- */

static void empty_batches_pass_through_npy_and_safetensors(void **state) {
    (void)state;
    static const char *const names[] = {"a.npy", "a.safetensors"};
    const int64_t size[5] = {0, 2, 3, 4, 5};
    for (int i = 0; i < 2; i++) {
        io_array array = files_numbers(5, size);
        files_save(files_path(names[i]), &array);
        io_array back = files_load(files_path(names[i]));
        files_check_shape(&back, IO_F32, 5, size, NULL);
        files_convert(&back, CONVT3D_FLOAT64);
        files_check_shape(&back, IO_F64, 5, size, NULL);
        io_array_free(&array);
        io_array_free(&back);
    }
}

/* The definition of binary16: (-1)^s 2^(e-15) 1.f, or (-1)^s 2^-14 0.f. */
static void every_float16_is_converted_exactly(void **state) {
    (void)state;
    io_array array;
    convt3d_error err;
    files_ok(io_array_create(IO_F16, 1, (const int64_t[]){65536}, &array, &err), &err);
    for (int i = 0; i < 65536; i++) ((uint16_t *)array.data)[i] = (uint16_t)i;
    files_convert(&array, CONVT3D_FLOAT32);
    for (int i = 0; i < 65536; i++) {
        double f = (i & 1023) / 1024.0, want;
        int e = i >> 10 & 31;
        float got = ((float *)array.data)[i];
        if (e == 31)
            want = f != 0 ? NAN : INFINITY;
        else
            want = e ? ldexp(1 + f, e - 15) : ldexp(f, -14);
        if (i & 0x8000) want = -want;
        if (isnan(want))
            assert_true(isnan(got));
        else
            assert_true(got == want && !signbit(got) == !signbit(want));
    }
    io_array_free(&array);
}

static void bfloat16_is_the_upper_half_of_float32(void **state) {
    (void)state;
    static const uint16_t bits[] = {0x3f80, 0xc020, 0x7f80, 0x8000, 0x0001};
    const float want[] = {1, -2.5f, INFINITY, -0.0f, 0x1p-133f};
    io_array array;
    convt3d_error err;
    files_ok(io_array_create(IO_BF16, 1, (const int64_t[]){5}, &array, &err), &err);
    memcpy(array.data, bits, sizeof bits);
    files_convert(&array, CONVT3D_FLOAT32);
    assert_memory_equal(array.data, want, sizeof want);
    io_array_free(&array);
}

static void large_integers_round_once_to_nearest(void **state) {
    (void)state;
    static const uint64_t in[] = {UINT64_MAX, (1u << 24) + 1,
                                  ((uint64_t)1 << 60) + (1ull << 36) + 1};
    const float want[] = {0x1p64f, 0x1p24f, 0x1p60f + 0x1p37f};
    io_array array;
    convt3d_error err;
    files_ok(io_array_create(IO_U64, 1, (const int64_t[]){3}, &array, &err), &err);
    memcpy(array.data, in, sizeof in);
    files_convert(&array, CONVT3D_FLOAT32);
    assert_memory_equal(array.data, want, sizeof want);
    io_array_free(&array);
}

/* Views of 0..5 that aren't a stretch of memory: reversed, repeated, with gaps,
 * and one whose last element lies where a stretch would end. */
static void any_strides_are_converted_and_saved(void **state) {
    (void)state;
    static const struct {
        int first;
        int64_t size[3], stride[3];
        double want[12];
    } views[] = {{5, {3, 2, 2}, {-2, 0, -1}, {5, 4, 5, 4, 3, 2, 3, 2, 1, 0, 1, 0}},
                 {1, {1, 1, 3}, {9, 9, 2}, {1, 3, 5}},
                 {1, {1, 2, 2}, {9, -1, 4}, {1, 5, 0, 4}},
                 {0, {3, 1, 2}, {1, 9, 3}, {0, 3, 1, 4, 2, 5}}};
    for (size_t i = 0; i < sizeof views / sizeof *views; i++) {
        io_array array;
        convt3d_error err;
        files_ok(io_array_create(IO_I16, 1, (const int64_t[]){6}, &array, &err), &err);
        for (int k = 0; k < 6; k++) ((int16_t *)array.data)[k] = (int16_t)k;
        array.data = (int16_t *)array.data + views[i].first;
        array.rank = 3;
        array.space.present = 1;
        memcpy(array.size, views[i].size, sizeof views[i].size);
        memcpy(array.stride, views[i].stride, sizeof views[i].stride);
        files_convert(&array, CONVT3D_FLOAT64);
        assert_int_equal(array.space.present, 1);
        files_save(files_path("a.npy"), &array);
        io_array back = files_load(files_path("a.npy"));
        files_check_shape(&back, IO_F64, 3, views[i].size, NULL);
        int64_t count = views[i].size[0] * views[i].size[1] * views[i].size[2];
        assert_memory_equal(back.data, views[i].want, sizeof(double) * (size_t)count);
        io_array_free(&array);
        io_array_free(&back);
    }
}

static void conversion_to_the_same_type_does_nothing(void **state) {
    (void)state;
    io_array array = files_numbers(2, (const int64_t[]){2, 2});
    void *before = array.data;
    files_convert(&array, CONVT3D_FLOAT32);
    assert_ptr_equal(array.data, before);
    files_convert(&array, CONVT3D_FLOAT64);
    ((double *)array.data)[1] = 1e300;
    files_convert(&array, CONVT3D_FLOAT32);
    assert_true(isinf(((float *)array.data)[1]));
    io_array_free(&array);
}

static void new_arrays_are_dense_zeros_and_aligned(void **state) {
    (void)state;
    io_array array;
    convt3d_error err;
    const int64_t large[2] = {3, 1 << 20}, negative[2] = {2, -1};
    const int64_t beyond[3] = {INT64_MAX / 8, 4, 0}, huge[2] = {INT64_MAX / 8, 1};
    files_ok(io_array_create(IO_F32, 2, large, &array, &err), &err);
    files_check_shape(&array, IO_F32, 2, large, (const int64_t[]){1 << 20, 1});
    assert_int_equal((uintptr_t)array.data % 64, 0);
    for (int i = 0; i < 3 << 20; i++) assert_true(((float *)array.data)[i] == 0);
    io_array_free(&array);
    assert_null(array.data);
    io_array_free(&array);
    files_refused(io_array_create(IO_F32, 2, negative, &array, &err), &err, CONVT3D_ARG,
                  "-1|axis 1");
    files_refused(io_array_create(IO_F32, 9, negative, &array, &err), &err, CONVT3D_ARG, "9|0..8");
    files_refused(io_array_create(IO_F64, 3, beyond, &array, &err), &err, CONVT3D_OVERFLOW,
                  "64 bits");
    files_refused(io_array_create(IO_F32, 2, huge, &array, &err), &err, CONVT3D_NOMEM, "bytes");
    files_refused(io_array_create((io_dtype)99, 2, large, &array, &err), &err, CONVT3D_DTYPE, "99");
}

/* ---- PNG ---------------------------------------------------------------------------- */

static void png_pictures_are_read_by_libpng(void **state) {
    (void)state;
    const uint8_t pixels[6] = {0, 50, 100, 150, 200, 255};
    uint8_t got[6];
    convt3d_error err;
    files_ok(io_png_write(files_path("a.png"), pixels, 3, 2, &err), &err);
    png_image image = {.version = PNG_IMAGE_VERSION};
    assert_true(png_image_begin_read_from_file(&image, files_path("a.png")));
    assert_int_equal(image.width, 3);
    assert_int_equal(image.height, 2);
    image.format = PNG_FORMAT_GRAY;
    assert_true(png_image_finish_read(&image, NULL, got, 3, NULL));
    assert_memory_equal(got, pixels, 6);
    assert_int_equal(files_count(), 1);
}

/* ---- which kind of file ---------------------------------------------------------------- */

static void the_content_decides_not_the_ending(void **state) {
    (void)state;
    static const char *const endings[] = {".npy", ".safetensors", ".nii", ".nii.gz"};
    for (size_t i = 0; i < 4; i++) {
        char name[32];
        io_array array = files_numbers(5, (const int64_t[]){1, 1, 2, 3, 4});
        snprintf(name, sizeof name, "a%s", endings[i]);
        files_save(files_path(name), &array);
        assert_int_equal(rename(files_path(name), files_path("b.npy")), 0);
        io_array back = files_load(files_path("b.npy"));
        files_check_equal(&array, &back);
        io_array_free(&array);
        io_array_free(&back);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, files_setup, files_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(empty_batches_pass_through_npy_and_safetensors),
        TEST(every_float16_is_converted_exactly),
        TEST(bfloat16_is_the_upper_half_of_float32),
        TEST(large_integers_round_once_to_nearest),
        TEST(any_strides_are_converted_and_saved),
        TEST(conversion_to_the_same_type_does_nothing),
        TEST(new_arrays_are_dense_zeros_and_aligned),
        TEST(png_pictures_are_read_by_libpng),
        TEST(the_content_decides_not_the_ending),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
