/* fuzz_nifti: any bytes as a NIfTI file, plain or gzip.
 * SPDX-License-Identifier: MIT
 *
 * Either a named failure that leaves nothing behind, or an array whose every
 * element lies in its memory and can be converted. */
#include "fuzz_array.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    io_source source = io_source_memory("input", data, size);
    io_array array;
    convt3d_error err = {CONVT3D_OK, ""};
    convt3d_status status = io_nifti_read(&source, &array, &err);
    if (status)
        fuzz_check_failure(status, &err, &array);
    else
        fuzz_check_array(&array, size);
    return 0;
}
