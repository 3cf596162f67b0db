/* problem: defaults, checks, and the sizes that follow from the arguments.
 * SPDX-License-Identifier: MIT */
#include "problem.h"
#include "error.h"

#include <string.h>

static const char *const mode_names[4] = {"zeros", "reflect", "replicate", "circular"};

const char *convt3d_padding_mode_name(convt3d_padding_mode mode) {
    return (unsigned)mode < 4 ? mode_names[mode] : NULL;
}

convt3d_status convt3d_padding_mode_parse(const char *name, convt3d_padding_mode *mode,
                                          convt3d_error *err) {
    if (!name || !mode) return convt3d_fail(err, CONVT3D_ARG, "%s is NULL", name ? "mode" : "name");
    for (int i = 0; i < 4; i++) {
        if (strcmp(name, mode_names[i]) == 0) {
            *mode = (convt3d_padding_mode)i;
            return CONVT3D_OK;
        }
    }
    return convt3d_fail(
        err, CONVT3D_ARG,
        "padding_mode is '%.40s', but must be 'zeros', 'reflect', 'replicate' or 'circular'", name);
}

void convt3d_problem_init(convt3d_problem *problem) {
    if (!problem) return;
    memset(problem, 0, sizeof *problem);
    problem->struct_size = sizeof *problem;
    problem->dtype = CONVT3D_FLOAT32;
    problem->padding_mode = CONVT3D_ZEROS;
    problem->bias = 1;
    problem->batch = 1;
    problem->groups = 1;
    for (int a = 0; a < 3; a++) {
        problem->stride[a] = 1;
        problem->dilation[a] = 1;
    }
}

int convt3d_bytes(const int64_t *sizes, int count, size_t element, size_t *bytes) {
    size_t product = element;
    int empty = 0;
    *bytes = 0;
    for (int i = 0; i < count; i++) {
        if (sizes[i] == 0)
            empty = 1;
        else if (__builtin_mul_overflow(product, (size_t)sizes[i], &product) ||
                 product > PTRDIFF_MAX)
            return 0;
    }
    *bytes = empty ? 0 : product;
    return 1;
}

/* a*b + c in 64 bits; false if it doesn't fit. */
static int mul_add(int64_t a, int64_t b, int64_t c, int64_t *result) {
    int64_t product;
    return !__builtin_mul_overflow(a, b, &product) && !__builtin_add_overflow(product, c, result);
}

static convt3d_status check_argument(const char *name, int axis, int64_t value, int64_t smallest,
                                     convt3d_status status, convt3d_error *err) {
    if (value >= smallest) return CONVT3D_OK;
    return convt3d_fail(err, status, "%s is %lld on the %s axis, but must be at least %lld", name,
                        (long long)value, convt3d_axis_name(axis), (long long)smallest);
}

/* The arguments of one axis, each for itself. */
static convt3d_status check_axis_arguments(const convt3d_problem *p, int a, convt3d_error *err) {
    const struct {
        const char *name;
        int64_t value, smallest;
        convt3d_status status;
    } rows[] = {
        {"input_size", p->input_size[a], 1, CONVT3D_SHAPE},
        {"kernel_size", p->kernel_size[a], 1, CONVT3D_SHAPE},
        {"stride", p->stride[a], 1, CONVT3D_ARG},
        {"dilation", p->dilation[a], 1, CONVT3D_ARG},
        {"padding (before)", p->padding_before[a], 0, CONVT3D_ARG},
        {"padding (after)", p->padding_after[a], 0, CONVT3D_ARG},
        {"output_padding", p->output_padding[a], 0, CONVT3D_ARG},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        convt3d_status status =
            check_argument(rows[i].name, a, rows[i].value, rows[i].smallest, rows[i].status, err);
        if (status) return status;
    }
    int64_t limit = p->stride[a] > p->dilation[a] ? p->stride[a] : p->dilation[a];
    if (p->output_padding[a] >= limit)
        return convt3d_fail(err, CONVT3D_ARG,
                            "output_padding is %lld on the %s axis, but must be 0 to %lld: less "
                            "than the larger of stride %lld and dilation %lld",
                            (long long)p->output_padding[a], convt3d_axis_name(a),
                            (long long)limit - 1, (long long)p->stride[a],
                            (long long)p->dilation[a]);
    return CONVT3D_OK;
}

