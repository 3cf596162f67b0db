/* test_io_bad: inputs that must be refused: what can't be opened, what is cut
 * short, and NIfTI headers that lie.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "files.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

/* ---- what can't be opened -------------------------------------------------------- */

static void what_is_no_readable_file(void **state) {
    (void)state;
    static const char *const endings[] = {"", ".npy", ".nii", ".nii.gz", ".safetensors"};
    char name[32], words[64];
    alarm(60); /* a FIFO must not be waited for */
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        snprintf(name, sizeof name, "empty%s", endings[i]);
        snprintf(words, sizeof words, "/%s: |empty", name);
        files_put(files_path(name), "", 0);
        files_load_refused(files_path(name), CONVT3D_IO, words);
        snprintf(name, sizeof name, "folder%s", endings[i]);
        snprintf(words, sizeof words, "/%s: |directory", name);
        assert_int_equal(mkdir(files_path(name), 0777), 0);
        files_load_refused(files_path(name), CONVT3D_IO, words);
        snprintf(name, sizeof name, "fifo%s", endings[i]);
        snprintf(words, sizeof words, "/%s: |not a regular file", name);
        assert_int_equal(mkfifo(files_path(name), 0666), 0);
        files_load_refused(files_path(name), CONVT3D_IO, words);
        snprintf(name, sizeof name, "missing%s", endings[i]);
        snprintf(words, sizeof words, "/%s: |No such file", name);
        files_load_refused(files_path(name), CONVT3D_IO, words);
    }
    alarm(0);
    files_load_refused("/dev/zero", CONVT3D_IO, "/dev/zero: |not a regular file");
    assert_int_equal(symlink("loop", files_path("loop")), 0);
    files_load_refused(files_path("loop"), CONVT3D_IO, "/loop: ");
    io_safetensors *file = NULL;
    convt3d_error err;
    files_refused(io_safetensors_open(files_path("fifo"), &file, &err), &err, CONVT3D_IO,
                  "/fifo: ");
    assert_null(file);
}

/* Root may read everything, so a child that isn't root tries. */
static void no_permission(void **state) {
    (void)state;
    io_array array = files_numbers(1, (const int64_t[]){2});
    assert_int_equal(io_save(files_path("a.npy"), &array, NULL), CONVT3D_OK);
    io_array_free(&array);
    assert_int_equal(chmod(files_path("a.npy"), 0), 0);
    pid_t child = fork();
    if (!child) {
        convt3d_error err = {CONVT3D_OK, ""};
        if (geteuid() == 0 && setuid(65534) != 0) _exit(2);
        convt3d_status status = io_load(files_path("a.npy"), &array, &err);
        _exit(status != CONVT3D_IO ||
              !strstr(err.text, "a.npy: can't be opened: Permission denied"));
    }
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_int_equal(result, 0);
}

static void content_of_no_kind(void **state) {
    (void)state;
    files_put(files_path("a"), "hello, world", 12);
    files_load_refused(files_path("a"), CONVT3D_FORMAT, "/a: |neither");
    files_put(files_path("a"), "x", 1);
    files_load_refused(files_path("a"), CONVT3D_FORMAT, "/a: |neither");
    files_put(files_path("a.npy"), "hello, world", 12);
    files_load_refused(files_path("a.npy"), CONVT3D_FORMAT, "bad magic");
    files_put(files_path("a.nii"), "hello, world", 12);
    files_load_refused(files_path("a.nii"), CONVT3D_FORMAT, "not a NIfTI");
    files_put(files_path("a.nii.gz"), "hello, world", 12);
    files_load_refused(files_path("a.nii.gz"), CONVT3D_FORMAT, "not a NIfTI");
}

/* ---- cut short, and too long ------------------------------------------------------- */

/* Every beginning of a good file but the file itself is refused; so is the
 * file with a byte after it. */
