/* test_io_npy: .npy files as they should be, and headers that must be refused.
 * SPDX-License-Identifier: MIT */
#include "files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* ---- good files ------------------------------------------------------------------ */

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
        io_array array = files_load(path);
        files_check_shape(&array, IO_F32, 2, size, stride);
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
        io_array array = files_load(files_path("a.npy"));
        files_check_shape(&array, IO_U8, 2, (const int64_t[]){2, 3}, (const int64_t[]){3, 1});
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
            io_array array = files_load(files_path("a.npy"));
            files_check_shape(&array, cases[c].dtype, 1, (const int64_t[]){2}, NULL);
            files_convert(&array, CONVT3D_FLOAT64);
            const double *got = array.data;
            assert_true(got[0] == (cases[c].dtype == IO_BOOL ? 1 : 3) && got[1] == 1);
            io_array_free(&array);
        }
}

static void npy_fortran_order_becomes_strides(void **state) {
    (void)state;
    put_npy(files_path("a.npy"), 1, "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3, 4)}",
            "abcdefghijklmnopqrstuvwx", 24);
    io_array array = files_load(files_path("a.npy"));
    files_check_shape(&array, IO_U8, 3, (const int64_t[]){2, 3, 4}, (const int64_t[]){1, 2, 6});
    assert_memory_equal(array.data, "abcdefghijklmnopqrstuvwx", 24);
    /* Conversion keeps the order; saving makes it C. */
    files_convert(&array, CONVT3D_FLOAT32);
    files_check_shape(&array, IO_F32, 3, (const int64_t[]){2, 3, 4}, (const int64_t[]){1, 2, 6});
    files_save(files_path("b.npy"), &array);
    io_array back = files_load(files_path("b.npy"));
    files_check_shape(&back, IO_F32, 3, (const int64_t[]){2, 3, 4}, (const int64_t[]){12, 4, 1});
    files_check_equal(&array, &back);
    assert_true(((float *)back.data)[1] == 'a' + 6);
    io_array_free(&array);
    io_array_free(&back);
}