/* full and out of one axis, for the given output_padding; out may come out
 * below 1. */
static convt3d_status size_axis(const convt3d_problem *p, int a, int64_t output_padding,
                                convt3d_axis *axis, convt3d_error *err) {
    axis->in = p->input_size[a];
    axis->kernel = p->kernel_size[a];
    axis->stride = p->stride[a];
    axis->dilation = p->dilation[a];
    axis->before = p->padding_before[a];
    axis->after = p->padding_after[a];
    axis->mode = axis->before || axis->after ? p->padding_mode : CONVT3D_ZEROS;
    int64_t span, padding;
    if (mul_add(axis->dilation, axis->kernel - 1, 1, &span) &&
        !__builtin_add_overflow(span, output_padding, &span) &&
        mul_add(axis->in - 1, axis->stride, span, &axis->full) &&
        !__builtin_add_overflow(axis->before, axis->after, &padding)) {
        axis->out = axis->full - padding;
        return CONVT3D_OK;
    }
    return convt3d_fail(err, CONVT3D_OVERFLOW,
                        "the output size on the %s axis exceeds 64 bits (input_size %lld, "
                        "kernel_size %lld, stride %lld, dilation %lld, padding %lld and %lld)",
                        convt3d_axis_name(a), (long long)axis->in, (long long)axis->kernel,
                        (long long)axis->stride, (long long)axis->dilation, (long long)axis->before,
                        (long long)axis->after);
}

static convt3d_status check_axis_result(const convt3d_problem *p, int a, const convt3d_axis *axis,
                                        convt3d_error *err) {
    if (axis->out < 1)
        return convt3d_fail(
            err, CONVT3D_SHAPE,
            "the output size on the %s axis would be (%lld - 1)*%lld - %lld - %lld + %lld*(%lld - "
            "1) + %lld + 1 = %lld ((input_size - 1)*stride - padding before and after + "
            "dilation*(kernel_size - 1) + output_padding + 1), but must be at least 1",
            convt3d_axis_name(a), (long long)axis->in, (long long)axis->stride,
            (long long)axis->before, (long long)axis->after, (long long)axis->dilation,
            (long long)axis->kernel, (long long)p->output_padding[a], (long long)axis->out);
    int64_t largest = axis->mode == CONVT3D_REFLECT    ? axis->out - 1
                      : axis->mode == CONVT3D_CIRCULAR ? axis->out
                                                       : INT64_MAX;
    int64_t worst = axis->before > axis->after ? axis->before : axis->after;
    if (worst > largest)
        return convt3d_fail(err, CONVT3D_ARG,
                            "padding is %lld on the %s axis, but padding_mode '%s' allows at most "
                            "%lld for an output size of %lld",
                            (long long)worst, convt3d_axis_name(a), mode_names[axis->mode],
                            (long long)largest, (long long)axis->out);
    return CONVT3D_OK;
}

