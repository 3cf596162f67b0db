/* link: where a path really leads.  An output that is a symbolic link is
 * written where it points, as by a plain open(): a rename onto the link itself
 * would break it.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "private.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    LINKS_MAX = 40
}; /* as many as Linux follows */

convt3d_status io_link_resolve(const char *path, char **target, convt3d_error *err) {
    char *at = strdup(path);
    char link[PATH_MAX];
    for (int links = 0; at && links <= LINKS_MAX; links++) {
        ssize_t n = readlink(at, link, sizeof link);
        if (n < 0 || n == (ssize_t)sizeof link) { /* no link; or what open() will complain of */
            *target = at;
            return CONVT3D_OK;
        }
        const char *slash = strrchr(at, '/');
        int folder = slash && link[0] != '/' ? (int)(slash - at) + 1 : 0;
        char *next;
        if (asprintf(&next, "%.*s%.*s", folder, at, (int)n, link) < 0) next = NULL;
        free(at);
        at = next;
    }
    if (!at) return io_fail_nomem(err, path, strlen(path) + PATH_MAX);
    free(at);
    return io_fail_system(err, path, "can't be written", ELOOP);
}
