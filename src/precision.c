/* precision: how exactly float32 is multiplied, by name.
 * SPDX-License-Identifier: MIT */
#include "error.h"

#include <string.h>

enum {
    COUNT = 3
};
static const char *const names[COUNT] = {"highest", "high", "medium"};

const char *convt3d_precision_name(convt3d_precision precision) {
    return (unsigned)precision < COUNT ? names[precision] : NULL;
}

convt3d_status convt3d_precision_parse(const char *name, convt3d_precision *precision,
                                       convt3d_error *err) {
    if (!name || !precision)
        return convt3d_fail(err, CONVT3D_ARG, "%s is NULL", name ? "precision" : "name");
    for (int i = 0; i < COUNT; i++) {
        if (strcmp(name, names[i]) == 0) {
            *precision = (convt3d_precision)i;
            return CONVT3D_OK;
        }
    }
    return convt3d_fail(err, CONVT3D_ARG,
                        "precision is '%.40s', but must be 'highest', 'high' or 'medium'", name);
}
