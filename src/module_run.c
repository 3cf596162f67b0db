/* module_run: a module's runs.  Each keeps the plan of its latest shape, so
 * that a second call of the same shape plans nothing.
 * SPDX-License-Identifier: MIT */
#include "memory.h"
#include "module.h"
#include "error.h"
#include "tensor.h"

#include <stdlib.h>

/* A module's problems differ in these only: the rest is its layer's. */
static int same_shape(const convt3d_problem *a, const convt3d_problem *b) {
    int same = a->batch == b->batch;
    for (int i = 0; i < 3; i++)
        same = same && a->input_size[i] == b->input_size[i] &&
               a->output_padding[i] == b->output_padding[i];
    return same;
}

static convt3d_status plan_for(convt3d_module *module, const convt3d_problem *problem,
                               convt3d_direction direction, convt3d_error *err) {
    convt3d_latest *kept = &module->latest[direction];
    convt3d_plan *plan;
    if (kept->plan && same_shape(&kept->problem, problem)) return CONVT3D_OK;
    convt3d_status status = convt3d_plan_create(problem, direction, &module->options, &plan, err);
    if (status) return status;
    convt3d_plan_free(kept->plan);
    kept->plan = plan;
    kept->problem = *problem;
    return CONVT3D_OK;
}

/* The problem of a run: the output's own size decides about output_padding. */
static convt3d_status problem_of_run(const convt3d_module *module, const convt3d_tensor *input,
                                     const convt3d_tensor *output, const char *output_name,
                                     convt3d_problem *problem, convt3d_error *err) {
    if (!module || !input || !output)
        return convt3d_fail(err, CONVT3D_ARG, "%s is NULL",
                            !module  ? "module"
                            : !input ? "input"
                                     : output_name);
    convt3d_status status = convt3d_module_check_rank("input", input->rank, err);
    if (!status) status = convt3d_module_check_rank(output_name, output->rank, err);
    if (status) return status;
    return convt3d_module_problem(module, input->rank, input->size, output->size + output->rank - 3,
                                  problem, err);
}

/* A run's own number of threads is a wish here: the caller can't see how many
 * the plans behind the module have. */
static convt3d_run run_with(const convt3d_run *run, const convt3d_plan *plan) {
    convt3d_run with;
    convt3d_run_init(&with);
    if (!run) return with;
    with.struct_size = run->struct_size;
    if (with.struct_size != sizeof with) return with; /* for the run to refuse */
    with = *run;
    if (with.threads <= CONVT3D_MAX_THREADS && with.threads > convt3d_plan_threads(plan))
        with.threads = convt3d_plan_threads(plan);
    return with;
}

convt3d_status convt3d_module_forward(convt3d_module *module, const convt3d_tensor *input,
                                      const convt3d_tensor *output, const convt3d_run *run,
                                      convt3d_error *err) {
    convt3d_problem problem;
    convt3d_status status = problem_of_run(module, input, output, "output", &problem, err);
    if (!status) status = plan_for(module, &problem, CONVT3D_FORWARD, err);
    if (status) return status;
    const convt3d_plan *plan = module->latest[CONVT3D_FORWARD].plan;
    const convt3d_run with = run_with(run, plan);
    return convt3d_forward(plan, input, &module->weight, NULL, convt3d_module_bias(module), output,
                           &with, err);
}

/* What of grad_input only the second run of a backward call would refuse, when
 * the first has already written. */
static convt3d_status check_grad_input(const convt3d_module *module, const convt3d_problem *p,
                                       const convt3d_tensor *input,
                                       const convt3d_tensor *grad_output,
                                       const convt3d_tensor *grad_input, convt3d_error *err) {
    const int64_t in[5] = {p->batch, p->in_channels, p->input_size[0], p->input_size[1],
                           p->input_size[2]};
    int64_t out[5];
    convt3d_status status = convt3d_problem_output_shape(p, out, err);
    const struct {
        const convt3d_tensor *tensor;
        const char *name;
        convt3d_role role;
        const int64_t *shape;
    } rows[] = {
        {grad_input, "grad_input", CONVT3D_ROLE_DATA, in},
        {input, "input", CONVT3D_ROLE_DATA, in},
        {grad_output, "grad_output", CONVT3D_ROLE_DATA, out},
        {&module->weight, "weight", CONVT3D_ROLE_WEIGHT, module->weight.size},
        {&module->grad_weight, "grad_weight", CONVT3D_ROLE_WEIGHT, module->weight.size},
        {convt3d_module_bias(module), "bias", CONVT3D_ROLE_BIAS, module->bias.size},
        {convt3d_module_grad_bias(module), "grad_bias", CONVT3D_ROLE_BIAS, module->bias.size},
    };
    convt3d_view first, other;
    for (size_t i = 0; i < sizeof rows / sizeof *rows && !status; i++) {
        if (!rows[i].tensor) continue;
        status = convt3d_view_check(rows[i].tensor, rows[i].name, rows[i].role, p->dtype, 0,
                                    rows[i].shape, i ? &other : &first, err);
        if (status) return status;
        status = i ? convt3d_view_check_apart(&first, &other, err)
                   : convt3d_view_check_output(&first, err);
    }
    return status;
}

