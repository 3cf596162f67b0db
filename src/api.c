/* api: packed weights and the three runs: check everything, then go.
 * SPDX-License-Identifier: MIT */
#include "error.h"
#include "memory.h"
#include "plan.h"
#include "terms.h"

#include <stdlib.h>
#include <string.h>

struct convt3d_weights {
    convt3d_problem problem; /* whose batch, input_size and output_padding don't count */
    convt3d_direction direction;
    const convt3d_kernels *kernels;
    convt3d_precision precision;
    const convt3d_algorithm *algorithm;
    size_t bytes;
    convt3d_packed *packed; /* aligned, within this block */
};

static void *align(void *p) {
    return (void *)(((uintptr_t)p + CONVT3D_ALIGN - 1) / CONVT3D_ALIGN * CONVT3D_ALIGN);
}

/* The five sizes of each tensor of a problem. */
static void data_shape(const convt3d_geometry *g, int output, int64_t shape[5]) {
    shape[0] = g->batch;
    shape[1] = output ? g->out_channels : g->in_channels;
    for (int a = 0; a < 3; a++) shape[2 + a] = output ? g->axis[a].out : g->axis[a].in;
}

static convt3d_status check_data(const convt3d_plan *plan, const convt3d_tensor *tensor,
                                 const char *name, int output, convt3d_view *view,
                                 convt3d_error *err) {
    int64_t shape[5];
    data_shape(&plan->geometry, output, shape);
    return convt3d_view_check(tensor, name, CONVT3D_ROLE_DATA, plan->problem.dtype, 0, shape, view,
                              err);
}

static convt3d_status check_weight(const convt3d_plan *plan, const convt3d_tensor *tensor,
                                   const char *name, int or_float, convt3d_view *view,
                                   convt3d_error *err) {
    const convt3d_geometry *g = &plan->geometry;
    const int64_t shape[5] = {g->in_channels, g->group_outputs, g->axis[0].kernel,
                              g->axis[1].kernel, g->axis[2].kernel};
    return convt3d_view_check(tensor, name, CONVT3D_ROLE_WEIGHT, plan->problem.dtype, or_float,
                              shape, view, err);
}

static convt3d_status check_bias(const convt3d_plan *plan, const convt3d_tensor *tensor,
                                 const char *name, convt3d_view *view, convt3d_error *err) {
    if (!tensor) return CONVT3D_OK;
    return convt3d_view_check(tensor, name, CONVT3D_ROLE_BIAS, plan->problem.dtype, 1,
                              &plan->geometry.out_channels, view, err);
}

/* ---- Packed weights -------------------------------------------------------- */

static void pack_task(void *arg, int64_t index, int thread) {
    convt3d_call *call = arg;
    call->plan->algorithm->pack(call->plan, &call->weight, call->packed, index, thread);
}

convt3d_status convt3d_weights_pack(const convt3d_plan *plan, const convt3d_tensor *weight,
                                    convt3d_weights **out, convt3d_error *err) {
    const size_t worth_threads = 256 * 1024;
    convt3d_view view;
    if (!plan || !out)
        return convt3d_fail(err, CONVT3D_ARG, "%s is NULL", plan ? "weights" : "plan");
    *out = NULL;
    if (plan->direction == CONVT3D_BACKWARD_WEIGHT)
        return convt3d_fail(err, CONVT3D_ARG,
                            "plan is a backward_weight plan, which has no use for weights");
    convt3d_status status = check_weight(plan, weight, "weight", 0, &view, err);
    if (status) return status;
    size_t bytes = sizeof(convt3d_weights) + CONVT3D_ALIGN + plan->packed_whole;
    convt3d_weights *weights = convt3d_allocate(bytes);
    if (!weights) return convt3d_fail_nomem(err, "packed weights", bytes);
    weights->problem = plan->problem;
    weights->direction = plan->direction;
    weights->kernels = plan->kernels;
    weights->precision = plan->precision;
    weights->algorithm = plan->algorithm;
    weights->bytes = bytes;
    weights->packed = align(weights + 1);
    *weights->packed = (convt3d_packed){.whole = 1, .range = convt3d_range_none()};
    convt3d_call call = {.plan = plan, .weight = view, .packed = weights->packed};
    convt3d_job_init(&call.job, NULL, bytes > worth_threads ? plan->threads : 1);
    convt3d_parallel(&call.job, 1, plan->algorithm->pack_tasks(plan), pack_task, &call);
    *out = weights;
    return CONVT3D_OK;
}

