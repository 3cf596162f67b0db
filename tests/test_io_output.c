/* test_io_output: an output file appears whole or not at all, whatever its path
 * leads to and whatever goes wrong.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "files.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

/* What a child does, without cmocka: the steps that failed are told apart by
 * its exit status, and a signal by its own. */
typedef int (*child_body)(void);

static void in_child(child_body body) {
    fflush(stdout);
    pid_t child = fork();
    if (!child) _exit(body());
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    if (WIFSIGNALED(result)) fail_msg("the child died of signal %d", WTERMSIG(result));
    assert_int_equal(WEXITSTATUS(result), 0);
}

/* Root is allowed everything; the tests of what isn't allowed need another. */
static int give_up_root(void) {
    return geteuid() != 0 || setuid(65534) == 0;
}

static void save_refused(const char *spec, const io_array *array, convt3d_status want,
                         const char *words) {
    convt3d_error err = {CONVT3D_OK, ""};
    files_refused(io_save(spec, array, &err), &err, want, words);
}

/* "old" is what stands in a file before it is written. */
static void check_old(const char *path) {
    size_t size;
    unsigned char *bytes = files_get(path, &size);
    assert_int_equal(size, 3);
    assert_memory_equal(bytes, "old", 3);
    free(bytes);
}

static const char *const all_names[] = {"a.npy", "a.safetensors", "a.nii", "a.nii.gz"};
static const int64_t small[5] = {1, 1, 2, 3, 4}, large[5] = {1, 1, 8, 256, 256};

/* ---- paths ---------------------------------------------------------------------- */

static void the_output_is_the_input(void **state) {
    (void)state;
    io_array seven = files_numbers(5, small);
    for (int i = 0; i < 24; i++) ((float *)seven.data)[i] = 7;
    for (int i = 0; i < 4; i++) {
        const char *path = files_path(all_names[i]), *hard = files_path("hard.npy");
        io_array array = files_numbers(5, small);
        files_save(path, &seven);
        io_array in = files_load(path);
        files_check_equal(&in, &seven);
        files_save(path, &array);
        io_array back = files_load(path);
        files_check_equal(&back, &array);
        io_array_free(&back);
        /* A hard link: this name has the new file, the other one the old. */
        unlink(hard);
        files_save(hard, &seven);
        unlink(path);
        assert_int_equal(link(hard, path), 0);
        files_save(path, &array);
        back = files_load(path);
        files_check_equal(&back, &array);
        io_array_free(&back);
        back = files_load(hard);
        files_check_equal(&back, &seven);
        io_array_free(&back);
        io_array_free(&in);
        io_array_free(&array);
        assert_int_equal(unlink(path), 0);
    }
    io_array_free(&seven);
}

/* A link stays a link, and the file it leads to is replaced, or made. */
static void the_output_is_a_symbolic_link(void **state) {
    (void)state;
    io_array array = files_numbers(5, small);
    struct stat st;
    assert_int_equal(mkdir(files_path("folder"), 0777), 0);
    assert_int_equal(symlink("folder/b.npy", files_path("a.npy")), 0);
    assert_int_equal(symlink("a.npy", files_path("first.npy")), 0);
    assert_int_equal(symlink(files_path("first.npy"), files_path("absolute.npy")), 0);
    for (int i = 0; i < 2; i++) { /* first it dangles */
        files_save(files_path("absolute.npy"), &array);
        assert_int_equal(lstat(files_path("folder/b.npy"), &st), 0);
        assert_true(S_ISREG(st.st_mode));
        assert_int_equal(lstat(files_path("a.npy"), &st), 0);
        assert_true(S_ISLNK(st.st_mode));
        io_array back = files_load(files_path("first.npy"));
        files_check_equal(&back, &array);
        io_array_free(&back);
    }
    assert_int_equal(symlink("loop.npy", files_path("loop.npy")), 0);
    save_refused(files_path("loop.npy"), &array, CONVT3D_IO, "loop.npy: ");
    assert_int_equal(files_count(), 5);
    io_array_free(&array);
}

