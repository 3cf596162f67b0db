/* require: what a fuzz target insists on; a failure is a finding.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_REQUIRE_H
#define CONVT3D_REQUIRE_H

#include <stdio.h>
#include <stdlib.h>

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#endif
