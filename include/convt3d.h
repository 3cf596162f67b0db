/* convt3d: the transposed 3-D convolution layer.
 * SPDX-License-Identifier: MIT
 *
 * This header is the specification of the library: what is not said here is
 * not promised.  Per axis, with input index i, output index o and tap k:
 *
 *     o   = i*stride - padding_before + k*dilation
 *     out = (in - 1)*stride - padding_before - padding_after
 *           + dilation*(kernel_size - 1) + output_padding + 1
 *     y[n,co,o] = bias[co] + sum of x[n,ci,i] * w[ci,co,k]
 *                 over the input channels ci of co's group and all i, k above
 *
 * The three axes are always in the order depth, height, width (D, H, W).
 * Shapes: input (N, in_channels, D, H, W), weight (in_channels,
 * out_channels/groups, kD, kH, kW), bias (out_channels), output (N,
 * out_channels, outD, outH, outW).  A 4-D input or output is one sample
 * without its batch axis.  All memory is described by strides, so channels
 * first, channels last, column-major arrays and views are equally welcome.
 *
 * Three objects do the work:
 *
 *     problem   a plain struct: what to compute                 (you own it)
 *     plan      how this CPU computes one direction of it       (opaque)
 *     weights   a weight tensor in the layout a plan wants      (opaque)
 *
 * A complete use, without error handling:
 *
 *     convt3d_problem problem;
 *     convt3d_problem_init(&problem);                 // the defaults
 *     problem.in_channels = 16;   problem.out_channels = 33;
 *     for (int a = 0; a < 3; a++) {
 *         problem.input_size[a] = 10;  problem.kernel_size[a] = 3;
 *         problem.stride[a] = 2;
 *     }
 *     int64_t in[5] = {1, 16, 10, 10, 10}, w[5] = {16, 33, 3, 3, 3}, out[5];
 *     convt3d_problem_output_shape(&problem, out, NULL);
 *     convt3d_plan *plan;
 *     convt3d_plan_create(&problem, CONVT3D_FORWARD, NULL, &plan, NULL);
 *     convt3d_tensor X = convt3d_tensor_dense(x, CONVT3D_FLOAT32, 5, in);
 *     convt3d_tensor W = convt3d_tensor_dense(weight, CONVT3D_FLOAT32, 5, w);
 *     convt3d_tensor Y = convt3d_tensor_dense(y, CONVT3D_FLOAT32, 5, out);
 *     convt3d_forward(plan, &X, &W, NULL, NULL, &Y, NULL, NULL);
 *     convt3d_plan_free(plan);
 *
 * Promises.  1. No mutable global state but the thread pool: calls from any
 * number of threads are safe when their outputs don't overlap.  2. The same
 * build on the same CPU gives the same bytes for any number of threads and
 * any alignment; forward and backward_input also for any split of the batch.
 * Packed weights, or rows that aren't dense, may give other last bits than the
 * same weights, not packed, and dense rows.
 * 3. Error bounds are those of docs/numerics.md; there is no hidden reduced
 * precision.  4. Every argument is checked before anything is written; a
 * failed call leaves outputs untouched (a cancelled one, unspecified).
 * 5. The library never exits, aborts or prints, and never changes signals,
 * locale or floating-point control for its caller.  6. The size of scratch
 * memory can be asked for beforehand; a run that is given it allocates
 * nothing but, when it is the first to use them, its threads.  7. It may be used after fork() in
 * parent and child alike, if no call was in progress in the forking thread; a thread that can't be
 * started means fewer threads, not an error.  8. NaN and Inf reach exactly the outputs that their
 * taps reach; nothing is skipped because it is zero.
 *
 * Every function that can fail returns a convt3d_status and takes, last, an
 * 'err' that may be NULL.  On failure the text in it names the argument, the
 * axis, the value and what would have been legal. */
#ifndef CONVT3D_H
#define CONVT3D_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CONVT3D_VERSION_MAJOR 0
#define CONVT3D_VERSION_MINOR 1
#define CONVT3D_VERSION_PATCH 0

