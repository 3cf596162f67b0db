/* replay: feeds stored inputs to a fuzz target, so that the ordinary test run
 * repeats what fuzzing has found: replay DIRECTORY...
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* 1 if the file could be read and was fed. */
static int replay_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) return 0;
    uint8_t *data = NULL, *exact = NULL;
    size_t size = 0, room = 0, got = 1;
    while (got) {
        if (size == room) data = realloc(data, room = room ? 2 * room : 4096);
        if (!data) abort();
        size += got = fread(data + size, 1, room - size, file);
    }
    int ok = !ferror(file);
    fclose(file);
    /* A copy without slack, so that sanitizers see reads beyond the end. */
    if (ok && !(exact = malloc(size ? size : 1))) abort();
    if (ok) {
        memcpy(exact, data, size);
        LLVMFuzzerTestOneInput(exact, size);
    }
    free(exact);
    free(data);
    return ok;
}

/* The number of files fed, or -1 if one, or the directory, can't be read. */
static int replay_directory(const char *path) {
    DIR *directory = opendir(path);
    if (!directory) return -1;
    int count = 0;
    for (struct dirent *entry; (entry = readdir(directory));) {
        char name[4096];
        if (entry->d_name[0] == '.') continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (!replay_file(name)) {
            fprintf(stderr, "replay: can't read '%s'\n", name);
            count = -1;
            break;
        }
        count++;
    }
    closedir(directory);
    return count;
}

/* Nothing to replay is a failure: it would prove nothing. */
int main(int argc, char **argv) {
    int total = 0;
    for (int i = 1; i < argc; i++) {
        int count = replay_directory(argv[i]);
        if (count <= 0) {
            fprintf(stderr, "replay: no inputs in '%s'\n", argv[i]);
            return 1;
        }
        total += count;
    }
    if (!total) {
        fprintf(stderr, "usage: replay DIRECTORY...\n");
        return 1;
    }
    printf("replayed %d inputs\n", total);
    return 0;
}