static void npy_written_as_numpy_writes_it(void **state) {
    (void)state;
    static const char text[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }";
    io_array array = files_numbers(1, (const int64_t[]){3});
    files_save(files_path("a.npy"), &array);
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

/* ---- bad files ------------------------------------------------------------------- */

/* The text of a header, and what to say of it; the data are 4 bytes. */
static const struct {
    const char *text;
    convt3d_status want;
    const char *words;
} npy_headers[] = {
#define NPY(descr, order, shape)                                                                   \
    "{'descr': " descr ", 'fortran_order': " order ", 'shape': " shape "}"
    {NPY("'|O'", "False", "(1,)"), CONVT3D_DTYPE, "'|O'"},
    {NPY("[('a', '<f4')]", "False", "(1,)"), CONVT3D_DTYPE, "structured"},
    {NPY("'<ixy'", "False", "(1,)"), CONVT3D_DTYPE, "'<ixy'"},
    {NPY("'<c8'", "False", "(1,)"), CONVT3D_DTYPE, "'<c8'"},
    {NPY("'<U1'", "False", "(1,)"), CONVT3D_DTYPE, "'<U1'"},
    {NPY("'<M8[s]'", "False", "(1,)"), CONVT3D_DTYPE, "'<M8[s]'"},
    {NPY("'f4'", "False", "(1,)"), CONVT3D_DTYPE, "'f4'"},
    {NPY("'|f4'", "False", "(1,)"), CONVT3D_DTYPE, "'|f4'"},
    {NPY("'<f3'", "False", "(1,)"), CONVT3D_DTYPE, "'<f3'"},
    {NPY("'<f40'", "False", "(1,)"), CONVT3D_DTYPE, "'<f40'"},
    {NPY("''", "False", "(1,)"), CONVT3D_DTYPE, "''"},
    {NPY("None", "False", "(1,)"), CONVT3D_FORMAT, "string"},
    {NPY("'<f4", "False", "(1,)"), CONVT3D_DTYPE, "'<f4, '"},
    {NPY("'<\\x66"
         "4'",
         "False", "(1,)"),
     CONVT3D_FORMAT, "string"},
    {NPY("__import__('os').system('true')", "False", "(1,)"), CONVT3D_FORMAT, "string"},
    {NPY("'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'", "False", "(1,)"), CONVT3D_FORMAT,
     "too long"},
    {NPY("'<f4'", "0", "(1,)"), CONVT3D_FORMAT, "fortran_order"},
    {NPY("'<f4'", "False", "(-1,)"), CONVT3D_FORMAT, "shape"},
    {NPY("'<f4'", "False", "(1.0,)"), CONVT3D_FORMAT, "shape"},
    {NPY("'<f4'", "False", "()"), CONVT3D_FORMAT, "empty"},
    {NPY("'<f4'", "False", "(1)"), CONVT3D_FORMAT, "tuple"},
    {NPY("'<f4'", "False", "1"), CONVT3D_FORMAT, "tuple"},
    {NPY("'<f4'", "False", "[1]"), CONVT3D_FORMAT, "tuple"},
    {NPY("'<f4'", "False", "(1,,)"), CONVT3D_FORMAT, "shape"},
    {NPY("'<f4'", "False", "(1 1)"), CONVT3D_FORMAT, "comma"},
    {NPY("'<f4'", "False", "(1,"), CONVT3D_FORMAT, "shape"},
    {NPY("'<f4'", "False", "(1,1,1,1,1,1,1,1,1)"), CONVT3D_FORMAT, "8 axes"},
    {NPY("'<f4'", "False", "(9223372036854775807, 2)"), CONVT3D_FORMAT, "64 bits"},
    {NPY("'<f4'", "False", "(99999999999999999999,)"), CONVT3D_FORMAT, "64 bits"},
    {NPY("'<f4'", "False", "(0, 4294967296, 4294967296)"), CONVT3D_FORMAT, "64 bits"},
    {NPY("'<f4'", "False", "(4294967296, 4294967296, 4)"), CONVT3D_FORMAT, "64 bits"},
    {NPY("'<f4'", "False", "(1000000000000,)"), CONVT3D_FORMAT, "4000000000000 bytes|has 4"},
    {NPY("'<f4'", "False", "(2,)"), CONVT3D_FORMAT, "8 bytes|has 4"},
    {NPY("'<f2'", "False", "(1,)"), CONVT3D_FORMAT, "2 bytes|has 4"},
    {"", CONVT3D_FORMAT, "dictionary"},
    {"[]", CONVT3D_FORMAT, "dictionary"},
    {"{}", CONVT3D_FORMAT, "missing"},
    {"{'descr': '<f4', 'shape': (1,)}", CONVT3D_FORMAT, "'fortran_order'"},
    {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", CONVT3D_FORMAT,
     "twice"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}", CONVT3D_FORMAT, "none of"},
    {"{'descr' '<f4', 'fortran_order': False, 'shape': (1,)}", CONVT3D_FORMAT, "colon"},
    {"{'descr': '<f4' 'fortran_order': False, 'shape': (1,)}", CONVT3D_FORMAT, "comma"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x", CONVT3D_FORMAT, "after"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)", CONVT3D_FORMAT, "brace"},
};

static void npy_headers_that_lie_are_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof npy_headers / sizeof *npy_headers; i++) {
        unsigned char bytes[512] = "\x93NUMPY\1";
        size_t length = strlen(npy_headers[i].text);
        bytes[8] = (unsigned char)length;
        memcpy(bytes + 10, npy_headers[i].text, length);
        files_put(files_path("a.npy"), bytes, 10 + length + 4);
        files_case = npy_headers[i].text;
        files_load_refused(files_path("a.npy"), npy_headers[i].want, "a.npy: ");
        files_load_refused(files_path("a.npy"), npy_headers[i].want, npy_headers[i].words);
    }
}

static void npy_versions_and_lengths_that_cannot_be(void **state) {
    (void)state;
    unsigned char bytes[64] = "\x93NUMPY\2";
    memset(bytes + 8, 0xff, 4);
    files_put(files_path("a.npy"), bytes, sizeof bytes);
    files_allow_memory(64 << 20);
    files_load_refused(files_path("a.npy"), CONVT3D_FORMAT, "4294967295|64");
    files_allow_memory(0);
    bytes[6] = 9;
    files_put(files_path("a.npy"), bytes, sizeof bytes);
    files_load_refused(files_path("a.npy"), CONVT3D_FORMAT, "version 9.0");
    bytes[6] = 0;
    files_put(files_path("a.npy"), bytes, sizeof bytes);
    files_load_refused(files_path("a.npy"), CONVT3D_FORMAT, "version 0.0");
    bytes[6] = 1;
    bytes[7] = 1;
    files_put(files_path("a.npy"), bytes, sizeof bytes);
    files_load_refused(files_path("a.npy"), CONVT3D_FORMAT, "version 1.1");
    bytes[0] = 'x';
    files_put(files_path("a.npy"), bytes, sizeof bytes);
    files_load_refused(files_path("a.npy"), CONVT3D_FORMAT, "bad magic");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, files_setup, files_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(npy_versions_1_to_3),
        TEST(npy_header_in_other_words),
        TEST(npy_every_dtype_in_both_byte_orders),
        TEST(npy_fortran_order_becomes_strides),
        TEST(npy_written_as_numpy_writes_it),
        TEST(npy_headers_that_lie_are_refused),
        TEST(npy_versions_and_lengths_that_cannot_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
