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

static io_array load(const char *spec) {
    io_array array;
    convt3d_error err;
    files_ok(io_load(spec, &array, &err), &err);
    return array;
}

static void save(const char *spec, const io_array *array) {
    convt3d_error err;
    files_ok(io_save(spec, array, &err), &err);
}

static void convert(io_array *array, convt3d_dtype dtype) {
    convt3d_error err;
    files_ok(io_array_convert(array, dtype, &err), &err);
}

static void check_shape(const io_array *array, io_dtype dtype, int32_t rank, const int64_t *size,
                        const int64_t *stride) {
    assert_string_equal(io_dtype_name(array->dtype), io_dtype_name(dtype));
    assert_int_equal(array->rank, rank);
    for (int32_t i = 0; i < rank; i++) {
        assert_int_equal(array->size[i], size[i]);
        if (stride && size[i] > 1) assert_int_equal(array->stride[i], stride[i]);
    }
}

/* Both arrays, float32, have the same shape and elements. */
static void check_equal(const io_array *a, const io_array *b) {
    int64_t index[IO_MAX_RANK] = {0}, at_a = 0, at_b = 0;
    assert_int_equal(a->dtype, IO_F32);
    check_shape(b, IO_F32, a->rank, a->size, NULL);
    do {
        at_b = 0;
        for (int32_t i = 0; i < b->rank; i++) at_b += index[i] * b->stride[i];
        assert_true(((float *)a->data)[at_a] == ((float *)b->data)[at_b]);
    } while (io_array_step(a, a->rank, index, &at_a));
}

/* ---- npy ------------------------------------------------------------------------ */

/* A file of this version, with the header's text as it is. */
static void put_npy(const char *path, int version, const char *text, const void *data,
                    size_t size) {
    unsigned char bytes[1024] = {0x93, 'N', 'U', 'M', 'P', 'Y', 0, 0};
    size_t length = strlen(text), start = version == 1 ? 10 : 12;
    bytes[6] = (unsigned char)version;
    bytes[8] = (unsigned char)length;
    memcpy(bytes + start, text, length);
    if (size) memcpy(bytes + start + length, data, size);
    files_put(path, bytes, start + length + size);
}

static void npy_versions_1_to_3(void **state) {
    (void)state;
    const char *path = files_path("a.npy");
    const float data[6] = {1, 2, 3, 4, 5, -6.5f};
    const int64_t size[2] = {2, 3}, stride[2] = {3, 1};
    for (int version = 1; version <= 3; version++) {
        put_npy(path, version, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n",
                data, sizeof data);
        io_array array = load(path);
        check_shape(&array, IO_F32, 2, size, stride);
        assert_memory_equal(array.data, data, sizeof data);
        io_array_free(&array);
    }
}

static void npy_header_in_other_words(void **state) {
    (void)state;
    static const char *const texts[] = {
        "{'shape': (2L, 3L), 'fortran_order': False, 'descr': '|u1'}",
        "{\"descr\":\"<u1\",\"shape\":(2,3,),\"fortran_order\":False,}   \n",
        " { 'descr' : '>u1' , 'fortran_order' : False , 'shape' : ( 2 , 3 ) }\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        put_npy(files_path("a.npy"), 1, texts[i], "abcdef", 6);
        io_array array = load(files_path("a.npy"));
        check_shape(&array, IO_U8, 2, (const int64_t[]){2, 3}, (const int64_t[]){3, 1});
        assert_memory_equal(array.data, "abcdef", 6);
        io_array_free(&array);
    }
}

