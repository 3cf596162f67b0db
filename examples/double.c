/* Doubles a row of four numbers by linear interpolation, right up to the border.
 * SPDX-License-Identifier: MIT */
#include <convt3d.h>
#include <stdio.h>

int main(void) {
    float x[4] = {0, 1, 2, 3}, y[8];
    convt3d_error err;
    convt3d_problem layer;
    convt3d_module *module = NULL;
    convt3d_status status =
        convt3d_problem_parse("ci1co1i1x1x4k1x1x4s1x1x2p0x0x1nbmreplicate", &layer, NULL, 0, &err);
    if (!status) status = convt3d_module_create(&layer, NULL, &module, &err);
    if (!status) status = convt3d_module_fill(module, CONVT3D_FILL_TRILINEAR, 0, &err);
    convt3d_tensor X = convt3d_tensor_dense(x, CONVT3D_FLOAT32, 4, (int64_t[]){1, 1, 1, 4});
    convt3d_tensor Y = convt3d_tensor_dense(y, CONVT3D_FLOAT32, 4, (int64_t[]){1, 1, 1, 8});
    if (!status) status = convt3d_module_forward(module, &X, &Y, NULL, &err);
    convt3d_module_free(module);
    if (status) return fprintf(stderr, "%s\n", err.text), 1;
    for (int i = 0; i < 8; i++) printf("%g%c", y[i], i < 7 ? ' ' : '\n');
    return 0;
}
