/* test_io_half: the two types of 16 bits in files, and what becomes of other numbers in them.
 * SPDX-License-Identifier: MIT */
#include "files.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum {
    PATTERNS = 65536
};

/* Each type: how many bits its fraction has, its least exponent of a normal number, and
 * where the bits of its exponent are. */
static const struct half {
    convt3d_dtype core;
    io_dtype dtype;
    int fraction, least;
    uint16_t exponent;
    double most; /* finite */
} halves[2] = {{CONVT3D_BFLOAT16, IO_BF16, 7, -126, 0x7f80, 0x1.fep127},
               {CONVT3D_FLOAT16, IO_F16, 10, -14, 0x7c00, 65504}};

static io_array create(io_dtype dtype, int64_t count) {
    io_array array;
    convt3d_error err;
    files_ok(io_array_create(dtype, 1, &count, &array, &err), &err);
    return array;
}

/* Every bit pattern there is, NaN with all their payloads. */
static io_array patterns(io_dtype dtype) {
    io_array array = create(dtype, PATTERNS);
    for (int i = 0; i < PATTERNS; i++) ((uint16_t *)array.data)[i] = (uint16_t)i;
    return array;
}

static int is_nan(const struct half *h, int bits) {
    return (bits & 0x7fff) > h->exponent;
}

/* By the definition: (-1)^sign 2^exponent 1.fraction, or 2^least 0.fraction. */
static double value_of(const struct half *h, int bits) {
    int ones = 1 << h->fraction, exponent = (bits & h->exponent) >> h->fraction;
    double part = (double)(bits & (ones - 1)) / ones;
    double value = exponent ? ldexp(1 + part, exponent - 1 + h->least) : ldexp(part, h->least);
    if ((bits & h->exponent) == h->exponent) value = part > 0 ? NAN : INFINITY;
    return bits & 0x8000 ? -value : value;
}

/* The nearest number of the type, ties to even: a whole multiple of the step that numbers
 * of this size have there. */
static double rounded(const struct half *h, double value) {
    int exponent;
    frexp(value, &exponent);
    exponent = exponent - 1 < h->least ? h->least : exponent - 1;
    double step = ldexp(1, exponent - h->fraction), near = rint(value / step) * step;
    return fabs(near) > h->most ? copysign(INFINITY, value) : near;
}

/* ---- files ------------------------------------------------------------------------ */

static void check_round_trip(io_dtype dtype, const char *spec) {
    io_array array = patterns(dtype);
    files_save(spec, &array);
    io_array back = files_load(spec);
    files_check_shape(&back, dtype, 1, (const int64_t[]){PATTERNS}, NULL);
    assert_memory_equal(back.data, array.data, 2 * PATTERNS);
    io_array_free(&array);
    io_array_free(&back);
}

static void every_bit_pattern_passes_through_files(void **state) {
    (void)state;
    check_round_trip(IO_BF16, files_path("a.safetensors"));
    check_round_trip(IO_F16, files_path("a.safetensors:name"));
    check_round_trip(IO_F16, files_path("a.npy"));
}

