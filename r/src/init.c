/* init: tells R which functions there are, and cleans up when it leaves.
 * SPDX-License-Identifier: MIT */
#include "glue.h"

#include <R_ext/Rdynload.h>
#include <R_ext/Visibility.h>

#define ENTRY(name, arguments)                                                                     \
    { "C_" #name, (DL_FUNC)&glue_r_##name, arguments }

static const R_CallMethodDef entries[] = {
    ENTRY(storage, 3),      ENTRY(convert, 3), ENTRY(arithmetic, 3),     ENTRY(sum, 1),
    ENTRY(output_shape, 3), ENTRY(forward, 6), ENTRY(backward_input, 5), ENTRY(backward_weight, 6),
    ENTRY(seed, 1),         ENTRY(normal, 2),  ENTRY(fill, 4),           ENTRY(info, 0),
    ENTRY(is_regular, 1),   {NULL, NULL, 0},
};

attribute_visible void R_init_convt3d(DllInfo *dll) {
    R_registerRoutines(dll, NULL, entries, NULL, NULL);
    R_useDynamicSymbols(dll, FALSE);
    R_forceSymbols(dll, TRUE);
}

attribute_visible void R_unload_convt3d(DllInfo *dll) {
    (void)dll;
    glue_forget_plans();
    glue_forget_generator();
}