#if defined(CONVT3D_STATIC) || !defined(__GNUC__)
#define CONVT3D_API
#else
#define CONVT3D_API __attribute__((visibility("default")))
#endif

/* The version of the library at run time, "MAJOR.MINOR.PATCH". */
CONVT3D_API const char *convt3d_version(void);

/* ---- Status ------------------------------------------------------------- */

typedef enum convt3d_status {
    CONVT3D_OK = 0,
    CONVT3D_ARG = 1,         /* a value is not legal, or a pointer is NULL */
    CONVT3D_SHAPE = 2,       /* sizes that contradict each other */
    CONVT3D_DTYPE = 3,       /* a data type that is unknown, or mixed types */
    CONVT3D_OVERFLOW = 4,    /* sizes or byte counts beyond 64 bits */
    CONVT3D_NOMEM = 5,       /* memory could not be had; the text says how much */
    CONVT3D_UNSUPPORTED = 6, /* this CPU or build can't do what was forced */
    CONVT3D_CANCELLED = 7,   /* 'poll' asked to stop; outputs are unspecified */
    CONVT3D_IO = 8,          /* files: can't be opened, read or written */
    CONVT3D_FORMAT = 9,      /* files: not a valid file of its format */
    CONVT3D_NOTFOUND = 10    /* files: no tensor of that name */
} convt3d_status;

/* What went wrong, in one line without a newline at its end. */
typedef struct convt3d_error {
    convt3d_status status;
    char text[508];
} convt3d_error;

/* A short name for a status, such as "SHAPE".  Never NULL. */
CONVT3D_API const char *convt3d_status_name(convt3d_status status);

/* ---- Tensors ------------------------------------------------------------ */

/* What elements in memory are.  The two types of 16 bits, bfloat16 (8 bits of exponent, 7 of
 * fraction) and IEEE's binary16, are for storage: they become float32 when they are read, all
 * arithmetic is that of float32, and a result is rounded once, to the nearest of its type
 * (ties to even; what is too large becomes Inf) as it is written. */
typedef enum convt3d_dtype {
    CONVT3D_FLOAT32 = 1,
    CONVT3D_FLOAT64 = 2,
    CONVT3D_BFLOAT16 = 3,
    CONVT3D_FLOAT16 = 4
} convt3d_dtype;

/* "float32", "float64", "bfloat16", "float16", and bytes of an element; NULL and 0 for any
 * other value. */
CONVT3D_API const char *convt3d_dtype_name(convt3d_dtype dtype);
CONVT3D_API size_t convt3d_dtype_size(convt3d_dtype dtype);

/* to[i] = from[i] for all i < count, rounded as above: contiguous elements, which must not
 * overlap.  'to' and 'from' may be NULL where 'count' is 0.  ARG, DTYPE or OVERFLOW on
 * failure. */
CONVT3D_API convt3d_status convt3d_convert(void *to, convt3d_dtype to_dtype, const void *from,
                                           convt3d_dtype from_dtype, int64_t count,
                                           convt3d_error *err);

#define CONVT3D_MAX_RANK 5

/* A view of the caller's memory.  Element (a, b, ...) of it is at
 * data + a*stride[0] + b*stride[1] + ..., counted in elements.  Strides of
 * inputs may be zero or negative; an output must not overlap itself (each
 * stride, in order of magnitude, must step over everything that the smaller
 * ones span) nor the byte range of an input.  'data' needs only the alignment
 * of its element.  An input is read only, although its pointer isn't const.
 * 'data' may be NULL where the tensor has no elements. */
typedef struct convt3d_tensor {
    void *data;
    convt3d_dtype dtype;
    int32_t rank; /* 5, or 4 for one sample without batch; bias: 1 */
    int64_t size[CONVT3D_MAX_RANK];
    int64_t stride[CONVT3D_MAX_RANK];
} convt3d_tensor;

/* Describes dense memory in the order of 'size', its last axis contiguous.
 * A rank outside 0..CONVT3D_MAX_RANK is kept as it is (for the call that gets
 * the tensor to report) and 'size' isn't read then. */
CONVT3D_API convt3d_tensor convt3d_tensor_dense(void *data, convt3d_dtype dtype, int32_t rank,
                                                const int64_t *size);