void convt3d_weights_free(convt3d_weights *weights) {
    free(weights);
}

size_t convt3d_weights_size(const convt3d_weights *weights) {
    return weights ? weights->bytes : 0;
}

static convt3d_status check_packed(const convt3d_plan *plan, const convt3d_weights *weights,
                                   convt3d_error *err) {
    const convt3d_problem *p = &plan->problem, *q = &weights->problem;
    int same = p->dtype == q->dtype && p->in_channels == q->in_channels &&
               p->out_channels == q->out_channels && p->groups == q->groups &&
               p->padding_mode == q->padding_mode;
    for (int a = 0; a < 3; a++)
        same = same && p->kernel_size[a] == q->kernel_size[a] && p->stride[a] == q->stride[a] &&
               p->dilation[a] == q->dilation[a] && p->padding_before[a] == q->padding_before[a] &&
               p->padding_after[a] == q->padding_after[a];
    if (same && plan->direction == weights->direction && plan->kernels == weights->kernels &&
        plan->precision == weights->precision && plan->algorithm == weights->algorithm)
        return CONVT3D_OK;
    char text[256];
    convt3d_problem_format(q, text, sizeof text);
    return convt3d_fail(err, CONVT3D_ARG,
                        "packed was made for %s of %s (isa %s, precision %s, algorithm %s), which "
                        "this plan is not",
                        convt3d_direction_name(weights->direction), text, weights->kernels->name,
                        convt3d_precision_name(weights->precision), weights->algorithm->name);
}

/* ---- Runs -------------------------------------------------------------------- */

void convt3d_run_init(convt3d_run *run) {
    if (run) *run = (convt3d_run){.struct_size = sizeof *run};
}

static convt3d_status check_run(const convt3d_plan *plan, convt3d_direction direction,
                                convt3d_write write, const convt3d_run *run, convt3d_error *err) {
    if (!plan) return convt3d_fail(err, CONVT3D_ARG, "plan is NULL");
    if (plan->direction != direction)
        return convt3d_fail(err, CONVT3D_ARG, "plan is a %s plan, but must be a %s plan",
                            convt3d_direction_name(plan->direction),
                            convt3d_direction_name(direction));
    if (write != CONVT3D_OVERWRITE && write != CONVT3D_ACCUMULATE)
        return convt3d_fail(err, CONVT3D_ARG,
                            "write is %d, but must be CONVT3D_OVERWRITE or CONVT3D_ACCUMULATE",
                            (int)write);
    if (run && run->struct_size != sizeof *run)
        return convt3d_fail(err, CONVT3D_ARG,
                            "run.struct_size is %zu, but must be %zu: call convt3d_run_init() "
                            "first",
                            run->struct_size, sizeof *run);
    if (run && (run->threads < 0 || run->threads > plan->threads))
        return convt3d_fail(err, CONVT3D_ARG,
                            "run.threads is %d, but must be 0 to %d, the plan's number",
                            run->threads, plan->threads);
    return CONVT3D_OK;
}

/* Outputs against themselves, the inputs, and each other. */
static convt3d_status check_overlaps(const convt3d_view *const outputs[2],
                                     const convt3d_view *const inputs[3], convt3d_error *err) {
    convt3d_status status = CONVT3D_OK;
    for (int o = 0; o < 2 && !status; o++) {
        if (!outputs[o]) continue;
        status = convt3d_view_check_output(outputs[o], err);
        for (int i = 0; i < 3 && !status; i++) {
            if (inputs[i]) status = convt3d_view_check_apart(outputs[o], inputs[i], err);
        }
    }
    if (!status && outputs[0] && outputs[1])
        status = convt3d_view_check_apart(outputs[0], outputs[1], err);
    return status;
}