static void paths_that_cannot_be_written(void **state) {
    (void)state;
    io_array array = files_numbers(5, small);
    assert_int_equal(mkdir(files_path("folder.npy"), 0777), 0);
    save_refused(files_path("folder.npy"), &array, CONVT3D_IO, "folder.npy: |directory");
    save_refused(files_path("none/a.npy"), &array, CONVT3D_IO, "none/a.npy: |No such file");
    files_put(files_path("file"), "old", 3);
    save_refused(files_path("file/a.npy"), &array, CONVT3D_IO, "file/a.npy: |Not a directory");
    save_refused(files_path("a.txt"), &array, CONVT3D_ARG,
                 "a.txt: |.npy, .safetensors, .nii or .nii.gz");
    save_refused(files_path("a.npy:name"), &array, CONVT3D_ARG, "ending");
    save_refused(files_path("a.safetensors:"), &array, CONVT3D_ARG, "a.safetensors: |name ''");
    assert_int_equal(files_count(), 2);
    io_array_free(&array);
}

static void arrays_that_cannot_be_written(void **state) {
    (void)state;
    const int64_t flat[2] = {3, 4}, empty[5] = {0, 1, 2, 3, 4};
    io_array array;
    assert_int_equal(io_array_create(IO_I32, 5, small, &array, NULL), CONVT3D_OK);
    for (int i = 0; i < 4; i++)
        save_refused(files_path(all_names[i]), &array, CONVT3D_DTYPE, "int32");
    const io_named integers = {"a", &array};
    convt3d_error err;
    files_refused(io_safetensors_write(files_path("a.safetensors"), &integers, 1, NULL, 0, &err),
                  &err, CONVT3D_DTYPE, "int32");
    io_array_free(&array);
    array = files_numbers(2, flat);
    save_refused(files_path("a.nii"), &array, CONVT3D_SHAPE, "a.nii: |rank 2");
    io_array_free(&array);
    array = files_numbers(5, empty);
    save_refused(files_path("a.nii.gz"), &array, CONVT3D_SHAPE, "axis 0|size 0");
    io_array_free(&array);
    const uint8_t pixel = 0;
    files_refused(io_png_write(files_path("a.png"), &pixel, 0, 1, &err), &err, CONVT3D_SHAPE,
                  "0 x 1");
    files_refused(io_png_write(files_path("a.png"), &pixel, 1, INT64_MAX, &err), &err,
                  CONVT3D_SHAPE, "1 x 9223372036854775807");
    assert_int_equal(files_count(), 0);
}