/* ---- Problems ----------------------------------------------------------- */

/* What lies beyond the borders.  The layer is the gradient, with respect to
 * its input, of a Conv3d that has this padding mode.  For ZEROS the borders of
 * the full result are cropped away; otherwise each border is added back onto
 * the part that is kept, axis by axis: CIRCULAR at the opposite edge, REFLECT
 * mirrored (without the edge sample), REPLICATE all onto the edge sample.  The
 * bias is added once, afterwards. */
typedef enum convt3d_padding_mode {
    CONVT3D_ZEROS = 0,
    CONVT3D_REFLECT = 1,
    CONVT3D_REPLICATE = 2,
    CONVT3D_CIRCULAR = 3
} convt3d_padding_mode;

/* "zeros", "reflect", "replicate", "circular"; NULL for any other value. */
CONVT3D_API const char *convt3d_padding_mode_name(convt3d_padding_mode mode);

/* The mode of that name.  ARG, listing the four names, for any other. */
CONVT3D_API convt3d_status convt3d_padding_mode_parse(const char *name, convt3d_padding_mode *mode,
                                                      convt3d_error *err);

/* The layer's arguments and the size of its input.  Legal: sizes, channels,
 * groups, kernel_size, stride and dilation >= 1; batch, padding and
 * output_padding >= 0; output_padding < max(stride, dilation); groups divides
 * both channel numbers; every output size >= 1; for REFLECT padding < output
 * size, for CIRCULAR padding <= output size, on each side. */
typedef struct convt3d_problem {
    size_t struct_size; /* set by convt3d_problem_init() */
    convt3d_dtype dtype;
    convt3d_padding_mode padding_mode;
    int32_t bias; /* 1: the layer has a bias (modules and problem strings; a
                     call is told by its bias pointer) */
    int64_t batch;
    int64_t in_channels;
    int64_t out_channels;
    int64_t groups;
    int64_t input_size[3];
    int64_t kernel_size[3];
    int64_t stride[3];
    int64_t padding_before[3];
    int64_t padding_after[3];
    int64_t output_padding[3];
    int64_t dilation[3];
} convt3d_problem;

/* Sets every field: float32, "zeros", bias, batch, groups, stride and
 * dilation 1, padding and output_padding 0; channels, input_size and
 * kernel_size 0, which the caller must set. */
CONVT3D_API void convt3d_problem_init(convt3d_problem *problem);

/* Checks everything and writes the output's shape (N, out_channels, D, H, W).
 * 'shape' may be NULL.  ARG, SHAPE, DTYPE or OVERFLOW on failure. */
CONVT3D_API convt3d_status convt3d_problem_output_shape(const convt3d_problem *problem,
                                                        int64_t shape[5], convt3d_error *err);

/* The legal range of output sizes per axis: smallest[a] is the size at
 * output_padding 0, largest[a] = smallest[a] + max(stride, dilation) - 1.  The
 * problem's own output_padding is not looked at. */
CONVT3D_API convt3d_status convt3d_problem_output_range(const convt3d_problem *problem,
                                                        int64_t smallest[3], int64_t largest[3],
                                                        convt3d_error *err);

/* Sets output_padding so that the output has this size (D, H, W).  SHAPE, with
 * the legal range and its output_padding values, when no output_padding
 * reaches it; the problem is unchanged then. */
CONVT3D_API convt3d_status convt3d_problem_set_output_size(convt3d_problem *problem,
                                                           const int64_t output_size[3],
                                                           convt3d_error *err);

/* Problem strings, as in bench/layers.txt: "n1ci64co32i24x32x64k3s2p1op1nb"
 * with an optional name, as in k3s2:"name".  Fields: n batch, ci/co channels,
 * g groups, i input size, k kernel_size, s stride, p padding, op
 * output_padding, d dilation (one value for all axes, or DxHxW; p also six:
 * before and after in D, H, W), nb no bias, one of f64, bf16 and f16 for float64,
 * bfloat16 and float16, m padding mode (mreflect, mreplicate, mcircular, mzeros).  Defaults: as
 * convt3d_problem_init().  ci, co, i and k must be there; no field twice.
 *
 * convt3d_problem_parse() reads 'text' to its end.  'name' may be NULL; else
 * it gets the name (empty if there is none), cut to 'name_size' bytes with the
 * final zero.  The problem is checked as by convt3d_problem_output_shape().
 *
 * convt3d_problem_format() writes the shortest string that parses to the same
 * problem, cut to 'size' bytes with the final zero, and returns its whole
 * length; 'size' 0 with 'text' NULL asks for the length alone. */