/* One of the two runs of a backward call: half of the caller's progress. */
typedef struct half {
    const convt3d_run *run;
    double start;
} half;

static int poll_half(void *data, double done) {
    const half *part = data;
    return part->run->poll(part->run->poll_data, part->start + 0.5 * done);
}

static convt3d_run run_half(const convt3d_run *run, const convt3d_plan *plan, half *part) {
    convt3d_run with = run_with(run, plan);
    if (with.poll) {
        with.poll = poll_half;
        with.poll_data = part;
    }
    return with;
}

/* Both runs, with scratch in hand before the first one writes. */
static convt3d_status run_both(convt3d_module *module, const convt3d_tensor *input,
                               const convt3d_tensor *grad_output, const convt3d_tensor *grad_input,
                               const convt3d_run *run, convt3d_error *err) {
    const convt3d_plan *weight_plan = module->latest[CONVT3D_BACKWARD_WEIGHT].plan;
    const convt3d_plan *input_plan = module->latest[CONVT3D_BACKWARD_INPUT].plan;
    half halves[2] = {{run, 0.0}, {run, 0.5}};
    convt3d_run first = run_half(run, weight_plan, &halves[0]);
    convt3d_run second = run_half(run, input_plan, &halves[1]);
    size_t for_weight = convt3d_plan_scratch_size(weight_plan, first.threads, 0);
    size_t for_input = convt3d_plan_scratch_size(input_plan, second.threads, 0);
    size_t need = for_weight > for_input ? for_weight : for_input;
    void *owned = NULL;
    if (first.scratch && first.scratch_size < need)
        return convt3d_fail(err, CONVT3D_ARG, "run.scratch_size is %zu, but must be at least %zu",
                            first.scratch_size, need);
    if (!first.scratch) {
        owned = convt3d_allocate(need);
        if (!owned) return convt3d_fail_nomem(err, "scratch memory", need);
        first.scratch = second.scratch = owned;
        first.scratch_size = second.scratch_size = need;
    }
    convt3d_status status =
        convt3d_backward_weight(weight_plan, input, grad_output, &module->grad_weight,
                                convt3d_module_grad_bias(module), CONVT3D_ACCUMULATE, &first, err);
    if (!status)
        status = convt3d_backward_input(input_plan, grad_output, &module->weight, NULL, grad_input,
                                        CONVT3D_OVERWRITE, &second, err);
    free(owned);
    return status;
}

convt3d_status convt3d_module_backward(convt3d_module *module, const convt3d_tensor *input,
                                       const convt3d_tensor *grad_output,
                                       const convt3d_tensor *grad_input, const convt3d_run *run,
                                       convt3d_error *err) {
    convt3d_problem problem;
    convt3d_status status =
        problem_of_run(module, input, grad_output, "grad_output", &problem, err);
    if (!status) status = plan_for(module, &problem, CONVT3D_BACKWARD_WEIGHT, err);
    if (status) return status;
    if (grad_input) {
        status = check_grad_input(module, &problem, input, grad_output, grad_input, err);
        if (!status) status = plan_for(module, &problem, CONVT3D_BACKWARD_INPUT, err);
        if (status) return status;
        return run_both(module, input, grad_output, grad_input, run, err);
    }
    const convt3d_plan *plan = module->latest[CONVT3D_BACKWARD_WEIGHT].plan;
    const convt3d_run with = run_with(run, plan);
    return convt3d_backward_weight(plan, input, grad_output, &module->grad_weight,
                                   convt3d_module_grad_bias(module), CONVT3D_ACCUMULATE, &with,
                                   err);
}