static void their_names_are_those_of_the_formats(void **state) {
    (void)state;
    static const struct {
        io_dtype dtype;
        const char *path, *name;
    } cases[] = {{IO_BF16, "a.safetensors", "\"dtype\":\"BF16\""},
                 {IO_F16, "b.safetensors", "\"dtype\":\"F16\""},
                 {IO_F16, "a.npy", "{'descr': '<f2', 'fortran_order': False, 'shape': (3,), }"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        io_array array = create(cases[i].dtype, 3);
        size_t size;
        files_save(files_path(cases[i].path), &array);
        unsigned char *bytes = files_get(files_path(cases[i].path), &size);
        char text[512] = "";
        for (size_t k = 0; k < size && k < sizeof text - 1; k++)
            text[k] = bytes[k] ? (char)bytes[k] : ' ';
        assert_non_null(strstr(text, cases[i].name));
        io_array_free(&array);
        free(bytes);
    }
}

static void npy_of_the_other_byte_order(void **state) {
    (void)state;
    static const char text[] = "{'descr': '>f2', 'fortran_order': False, 'shape': (65536,)}";
    static unsigned char bytes[10 + sizeof text - 1 + 2 * PATTERNS] = "\x93NUMPY\1";
    const size_t start = 10 + sizeof text - 1;
    bytes[8] = sizeof text - 1;
    memcpy(bytes + 10, text, sizeof text - 1);
    for (int i = 0; i < PATTERNS; i++) {
        bytes[start + 2 * (size_t)i] = (unsigned char)(i >> 8);
        bytes[start + 2 * (size_t)i + 1] = (unsigned char)i;
    }
    files_put(files_path("a.npy"), bytes, sizeof bytes);
    io_array want = patterns(IO_F16), array = files_load(files_path("a.npy"));
    files_check_shape(&array, IO_F16, 1, (const int64_t[]){PATTERNS}, NULL);
    assert_memory_equal(array.data, want.data, 2 * PATTERNS);
    io_array_free(&want);
    io_array_free(&array);
}

/* Larger elements first, so that each tensor lies at a multiple of its element's size. */
static void several_types_in_one_file_are_aligned(void **state) {
    (void)state;
    static const io_dtype dtypes[4] = {IO_F16, IO_F32, IO_BF16, IO_F64};
    static const char *const names[4] = {"half", "single", "brain", "double"};
    io_array arrays[4];
    io_named tensors[4];
    convt3d_error err;
    size_t size;
    for (int i = 0; i < 4; i++) {
        arrays[i] = create(dtypes[i], 3);
        memset(arrays[i].data, 0x31 + i, 3 * io_dtype_size(dtypes[i]));
        tensors[i] = (io_named){names[i], &arrays[i]};
    }
    files_ok(io_safetensors_write(files_path("a.safetensors"), tensors, 4, NULL, 0, &err), &err);
    unsigned char *bytes = files_get(files_path("a.safetensors"), &size);
    assert_memory_equal(bytes + size - 48, "444444444444444444444444222222222222111111333333", 48);
    free(bytes);
    for (int i = 0; i < 4; i++) {
        char name[32];
        snprintf(name, sizeof name, "a.safetensors:%s", names[i]);
        io_array back = files_load(files_path(name));
        files_check_shape(&back, dtypes[i], 1, (const int64_t[]){3}, NULL);
        assert_memory_equal(back.data, arrays[i].data, 3 * io_dtype_size(dtypes[i]));
        io_array_free(&back);
        io_array_free(&arrays[i]);
    }
}

static void formats_without_a_name_for_them_refuse(void **state) {
    (void)state;
    static const struct {
        io_dtype dtype;
        const char *path, *words;
    } cases[] = {{IO_BF16, "a.npy", "a.npy: |a .npy file|bfloat16|a .safetensors file"},
                 {IO_BF16, "a.nii", "a.nii: |NIfTI|bfloat16|a .safetensors file"},
                 {IO_F16, "a.nii.gz", "a.nii.gz: |NIfTI|float16|.npy and .safetensors"}};
    convt3d_error err;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = files_path(cases[i].path);
        io_array array;
        files_ok(io_array_create(cases[i].dtype, 5, (const int64_t[]){1, 1, 2, 2, 2}, &array, &err),
                 &err);
        files_refused(io_save(path, &array, &err), &err, CONVT3D_DTYPE, cases[i].words);
        files_refused(io_save_check(path, array.dtype, &err), &err, CONVT3D_DTYPE, cases[i].words);
        files_ok(io_save_check(path, IO_F32, &err), &err);
        files_ok(io_save_check(path, IO_F64, &err), &err);
        io_array_free(&array);
    }
    files_ok(io_save_check(files_path("a.safetensors:b"), IO_BF16, &err), &err);
    files_ok(io_save_check(files_path("a.safetensors"), IO_F16, &err), &err);
    files_ok(io_save_check(files_path("a.npy"), IO_F16, &err), &err);
    files_refused(io_save_check(files_path("a.txt"), IO_F16, &err), &err, CONVT3D_ARG, "ending");
    files_refused(io_save_check(files_path("a.npy"), IO_U8, &err), &err, CONVT3D_DTYPE,
                  "uint8|float32, float64, bfloat16 and float16");
    assert_int_equal(files_count(), 0);
}