CONVT3D_API convt3d_status convt3d_problem_parse(const char *text, convt3d_problem *problem,
                                                 char *name, size_t name_size, convt3d_error *err);
CONVT3D_API size_t convt3d_problem_format(const convt3d_problem *problem, char *text, size_t size);

/* ---- Plans -------------------------------------------------------------- */

typedef enum convt3d_direction {
    CONVT3D_FORWARD = 0,
    CONVT3D_BACKWARD_INPUT = 1,
    CONVT3D_BACKWARD_WEIGHT = 2
} convt3d_direction;

/* "forward", "backward_input", "backward_weight"; NULL for any other value. */
CONVT3D_API const char *convt3d_direction_name(convt3d_direction direction);

/* What forward makes of each output, after the bias (and, in the folding padding
 * modes, after the fold): y = f(conv + bias), conv + bias rounded to float64 for that
 * dtype, to float32 for any other, first.  Positions that no tap reaches become f(bias).  As in
 * PyTorch, whose functions these are (torch.nn.functional):
 *
 *     RELU        relu            x < 0 ? 0 : x, so that -0 stays -0
 *     LEAKY_RELU  leaky_relu      x > 0 ? x : x*negative_slope
 *     GELU        gelu            x*Phi(x) = x/2*(1 + erf(x/sqrt(2)))
 *                                 (Hendrycks and Gimpel 2016, arXiv:1606.08415)
 *     GELU_TANH   gelu, "tanh"    x/2*(1 + tanh(sqrt(2/pi)*(x + 0.044715*x^3)))
 *     SIGMOID     sigmoid         1/(1 + exp(-x))
 *     TANH        tanh
 *
 * NaN stays NaN in every one.  The GELUs of -Inf are NaN, as there (-Inf*0);
 * +Inf stays +Inf.  docs/numerics.md has the error bounds. */
typedef enum convt3d_activation {
    CONVT3D_ACTIVATION_NONE = 0,
    CONVT3D_ACTIVATION_RELU = 1,
    CONVT3D_ACTIVATION_LEAKY_RELU = 2,
    CONVT3D_ACTIVATION_GELU = 3,
    CONVT3D_ACTIVATION_GELU_TANH = 4,
    CONVT3D_ACTIVATION_SIGMOID = 5,
    CONVT3D_ACTIVATION_TANH = 6
} convt3d_activation;

/* "none", "relu", "leaky_relu", "gelu", "gelu_tanh", "sigmoid", "tanh"; NULL for
 * any other value. */
CONVT3D_API const char *convt3d_activation_name(convt3d_activation activation);

/* The activation of that name.  ARG, listing the seven names, for any other. */
CONVT3D_API convt3d_status convt3d_activation_parse(const char *name,
                                                    convt3d_activation *activation,
                                                    convt3d_error *err);

/* How exactly float32 is multiplied, as in torch.set_float32_matmul_precision().
 * Additions are float32 in each.  CPUs with AMX multiply bfloat16 sixteen times as
 * fast as float32; a float32 number is the sum of three of bfloat16, its terms:
 *
 *     HIGHEST   fused multiply-add, or the six products of terms that count, where the
 *               CPU is faster with these: errors are smaller than those of a chain of
 *               fused multiply-adds
 *     HIGH      where the CPU is faster with them, three products: factors are off by up
 *               to about 2^-16 of themselves
 *     MEDIUM    where the CPU is faster with it, one product: factors are rounded to
 *               bfloat16, off by up to 2^-8
 *
 * float64 is float64 in each, and products of bfloat16 are exact in each.  float16 is
 * multiplied as the float32 that it becomes.  Data whose products might leave float32's range (or,
 * at HIGHEST, fall below what the terms can hold) are multiplied as with an isa without AMX.
 * docs/numerics.md has the rules and the error bounds. */
