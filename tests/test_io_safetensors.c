/* test_io_safetensors: .safetensors files as they should be, and headers that
 * must be refused.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

/* A file of this header and of 'size' bytes 0, 1, 2, ... */
static const char *put(const char *header, size_t size) {
    const char *path = files_path("a.safetensors");
    size_t length = strlen(header);
    unsigned char *bytes = calloc(1, 8 + length + size);
    assert_non_null(bytes);
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)((uint64_t)length >> 8 * i);
    memcpy(bytes + 8, header, length);
    for (size_t i = 0; i < size; i++) bytes[8 + length + i] = (unsigned char)i;
    files_put(path, bytes, 8 + length + size);
    free(bytes);
    return path;
}

#define U8(name, size, begin, end)                                                                 \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":[" #size "],\"data_offsets\":[" #begin "," #end "]}"

/* ---- good files --------------------------------------------------------------------- */

static void several_tensors_and_metadata(void **state) {
    (void)state;
    put("{\"__metadata__\":{\"format\":\"pt\",\"stride\":\"2,1,1\"}," U8(
            "late", 3, 2,
            5) ","
               "\"early\":{\"data_offsets\":[0,2],\"shape\":[1,2],\"dtype\":\"U8\"}}  ",
        5);
    io_safetensors *file;
    io_array array;
    convt3d_error err;
    files_ok(io_safetensors_open(files_path("a.safetensors"), &file, &err), &err);
    assert_int_equal(io_safetensors_count(file), 2);
    assert_string_equal(io_safetensors_tensor_name(file, 0), "late");
    assert_string_equal(io_safetensors_tensor_name(file, 1), "early");
    assert_null(io_safetensors_tensor_name(file, 2));
    assert_null(io_safetensors_tensor_name(file, -1));
    assert_string_equal(io_safetensors_metadata(file, "stride"), "2,1,1");
    assert_null(io_safetensors_metadata(file, "dilation"));
    for (int again = 0; again < 2; again++) {
        files_ok(io_safetensors_read(file, "late", &array, &err), &err);
        assert_memory_equal(array.data, "\2\3\4", 3);
        io_array_free(&array);
        files_ok(io_safetensors_read(file, "early", &array, &err), &err);
        assert_memory_equal(array.data, "\0\1", 2);
        assert_int_equal(array.rank, 2);
        io_array_free(&array);
    }
    files_refused(io_safetensors_read(file, "midday", &array, &err), &err, CONVT3D_NOTFOUND,
                  "midday|late, early|a.safetensors");
    io_safetensors_close(file);
    io_safetensors_close(NULL);
}

static void every_dtype_of_ours_and_no_use_of_others(void **state) {
    (void)state;
    static const struct {
        const char *name;
        io_dtype dtype;
    } types[] = {{"BOOL", IO_BOOL}, {"U8", IO_U8},       {"I8", IO_I8},     {"U16", IO_U16},
                 {"I16", IO_I16},   {"U32", IO_U32},     {"I32", IO_I32},   {"U64", IO_U64},
                 {"I64", IO_I64},   {"F16", IO_F16},     {"BF16", IO_BF16}, {"F32", IO_F32},
                 {"F64", IO_F64},   {"C64", (io_dtype)0}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        size_t size = types[i].dtype ? io_dtype_size(types[i].dtype) : 8;
        char header[256];
        snprintf(header, sizeof header,
                 "{\"a\":{\"dtype\":\"%s\",\"shape\":[2,1],\"data_offsets\":[0,%zu]},"
                 "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%zu,%zu]}}",
                 types[i].name, 2 * size, 2 * size, 2 * size + 1);
        put(header, 2 * size + 1);
        io_array array = files_load(files_path("a.safetensors:b"));
        assert_int_equal(((uint8_t *)array.data)[0], 2 * size);
        io_array_free(&array);
        if (types[i].dtype) {
            array = files_load(files_path("a.safetensors:a"));
            assert_int_equal(array.dtype, types[i].dtype);
            for (size_t k = 0; k < 2 * size; k++) assert_int_equal(((uint8_t *)array.data)[k], k);
            io_array_free(&array);
        } else {
            files_load_refused(files_path("a.safetensors:a"), CONVT3D_DTYPE, "C64|'a'");
        }
    }
}