/* What ml_dtypes' bfloat16 becomes in numpy.save(): bytes without a meaning. */
static void npy_of_two_nameless_bytes_is_refused(void **state) {
    (void)state;
    static const char *const orders[] = {"<", "|", ">", "="};
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        unsigned char bytes[128] = "\x93NUMPY\1";
        int length =
            snprintf((char *)bytes + 10, sizeof bytes - 10,
                     "{'descr': '%sV2', 'fortran_order': False, 'shape': (1,)}", orders[i]);
        bytes[8] = (unsigned char)length;
        files_put(files_path("a.npy"), bytes, 10 + (size_t)length + 2);
        files_load_refused(files_path("a.npy"), CONVT3D_DTYPE, "a.npy: |V2'|bfloat16|.safetensors");
    }
}

/* ---- conversion ------------------------------------------------------------------- */

static void the_types_have_counterparts(void **state) {
    (void)state;
    for (int d = CONVT3D_FLOAT32; d <= CONVT3D_FLOAT16; d++) {
        io_dtype dtype = io_dtype_of((convt3d_dtype)d);
        assert_int_equal(io_dtype_core(dtype), d);
        assert_string_equal(io_dtype_name(dtype), convt3d_dtype_name((convt3d_dtype)d));
        assert_int_equal(io_dtype_size(dtype), convt3d_dtype_size((convt3d_dtype)d));
    }
    for (int dtype = 0; dtype <= IO_I64; dtype++)
        assert_int_equal(io_dtype_core((io_dtype)dtype), 0);
    assert_int_equal(io_dtype_core((io_dtype)99), 0);
    static const int others[] = {-1, 0, CONVT3D_FLOAT16 + 1, 99};
    for (int i = 0; i < 4; i++) assert_int_equal(io_dtype_of((convt3d_dtype)others[i]), 0);
}

/* To a wider type and back: exact, and the same bits. */
static void wider_types_hold_all_of_them(void **state) {
    (void)state;
    for (int t = 0; t < 2; t++)
        for (int wide = 0; wide < 2; wide++) {
            io_array array = patterns(halves[t].dtype);
            files_convert(&array, wide ? CONVT3D_FLOAT64 : CONVT3D_FLOAT32);
            assert_int_equal(array.dtype, wide ? IO_F64 : IO_F32);
            for (int i = 0; i < PATTERNS; i++) {
                double want = value_of(&halves[t], i);
                double got = wide ? ((double *)array.data)[i] : (double)((float *)array.data)[i];
                assert_true(isnan(want) ? isnan(got)
                                        : got == want && !signbit(got) == !signbit(want));
            }
            files_convert(&array, halves[t].core);
            assert_int_equal(array.dtype, halves[t].dtype);
            for (int i = 0; i < PATTERNS; i++) {
                int got = ((uint16_t *)array.data)[i];
                assert_true(is_nan(&halves[t], i) ? is_nan(&halves[t], got) : got == i);
            }
            io_array_free(&array);
        }
}

/* More than one chunk of them, and where float16 ends. */
static void integers_round_once(void **state) {
    (void)state;
    for (int t = 0; t < 2; t++)
        for (int is_signed = 0; is_signed < 2; is_signed++) {
            io_array array = create(is_signed ? IO_I16 : IO_U16, PATTERNS);
            for (int i = 0; i < PATTERNS; i++) ((uint16_t *)array.data)[i] = (uint16_t)i;
            files_convert(&array, halves[t].core);
            assert_int_equal(array.dtype, halves[t].dtype);
            for (int i = 0; i < PATTERNS; i++) {
                double from = is_signed && i >= PATTERNS / 2 ? i - PATTERNS : i;
                double got = value_of(&halves[t], ((uint16_t *)array.data)[i]);
                assert_true(got == rounded(&halves[t], from));
            }
            io_array_free(&array);
        }
}

/* Just beyond the middle of two numbers, by less than a double holds: a rounding to that
 * first would land in the middle, and go to the even side. */
