/* layer: the layer's arguments, from options and from the metadata of module
 * files, and what happens when the two disagree.
 * SPDX-License-Identifier: MIT */
#include "cli.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* An argument that is a number or three; padding is two fields of a problem
 * but one argument, and is handled as six values. */
typedef struct field {
    const char *key;
    size_t offset;
    int64_t least;
    int values;
    cli_id id;
} field;

#define FIELD(id, name, values, least)                                                             \
    { #name, offsetof(convt3d_problem, name), least, values, id }

static const field fields[] = {
    FIELD(CLI_OPT_IN_CHANNELS, in_channels, 1, 1),
    FIELD(CLI_OPT_OUT_CHANNELS, out_channels, 1, 1),
    FIELD(CLI_OPT_KERNEL_SIZE, kernel_size, 3, 1),
    FIELD(CLI_OPT_STRIDE, stride, 3, 1),
    {"padding", 0, 0, 6, CLI_OPT_PADDING},
    FIELD(CLI_OPT_OUTPUT_PADDING, output_padding, 3, 0),
    FIELD(CLI_OPT_DILATION, dilation, 3, 1),
    FIELD(CLI_OPT_GROUPS, groups, 1, 1),
    {"padding_mode", 0, 0, 0, CLI_OPT_PADDING_MODE},
};
enum {
    FIELDS = sizeof(fields) / sizeof(fields[0])
};

static const field *find_field(cli_id id) {
    const field *f = fields;
    while (f->id != id) f++;
    return f;
}

/* get() and set() are the only places that know how a problem keeps these. */
static void get(const convt3d_problem *problem, const field *f, int64_t *values) {
    if (f->id == CLI_OPT_PADDING_MODE) {
        values[0] = problem->padding_mode;
    } else if (f->id == CLI_OPT_PADDING) {
        for (int i = 0; i < 6; i++)
            values[i] = i % 2 ? problem->padding_after[i / 2] : problem->padding_before[i / 2];
    } else {
        memcpy(values, (const char *)problem + f->offset, (size_t)f->values * sizeof(*values));
    }
}

static void set(convt3d_problem *problem, const field *f, const int64_t *values) {
    if (f->id == CLI_OPT_PADDING_MODE) {
        problem->padding_mode = (convt3d_padding_mode)values[0];
    } else if (f->id == CLI_OPT_PADDING) {
        for (int i = 0; i < 6; i++)
            (i % 2 ? problem->padding_after : problem->padding_before)[i / 2] = values[i];
    } else {
        memcpy((char *)problem + f->offset, values, (size_t)f->values * sizeof(*values));
    }
}

/* The shortest text that read() takes back: one value where all axes agree. */
static const char *write_text(const field *f, const int64_t *values, char *text, size_t size) {
    int count = f->values, same = 1, symmetric = 1;
    if (f->id == CLI_OPT_PADDING_MODE) {
        snprintf(text, size, "%s", convt3d_padding_mode_name((convt3d_padding_mode)values[0]));
        return text;
    }
    for (int i = 1; i < count; i++) {
        same &= values[i] == values[0];
        symmetric &= i % 2 == 0 || values[i] == values[i - 1];
    }
    int step = count == 6 && symmetric ? 2 : 1;
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < (same ? 1 : count) && used < size; i += step)
        used += (size_t)snprintf(text + used, size - used, "%s%" PRId64, i ? "," : "", values[i]);
    return text;
}

/* The text of an argument as values; one value serves all axes.  0, with the
 * reason, if it isn't legal. */
static int read_text(const field *f, const char *text, int64_t values[CLI_VALUES],
                     char why[CLI_WHY]) {
    if (f->id == CLI_OPT_PADDING_MODE) {
        convt3d_padding_mode mode;
        convt3d_error err;
        if (convt3d_padding_mode_parse(text, &mode, &err) != CONVT3D_OK) {
            snprintf(why, CLI_WHY, "%.*s", CLI_WHY - 1, err.text);
            return 0;
        }
        values[0] = mode;
        return 1;
    }
    unsigned counts =
        CLI_COUNT(1) | (f->values >= 3 ? CLI_COUNT(3) : 0) | (f->values == 6 ? CLI_COUNT(6) : 0);
    int64_t given[CLI_VALUES];
    int count = cli_integers(text, f->least, INT64_MAX, counts, given, why);
    if (count == 0) return 0;
    for (int i = 0; i < f->values; i++) values[i] = given[i * count / f->values];
    return 1;
}

