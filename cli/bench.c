/* bench: times the layer on this machine: one problem, or a file of them.
 *
 * Outputs are reused and weights packed beforehand, as a program that runs a
 * network would do it; what is timed is the run alone.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "cli.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    LEAST_RUNS = 7,
    MOST_RUNS = 2001,
    LINE = 512
};
static const double enough_seconds = 0.3;

/* What one line is measured with. */
typedef struct subject {
    const convt3d_problem *problem;
    const char *name; /* "" if it has none */
    convt3d_direction direction;
    convt3d_options options;
    int json;
} subject;

/* What the command line asks for. */
typedef struct request {
    convt3d_options options;
    int directions; /* bit d: direction d */
    int json;
} request;

/* The tensors of a layer, its weight packed where the direction takes one. */
typedef struct material {
    io_array input, weight, bias, output;
    convt3d_weights *packed;
} material;

typedef struct figures {
    double seconds;
    int32_t threads;
    size_t extra_bytes;
    char isa[64];
} figures;

/* ---- Material ----------------------------------------------------------------- */

static convt3d_status fill(convt3d_generator *generator, io_array *array, convt3d_dtype dtype,
                           int32_t rank, const int64_t *size, convt3d_error *err) {
    int64_t count = 1;
    convt3d_status status = io_array_create(io_dtype_of(dtype), rank, size, array, err);
    for (int32_t a = 0; a < rank; a++) count *= size[a];
    return status ? status
                  : convt3d_generator_uniform(generator, array->data, dtype, count, -1, 1, err);
}

static convt3d_status make_material(const subject *s, const convt3d_plan *plan, material *m,
                                    convt3d_error *err) {
    const convt3d_problem *p = s->problem;
    const int64_t *k = p->kernel_size, *i = p->input_size;
    const int64_t in[5] = {p->batch, p->in_channels, i[0], i[1], i[2]};
    const int64_t w[5] = {p->in_channels, p->out_channels / p->groups, k[0], k[1], k[2]};
    const int64_t b[1] = {p->out_channels};
    int64_t out[5];
    convt3d_generator *generator = NULL;
    convt3d_status status = convt3d_problem_output_shape(p, out, err);
    if (!status) status = convt3d_generator_create(0, &generator, err);
    if (!status) status = fill(generator, &m->input, p->dtype, 5, in, err);
    if (!status) status = fill(generator, &m->weight, p->dtype, 5, w, err);
    if (!status && p->bias) status = fill(generator, &m->bias, p->dtype, 1, b, err);
    if (!status) status = fill(generator, &m->output, p->dtype, 5, out, err);
    convt3d_generator_free(generator);
    if (!status && s->direction != CONVT3D_BACKWARD_WEIGHT) {
        convt3d_tensor weight = cli_tensor(&m->weight);
        status = convt3d_weights_pack(plan, &weight, &m->packed, err);
    }
    return status;
}

static void free_material(material *m) {
    convt3d_weights_free(m->packed);
    io_array_free(&m->input);
    io_array_free(&m->weight);
    io_array_free(&m->bias);
    io_array_free(&m->output);
}

/* ---- Runs ------------------------------------------------------------------------ */

static int asked_to_stop(void *unused, double done) {
    (void)unused;
    (void)done;
    return cli_stopped();
}

static convt3d_status run_once(const subject *s, const convt3d_plan *plan, const material *m,
                               convt3d_error *err) {
    convt3d_tensor x = cli_tensor(&m->input), w = cli_tensor(&m->weight), b = {0};
    convt3d_tensor y = cli_tensor(&m->output), *bias = NULL;
    convt3d_run run;
    convt3d_run_init(&run);
    run.poll = asked_to_stop;
    if (m->bias.data) {
        b = cli_tensor(&m->bias);
        bias = &b;
    }
    switch (s->direction) {
    case CONVT3D_FORWARD:
        return convt3d_forward(plan, &x, NULL, m->packed, bias, &y, &run, err);
    case CONVT3D_BACKWARD_INPUT:
        return convt3d_backward_input(plan, &y, NULL, m->packed, &x, CONVT3D_OVERWRITE, &run, err);
    default:
        return convt3d_backward_weight(plan, &x, &y, &w, bias, CONVT3D_OVERWRITE, &run, err);
    }
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    double difference = *(const double *)a - *(const double *)b;
    return (difference > 0) - (difference < 0);
}