/* The value 3 (for bool: true), then the value 1, in each type and order. */
static void npy_every_dtype_in_both_byte_orders(void **state) {
    (void)state;
    static const struct {
        const char *name;
        io_dtype dtype;
        unsigned char three[8], one[8]; /* big-endian */
    } cases[] = {{"b1", IO_BOOL, {3}, {1}},
                 {"u1", IO_U8, {3}, {1}},
                 {"i1", IO_I8, {3}, {1}},
                 {"u2", IO_U16, {0, 3}, {0, 1}},
                 {"i2", IO_I16, {0, 3}, {0, 1}},
                 {"u4", IO_U32, {0, 0, 0, 3}, {0, 0, 0, 1}},
                 {"i4", IO_I32, {0, 0, 0, 3}, {0, 0, 0, 1}},
                 {"u8", IO_U64, {0, 0, 0, 0, 0, 0, 0, 3}, {0, 0, 0, 0, 0, 0, 0, 1}},
                 {"i8", IO_I64, {0, 0, 0, 0, 0, 0, 0, 3}, {0, 0, 0, 0, 0, 0, 0, 1}},
                 {"f2", IO_F16, {0x42, 0}, {0x3c, 0}},
                 {"f4", IO_F32, {0x40, 0x40}, {0x3f, 0x80}},
                 {"f8", IO_F64, {0x40, 0x08}, {0x3f, 0xf0}}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (int big = 0; big < 2; big++) {
            size_t n = io_dtype_size(cases[c].dtype);
            unsigned char data[16];
            char text[128];
            for (size_t i = 0; i < n; i++) {
                data[i] = cases[c].three[big ? i : n - 1 - i];
                data[n + i] = cases[c].one[big ? i : n - 1 - i];
            }
            snprintf(text, sizeof text,
                     "{'descr': '%c%s', 'fortran_order': False, 'shape': (2,), }", big ? '>' : '<',
                     cases[c].name);
            put_npy(files_path("a.npy"), 1, text, data, 2 * n);
            io_array array = load(files_path("a.npy"));
            check_shape(&array, cases[c].dtype, 1, (const int64_t[]){2}, NULL);
            convert(&array, CONVT3D_FLOAT64);
            const double *got = array.data;
            assert_true(got[0] == (cases[c].dtype == IO_BOOL ? 1 : 3) && got[1] == 1);
            io_array_free(&array);
        }
}

static void npy_fortran_order_becomes_strides(void **state) {
    (void)state;
    put_npy(files_path("a.npy"), 1, "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3, 4)}",
            "abcdefghijklmnopqrstuvwx", 24);
    io_array array = load(files_path("a.npy"));
    check_shape(&array, IO_U8, 3, (const int64_t[]){2, 3, 4}, (const int64_t[]){1, 2, 6});
    assert_memory_equal(array.data, "abcdefghijklmnopqrstuvwx", 24);
    /* Conversion keeps the order; saving makes it C. */
    convert(&array, CONVT3D_FLOAT32);
    check_shape(&array, IO_F32, 3, (const int64_t[]){2, 3, 4}, (const int64_t[]){1, 2, 6});
    save(files_path("b.npy"), &array);
    io_array back = load(files_path("b.npy"));
    check_shape(&back, IO_F32, 3, (const int64_t[]){2, 3, 4}, (const int64_t[]){12, 4, 1});
    check_equal(&array, &back);
    assert_true(((float *)back.data)[1] == 'a' + 6);
    io_array_free(&array);
    io_array_free(&back);
}

static void npy_written_as_numpy_writes_it(void **state) {
    (void)state;
    static const char text[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }";
    io_array array = files_numbers(1, (const int64_t[]){3});
    save(files_path("a.npy"), &array);
    size_t size;
    unsigned char *bytes = files_get(files_path("a.npy"), &size);
    assert_int_equal(size, 128 + 12);
    assert_memory_equal(bytes, "\x93NUMPY\1\0\x76\0", 10);
    assert_memory_equal(bytes + 10, text, sizeof text - 1);
    for (size_t i = 10 + sizeof text - 1; i < 127; i++) assert_int_equal(bytes[i], ' ');
    assert_int_equal(bytes[127], '\n');
    assert_memory_equal(bytes + 128, array.data, 12);
    free(bytes);
    io_array_free(&array);
}

static void empty_batches_pass_through_npy_and_safetensors(void **state) {
    (void)state;
    static const char *const names[] = {"a.npy", "a.safetensors"};
    const int64_t size[5] = {0, 2, 3, 4, 5};
    for (int i = 0; i < 2; i++) {
        io_array array = files_numbers(5, size);
        save(files_path(names[i]), &array);
        io_array back = load(files_path(names[i]));
        check_shape(&back, IO_F32, 5, size, NULL);
        convert(&back, CONVT3D_FLOAT64);
        check_shape(&back, IO_F64, 5, size, NULL);
        io_array_free(&array);
        io_array_free(&back);
    }
}

/* ---- conversion ------------------------------------------------------------------- */

/* The definition of binary16: (-1)^s 2^(e-15) 1.f, or (-1)^s 2^-14 0.f. */
static void every_float16_is_converted_exactly(void **state) {
    (void)state;
    io_array array;
    convt3d_error err;
    files_ok(io_array_create(IO_F16, 1, (const int64_t[]){65536}, &array, &err), &err);
    for (int i = 0; i < 65536; i++) ((uint16_t *)array.data)[i] = (uint16_t)i;
    convert(&array, CONVT3D_FLOAT32);
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
    convert(&array, CONVT3D_FLOAT32);
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
    convert(&array, CONVT3D_FLOAT32);
    assert_memory_equal(array.data, want, sizeof want);
    io_array_free(&array);
}

/* A view with a reversed and a repeated axis; a stretch of memory it isn't. */
static void any_strides_are_converted_and_saved(void **state) {
    (void)state;
    io_array array;
    convt3d_error err;
    files_ok(io_array_create(IO_I16, 1, (const int64_t[]){6}, &array, &err), &err);
    for (int i = 0; i < 6; i++) ((int16_t *)array.data)[i] = (int16_t)i;
    array.data = (int16_t *)array.data + 5;
    array.rank = 3;
    const int64_t size[3] = {3, 2, 2}, stride[3] = {-2, 0, -1};
    memcpy(array.size, size, sizeof size);
    memcpy(array.stride, stride, sizeof stride);
    convert(&array, CONVT3D_FLOAT64);
    save(files_path("a.npy"), &array);
    io_array back = load(files_path("a.npy"));
    const double want[12] = {5, 4, 5, 4, 3, 2, 3, 2, 1, 0, 1, 0};
    check_shape(&back, IO_F64, 3, size, (const int64_t[]){4, 2, 1});
    assert_memory_equal(back.data, want, sizeof want);
    io_array_free(&array);
    io_array_free(&back);
}

static void conversion_to_the_same_type_does_nothing(void **state) {
    (void)state;
    io_array array = files_numbers(2, (const int64_t[]){2, 2});
    void *before = array.data;
    convert(&array, CONVT3D_FLOAT32);
    assert_ptr_equal(array.data, before);
    convert(&array, CONVT3D_FLOAT64);
    ((double *)array.data)[1] = 1e300;
    convert(&array, CONVT3D_FLOAT32);
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
    check_shape(&array, IO_F32, 2, large, (const int64_t[]){1 << 20, 1});
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
        save(files_path(name), &array);
        assert_int_equal(rename(files_path(name), files_path("b.npy")), 0);
        io_array back = load(files_path("b.npy"));
        check_equal(&array, &back);
        io_array_free(&array);
        io_array_free(&back);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, files_setup, files_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(npy_versions_1_to_3),
        TEST(npy_header_in_other_words),
        TEST(npy_every_dtype_in_both_byte_orders),
        TEST(npy_fortran_order_becomes_strides),
        TEST(npy_written_as_numpy_writes_it),
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