static void check_every_length(const char *name, const unsigned char *bytes, size_t size) {
    io_array array;
    unsigned char *longer = calloc(1, size + 1);
    assert_non_null(longer);
    memcpy(longer, bytes, size);
    files_case = name;
    files_put(files_path(name), bytes, size);
    assert_int_equal(io_load(files_path(name), &array, NULL), CONVT3D_OK);
    io_array_free(&array);
    for (size_t n = 1; n < size; n++) {
        assert_int_equal(truncate(files_path(name), (off_t)(size - n)), 0);
        files_load_refused(files_path(name), CONVT3D_FORMAT, name);
    }
    files_put(files_path(name), longer, size + 1);
    files_load_refused(files_path(name), CONVT3D_FORMAT, name);
    free(longer);
}

static void cut_short_at_every_byte_and_one_too_many(void **state) {
    (void)state;
    static const char *const names[] = {"a.npy", "a.safetensors", "a.nii", "a.nii.gz"};
    io_array array = files_numbers(5, (const int64_t[]){1, 1, 2, 3, 4});
    for (int i = 0; i < 4; i++) {
        size_t size;
        assert_int_equal(io_save(files_path(names[i]), &array, NULL), CONVT3D_OK);
        unsigned char *bytes = files_get(files_path(names[i]), &size);
        check_every_length(names[i], bytes, size);
        free(bytes);
    }
    io_array_free(&array);
    for (int i = 0; i < 2; i++) {
        size_t size, packed;
        files_nifti f = files_nifti_default(2);
        unsigned char *bytes = files_nifti_bytes(&f, &size);
        unsigned char *small = files_gzip(bytes, size, &packed);
        check_every_length("b.nii", i ? small : bytes, i ? packed : size);
        free(bytes);
        free(small);
    }
}

static void gzip_with_too_much_in_it(void **state) {
    (void)state;
    files_nifti f = files_nifti_default(1);
    size_t size, packed;
    unsigned char *bytes = files_nifti_bytes(&f, &size);
    unsigned char *longer = calloc(1, size + 1);
    assert_non_null(longer);
    memcpy(longer, bytes, size);
    unsigned char *small = files_gzip(longer, size + 1, &packed);
    files_put(files_path("a.nii.gz"), small, packed);
    files_load_refused(files_path("a.nii.gz"), CONVT3D_FORMAT, "a.nii.gz: |after the data");
    free(bytes);
    free(longer);
    free(small);
}

/* What is opened shrinks before it is read: an error, and no signal. */
static void a_file_that_shrinks_while_it_is_read(void **state) {
    (void)state;
    static const char *const names[] = {"a.npy", "a.safetensors", "a.nii"};
    const int64_t size[5] = {1, 1, 1, 100, 1000};
    for (int i = 0; i < 3; i++) {
        io_array array = files_numbers(5, size), back;
        const char *path = files_path(names[i]);
        assert_int_equal(io_save(path, &array, NULL), CONVT3D_OK);
        io_array_free(&array);
        convt3d_error err = {CONVT3D_OK, ""};
        convt3d_status status;
        if (i == 1) {
            io_safetensors *file;
            files_ok(io_safetensors_open(path, &file, &err), &err);
            assert_int_equal(truncate(path, 5000), 0);
            status = io_safetensors_read(file, "tensor", &back, &err);
            io_safetensors_close(file);
        } else {
            io_source source;
            files_ok(io_source_open(path, &source, &err), &err);
            assert_int_equal(truncate(path, 5000), 0);
            status = i ? io_nifti_read(&source, &back, &err) : io_npy_read(&source, &back, &err);
            io_source_close(&source);
        }
        files_refused(status, &err, CONVT3D_IO, names[i]);
        files_refused(status, &err, CONVT3D_IO, "shrank to 5000");
        assert_null(back.owned);
    }
}

/* ---- little memory ------------------------------------------------------------------ */

/* Files with holes: as large as their headers say, but for the most part of
 * zeros that take no room on the disk. */