/* The median of some runs, after one that warms up. */
static convt3d_status time_runs(const subject *s, const convt3d_plan *plan, const material *m,
                                double *median, convt3d_error *err) {
    static double seconds[MOST_RUNS];
    convt3d_status status = run_once(s, plan, m, err);
    int runs = 0;
    double start = now();
    while (!status && runs < MOST_RUNS && (runs < LEAST_RUNS || now() - start < enough_seconds)) {
        double begin = now();
        status = run_once(s, plan, m, err);
        seconds[runs++] = now() - begin;
    }
    qsort(seconds, (size_t)runs, sizeof(*seconds), ascending);
    if (!status) *median = seconds[runs / 2];
    return status;
}

/* ---- Printing ----------------------------------------------------------------------- */

/* 2*N*Cin*(Cout/g)*kD*kH*kW*D*H*W, cropped taps included. */
static double operations(const convt3d_problem *p) {
    int64_t per_group = p->out_channels / p->groups;
    double work = 2.0 * (double)p->batch * (double)p->in_channels * (double)per_group;
    for (int a = 0; a < 3; a++) work *= (double)p->kernel_size[a] * (double)p->input_size[a];
    return work;
}

static void print_heading(void) {
    static int printed;
    if (printed++) return;
    printf("%-16s %-15s %7s %-9s %-11s %10s %8s %12s  %s\n", "name", "direction", "threads",
           "precision", "isa", "ms", "gflops", "extra_bytes", "problem");
}

static int print(const subject *s, const figures *f) {
    char problem[LINE];
    const char *direction = convt3d_direction_name(s->direction);
    double ms = f->seconds * 1e3, gflops = operations(s->problem) / f->seconds * 1e-9;
    convt3d_problem_format(s->problem, problem, sizeof(problem));
    if (!s->json) {
        print_heading();
        printf("%-16s %-15s %7d %-9s %-11s %10.3f %8.1f %12zu  %s\n", s->name, direction,
               f->threads, convt3d_precision_name(s->options.precision), f->isa, ms, gflops,
               f->extra_bytes, problem);
        return fflush(stdout) ? cli_fail("standard output: %s", strerror(errno)) : 0;
    }
    json_t *line = json_pack("{ss ss ss si ss ss sf sf sI}", "problem", problem, "name", s->name,
                             "direction", direction, "threads", (int)f->threads, "precision",
                             convt3d_precision_name(s->options.precision), "isa", f->isa, "ms", ms,
                             "gflops", gflops, "extra_bytes", (json_int_t)f->extra_bytes);
    if (line && s->options.activation)
        json_object_set_new(line, "activation",
                            json_string(convt3d_activation_name(s->options.activation)));
    char *text = line ? json_dumps(line, JSON_REAL_PRECISION(6)) : NULL;
    if (text) puts(text);
    free(text);
    json_decref(line);
    fflush(stdout);
    return text ? 0 : cli_fail("memory for a line of output could not be had");
}

/* What convt3d_plan_describe() says in the line that starts with 'key'. */
static void described(const convt3d_plan *plan, const char *key, char *value, size_t size) {
    char text[4096];
    convt3d_plan_describe(plan, text, sizeof(text));
    const char *at = strstr(text, key);
    snprintf(value, size, "%.*s", at ? (int)strcspn(at + strlen(key), "\n") : 0,
             at ? at + strlen(key) : "");
}

/* ---- The command --------------------------------------------------------------------- */