typedef enum convt3d_precision {
    CONVT3D_PRECISION_HIGHEST = 0,
    CONVT3D_PRECISION_HIGH = 1,
    CONVT3D_PRECISION_MEDIUM = 2
} convt3d_precision;

/* "highest", "high", "medium"; NULL for any other value. */
CONVT3D_API const char *convt3d_precision_name(convt3d_precision precision);

/* The precision of that name.  ARG, listing the three names, for any other. */
CONVT3D_API convt3d_status convt3d_precision_parse(const char *name, convt3d_precision *precision,
                                                   convt3d_error *err);

#define CONVT3D_MAX_THREADS 1024

typedef struct convt3d_options {
    size_t struct_size;    /* set by convt3d_options_init() */
    int32_t threads;       /* 1..CONVT3D_MAX_THREADS; 0: $CONVT3D_NUM_THREADS, else
                              the CPUs this process may use */
    const char *isa;       /* a name of convt3d_isa_name(); NULL or "": $CONVT3D_ISA, else
                              the best that this CPU has ("x86_avx512" forbids AMX) */
    const char *algorithm; /* "engine" or "reference"; NULL: the first that
                              accepts the problem */
    /* A struct_size that ends here, as of a program made before what follows
       was added, means no activation. */
    convt3d_activation activation; /* NONE, which any direction but forward needs */
    double negative_slope;         /* LEAKY_RELU's (0.01): finite in the dtype
                                      (float32's, for those of 16 bits) */
    /* The same again: HIGHEST. */
    convt3d_precision precision;
} convt3d_options;

CONVT3D_API void convt3d_options_init(convt3d_options *options);

/* How this CPU computes one direction of one problem.  A plan never changes
 * and may be used by several threads at once. */
typedef struct convt3d_plan convt3d_plan;

/* 'problem' and 'options' are read, not kept; options NULL means all
 * defaults.  *plan is NULL unless OK is returned; free it with
 * convt3d_plan_free().  Fails as convt3d_problem_output_shape() does, and with
 * ARG (an option, or an environment variable, that makes no sense),
 * UNSUPPORTED (a forced isa that this CPU hasn't), OVERFLOW (tensors or
 * scratch beyond SIZE_MAX bytes) and NOMEM. */
CONVT3D_API convt3d_status convt3d_plan_create(const convt3d_problem *problem,
                                               convt3d_direction direction,
                                               const convt3d_options *options, convt3d_plan **plan,
                                               convt3d_error *err);
CONVT3D_API void convt3d_plan_free(convt3d_plan *plan); /* NULL is fine */

/* The largest number of threads that a run of this plan uses. */
CONVT3D_API int32_t convt3d_plan_threads(const convt3d_plan *plan);

/* Bytes of scratch that a run on 'threads' threads (0: the plan's number)
 * needs, with packed weights or without. */
CONVT3D_API size_t convt3d_plan_scratch_size(const convt3d_plan *plan, int32_t threads,
                                             int packed_weights);

/* Writes a few lines that say what was chosen and why: problem, isa,
 * algorithm (and why those before it in the list declined), tile, blocks,
 * scratch.  Cut to 'size' bytes with the final zero; returns the whole length. */
CONVT3D_API size_t convt3d_plan_describe(const convt3d_plan *plan, char *text, size_t size);

/* ---- Packed weights ----------------------------------------------------- */

/* A copy of a weight tensor in the layout of one forward or backward_input
 * plan.  It never changes, and serves that plan and every plan that was made
 * with the same isa, precision and algorithm for a problem that differs in batch,
 * input_size, output_padding and bias only. */
typedef struct convt3d_weights convt3d_weights;

/* The weight tensor is read, not kept; large ones by as many threads as the
 * plan has.  *weights is NULL unless OK is returned; free it with
 * convt3d_weights_free().  ARG for a backward_weight plan, which has no use for
 * weights. */