static void odd_but_legal_files_are_read(void **state) {
    (void)state;
    /* A scalar, an empty tensor, and data that aren't aligned. */
    put("{\"u\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]},"
        "\"e\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[1,1]},"
        "\"w\":{\"dtype\":\"U16\",\"shape\":[2],\"data_offsets\":[1,5]}}",
        5);
    io_array array = files_load(files_path("a.safetensors:w"));
    assert_int_equal(((uint16_t *)array.data)[1], 0x0403);
    io_array_free(&array);
    array = files_load(files_path("a.safetensors:u"));
    assert_int_equal(array.rank, 0);
    io_array_free(&array);
    array = files_load(files_path("a.safetensors:e"));
    assert_int_equal(array.size[1], 7);
    io_array_free(&array);
    /* Brackets in a name, behind an escaped quote, don't nest. */
    put("{" U8("a\\\"[[[[", 1, 0, 1) "}", 1);
    array = files_load(files_path("a.safetensors:a\"[[[["));
    io_array_free(&array);
    put("{\"r\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1);
    files_load_refused(files_path("a.safetensors"), CONVT3D_SHAPE, "9 axes|8 can");
}

/* The header's length is NIfTI's header size, where another reader looks. */
static void a_header_of_348_bytes_is_no_nifti_file(void **state) {
    (void)state;
    char header[349];
    memset(header, ' ', 348);
    header[348] = '\0';
    memcpy(header, "{" U8("a", 3, 0, 3) "}", strlen("{" U8("a", 3, 0, 3) "}"));
    put(header, 3);
    assert_int_equal(rename(files_path("a.safetensors"), files_path("b")), 0);
    io_array array = files_load(files_path("b"));
    assert_memory_equal(array.data, "\0\1\2", 3);
    io_array_free(&array);
}

static void which_tensor_is_meant(void **state) {
    (void)state;
    put("{" U8("only:one", 3, 0, 3) "}", 3);
    io_array array = files_load(files_path("a.safetensors"));
    assert_int_equal(array.size[0], 3);
    io_array_free(&array);
    array = files_load(files_path("a.safetensors:only:one"));
    assert_int_equal(array.size[0], 3);
    io_array_free(&array);
    /* A path may hold a colon itself. */
    assert_int_equal(rename(files_path("a.safetensors"), files_path("x:y.safetensors")), 0);
    array = files_load(files_path("x:y.safetensors:only:one"));
    io_array_free(&array);
    files_load_refused(files_path("x:y.safetensors:two"), CONVT3D_NOTFOUND, "'two'|only:one");
    files_load_refused(files_path("z.safetensors:two"), CONVT3D_IO, "z.safetensors: |No such file");
    put("{" U8("a", 1, 0, 1) "," U8("b", 1, 1, 2) "}", 2);
    files_load_refused(files_path("a.safetensors"), CONVT3D_NOTFOUND, "FILE:NAME|a, b");
    put("{}", 0);
    files_load_refused(files_path("a.safetensors"), CONVT3D_NOTFOUND, "no tensors");
    array = files_numbers(1, (const int64_t[]){2});
    assert_int_equal(io_save(files_path("a.npy"), &array, NULL), CONVT3D_OK);
    io_array_free(&array);
    files_load_refused(files_path("a.npy:a"), CONVT3D_ARG, "a.npy: |:a");
}

/* More names than a message holds: the count of the rest is said. */
static void many_names_are_listed_in_part(void **state) {
    (void)state;
    enum {
        COUNT = 500
    };
    char *header = malloc((size_t)COUNT * 80);
    assert_non_null(header);
    int length = 0;
    for (int i = 0; i < COUNT; i++)
        length += sprintf(header + length,
                          "%c\"layer%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
                          i ? ',' : '{', i, i, i + 1);
    strcpy(header + length, "}");
    put(header, COUNT);
    free(header);
    files_load_refused(files_path("a.safetensors:x"), CONVT3D_NOTFOUND, "layer0, layer1|more");
    io_array array = files_load(files_path("a.safetensors:layer499"));
    io_array_free(&array);
}

static void written_files_are_read_back(void **state) {
    (void)state;
    io_array w = files_numbers(2, (const int64_t[]){1, 3}),
             b = files_numbers(1, (const int64_t[]){2});
    assert_int_equal(io_array_convert(&b, CONVT3D_FLOAT64, NULL), CONVT3D_OK);
    const io_named tensors[2] = {{"weight", &w}, {"b\xc3\xa9\"\n", &b}};
    static const char *const metadata[4] = {"stride", "2,1,1", "a \"b\"", "\xe2\x82\xac"};
    convt3d_error err;
    const char *path = files_path("a.safetensors");
    files_ok(io_safetensors_write(path, tensors, 2, metadata, 2, &err), &err);
    io_safetensors *file;
    io_array back;
    files_ok(io_safetensors_open(path, &file, &err), &err);
    assert_string_equal(io_safetensors_metadata(file, "stride"), "2,1,1");
    assert_string_equal(io_safetensors_metadata(file, "a \"b\""), "\xe2\x82\xac");
    files_ok(io_safetensors_read(file, "weight", &back, &err), &err);
    assert_memory_equal(back.data, w.data, 12);
    io_array_free(&back);
    files_ok(io_safetensors_read(file, tensors[1].name, &back, &err), &err);
    assert_int_equal(back.dtype, IO_F64);
    assert_memory_equal(back.data, b.data, 16);
    io_array_free(&back);
    io_safetensors_close(file);
    /* Both tensors are aligned: the data, and in them the larger type first. */
    size_t size;
    unsigned char *bytes = files_get(path, &size);
    assert_int_equal(bytes[0] % 8, 0);
    assert_memory_equal(bytes + size - 28, b.data, 16);
    assert_memory_equal(bytes + size - 12, w.data, 12);
    free(bytes);
    io_array_free(&w);
    io_array_free(&b);
}

static void names_that_cannot_be_written(void **state) {
    (void)state;
    io_array a = files_numbers(1, (const int64_t[]){1});
    const io_named twice[2] = {{"a", &a}, {"a", &a}}, reserved = {"__metadata__", &a};
    const io_named latin = {"b\xe9", &a}, fine = {"a", &a}, nameless = {"", &a};
    static const char *const pairs[4] = {"k", "1", "k", "2"}, *const bad[2] = {"k", "\xff"};
    const char *path = files_path("a.safetensors");
    convt3d_error err;
    files_refused(io_safetensors_write(path, twice, 2, NULL, 0, &err), &err, CONVT3D_ARG,
                  "'a'|twice");
    files_refused(io_safetensors_write(path, &reserved, 1, NULL, 0, &err), &err, CONVT3D_ARG,
                  "__metadata__");
    files_refused(io_safetensors_write(path, &nameless, 1, NULL, 0, &err), &err, CONVT3D_ARG, "''");
    files_refused(io_safetensors_write(path, &latin, 1, NULL, 0, &err), &err, CONVT3D_ARG, "UTF-8");
    files_refused(io_safetensors_write(path, &fine, 1, pairs, 2, &err), &err, CONVT3D_ARG,
                  "'k'|twice");
    files_refused(io_safetensors_write(path, &fine, 1, bad, 1, &err), &err, CONVT3D_ARG, "UTF-8");
    assert_int_equal(files_count(), 0);
    io_array_free(&a);
}

/* ---- bad files ------------------------------------------------------------------------ */

static void header_lengths_that_cannot_be(void **state) {
    (void)state;
    unsigned char bytes[24] = {0};
    memcpy(bytes + 8, "{}              ", 16);
    const uint64_t lengths[] = {0, 1, 17, (uint64_t)1 << 63, UINT64_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        memcpy(bytes, &lengths[i], 8); /* 17 is the size less 7 */
        files_put(files_path("a.safetensors"), bytes, sizeof bytes);
        char word[64];
        snprintf(word, sizeof word, "a.safetensors|length %llu|2..16",
                 (unsigned long long)lengths[i]);
        files_load_refused(files_path("a.safetensors:w"), CONVT3D_FORMAT, word);
    }
}

/* A header, the bytes of data behind it, and words of the message. */
static const struct {
    const char *header, *words;
    size_t size;
} bad_headers[] = {
    {" {" U8("w", 1, 0, 1) "}", "'{'", 1},
    {"[]", "'{'", 0},
    {"{" U8("w", 1, 0, 1), "header", 1},
    {"{" U8("w", 1, 0, 1) "}}", "header", 1},
    {"{\"w\":1}", "'w'", 0},
    {"{\"w\":{\"dtype\":\"U8\",\"shape\":[1]}}", "data_offsets", 1},
    {"{\"w\":{\"dtype\":8,\"shape\":[1],\"data_offsets\":[0,1]}}", "dtype", 1},
    {"{\"w\":{\"dtype\":\"U8\",\"shape\":1,\"data_offsets\":[0,1]}}", "shape", 1},
    {"{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":0}}", "no more", 1},
    {"{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}", "data_offsets", 1},
    {"{" U8("w", 1, 0, 1.0) "}", "data_offsets", 1},
    {"{" U8("w", 1, 0.0, 1) "}", "data_offsets", 1},
    {"{" U8("w", 0, 0, 0.0) "}", "data_offsets", 0},
    {"{" U8("w", 1.0, 0, 1) "}", "shape", 1},
    {"{\"w\":{\"dtype\":\"U8\",\"shape\":[-1,-1],\"data_offsets\":[0,1]}}", "shape", 1},
    {"{\"w\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]}}", "shape", 1},
    {"{\"w\":{\"dtype\":\"U8\",\"shape\":[[1]],\"data_offsets\":[0,1]}}", "nested", 1},
    {"{" U8("w", -1, 0, 1) "}", "shape", 1},
    {"{" U8("w", 1, -1, 0) "}", "-1|0..1", 1},
    {"{" U8("w", 1, 1, 0) "}", "1, 0|0..1", 1},
    {"{" U8("w", 2, 0, 2) "}", "0, 2|0..1", 1},
    {"{" U8("w", 1, 0, 99999999999999999999) "}", "header", 1},
    {"{" U8("w", 1, 1, 2) "}", "hole", 2},
    {"{" U8("v", 1, 0, 1) "," U8("w", 1, 2, 3) "}", "'w'|hole", 3},
    {"{" U8("v", 2, 0, 2) "," U8("w", 2, 1, 3) "}", "'w'|overlap", 3},
    {"{" U8("w", 1, 0, 1) "}", "2 bytes after", 3},
    {"{}", "1 bytes after", 1},
    {"{" U8("w", 2, 0, 1) "}", "'w'|shape", 1},
    {"{" U8("w", 9223372036854775807, 0, 1) "}", "shape", 1},
    {"{\"w\":{\"dtype\":\"F64\",\"shape\":[4294967296,2147483648],\"data_offsets\":[0,0]}}",
     "64 bits", 0},
    {"{\"w\":{\"dtype\":\"F4\",\"shape\":[1],\"data_offsets\":[0,1]}}", "shape", 1},
    {"{" U8("w", 1, 0, 1) "," U8("w", 1, 0, 1) "}", "duplicate", 1},
    {"{" U8("w\xff", 1, 0, 1) "}", "decode", 1},
    {"{" U8("w\\ud800", 1, 0, 1) "}", "header", 1},
    {"{" U8("w\\u0000", 1, 0, 1) "}", "header", 1},
    {"{\"__metadata__\":{\"a\":1}," U8("w", 1, 0, 1) "}", "__metadata__", 1},
    {"{\"__metadata__\":\"a\"," U8("w", 1, 0, 1) "}", "__metadata__", 1},
};