/* A bias of another dtype than numbers have becomes one of these, in scratch. */
static void take_bias(convt3d_call *call) {
    const convt3d_plan *plan = call->plan;
    convt3d_view *bias = &call->bias;
    const convt3d_rows row = {.to = call->scratch,
                              .from = bias->data,
                              .from_step = {0, 0, bias->stride[0]},
                              .count = {1, 1, bias->size[0]}};
    if (!bias->data || convt3d_dtype_size(bias->dtype) == plan->geometry.element) return;
    convt3d_movers_of(plan, bias->dtype)->gather(&row);
    bias->data = call->scratch;
    bias->dtype = CONVT3D_FLOAT32;
    bias->stride[0] = 1;
    call->scratch += convt3d_bias_bytes(plan);
}

static int has_dense_rows(const convt3d_view *v) {
    return v->size[4] == 1 || v->stride[4] == 1;
}

/* Whether the engine that reads weights where they are runs this call: others have their ways
 * with channels or samples that lie side by side. */
static int runs_direct(const convt3d_call *call, int packed) {
    const convt3d_plan *plan = call->plan;
    const int backward_input = plan->direction == CONVT3D_BACKWARD_INPUT;
    return plan->direct && !packed &&
           (plan->direction != CONVT3D_BACKWARD_WEIGHT || call->has_weight) &&
           has_dense_rows(&call->output) &&
           has_dense_rows(backward_input ? &call->grad_input : &call->input);
}

/* Scratch, weights if they aren't packed yet, and the algorithm. */
static convt3d_status execute(convt3d_call *call, const convt3d_weights *packed,
                              const convt3d_run *run, convt3d_error *err) {
    const convt3d_plan *plan = call->plan;
    const int direct = runs_direct(call, packed != NULL);
    const convt3d_algorithm *algorithm = direct ? plan->direct : plan->algorithm;
    int pack = plan->packed_bytes && !packed && !direct;
    int threads = run && run->threads ? run->threads : plan->threads;
    size_t bytes = convt3d_plan_scratch_size(plan, threads, packed != NULL);
    char *scratch = run ? run->scratch : NULL, *owned = NULL;
    if (scratch && run->scratch_size < bytes)
        return convt3d_fail(err, CONVT3D_ARG,
                            "run.scratch_size is %zu, but must be at least %zu for %d threads",
                            run->scratch_size, bytes, threads);
    if (!scratch) {
        scratch = owned = convt3d_allocate(bytes);
        if (!owned) return convt3d_fail_nomem(err, "scratch memory", bytes);
    }
    call->scratch = align(scratch);
    convt3d_job_init(&call->job, run, threads);
    if (packed) call->packed = packed->packed;
    if (pack) {
        int64_t tasks = algorithm->pack_tasks(plan);
        call->packed = (convt3d_packed *)call->scratch;
        call->scratch += convt3d_round_up(plan->packed_bytes);
        *call->packed = (convt3d_packed){.range = convt3d_range_none()};
        convt3d_parallel(&call->job, 0.05, tasks, pack_task, call);
    }
    if (plan->direction == CONVT3D_FORWARD) take_bias(call);
    algorithm->run(call);
    free(owned);
    if (call->job.cancelled) return convt3d_fail(err, CONVT3D_CANCELLED, "cancelled");
    return CONVT3D_OK;
}

/* 'weight' or 'packed', for the two directions that read weights. */
static convt3d_status check_either(convt3d_call *call, const convt3d_tensor *weight,
                                   const convt3d_weights *packed, convt3d_error *err) {
    if (!weight == !packed)
        return convt3d_fail(err, CONVT3D_ARG,
                            "weight and packed are %s NULL, but one of them must be",
                            weight ? "both not" : "both");
    return packed ? check_packed(call->plan, packed, err)
                  : check_weight(call->plan, weight, "weight", 0, &call->weight, err);
}