CONVT3D_API convt3d_status convt3d_weights_pack(const convt3d_plan *plan,
                                                const convt3d_tensor *weight,
                                                convt3d_weights **weights, convt3d_error *err);
CONVT3D_API void convt3d_weights_free(convt3d_weights *weights);         /* NULL is fine */
CONVT3D_API size_t convt3d_weights_size(const convt3d_weights *weights); /* bytes it holds */

/* ---- Running ------------------------------------------------------------ */

typedef void (*convt3d_body)(void *arg, int thread);

/* How to run; NULL in place of it means all defaults. */
typedef struct convt3d_run {
    size_t struct_size; /* set by convt3d_run_init() */
    int32_t threads;    /* 1 to the plan's number; 0: the plan's number */
    void *scratch;      /* NULL: the run allocates, before it writes anything; must not
                           overlap a tensor */
    size_t scratch_size;

    /* Called on the calling thread about ten times a second while it works or
     * waits, with the part that is done (0 to 1): for progress bars, and for
     * interrupts, since a value other than 0 cancels the run. */
    int (*poll)(void *poll_data, double done);
    void *poll_data;

    /* The host's own threads, in the place of convt3d's: calls body(arg, t)
     * once for each t in 0..threads-1, in any order, at once or one after
     * another, on any threads, and returns when all have returned.  body(arg,
     * 0) must run on the calling thread if 'poll' is set. */
    void (*parallel)(void *parallel_data, int threads, convt3d_body body, void *arg);
    void *parallel_data;
} convt3d_run;

CONVT3D_API void convt3d_run_init(convt3d_run *run);

/* The host's OpenMP: functions of its run-time library, under GNU's names, which LLVM's and
 * Intel's have as well. */
typedef struct convt3d_openmp {
    void (*parallel)(void (*body)(void *data), void *data, unsigned threads,
                     unsigned flags); /* GOMP_parallel */
    int (*thread_num)(void);          /* omp_get_thread_num */
    int (*num_threads)(void);         /* omp_get_num_threads */
} convt3d_openmp;

/* A run's 'parallel', with a convt3d_openmp as its parallel_data, for hosts that compute with
 * OpenMP themselves: its threads, which go on looking for work between two loops, would
 * keep cores from convt3d's.  Not in the forked child of a process that has used it. */
CONVT3D_API void convt3d_openmp_parallel(void *openmp, int threads, convt3d_body body, void *arg);

/* Whether gradients replace what is there or are added to it. */
typedef enum convt3d_write {
    CONVT3D_OVERWRITE = 0,
    CONVT3D_ACCUMULATE = 1
} convt3d_write;

/* output = layer(input), then the plan's activation of it.  Exactly one of
 * 'weight' and 'packed' is not NULL; 'bias' may be NULL, which means none.  All
 * tensors have the problem's dtype and the shapes that it implies; for a problem of
 * bfloat16 or float16 'bias' may also be of float32.
 *
 * These three return ARG, SHAPE, DTYPE or OVERFLOW for a tensor that doesn't
 * fit the plan, ARG for overlaps, NOMEM if scratch can't be had (or is too
 * small: ARG, with the size needed), and CANCELLED. */
CONVT3D_API convt3d_status convt3d_forward(const convt3d_plan *plan, const convt3d_tensor *input,
                                           const convt3d_tensor *weight,
                                           const convt3d_weights *packed,
                                           const convt3d_tensor *bias, const convt3d_tensor *output,
                                           const convt3d_run *run, convt3d_error *err);

/* grad_input = the gradient with respect to input, given grad_output (of the
 * output's shape). */
CONVT3D_API convt3d_status convt3d_backward_input(
    const convt3d_plan *plan, const convt3d_tensor *grad_output, const convt3d_tensor *weight,
    const convt3d_weights *packed, const convt3d_tensor *grad_input, convt3d_write write,
    const convt3d_run *run, convt3d_error *err);

/* grad_weight and grad_bias, either of which may be NULL (not both): the
 * gradients with respect to weight and bias.  'input' may be NULL if
 * grad_weight is.  For a problem of bfloat16 or float16 each of the two may also be of
 * float32, which keeps what rounding to 16 bits would lose: of sums over a whole batch, and
 * of ACCUMULATE. */
