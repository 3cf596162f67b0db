/* fuzz_safetensors: any bytes as a .safetensors file.
 * SPDX-License-Identifier: MIT
 *
 * Either a named failure, or a file of which every tensor is read, or refused
 * for its type or rank; the data of all of them cover the file. */
#include "fuzz_array.h"

static void read_tensors(io_safetensors *file, size_t size) {
    convt3d_error err = {CONVT3D_OK, ""};
    io_array array;
    for (int i = 0; i < io_safetensors_count(file) && i < 64; i++) {
        const char *name = io_safetensors_tensor_name(file, i);
        REQUIRE(name);
        convt3d_status status = io_safetensors_read(file, name, &array, &err);
        if (status) {
            fuzz_check_failure(status, &err, &array);
            REQUIRE(status == CONVT3D_DTYPE || status == CONVT3D_SHAPE);
        } else {
            fuzz_check_array(&array, size);
        }
    }
    REQUIRE(!io_safetensors_tensor_name(file, io_safetensors_count(file)));
    REQUIRE(io_safetensors_read(file, "no such tensor", &array, &err) == CONVT3D_NOTFOUND);
    fuzz_check_failure(CONVT3D_NOTFOUND, &err, &array);
    io_safetensors_metadata(file, "format");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    io_source source = io_source_memory("input", data, size);
    io_array none = {.data = NULL};
    io_safetensors *file;
    convt3d_error err = {CONVT3D_OK, ""};
    convt3d_status status = io_safetensors_parse(&source, &file, &err);
    if (status) {
        REQUIRE(!file);
        fuzz_check_failure(status, &err, &none);
        return 0;
    }
    read_tensors(file, size);
    io_safetensors_close(file);
    return 0;
}
