/* matrix_move: lines, sums and weights, from and to the caller.
 * SPDX-License-Identifier: MIT */
#include "matrix.h"

convt3d_matrix_side convt3d_matrix_small(const convt3d_call *call, const convt3d_view *view) {
    return (convt3d_matrix_side){view, call->plan->geometry.group_inputs, {1, 1, 1}};
}

convt3d_matrix_side convt3d_matrix_large(const convt3d_call *call) {
    const convt3d_geometry *g = &call->plan->geometry;
    return (convt3d_matrix_side){
        &call->output,
        g->group_outputs,
        {g->axis[0].kernel, g->axis[1].kernel, g->axis[2].kernel},
    };
}

static int64_t element_of(const convt3d_call *call) {
    return (int64_t)call->plan->geometry.element;
}

int convt3d_matrix_in_pairs(const convt3d_matrix_side *side) {
    return side->kernel[2] == 2 && side->view->stride[4] == 1;
}

void convt3d_matrix_load(const convt3d_call *call, const convt3d_matrix_side *side, int64_t channel,
                         int64_t tap, int64_t n, int64_t samples, char *line, char *odd) {
    const convt3d_axis *axis = call->plan->geometry.axis;
    const convt3d_matrix *c = call->plan->direct_details;
    const int64_t *stride = side->view->stride, *kernel = side->kernel;
    const int64_t at = channel * stride[1] + tap / kernel[2] / kernel[1] * stride[2] +
                       tap / kernel[2] % kernel[1] * stride[3] + tap % kernel[2] * stride[4];
    convt3d_rows rows = {
        .to = line,
        .to_step = {axis[1].in * axis[2].in, axis[2].in},
        .from_step = {stride[2] * kernel[0], stride[3] * kernel[1], stride[4] * kernel[2]},
        .count = {axis[0].in, axis[1].in, axis[2].in},
        .odds = axis[2].in};
    for (int64_t i = 0; i < samples; i++) {
        rows.to = line + i * c->positions * element_of(call);
        rows.odd = odd ? odd + i * c->positions * element_of(call) : NULL;
        rows.from = side->view->data + ((n + i) * stride[0] + at) * element_of(call);
        call->plan->type->own.gather(&rows);
    }
}

/* What is added where an activation has the bias in it: -0 changes nothing. */
static const float minus_narrow = -0.0F;
static const double minus_wide = -0.0, nothing = 0;

void convt3d_matrix_store(const convt3d_call *call, const convt3d_matrix_side *side,
                          int64_t channel, int64_t n, int64_t samples, char *lines) {
    const convt3d_plan *plan = call->plan;
    const convt3d_axis *axis = plan->geometry.axis;
    const convt3d_matrix *c = plan->direct_details;
    const int64_t element = element_of(call), *stride = side->view->stride, *kernel = side->kernel;
    const int64_t columns = samples * c->positions, line = c->line * element;
    const int narrow = plan->geometry.element == sizeof(float);
    const char *bias = (const char *)&nothing;
    if (call->bias.data) bias = call->bias.data + channel * call->bias.stride[0] * element;
    if (plan->activation != CONVT3D_ACTIVATION_NONE) {
        const double b = narrow ? (double)*(const float *)bias : *(const double *)bias;
        for (int64_t tap = 0; tap < kernel[0] * kernel[1] * kernel[2]; tap++)
            plan->type->activate(lines + tap * line, columns, b, (int)plan->activation,
                                 plan->negative_slope);
        bias = narrow ? (const char *)&minus_narrow : (const char *)&minus_wide;
    }
    convt3d_lay lay = {.to_row = stride[3] * kernel[1],
                       .step = stride[4],
                       .lanes = (int)kernel[2],
                       .rows = axis[1].in,
                       .count = axis[2].in * kernel[2],
                       .bias = bias,
                       .how = call->accumulate ? CONVT3D_STORE_ADD : CONVT3D_STORE_PLAIN};
    for (int64_t i = 0; i < samples * axis[0].in * kernel[0] * kernel[1]; i++) {
        const int64_t kh = i % kernel[1], rest = i / kernel[1], kd = rest % kernel[0];
        const int64_t plane = rest / kernel[0]; /* of all samples */
        const int64_t d = plane % axis[0].in * kernel[0] + kd;
        lay.to = side->view->data + ((n + plane / axis[0].in) * stride[0] + channel * stride[1] +
                                     d * stride[2] + kh * stride[3]) *
                                        element;
        for (int64_t kw = 0; kw < kernel[2]; kw++) {
            lay.from[kw] = lines + ((kd * kernel[1] + kh) * kernel[2] + kw) * line +
                           plane * axis[1].in * axis[2].in * element;
            lay.from_row[kw] = axis[2].in;
        }
        plan->type->own.store(&lay);
    }
}

/* ---- Weights --------------------------------------------------------------------------------- */

/* Axes 'from' and on lie behind each other; a stride of an axis of size 1 is 0. */
static int is_packed(const convt3d_view *w, int from) {
    int64_t step = 1;
    for (int a = 4; a >= from; a--) {
        if (w->size[a] > 1 && w->stride[a] != step) return 0;
        step *= w->size[a];
    }
    return 1;
}

int convt3d_matrix_is_dense(const convt3d_call *call) {
    return is_packed(&call->weight, 1);
}

void convt3d_matrix_copy(const convt3d_call *call, int64_t ci, char *row) {
    const convt3d_matrix *c = call->plan->direct_details;
    const convt3d_view *w = &call->weight;
    const int64_t element = element_of(call), *size = w->size, *stride = w->stride;
    for (int64_t i = 0; i < size[2] * size[3]; i++) {
        const int64_t at = ci * stride[0] + i / size[3] * stride[2] + i % size[3] * stride[3];
        call->plan->type->own.transpose(row + i * size[4] * element, c->taps,
                                        w->data + at * element, stride[4], stride[1], size[4],
                                        size[4], size[1]);
    }
}

void convt3d_matrix_write(const convt3d_call *call, int64_t ci, const char *row) {
    const convt3d_matrix *c = call->plan->direct_details;
    const convt3d_view *w = &call->weight;
    const int64_t element = element_of(call), *size = w->size, *stride = w->stride;
    const int whole = convt3d_matrix_is_dense(call);
    convt3d_lay lay = {.to_row = stride[1],
                       .step = whole ? 1 : stride[4],
                       .from_row = {c->taps},
                       .lanes = 1,
                       .rows = whole ? 1 : size[1],
                       .count = whole ? c->m : size[4],
                       .bias = &nothing,
                       .how = call->accumulate ? CONVT3D_STORE_ADD : CONVT3D_STORE_PLAIN};
    for (int64_t i = 0; i < (whole ? 1 : size[2] * size[3]); i++) {
        const int64_t at = ci * stride[0] + i / size[3] * stride[2] + i % size[3] * stride[3];
        lay.to = w->data + at * element;
        lay.from[0] = row + i * size[4] * element;
        call->plan->type->own.store(&lay);
    }
}