/* Options of one argument each are checked as they are read; this is what two
 * of them can do to each other.  The smallest layer that has them lets the
 * library itself say it. */
static int check_together(const cli_args *args, const cli_layer *layer) {
    convt3d_problem probe = layer->problem;
    convt3d_error err;
    if (!args->text[CLI_OPT_OUTPUT_PADDING] || args->text[CLI_OPT_MODULE]) return 0;
    probe.in_channels = probe.out_channels = probe.groups = 1;
    probe.padding_mode = CONVT3D_ZEROS;
    for (int a = 0; a < 3; a++) {
        probe.input_size[a] = probe.kernel_size[a] = 1;
        probe.padding_before[a] = probe.padding_after[a] = 0;
    }
    if (convt3d_problem_output_shape(&probe, NULL, &err) == CONVT3D_OK) return 0;
    return cli_usage_status(&err);
}

/* Not an argument of the layer but of a run: no file states it. */
static int parse_output_size(const cli_args *args, cli_layer *layer) {
    const char *text = args->text[CLI_OPT_OUTPUT_SIZE];
    char why[CLI_WHY];
    if (!text) return 0;
    if (args->text[CLI_OPT_OUTPUT_PADDING])
        return cli_usage("--output-size and --output-padding exclude each other");
    int count =
        cli_integers(text, 1, INT64_MAX, CLI_COUNT(1) | CLI_COUNT(3), layer->output_size, why);
    if (count == 0) return cli_usage("--output-size: %s", why);
    if (count == 1) layer->output_size[1] = layer->output_size[2] = layer->output_size[0];
    layer->has_output_size = 1;
    return 0;
}

int cli_layer_parse(const cli_args *args, cli_layer *layer) {
    *layer = (cli_layer){0};
    convt3d_problem_init(&layer->problem);
    for (int i = 0; i < FIELDS; i++) {
        const field *f = &fields[i];
        const char *name = cli_option_name(f->id);
        char why[CLI_WHY];
        int64_t values[CLI_VALUES];
        if (!args->text[f->id]) continue;
        if (!read_text(f, args->text[f->id], values, why)) return cli_usage("%s: %s", name, why);
        set(&layer->problem, f, values);
        layer->source[f->id] = name;
    }
    const char *dtype = args->text[CLI_OPT_DTYPE];
    if (dtype) {
        layer->problem.dtype = cli_dtype_parse(dtype);
        if (!layer->problem.dtype) return cli_usage("--dtype: '%s'; legal are " CLI_DTYPES, dtype);
        layer->source[CLI_OPT_DTYPE] = cli_option_name(CLI_OPT_DTYPE);
    }
    int status = parse_output_size(args, layer);
    return status ? status : check_together(args, layer);
}

int cli_layer_state(cli_layer *layer, cli_id id, const int64_t *values, const char *source) {
    const field *f = find_field(id);
    const char *before = layer->source[id];
    int64_t known[CLI_VALUES];
    int count = f->values ? f->values : 1;
    if (!before) {
        set(&layer->problem, f, values);
        layer->source[id] = source;
        return 0;
    }
    get(&layer->problem, f, known);
    if (memcmp(known, values, (size_t)count * sizeof(*values)) == 0) return 0;
    char one[160], other[160];
    write_text(f, known, one, sizeof(one));
    write_text(f, values, other, sizeof(other));
    if (before == cli_option_name(id))
        return cli_usage("%s %s contradicts %s %s of %s", before, one, f->key, other, source);
    return cli_fail("%s: %s %s contradicts %s of %s", before, f->key, one, other, source);
}