static void large_integers_round_once(void **state) {
    (void)state;
    const uint64_t size = (uint64_t)1 << 62, half = (uint64_t)1 << 54; /* steps are 2^55 */
    const struct {
        uint64_t from;
        double want;
    } cases[] = {{size + half, 0x1p62},
                 {size + half + 1, 0x1p62 + 0x1p55},
                 {size + half - 1, 0x1p62},
                 {size + 3 * half, 0x1p62 + 0x1p56},
                 {size + 3 * half - 1, 0x1p62 + 0x1p55},
                 {size, 0x1p62},
                 {(uint64_t)1 << 53, 0x1p53},
                 {((uint64_t)1 << 53) + ((uint64_t)1 << 45) + 1, 0x1p53 + 0x1p46},
                 {257, 256},
                 {0, 0}};
    enum {
        COUNT = sizeof cases / sizeof *cases
    };
    for (int kind = 0; kind < 3; kind++) {
        io_array array = create(kind ? IO_I64 : IO_U64, COUNT);
        for (int i = 0; i < COUNT; i++)
            ((uint64_t *)array.data)[i] = kind == 2 ? 0 - cases[i].from : cases[i].from;
        files_convert(&array, CONVT3D_BFLOAT16);
        for (int i = 0; i < COUNT; i++)
            assert_true(value_of(&halves[0], ((uint16_t *)array.data)[i]) ==
                        (kind == 2 ? -cases[i].want : cases[i].want));
        io_array_free(&array);
    }
    io_array array = create(IO_U64, 2);
    ((uint64_t *)array.data)[0] = UINT64_MAX;
    ((uint64_t *)array.data)[1] = 65519;
    files_convert(&array, CONVT3D_FLOAT16);
    assert_true(isinf(value_of(&halves[1], ((uint16_t *)array.data)[0])));
    assert_true(value_of(&halves[1], ((uint16_t *)array.data)[1]) == 65504);
    io_array_free(&array);
}

/* Numbers around every middle of two numbers of the type, from both kinds of float. */
static void floats_round_once(void **state) {
    (void)state;
    for (int t = 0; t < 2; t++)
        for (int wide = 0; wide < 2; wide++) {
            io_array array = create(wide ? IO_F64 : IO_F32, 3 * (int64_t)halves[t].exponent);
            double *want = malloc(sizeof *want * 3 * halves[t].exponent);
            assert_non_null(want);
            for (int i = 0; i < 3 * halves[t].exponent; i++) {
                double low = value_of(&halves[t], i / 3), middle = low / 2;
                middle +=
                    i / 3 + 1 < halves[t].exponent ? value_of(&halves[t], i / 3 + 1) / 2 : low / 2;
                double by = wide ? 0x1p-50 : 0x1p-23;
                double value = middle * (1 + (i % 3 - 1) * by);
                if (wide)
                    ((double *)array.data)[i] = value;
                else
                    value = ((float *)array.data)[i] = (float)value;
                want[i] = rounded(&halves[t], value);
            }
            files_convert(&array, halves[t].core);
            for (int i = 0; i < 3 * halves[t].exponent; i++)
                assert_true(value_of(&halves[t], ((uint16_t *)array.data)[i]) == want[i]);
            free(want);
            io_array_free(&array);
        }
}

static void an_unknown_type_is_refused(void **state) {
    (void)state;
    io_array array = create(IO_F32, 2);
    convt3d_error err;
    files_refused(io_array_convert(&array, (convt3d_dtype)5, &err), &err, CONVT3D_DTYPE,
                  "5|float32, float64, bfloat16 and float16");
    assert_int_equal(array.dtype, IO_F32);
    io_array_free(&array);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, files_setup, files_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(every_bit_pattern_passes_through_files),
        TEST(their_names_are_those_of_the_formats),
        TEST(npy_of_the_other_byte_order),
        TEST(several_types_in_one_file_are_aligned),
        TEST(formats_without_a_name_for_them_refuse),
        TEST(npy_of_two_nameless_bytes_is_refused),
        TEST(the_types_have_counterparts),
        TEST(wider_types_hold_all_of_them),
        TEST(integers_round_once),
        TEST(large_integers_round_once),
        TEST(floats_round_once),
        TEST(an_unknown_type_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