static convt3d_status check_channels(const convt3d_problem *p, convt3d_error *err) {
    if (p->batch < 0)
        return convt3d_fail(err, CONVT3D_SHAPE, "batch is %lld, but must be at least 0",
                            (long long)p->batch);
    const int64_t channels[2] = {p->in_channels, p->out_channels};
    static const char *const names[2] = {"in_channels", "out_channels"};
    for (int i = 0; i < 2; i++) {
        if (channels[i] < 1)
            return convt3d_fail(err, CONVT3D_SHAPE, "%s is %lld, but must be at least 1", names[i],
                                (long long)channels[i]);
    }
    if (p->groups < 1)
        return convt3d_fail(err, CONVT3D_ARG, "groups is %lld, but must be at least 1",
                            (long long)p->groups);
    for (int i = 0; i < 2; i++) {
        if (channels[i] % p->groups)
            return convt3d_fail(err, CONVT3D_SHAPE,
                                "%s is %lld, but must be divisible by groups, which is %lld",
                                names[i], (long long)channels[i], (long long)p->groups);
    }
    return CONVT3D_OK;
}

/* Each tensor's bytes must fit the address space; an empty batch is measured
 * as if it had one sample, so that legality doesn't depend on it. */
static convt3d_status check_bytes(const convt3d_geometry *g, convt3d_error *err) {
    const convt3d_axis *x = g->axis;
    int64_t batch = g->batch ? g->batch : 1;
    const int64_t shapes[3][5] = {
        {batch, g->in_channels, x[0].in, x[1].in, x[2].in},
        {g->in_channels, g->group_outputs, x[0].kernel, x[1].kernel, x[2].kernel},
        {batch, g->out_channels, x[0].out, x[1].out, x[2].out},
    };
    static const char *const names[3] = {"input", "weight", "output"};
    for (int i = 0; i < 3; i++) {
        size_t bytes;
        const int64_t *s = shapes[i];
        if (!convt3d_bytes(s, 5, g->element, &bytes))
            return convt3d_fail(err, CONVT3D_OVERFLOW,
                                "%s of shape (%lld, %lld, %lld, %lld, %lld) would take more bytes "
                                "than the address space has",
                                names[i], (long long)s[0], (long long)s[1], (long long)s[2],
                                (long long)s[3], (long long)s[4]);
    }
    return CONVT3D_OK;
}

static convt3d_status check_struct(const convt3d_problem *p, convt3d_error *err) {
    if (!p) return convt3d_fail(err, CONVT3D_ARG, "problem is NULL");
    if (p->struct_size != sizeof *p)
        return convt3d_fail(err, CONVT3D_ARG,
                            "problem.struct_size is %zu, but must be %zu: call "
                            "convt3d_problem_init() first",
                            p->struct_size, sizeof *p);
    if (!convt3d_dtype_size(p->dtype))
        return convt3d_fail(err, CONVT3D_DTYPE, "dtype is %d, but must be 1 to 4 (convt3d_dtype)",
                            (int)p->dtype);
    if (!convt3d_padding_mode_name(p->padding_mode))
        return convt3d_fail(err, CONVT3D_ARG,
                            "padding_mode is %d, but must be one of CONVT3D_ZEROS, "
                            "CONVT3D_REFLECT, CONVT3D_REPLICATE and CONVT3D_CIRCULAR",
                            (int)p->padding_mode);
    return CONVT3D_OK;
}

convt3d_status convt3d_problem_check(const convt3d_problem *p, convt3d_geometry *geometry,
                                     convt3d_error *err) {
    convt3d_geometry local, *g = geometry ? geometry : &local;
    convt3d_status status = check_struct(p, err);
    for (int a = 0; a < 3 && !status; a++) status = check_axis_arguments(p, a, err);
    if (!status) status = check_channels(p, err);
    for (int a = 0; a < 3 && !status; a++) {
        status = size_axis(p, a, p->output_padding[a], &g->axis[a], err);
        if (!status) status = check_axis_result(p, a, &g->axis[a], err);
    }
    if (status) return status;
    g->batch = p->batch;
    g->groups = p->groups;
    g->in_channels = p->in_channels;
    g->out_channels = p->out_channels;
    g->group_inputs = p->in_channels / p->groups;
    g->group_outputs = p->out_channels / p->groups;
    g->stored = convt3d_dtype_size(p->dtype);
    g->element = g->stored < sizeof(float) ? sizeof(float) : g->stored;
    return check_bytes(g, err);
}