static void headers_that_lie_are_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad_headers / sizeof *bad_headers; i++) {
        char words[128];
        snprintf(words, sizeof words, "a.safetensors: |%s", bad_headers[i].words);
        files_case = bad_headers[i].header;
        put(bad_headers[i].header, bad_headers[i].size);
        files_load_refused(files_path("a.safetensors:w"), CONVT3D_FORMAT, words);
    }
}

static void unknown_types_are_refused_before_use(void **state) {
    (void)state;
    put("{\"w\":{\"dtype\":\"F128\",\"shape\":[1],\"data_offsets\":[0,16]}}", 16);
    files_load_refused(files_path("a.safetensors:w"), CONVT3D_DTYPE, "'w'|F128");
    files_load_refused(files_path("a.safetensors:other"), CONVT3D_DTYPE, "F128");
}

/* A header of 'count' times 'piece', after 'start'; refused within seconds. */
static void check_bounded(const char *start, const char *piece, int count) {
    size_t n = strlen(piece), used = strlen(start);
    char *header = malloc(used + n * (size_t)count + 1);
    assert_non_null(header);
    memcpy(header, start, used + 1);
    for (int i = 0; i < count; i++, used += n) memcpy(header + used, piece, n + 1);
    put(header, 0);
    free(header);
    time_t before = time(NULL);
    files_load_refused(files_path("a.safetensors:w"), CONVT3D_FORMAT, "values");
    assert_true(time(NULL) - before < 10);
}