static void files_larger_than_memory(void **state) {
    (void)state;
    static const char *const names[] = {"a.npy", "a.safetensors", "a.nii"};
    static const char npy[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (268435456,)}";
    static const char header[] =
        "{\"w\":{\"dtype\":\"F32\",\"shape\":[268435456],\"data_offsets\":[0,1073741824]}}";
    unsigned char bytes[256] = "\x93NUMPY\1";
    bytes[8] = sizeof npy - 1;
    memcpy(bytes + 10, npy, sizeof npy - 1);
    files_put(files_path(names[0]), bytes, 10 + sizeof npy - 1);
    memset(bytes, 0, 8);
    bytes[0] = sizeof header - 1;
    memcpy(bytes + 8, header, sizeof header - 1);
    files_put(files_path(names[1]), bytes, 8 + sizeof header - 1);
    files_nifti f = files_nifti_default(1);
    size_t size;
    unsigned char *small = files_nifti_bytes(&f, &size);
    const int16_t dim[4] = {3, 16384, 16384, 1};
    memcpy(small + 40, dim, sizeof dim);
    files_put(files_path(names[2]), small, 352);
    free(small);
    files_allow_memory(256 << 20);
    for (int i = 0; i < 3; i++) {
        char words[64];
        snprintf(words, sizeof words, "%s: out of memory|10737418", names[i]);
        struct stat st;
        assert_int_equal(stat(files_path(names[i]), &st), 0);
        assert_int_equal(truncate(files_path(names[i]), st.st_size + (1 << 30)), 0);
        files_load_refused(files_path(names[i]), CONVT3D_NOMEM, words);
    }
    files_allow_memory(0);
}

/* ---- NIfTI ------------------------------------------------------------------------- */

/* Loads the file that 'f' describes, plain and as gzip, with the data of the
 * default: sizes that lie find no more than that. */
static void check_nifti(const files_nifti *f, convt3d_status want, const char *words) {
    files_nifti fine = files_nifti_default(f->version), header = *f;
    size_t size, start = f->version == 1 ? 348 : 540, packed, unused;
    unsigned char *bytes = files_nifti_bytes(&fine, &size);
    header.dim[0] = 0; /* no data: only the header is wanted */
    header.gap = 0;
    unsigned char *head = files_nifti_bytes(&header, &unused);
    memcpy(bytes, head, start);
    int64_t rank = f->dim[0];
    memcpy(bytes + (f->version == 1 ? 40 : 16), &rank, f->version == 1 ? 2 : 8);
    unsigned char *small = files_gzip(bytes, size, &packed);
    files_case = words;
    files_put(files_path("a.nii"), bytes, size);
    files_put(files_path("a.nii.gz"), small, packed);
    free(bytes);
    free(head);
    free(small);
    files_allow_memory(256 << 20);
    files_load_refused(files_path("a.nii"), want, words);
    files_load_refused(files_path("a.nii.gz"), want, words);
    files_allow_memory(0);
}

static void nifti_dimensions_that_lie_are_refused(void **state) {
    (void)state;
    for (int version = 1; version <= 2; version++) {
        files_nifti f = files_nifti_default(version);
        f.dim[0] = 0;
        check_nifti(&f, CONVT3D_FORMAT, "dim[0] = 0|1..7");
        f.dim[0] = 8;
        check_nifti(&f, CONVT3D_FORMAT, "dim[0] = 8");
        f.dim[0] = -1;
        check_nifti(&f, CONVT3D_FORMAT, "dim[0] = -1");
        f = files_nifti_default(version);
        f.dim[2] = 0;
        check_nifti(&f, CONVT3D_FORMAT, "dim[2] = 0");
        f.dim[2] = -4;
        check_nifti(&f, CONVT3D_FORMAT, "dim[2] = -4");
        f.dim[2] = 300;
        check_nifti(&f, CONVT3D_FORMAT, "cut short");
        for (int i = 1; i < 6; i++) f.dim[i] = 32767;
        f.dim[0] = 5;
        check_nifti(&f, CONVT3D_FORMAT, "cut short|32767 x 32767");
        f = files_nifti_default(version);
        f.dim[0] = 6;
        f.dim[6] = 2;
        check_nifti(&f, CONVT3D_SHAPE, "2 and 1");
    }
    files_nifti f = files_nifti_default(2);
    f.dim[1] = INT64_MAX;
    check_nifti(&f, CONVT3D_FORMAT, "cut short");
    f.dim[1] = (int64_t)1 << 40;
    check_nifti(&f, CONVT3D_FORMAT, "cut short");
    f.dim[1] = (int64_t)1 << 30;
    check_nifti(&f, CONVT3D_FORMAT, "cut short");
    f.dim[1] = f.dim[3] = (int64_t)1 << 40;
    check_nifti(&f, CONVT3D_FORMAT, "cut short");
}

