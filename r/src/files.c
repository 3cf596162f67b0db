/* files: what R's own functions don't say about a path.
 * SPDX-License-Identifier: MIT */
#define _FILE_OFFSET_BITS 64 /* files above 2 GB where long has 32 bits */

#include "glue.h"

#include <sys/stat.h>

/* TRUE for a regular file, or a link to one; FALSE for a folder, a FIFO, a device;
 * NA where nothing is found.  file.info() leaves the type out of the mode, and opening
 * a FIFO to see what it is waits for somebody to write. */
SEXP glue_r_is_regular(SEXP path) {
    struct stat found;
    const char *name = R_ExpandFileName(Rf_translateChar(STRING_ELT(path, 0)));
    if (stat(name, &found) != 0) return Rf_ScalarLogical(NA_LOGICAL);
    return Rf_ScalarLogical(S_ISREG(found.st_mode) != 0);
}