static void nesting_and_millions_of_entries_take_bounded_time(void **state) {
    (void)state;
    alarm(120);
    check_bounded("{\"w\":", "[", 1000000);
    check_bounded("{\"w\":", "{\"w\":", 1000000);
    check_bounded("{\"w\":[0", ",0", 10000000);
    check_bounded("{", "\"w\":{},", 10000000);
    alarm(0);
}

/* What a file says must not steer the terminal that shows it. */
static void control_characters_do_not_reach_the_message(void **state) {
    (void)state;
    put("{" U8("w\\u001b[2J\\n", 1, 0, 1) "}", 1);
    files_load_refused(files_path("a.safetensors:x"), CONVT3D_NOTFOUND, "w?[2J?");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, files_setup, files_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(several_tensors_and_metadata),
        TEST(every_dtype_of_ours_and_no_use_of_others),
        TEST(odd_but_legal_files_are_read),
        TEST(a_header_of_348_bytes_is_no_nifti_file),
        TEST(which_tensor_is_meant),
        TEST(many_names_are_listed_in_part),
        TEST(written_files_are_read_back),
        TEST(names_that_cannot_be_written),
        TEST(header_lengths_that_cannot_be),
        TEST(headers_that_lie_are_refused),
        TEST(unknown_types_are_refused_before_use),
        TEST(nesting_and_millions_of_entries_take_bounded_time),
        TEST(control_characters_do_not_reach_the_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