static void nifti_fields_that_lie_are_refused(void **state) {
    (void)state;
    static const int types[] = {0, 1, 32, 128, 1536, 1792, 2048, 2304, 77};
    static const double offsets[] = {1, 348, 351, 352.5, -352, 1e30, NAN, INFINITY};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        files_nifti f = files_nifti_default(1);
        char words[32];
        f.datatype = types[i];
        snprintf(words, sizeof words, "datatype %d ", types[i]);
        check_nifti(&f, CONVT3D_DTYPE, words);
    }
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        files_nifti f = files_nifti_default(1);
        f.vox_offset = offsets[i];
        check_nifti(&f, CONVT3D_FORMAT, "vox_offset|352");
    }
    files_nifti f = files_nifti_default(2);
    f.vox_offset = 352;
    check_nifti(&f, CONVT3D_FORMAT, "vox_offset|544");
    f.vox_offset = 0x1p52;
    check_nifti(&f, CONVT3D_FORMAT, "a.nii");
    f = files_nifti_default(1);
    f.slope = INFINITY;
    check_nifti(&f, CONVT3D_FORMAT, "scl_slope");
    f.slope = 1;
    f.inter = NAN;
    check_nifti(&f, CONVT3D_FORMAT, "scl_inter");
}

static void nifti_magic_that_is_another(void **state) {
    (void)state;
    static const char *const magics[] = {"ni1", "n+2", "abc", ""};
    static const char *const words[] = {".hdr and .img", "bad magic", "bad magic", "bad magic"};
    for (int i = 0; i < 4; i++) {
        files_nifti f = files_nifti_default(1);
        size_t size;
        unsigned char *bytes = files_nifti_bytes(&f, &size);
        memcpy(bytes + 344, magics[i], strlen(magics[i]) + 1);
        files_put(files_path("a.nii"), bytes, size);
        files_load_refused(files_path("a.nii"), CONVT3D_FORMAT, words[i]);
        free(bytes);
    }
}

static void damaged_gzip_is_refused(void **state) {
    (void)state;
    files_nifti f = files_nifti_default(1);
    size_t size, packed;
    unsigned char *bytes = files_nifti_bytes(&f, &size), *small = files_gzip(bytes, size, &packed);
    free(bytes);
    for (size_t from_end = 1; from_end <= 8; from_end++) { /* checksum and length */
        small[packed - from_end] ^= 1;
        files_put(files_path("a.nii.gz"), small, packed);
        files_load_refused(files_path("a.nii.gz"), CONVT3D_FORMAT, "bad gzip data");
        small[packed - from_end] ^= 1;
    }
    for (size_t i = 0; i < packed; i++) { /* anywhere: an error, or nothing of importance */
        io_array array;
        small[i] ^= 0x55;
        files_put(files_path("a.nii.gz"), small, packed);
        if (io_load(files_path("a.nii.gz"), &array, NULL))
            assert_null(array.owned);
        else
            assert_int_equal(array.size[4], 4);
        io_array_free(&array);
        small[i] ^= 0x55;
    }
    free(small);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, files_setup, files_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(what_is_no_readable_file),
        TEST(no_permission),
        TEST(content_of_no_kind),
        TEST(cut_short_at_every_byte_and_one_too_many),
        TEST(gzip_with_too_much_in_it),
        TEST(a_file_that_shrinks_while_it_is_read),
        TEST(files_larger_than_memory),
        TEST(nifti_dimensions_that_lie_are_refused),
        TEST(nifti_fields_that_lie_are_refused),
        TEST(nifti_magic_that_is_another),
        TEST(damaged_gzip_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
