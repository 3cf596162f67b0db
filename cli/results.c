/* results: the files that a command writes.
 * SPDX-License-Identifier: MIT */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char tensor_ending[] = ".safetensors";
const char *const cli_array_endings[] = {".npy", tensor_ending, ".nii", ".nii.gz", ""};

/* The length of the path in "path.safetensors:name"; the name may be NULL. */
static size_t split(const char *spec, const char **name) {
    const char *colon = strrchr(spec, ':');
    size_t ending = strlen(tensor_ending);
    *name = NULL;
    if (!colon || (size_t)(colon - spec) < ending ||
        strncmp(colon - ending, tensor_ending, ending) != 0)
        return strlen(spec);
    *name = colon + 1;
    return (size_t)(colon - spec);
}

static int ends_with(const char *text, size_t length, const char *ending) {
    size_t n = strlen(ending);
    return length > n && strncmp(text + length - n, ending, n) == 0;
}

int cli_output_check(const char *option, const char *spec, const char *const *endings) {
    const char *name;
    /* Only arrays go by a name into a file of tensors. */
    size_t length = endings == cli_array_endings ? split(spec, &name) : strlen(spec);
    char list[80] = "", folder[4096];
    int known = 0;
    for (; **endings; endings++) {
        size_t used = strlen(list);
        known |= ends_with(spec, length, *endings);
        snprintf(list + used, sizeof(list) - used, " %s", *endings);
    }
    if (!known) return cli_usage("%s: '%s' has none of the endings%s", option, spec, list);
    while (length > 0 && spec[length - 1] != '/') length--;
    if (length >= sizeof(folder)) return cli_usage("%s: the path is too long", option);
    snprintf(folder, sizeof(folder), "%.*s", (int)length, length ? spec : ".");
    if (length == 0) snprintf(folder, sizeof(folder), ".");
    if (access(folder, W_OK | X_OK) == 0) return 0;
    return cli_fail("%s: can't write into %s: %s", option, folder, strerror(errno));
}

int cli_result_create(cli_result *result, int32_t rank, const int64_t *size) {
    convt3d_error err;
    if (io_array_create(io_dtype_of(result->dtype), rank, size, &result->array, &err) == CONVT3D_OK)
        return 0;
    return cli_fail_status(&err);
}

/* Whether two results go into one file, and whether one would be lost there. */
static int same_file(const char *a, const char *b, int *lost) {
    const char *a_name, *b_name;
    size_t length = split(a, &a_name);
    if (length != split(b, &b_name) || strncmp(a, b, length) != 0) return 0;
    *lost = !a_name || !b_name || strcmp(a_name, b_name) == 0;
    return 1;
}

int cli_results_check(const cli_args *args, const cli_result *results, int count) {
    for (int i = 0; i < count; i++) {
        const char *option = cli_option_name(results[i].id);
        const char *spec = args->text[results[i].id];
        int status = cli_output_check(option, spec, cli_array_endings);
        if (status) return status;
        for (int j = 0; j < i; j++) {
            int lost = 0;
            same_file(spec, args->text[results[j].id], &lost);
            if (lost)
                return cli_usage("%s and %s name the same file, '%s'; a .safetensors file can "
                                 "take both as :name",
                                 cli_option_name(results[j].id), option, spec);
        }
    }
    return 0;
}

int cli_results_check_dtypes(const cli_args *args, const cli_result *results, int count) {
    /* Without the option it is the weight's file that decided. */
    int (*say)(const char *format, ...) = args->text[CLI_OPT_DTYPE] ? cli_usage : cli_fail;
    for (int i = 0; i < count; i++) {
        const char *spec = args->text[results[i].id];
        convt3d_error err;
        if (io_save_check(spec, io_dtype_of(results[i].dtype), &err) != CONVT3D_OK)
            return say("%s: %s, or choose another --dtype, such as float32",
                       cli_option_name(results[i].id), err.text);
    }
    return 0;
}

/* Writes results[first] and all that go into the same file. */
static convt3d_status save_file(const cli_args *args, const cli_result *results, int count,
                                int first, int *done, convt3d_error *err) {
    const char *spec = args->text[results[first].id], *name;
    size_t length = split(spec, &name);
    io_named named[CLI_RESULTS];
    char path[4096];
    int members = 0, lost;
    if (!name) return io_save(spec, &results[first].array, err);
    for (int i = first; i < count; i++) {
        const char *other = args->text[results[i].id];
        if (!same_file(spec, other, &lost)) continue;
        split(other, &named[members].name);
        named[members++].array = &results[i].array;
        done[i] = 1;
    }
    snprintf(path, sizeof(path), "%.*s", (int)length, spec);
    return io_safetensors_write(path, named, members, NULL, 0, err);
}

/* A signal from here on makes the write fail, see progress.c; one that came
 * after the run's last poll is noticed here. */
int cli_results_save(const cli_args *args, const cli_result *results, int count) {
    int done[CLI_RESULTS] = {0};
    convt3d_error err;
    cli_phase_enter(CLI_PHASE_SAVE);
    for (int i = 0; i < count; i++) {
        if (done[i]) continue;
        if (cli_stopped() || save_file(args, results, count, i, done, &err) != CONVT3D_OK)
            return cli_fail_status(&err);
    }
    return 0;
}