CONVT3D_API convt3d_status convt3d_backward_weight(
    const convt3d_plan *plan, const convt3d_tensor *input, const convt3d_tensor *grad_output,
    const convt3d_tensor *grad_weight, const convt3d_tensor *grad_bias, convt3d_write write,
    const convt3d_run *run, convt3d_error *err);

/* ---- Random numbers ----------------------------------------------------- */

/* PyTorch's CPU generator (mt19937): a seed gives here the very stream of draws
 * that it gives there, whatever asks for them in which order.  Not to be used by
 * two threads at once. */
typedef struct convt3d_generator convt3d_generator;

/* *generator is NULL unless OK is returned; free it with
 * convt3d_generator_free().  ARG or NOMEM on failure. */
CONVT3D_API convt3d_status convt3d_generator_create(uint64_t seed, convt3d_generator **generator,
                                                    convt3d_error *err);
CONVT3D_API void convt3d_generator_free(convt3d_generator *generator); /* NULL is fine */

/* Starts the stream of that seed, as torch.manual_seed(seed) does: forgets
 * everything, the normal number that may be kept (below) as well.  As there, only
 * the low 32 bits of 'seed' count. */
CONVT3D_API void convt3d_generator_seed(convt3d_generator *generator, uint64_t seed);

/* These two fill 'count' contiguous elements of this dtype (normal: float32 or float64);
 * 'data' may be NULL where 'count' is 0.  ARG, DTYPE or OVERFLOW on failure, when the generator is
 * left as it was, too.
 *
 * uniform: the very values of tensor.uniform_(from, to) (PyTorch 2.13) on a CPU with
 * FMA; with 0 and 1 they are those of torch.rand(count).  from <= to; both and to - from
 * must be finite in the dtype.  What would round up to 'to' is 'from'.
 *
 * normal: mean 0, deviation 1, as torch.randn(count).  The stream moves on
 * exactly as there, and the values are the same but for the rounding of log, sin
 * and cos.  For them not only the seed matters but how many are asked for at a
 * time: calls for less than 16 draw in pairs, in float64, and may keep the second
 * number of a pair for the next such call; others don't look at it. */
CONVT3D_API convt3d_status convt3d_generator_uniform(convt3d_generator *generator, void *data,
                                                     convt3d_dtype dtype, int64_t count,
                                                     double from, double to, convt3d_error *err);
CONVT3D_API convt3d_status convt3d_generator_normal(convt3d_generator *generator, void *data,
                                                    convt3d_dtype dtype, int64_t count,
                                                    convt3d_error *err);

/* ---- Modules ------------------------------------------------------------ */

/* The layer with its parameters: weight, bias and their gradients.  Not to be
 * used by two threads at once: it keeps the plans of its latest shapes.  In its
 * runs, run.threads beyond the plan's number means that number, and scratch that
 * is too small is refused with the size needed. */
typedef struct convt3d_module convt3d_module;

/* The layer's arguments are those of 'layer', whose batch, input_size and
 * output_padding range may be anything legal: a run may bring other sizes.
 * Input sizes of 0 are taken as "not known yet".  Parameters start as zeros.
 * 'options' as for plans; with an activation module_forward applies it, and
 * module_backward, which doesn't know its gradient, is ARG.  *module is NULL unless OK is returned.
 */
CONVT3D_API convt3d_status convt3d_module_create(const convt3d_problem *layer,
                                                 const convt3d_options *options,
                                                 convt3d_module **module, convt3d_error *err);
CONVT3D_API void convt3d_module_free(convt3d_module *module); /* NULL is fine */