static void modes_follow_the_umask_or_the_old_file(void **state) {
    (void)state;
    io_array array = files_numbers(5, small);
    struct stat st;
    mode_t before = umask(027);
    files_save(files_path("a.npy"), &array);
    assert_int_equal(stat(files_path("a.npy"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(chmod(files_path("a.npy"), 0604), 0);
    files_save(files_path("a.npy"), &array);
    assert_int_equal(stat(files_path("a.npy"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0604);
    umask(before);
    io_array_free(&array);
}

/* Pieces of every size about the writer's own: all bytes, once, in order. */
static void pieces_of_any_size_are_written(void **state) {
    (void)state;
    enum {
        TOTAL = 5 * IO_CHUNK + 11
    };
    static const size_t pieces[] = {IO_CHUNK - 1, 2, 1, IO_CHUNK, 3, IO_CHUNK + 1, IO_CHUNK - 4, 8};
    unsigned char *bytes = malloc(TOTAL);
    assert_non_null(bytes);
    for (int i = 0; i < TOTAL; i++) bytes[i] = (unsigned char)(i * 7 + i / 256);
    for (int gzip = 0; gzip < 2; gzip++) {
        io_writer *writer = malloc(sizeof *writer); /* so that its end is guarded */
        convt3d_error err;
        size_t at = 0, size;
        assert_non_null(writer);
        files_ok(io_writer_open(writer, files_path("a"), gzip, &err), &err);
        for (size_t i = 0; at < TOTAL; i++) {
            size_t n = pieces[i % (sizeof pieces / sizeof *pieces)];
            if (n > TOTAL - at) n = TOTAL - at;
            files_ok(io_writer_write(writer, bytes + at, n, &err), &err);
            at += n;
        }
        files_ok(io_writer_commit(writer, &err), &err);
        free(writer);
        unsigned char *got = malloc(TOTAL), *file = files_get(files_path("a"), &size);
        assert_non_null(got);
        io_source source = io_source_memory("a", file, size);
        io_stream stream;
        files_ok(io_stream_open(&source, &stream, &err), &err);
        files_ok(io_stream_read(&stream, got, TOTAL, &err), &err);
        files_ok(io_stream_end(&stream, &err), &err);
        io_stream_close(&stream);
        assert_memory_equal(got, bytes, TOTAL);
        free(got);
        free(file);
    }
    free(bytes);
}

/* ---- failures ------------------------------------------------------------------- */

static void a_full_disk(void **state) {
    (void)state;
    struct stat st;
    io_array arrays[2] = {files_numbers(5, small), files_numbers(5, large)};
    for (int i = 0; i < 8; i++) {
        const char *path = files_path(all_names[i % 4]);
        assert_int_equal(symlink("/dev/full", path), 0);
        save_refused(path, &arrays[i / 4], CONVT3D_IO, "No space left");
        assert_int_equal(files_count(), 1);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(symlink("/dev/full", files_path("a.png")), 0);
    convt3d_error err;
    static uint8_t pixels[400 * 400]; /* noise: more than the writer keeps back */
    uint32_t seed = 1;
    for (int i = 0; i < 400 * 400; i++)
        pixels[i] = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
    files_refused(io_png_write(files_path("a.png"), pixels, 400, 400, &err), &err, CONVT3D_IO,
                  "a.png: |No space left");
    assert_int_equal(stat("/dev/full", &st), 0);
    assert_true(S_ISCHR(st.st_mode));
    io_array_free(&arrays[0]);
    io_array_free(&arrays[1]);
}

/* As a full disk, in the middle of a file; it also sends a signal. */
static int save_with_size_limit(void) {
    const struct rlimit limit = {100000, 100000};
    io_array array;
    if (setrlimit(RLIMIT_FSIZE, &limit) || io_array_create(IO_F32, 5, large, &array, NULL))
        return 1;
    /* Noise, which gzip can't make small. */
    uint32_t seed = 1;
    for (int i = 0; i < 8 * 256 * 256; i++)
        ((uint32_t *)array.data)[i] = seed = seed * 1664525u + 1013904223u;
    for (int i = 0; i < 4; i++) {
        convt3d_error err = {CONVT3D_OK, ""};
        if (io_save(files_path(all_names[i]), &array, &err) != CONVT3D_IO) return 10 + i;
        if (!strstr(err.text, all_names[i]) || !strstr(err.text, "too large")) return 20 + i;
        sigset_t pending;
        if (sigpending(&pending) || sigismember(&pending, SIGXFSZ)) return 30 + i;
    }
    io_array_free(&array);
    return 0;
}

static void a_disk_that_fills_up_keeps_the_old_file(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) files_put(files_path(all_names[i]), "old", 3);
    in_child(save_with_size_limit);
    for (int i = 0; i < 4; i++) check_old(files_path(all_names[i]));
    assert_int_equal(files_count(), 4);
}

/* Killed when most of the file is written. */
static void a_kill_in_mid_write_keeps_the_old_file(void **state) {
    (void)state;
    files_put(files_path("a.npy"), "old", 3);
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        io_writer writer;
        unsigned char *bytes = calloc(1, 1 << 20);
        if (!bytes || io_writer_open(&writer, files_path("a.npy"), 0, NULL)) _exit(1);
        if (io_writer_write(&writer, bytes, 1 << 20, NULL)) _exit(1);
        raise(SIGKILL);
    }
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFSIGNALED(result) && WTERMSIG(result) == SIGKILL);
    check_old(files_path("a.npy"));
}

static int save_without_permission(void) {
    io_array array;
    convt3d_error err = {CONVT3D_OK, ""};
    if (!give_up_root() || io_array_create(IO_F32, 5, small, &array, NULL)) return 1;
    if (io_save(files_path("sealed/a.npy"), &array, &err) != CONVT3D_IO) return 2;
    if (!strstr(err.text, "sealed/a.npy: can't be written: Permission denied")) return 3;
    if (io_save(files_path("protected.npy"), &array, &err) != CONVT3D_IO) return 4;
    if (!strstr(err.text, "protected.npy: can't be written: Permission denied")) return 5;
    io_array_free(&array);
    return 0;
}

static void no_permission_keeps_the_old_file(void **state) {
    (void)state;
    assert_int_equal(mkdir(files_path("sealed"), 0777), 0);
    files_put(files_path("sealed/a.npy"), "old", 3);
    files_put(files_path("protected.npy"), "old", 3);
    assert_int_equal(chmod(files_path("sealed/a.npy"), 0666), 0);
    assert_int_equal(chmod(files_path("protected.npy"), 0444), 0);
    assert_int_equal(chmod(files_path("sealed"), 0555), 0);
    in_child(save_without_permission);
    assert_int_equal(chmod(files_path("sealed"), 0777), 0);
    check_old(files_path("sealed/a.npy"));
    check_old(files_path("protected.npy"));
    assert_int_equal(files_count(), 2);
}

/* The target becomes a folder while the file is written. */
static void a_failed_rename_leaves_nothing(void **state) {
    (void)state;
    io_writer writer;
    convt3d_error err;
    files_ok(io_writer_open(&writer, files_path("a.npy"), 0, &err), &err);
    files_ok(io_writer_write(&writer, "new", 3, &err), &err);
    assert_int_equal(files_count(), 1); /* the temporary file */
    assert_int_equal(mkdir(files_path("a.npy"), 0777), 0);
    files_refused(io_writer_commit(&writer, &err), &err, CONVT3D_IO, "a.npy: |directory");
    assert_int_equal(files_count(), 1); /* the folder */
}

/* ---- pipes ---------------------------------------------------------------------- */

static void a_pipe_that_nobody_reads_is_an_error(void **state) {
    (void)state;
    io_array array = files_numbers(5, small);
    assert_int_equal(mkfifo(files_path("a.npy"), 0666), 0);
    alarm(60);
    save_refused(files_path("a.npy"), &array, CONVT3D_IO, "a.npy: |nobody reads");
    alarm(0);
    io_array_free(&array);
}

/* Reads from the pipe, 'bytes' of it at the most, and goes. */
static pid_t start_reader(const char *from, const char *to, size_t bytes) {
    fflush(stdout);
    int fd = open(from, O_RDONLY | O_NONBLOCK); /* there before the writer comes */
    assert_true(fd >= 0);
    pid_t child = fork();
    if (child) {
        assert_int_equal(close(fd), 0);
        return child;
    }
    int out = open(to, O_WRONLY | O_CREAT, 0666);
    alarm(60);
    while (bytes > 0) {
        char chunk[4096];
        ssize_t n = read(fd, chunk, bytes < sizeof chunk ? bytes : sizeof chunk);
        if (n <= 0)
            usleep(1000); /* the writer isn't there yet, or not ready */
        else if (write(out, chunk, (size_t)n) != n)
            _exit(1);
        if (n > 0) bytes -= (size_t)n;
    }
    _exit(0);
}

static void a_pipe_gets_the_whole_file(void **state) {
    (void)state;
    io_array array = files_numbers(5, large);
    int result;
    assert_int_equal(mkfifo(files_path("a.npy"), 0666), 0);
    pid_t child = start_reader(files_path("a.npy"), files_path("b.npy"), 128 + 4 * 8 * 256 * 256);
    files_save(files_path("a.npy"), &array);
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_int_equal(result, 0);
    io_array back = files_load(files_path("b.npy"));
    files_check_equal(&back, &array);
    io_array_free(&back);
    io_array_free(&array);
}

/* The signal would end this process. */
static void a_closed_pipe_is_an_error_without_a_signal(void **state) {
    (void)state;
    io_array array = files_numbers(5, large);
    sigset_t pending, mask, none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    for (int i = 0; i < 4; i++) {
        int result;
        const char *path = files_path(all_names[i]);
        assert_int_equal(mkfifo(path, 0666), 0);
        pid_t child = start_reader(path, files_path("b"), 100);
        save_refused(path, &array, CONVT3D_IO, "Broken pipe");
        assert_int_equal(waitpid(child, &result, 0), child);
        assert_int_equal(result, 0);
    }
    sigpending(&pending);
    assert_false(sigismember(&pending, SIGPIPE));
    sigprocmask(SIG_SETMASK, NULL, &mask);
    for (int i = 1; i < 32; i++) assert_int_equal(sigismember(&mask, i), 0);
    io_array_free(&array);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, files_setup, files_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(the_output_is_the_input),
        TEST(the_output_is_a_symbolic_link),
        TEST(paths_that_cannot_be_written),
        TEST(arrays_that_cannot_be_written),
        TEST(modes_follow_the_umask_or_the_old_file),
        TEST(pieces_of_any_size_are_written),
        TEST(a_full_disk),
        TEST(a_disk_that_fills_up_keeps_the_old_file),
        TEST(a_kill_in_mid_write_keeps_the_old_file),
        TEST(no_permission_keeps_the_old_file),
        TEST(a_failed_rename_leaves_nothing),
        TEST(a_pipe_that_nobody_reads_is_an_error),
        TEST(a_pipe_gets_the_whole_file),
        TEST(a_closed_pipe_is_an_error_without_a_signal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