int cli_layer_metadata(const convt3d_problem *problem, cli_metadata *metadata) {
    int pairs = 0;
    for (int i = 0; i < FIELDS; i++, pairs++) {
        int64_t values[CLI_VALUES];
        get(problem, &fields[i], values);
        metadata->item[2 * pairs] = fields[i].key;
        metadata->item[2 * pairs + 1] =
            write_text(&fields[i], values, metadata->text[pairs], sizeof(metadata->text[pairs]));
    }
    metadata->item[2 * pairs] = "bias";
    metadata->item[2 * pairs + 1] = problem->bias ? "true" : "false";
    return pairs + 1;
}

int cli_layer_take_metadata(cli_layer *layer, const io_safetensors *file, const char *path) {
    for (int i = 0; i < FIELDS; i++) {
        const field *f = &fields[i];
        const char *text = io_safetensors_metadata(file, f->key);
        char why[CLI_WHY];
        int64_t values[CLI_VALUES];
        if (!text) continue;
        if (!read_text(f, text, values, why))
            return cli_fail("%s: metadata %s: %s", path, f->key, why);
        int status = cli_layer_state(layer, f->id, values, path);
        if (status) return status;
    }
    return 0;
}

static int activation_option(const cli_args *args, convt3d_options *options) {
    const char *text = args->text[CLI_OPT_ACTIVATION];
    convt3d_error err;
    if (text && convt3d_activation_parse(text, &options->activation, &err) != CONVT3D_OK)
        return cli_usage("--activation: %s", err.text);
    if (args->text[CLI_OPT_NEGATIVE_SLOPE] && options->activation != CONVT3D_ACTIVATION_LEAKY_RELU)
        return cli_usage("--negative-slope needs --activation=leaky_relu");
    return cli_number(args, CLI_OPT_NEGATIVE_SLOPE, options->negative_slope,
                      &options->negative_slope);
}

convt3d_options cli_options_of(const convt3d_options *options, convt3d_direction direction) {
    convt3d_options of = *options;
    if (direction != CONVT3D_FORWARD) of.activation = CONVT3D_ACTIVATION_NONE;
    return of;
}

int cli_run_options(const cli_args *args, convt3d_options *options) {
    const char *isa = args->text[CLI_OPT_ISA], *algorithm = args->text[CLI_OPT_ALGORITHM];
    int64_t threads;
    convt3d_options_init(options);
    if (cli_integer(args, CLI_OPT_THREADS, 1, CONVT3D_MAX_THREADS, 0, &threads)) return CLI_USAGE;
    options->threads = (int32_t)threads;
    if (isa) {
        char names[160] = "";
        int known = 0;
        for (int i = 0; convt3d_isa_name(i); i++) {
            size_t used = strlen(names);
            known |= strcmp(isa, convt3d_isa_name(i)) == 0;
            snprintf(names + used, sizeof(names) - used, " %s", convt3d_isa_name(i));
        }
        if (!known) return cli_usage("--isa: '%s'; legal are%s", isa, names);
        options->isa = isa;
    }
    if (algorithm) {
        if (strcmp(algorithm, "engine") != 0 && strcmp(algorithm, "reference") != 0)
            return cli_usage("--algorithm: '%s'; legal are engine and reference", algorithm);
        options->algorithm = algorithm;
    }
    if (args->text[CLI_OPT_PRECISION]) {
        convt3d_error err;
        if (convt3d_precision_parse(args->text[CLI_OPT_PRECISION], &options->precision, &err) !=
            CONVT3D_OK)
            return cli_usage("--precision: %s", err.text);
    }
    return activation_option(args, options);
}

int cli_run_check(const convt3d_options *options) {
    convt3d_problem smallest;
    convt3d_plan *plan;
    convt3d_error err;
    convt3d_options machine;
    convt3d_options_init(&machine);
    if (options) machine = *options;
    machine.negative_slope = 0; /* what suits a problem's dtype is for its own plan */
    if (convt3d_problem_parse("ci1co1i1k1", &smallest, NULL, 0, &err) != CONVT3D_OK ||
        convt3d_plan_create(&smallest, CONVT3D_FORWARD, &machine, &plan, &err) != CONVT3D_OK)
        return cli_fail_status(&err);
    convt3d_plan_free(plan);
    return 0;
}