/* How to fill the parameters.  DEFAULT: weight, then bias, from the uniform
 * distribution on (-sqrt(k), sqrt(k)), k = groups/(out_channels*kD*kH*kW), with
 * the very values that PyTorch gives after manual_seed(seed).  TRILINEAR:
 * 'seed' unused; weights that double (stride 2; in general multiply by stride)
 * a volume by linear interpolation with half-pixel centres (with REPLICATE up
 * to the very border for strides 2 and 3); needs groups =
 * in_channels = out_channels, kernel_size 2s - s mod 2, padding floor(s/2), no
 * output_padding, dilation 1; bias, if any, is 0.  ICNR (Aitken et al. 2017,
 * arXiv:1707.02937): the default's values, drawn once per stride^3 outputs and
 * repeated, so that kernel = stride layers start without checkerboards; needs
 * kernel_size = stride and dilation 1.  ARG, naming what isn't so. */
typedef enum convt3d_fill {
    CONVT3D_FILL_DEFAULT = 0,
    CONVT3D_FILL_TRILINEAR = 1,
    CONVT3D_FILL_ICNR = 2
} convt3d_fill;

/* module_fill starts the stream of 'seed'.  module_fill_next goes on with that of
 * 'generator', so that several layers get what PyTorch gives them when they are
 * made one after another; TRILINEAR draws nothing, and a failed call neither. */
CONVT3D_API convt3d_status convt3d_module_fill(convt3d_module *module, convt3d_fill fill,
                                               uint64_t seed, convt3d_error *err);
CONVT3D_API convt3d_status convt3d_module_fill_next(convt3d_module *module, convt3d_fill fill,
                                                    convt3d_generator *generator,
                                                    convt3d_error *err);

/* The module's arguments; owned by the module. */
CONVT3D_API const convt3d_problem *convt3d_module_layer(const convt3d_module *module);

/* Dense views of the module's memory, valid as long as the module, which the
 * caller may read and write.  NULL: no bias.  Gradients are zero until a
 * backward call. */
CONVT3D_API const convt3d_tensor *convt3d_module_weight(const convt3d_module *module);
CONVT3D_API const convt3d_tensor *convt3d_module_bias(const convt3d_module *module);
CONVT3D_API const convt3d_tensor *convt3d_module_grad_weight(const convt3d_module *module);
CONVT3D_API const convt3d_tensor *convt3d_module_grad_bias(const convt3d_module *module);

/* The output's shape (5 values; 4 for an unbatched input) for an input of this
 * rank and size.  output_size (D, H, W) may be NULL: then output_padding
 * decides. */
CONVT3D_API convt3d_status convt3d_module_output_shape(const convt3d_module *module, int32_t rank,
                                                       const int64_t *size,
                                                       const int64_t *output_size, int64_t *shape,
                                                       convt3d_error *err);

/* output = layer(input); the output's own shape is the output_size. */
CONVT3D_API convt3d_status convt3d_module_forward(convt3d_module *module,
                                                  const convt3d_tensor *input,
                                                  const convt3d_tensor *output,
                                                  const convt3d_run *run, convt3d_error *err);

/* Adds to grad_weight and grad_bias, and overwrites grad_input, which may be
 * NULL. */
CONVT3D_API convt3d_status convt3d_module_backward(convt3d_module *module,
                                                   const convt3d_tensor *input,
                                                   const convt3d_tensor *grad_output,
                                                   const convt3d_tensor *grad_input,
                                                   const convt3d_run *run, convt3d_error *err);

CONVT3D_API void convt3d_module_zero_grad(convt3d_module *module);

/* Writes one line with the arguments, as PyTorch prints them, and one line per
 * parameter with its shape; cut to 'size' bytes with the final zero; returns
 * the whole length. */
CONVT3D_API size_t convt3d_module_describe(const convt3d_module *module, char *text, size_t size);

/* ---- This machine ------------------------------------------------------- */

/* The instruction sets that this build has kernels for, best first; NULL past
 * the last one. */
CONVT3D_API const char *convt3d_isa_name(int index);

/* 1 if this CPU has the instruction set of that name, 0 if not or unknown. */
CONVT3D_API int convt3d_isa_supported(const char *name);

/* The CPUs that this process may use. */
CONVT3D_API int32_t convt3d_cpu_count(void);

/* Writes the CPU's name, as it gives it, or "unknown"; cut to 'size' bytes with
 * the final zero; returns the whole length. */
CONVT3D_API size_t convt3d_cpu_name(char *text, size_t size);

#ifdef __cplusplus
}
#endif

#endif