convt3d_status convt3d_forward(const convt3d_plan *plan, const convt3d_tensor *input,
                               const convt3d_tensor *weight, const convt3d_weights *packed,
                               const convt3d_tensor *bias, const convt3d_tensor *output,
                               const convt3d_run *run, convt3d_error *err) {
    convt3d_call call = {.plan = plan};
    convt3d_status status = check_run(plan, CONVT3D_FORWARD, CONVT3D_OVERWRITE, run, err);
    if (!status) status = check_data(plan, input, "input", 0, &call.input, err);
    if (!status) status = check_either(&call, weight, packed, err);
    if (!status) status = check_bias(plan, bias, "bias", &call.bias, err);
    if (!status) status = check_data(plan, output, "output", 1, &call.output, err);
    if (!status) {
        const convt3d_view *outputs[2] = {&call.output};
        const convt3d_view *inputs[3] = {&call.input, weight ? &call.weight : NULL,
                                         bias ? &call.bias : NULL};
        status = check_overlaps(outputs, inputs, err);
    }
    return status ? status : execute(&call, packed, run, err);
}

convt3d_status convt3d_backward_input(const convt3d_plan *plan, const convt3d_tensor *grad_output,
                                      const convt3d_tensor *weight, const convt3d_weights *packed,
                                      const convt3d_tensor *grad_input, convt3d_write write,
                                      const convt3d_run *run, convt3d_error *err) {
    convt3d_call call = {.plan = plan, .accumulate = write == CONVT3D_ACCUMULATE};
    convt3d_status status = check_run(plan, CONVT3D_BACKWARD_INPUT, write, run, err);
    if (!status) status = check_data(plan, grad_output, "grad_output", 1, &call.output, err);
    if (!status) status = check_either(&call, weight, packed, err);
    if (!status) status = check_data(plan, grad_input, "grad_input", 0, &call.grad_input, err);
    if (!status) {
        const convt3d_view *outputs[2] = {&call.grad_input};
        const convt3d_view *inputs[3] = {&call.output, weight ? &call.weight : NULL};
        status = check_overlaps(outputs, inputs, err);
    }
    return status ? status : execute(&call, packed, run, err);
}

convt3d_status convt3d_backward_weight(const convt3d_plan *plan, const convt3d_tensor *input,
                                       const convt3d_tensor *grad_output,
                                       const convt3d_tensor *grad_weight,
                                       const convt3d_tensor *grad_bias, convt3d_write write,
                                       const convt3d_run *run, convt3d_error *err) {
    convt3d_call call = {
        .plan = plan, .has_weight = grad_weight != NULL, .accumulate = write == CONVT3D_ACCUMULATE};
    convt3d_status status = check_run(plan, CONVT3D_BACKWARD_WEIGHT, write, run, err);
    if (!status && !grad_weight && !grad_bias)
        status = convt3d_fail(err, CONVT3D_ARG,
                              "grad_weight and grad_bias are both NULL, but one of them must not "
                              "be");
    if (!status && grad_weight) status = check_data(plan, input, "input", 0, &call.input, err);
    if (!status) status = check_data(plan, grad_output, "grad_output", 1, &call.output, err);
    if (!status && grad_weight)
        status = check_weight(plan, grad_weight, "grad_weight", 1, &call.weight, err);
    if (!status) status = check_bias(plan, grad_bias, "grad_bias", &call.bias, err);
    if (!status) {
        const convt3d_view *outputs[2] = {grad_weight ? &call.weight : NULL,
                                          grad_bias ? &call.bias : NULL};
        const convt3d_view *inputs[3] = {grad_weight ? &call.input : NULL, &call.output};
        status = check_overlaps(outputs, inputs, err);
    }
    return status ? status : execute(&call, NULL, run, err);
}