static int bench_direction(const subject *s) {
    material m = {0};
    figures f;
    convt3d_plan *plan;
    convt3d_error err;
    convt3d_status status = convt3d_plan_create(s->problem, s->direction, &s->options, &plan, &err);
    if (!status) status = make_material(s, plan, &m, &err);
    if (!status) status = time_runs(s, plan, &m, &f.seconds, &err);
    if (!status) {
        f.threads = convt3d_plan_threads(plan);
        f.extra_bytes = convt3d_plan_scratch_size(plan, 0, 1);
        described(plan, "isa: ", f.isa, sizeof(f.isa));
    }
    free_material(&m);
    convt3d_plan_free(plan);
    if (cli_stopped()) return 128 + cli_stopped();
    return status ? cli_fail_status(&err) : print(s, &f);
}

static int bench_problem(const request *r, const char *text, const char *where) {
    convt3d_problem problem;
    convt3d_error err;
    char name[64];
    int status = 0;
    if (convt3d_problem_parse(text, &problem, name, sizeof(name), &err) != CONVT3D_OK)
        return cli_usage("%s: %s", where, err.text);
    for (int d = CONVT3D_FORWARD; d <= CONVT3D_BACKWARD_WEIGHT && !status; d++) {
        subject s = {&problem, name, (convt3d_direction)d,
                     cli_options_of(&r->options, (convt3d_direction)d), r->json};
        if (r->directions >> d & 1) status = bench_direction(&s);
    }
    return status;
}

/* A problem string a line; what follows # is a comment. */
static int bench_file(const request *r, const char *path) {
    char line[LINE], where[LINE];
    FILE *file = fopen(path, "r");
    int status = 0, number = 0;
    if (!file) return cli_fail("%s: %s", path, strerror(errno));
    while (!status && fgets(line, sizeof(line), file)) {
        number++;
        size_t length = strcspn(line, "#\r\n");
        while (length && strchr(" \t", line[length - 1])) length--;
        line[length] = 0;
        if (!length) continue;
        snprintf(where, sizeof(where), "%s, line %d", path, number);
        status = bench_problem(r, line, where);
    }
    if (!status && ferror(file)) status = cli_fail("%s: %s", path, strerror(errno));
    fclose(file);
    return status;
}

static int read_request(const cli_args *args, request *r) {
    const char *wanted = args->text[CLI_OPT_DIRECTION];
    *r = (request){.json = args->text[CLI_OPT_JSON] != NULL};
    if (!args->text[CLI_OPT_FILE] == !args->operand)
        return cli_usage(args->operand ? "a problem and --file exclude each other"
                                       : "a problem, or --file, is missing");
    for (int d = CONVT3D_FORWARD; d <= CONVT3D_BACKWARD_WEIGHT; d++)
        if (!wanted || strcmp(wanted, convt3d_direction_name((convt3d_direction)d)) == 0)
            r->directions |= 1 << d;
    if (!r->directions)
        return cli_usage("--direction: '%s'; legal are forward, backward_input and "
                         "backward_weight",
                         wanted);
    int status = cli_run_options(args, &r->options);
    if (!status && r->options.activation && !(r->directions & 1 << CONVT3D_FORWARD))
        return cli_usage("--activation is for --direction=forward");
    return status ? status : cli_run_check(&r->options);
}

static int bench(const cli_args *args) {
    request r;
    int status = read_request(args, &r);
    if (status) return status;
    cli_phase_enter(CLI_PHASE_RUN);
    return args->operand ? bench_problem(&r, args->operand, "the problem")
                         : bench_file(&r, args->text[CLI_OPT_FILE]);
}

const cli_command cli_bench = {
    .name = "bench",
    .synopsis = "STRING\n--file=FILE",
    .summary = "Time the layer on this machine.",
    .takes = CLI_SET(CLI_OPT_FILE) | CLI_SET(CLI_OPT_DIRECTION) | CLI_SET(CLI_OPT_JSON) |
             CLI_SET_ACTIVATION | CLI_SET_RUN,
    .may_have_operand = 1,
    .run = bench,
};
