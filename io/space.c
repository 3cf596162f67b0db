/* space: where the voxels of an output lie, given those of its input.
 * SPDX-License-Identifier: MIT */
#include "io.h"

#include <nifti2_io.h>

/* NIfTI says it three times: voxel sizes, a rotation (qform) and a matrix
 * (sform).  All three are kept in step; a code of 0 leaves a form unused. */
io_space io_space_follow(const io_space *input, const double scale[3], const double shift[3]) {
    io_space output = *input;
    if (!input->present) return output;
    const double *size = input->pixdim;
    nifti_dmat44 rotation =
        nifti_quatern_to_dmat44(input->quatern[0], input->quatern[1], input->quatern[2], 0, 0, 0,
                                size[1], size[2], size[3], size[0]);
    for (int a = 0; a < 3; a++) {
        output.pixdim[a + 1] *= scale[a];
        for (int r = 0; r < 3; r++) {
            output.qoffset[r] += rotation.m[r][a] * shift[a];
            output.srow[r][3] += input->srow[r][a] * shift[a];
            output.srow[r][a] *= scale[a];
        }
    }
    return output;
}