convt3d_status convt3d_problem_output_shape(const convt3d_problem *problem, int64_t shape[5],
                                            convt3d_error *err) {
    convt3d_geometry g;
    convt3d_status status = convt3d_problem_check(problem, &g, err);
    if (status || !shape) return status;
    shape[0] = g.batch;
    shape[1] = g.out_channels;
    for (int a = 0; a < 3; a++) shape[2 + a] = g.axis[a].out;
    return CONVT3D_OK;
}

/* The range of one axis; see convt3d_problem_output_range(). */
static convt3d_status axis_range(const convt3d_problem *p, int a, int64_t *smallest,
                                 int64_t *largest, convt3d_error *err) {
    convt3d_axis axis;
    convt3d_problem q = *p; /* the range doesn't depend on output_padding */
    q.output_padding[a] = 0;
    convt3d_status status = check_axis_arguments(&q, a, err);
    if (!status) status = size_axis(&q, a, 0, &axis, err);
    if (status) return status;
    int64_t more = (p->stride[a] > p->dilation[a] ? p->stride[a] : p->dilation[a]) - 1;
    *smallest = axis.out;
    if (__builtin_add_overflow(axis.out, more, largest)) *largest = INT64_MAX;
    return CONVT3D_OK;
}

convt3d_status convt3d_problem_output_range(const convt3d_problem *problem, int64_t smallest[3],
                                            int64_t largest[3], convt3d_error *err) {
    if (!smallest || !largest)
        return convt3d_fail(err, CONVT3D_ARG, "%s is NULL", smallest ? "largest" : "smallest");
    int64_t low[3], high[3];
    convt3d_status status = check_struct(problem, err);
    for (int a = 0; a < 3 && !status; a++) status = axis_range(problem, a, &low[a], &high[a], err);
    if (status) return status;
    memcpy(smallest, low, sizeof low);
    memcpy(largest, high, sizeof high);
    return CONVT3D_OK;
}

static convt3d_status refuse_output_size(int a, int64_t size, int64_t low, int64_t high,
                                         convt3d_error *err) {
    const char *axis = convt3d_axis_name(a);
    if (high < 1)
        return convt3d_fail(err, CONVT3D_SHAPE,
                            "output_size is %lld on the %s axis, but no size is legal there: "
                            "output_padding 0 to %lld gives %lld to %lld",
                            (long long)size, axis, (long long)(high - low), (long long)low,
                            (long long)high);
    if (low == high)
        return convt3d_fail(err, CONVT3D_SHAPE,
                            "output_size is %lld on the %s axis, but must be %lld, which is what "
                            "output_padding 0, the only legal one, gives",
                            (long long)size, axis, (long long)low);
    return convt3d_fail(err, CONVT3D_SHAPE,
                        "output_size is %lld on the %s axis, but must be %lld to %lld: "
                        "output_padding 0 gives %lld, %lld gives %lld",
                        (long long)size, axis, (long long)low, (long long)high, (long long)low,
                        (long long)(high - low), (long long)high);
}

convt3d_status convt3d_problem_set_output_size(convt3d_problem *problem,
                                               const int64_t output_size[3], convt3d_error *err) {
    if (!output_size) return convt3d_fail(err, CONVT3D_ARG, "output_size is NULL");
    int64_t low[3], high[3];
    convt3d_status status = convt3d_problem_output_range(problem, low, high, err);
    if (status) return status;
    convt3d_problem changed = *problem;
    for (int a = 0; a < 3; a++) {
        if (output_size[a] < low[a] || output_size[a] > high[a])
            return refuse_output_size(a, output_size[a], low[a], high[a], err);
        changed.output_padding[a] = output_size[a] - low[a];
    }
    status = convt3d_problem_check(&changed, NULL, err);
    if (!status) *problem = changed;
    return status;
}
