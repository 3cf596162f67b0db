/* cli: the convt3d command.  It knows options, files and the terminal; the
 * arithmetic is the library's and the formats are io's.  Every command is one
 * constant struct and one function that returns the exit status: 0 done, 1 a
 * failure at run time, 2 wrong usage, 128 + signal when stopped by one.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_CLI_H
#define CONVT3D_CLI_H

#include "convt3d.h"
#include "io/io.h"

#define CLI_FAILED 1
#define CLI_USAGE  2

/* ---- Options (options.c) -------------------------------------------------- */

/* Every option of every command; a command takes a set of them. */
typedef enum cli_id {
    CLI_OPT_INPUT,
    CLI_OPT_WEIGHT,
    CLI_OPT_BIAS,
    CLI_OPT_MODULE,
    CLI_OPT_OUTPUT,
    CLI_OPT_GRAD_OUTPUT,
    CLI_OPT_GRAD_INPUT,
    CLI_OPT_GRAD_WEIGHT,
    CLI_OPT_GRAD_BIAS,
    CLI_OPT_GRAD_WEIGHT_DTYPE,
    CLI_OPT_INPUT_SIZE,
    CLI_OPT_IN_CHANNELS,
    CLI_OPT_OUT_CHANNELS,
    CLI_OPT_KERNEL_SIZE,
    CLI_OPT_STRIDE,
    CLI_OPT_PADDING,
    CLI_OPT_OUTPUT_PADDING,
    CLI_OPT_DILATION,
    CLI_OPT_GROUPS,
    CLI_OPT_PADDING_MODE,
    CLI_OPT_OUTPUT_SIZE,
    CLI_OPT_DTYPE,
    CLI_OPT_NO_BIAS,
    CLI_OPT_SEED,
    CLI_OPT_FILL,
    CLI_OPT_ACTIVATION,
    CLI_OPT_NEGATIVE_SLOPE,
    CLI_OPT_THREADS,
    CLI_OPT_ISA,
    CLI_OPT_ALGORITHM,
    CLI_OPT_PROBLEM,
    CLI_OPT_DIRECTION,
    CLI_OPT_COUNT,
    CLI_OPT_CHANNEL,
    CLI_OPT_BATCH,
    CLI_OPT_FILE,
    CLI_OPT_PRECISION,
    CLI_OPT_JSON,
    CLI_OPTIONS
} cli_id;

#define CLI_SET(id) ((uint64_t)1 << (id))
#define CLI_SET_ARGUMENTS                                                                          \
    (CLI_SET(CLI_OPT_STRIDE) | CLI_SET(CLI_OPT_PADDING) | CLI_SET(CLI_OPT_OUTPUT_PADDING) |        \
     CLI_SET(CLI_OPT_DILATION) | CLI_SET(CLI_OPT_GROUPS) | CLI_SET(CLI_OPT_PADDING_MODE) |         \
     CLI_SET(CLI_OPT_DTYPE))
#define CLI_SET_SIZES                                                                              \
    (CLI_SET(CLI_OPT_IN_CHANNELS) | CLI_SET(CLI_OPT_OUT_CHANNELS) | CLI_SET(CLI_OPT_KERNEL_SIZE))
#define CLI_SET_PARAMETERS                                                                         \
    (CLI_SET(CLI_OPT_WEIGHT) | CLI_SET(CLI_OPT_BIAS) | CLI_SET(CLI_OPT_MODULE))
#define CLI_SET_ACTIVATION (CLI_SET(CLI_OPT_ACTIVATION) | CLI_SET(CLI_OPT_NEGATIVE_SLOPE))
#define CLI_SET_RUN                                                                                \
    (CLI_SET(CLI_OPT_THREADS) | CLI_SET(CLI_OPT_ISA) | CLI_SET(CLI_OPT_ALGORITHM) |                \
     CLI_SET(CLI_OPT_PRECISION))

/* What the command line said, unread: NULL where an option was not given. */
typedef struct cli_args {
    const char *text[CLI_OPTIONS];
    const char *operand;
} cli_args;

typedef struct cli_command {
    const char *name;
    const char *synopsis; /* without the options that may be left out */
    const char *summary;  /* one line */
    uint64_t takes, needs;
    int has_operand, may_have_operand;
    int (*run)(const cli_args *args);
} cli_command;

extern const cli_command cli_forward, cli_backward, cli_init, cli_shape, cli_info, cli_check,
    cli_view, cli_bench;

/* Reads the command line into zeroed 'args'; exits with 2 if it is wrong, with 0
 * after --help. */
void cli_options_parse(const cli_command *command, int argc, char **argv, cli_args *args);

const char *cli_option_name(cli_id id); /* with its two dashes */

/* ---- Messages (message.c) ------------------------------------------------- */

void cli_message_command(const char *name); /* whose --help is recommended */

/* Each prints one line, "convt3d: ...", and returns the exit status. */
int cli_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
int cli_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
int cli_fail_status(const convt3d_error *err);
/* A problem that the command line alone makes illegal. */
int cli_usage_status(const convt3d_error *err);

/* The exit status, once stdout is written out: a full disk behind it shows only
 * then. */
int cli_finish(int status);

/* ---- Values (values.c) ---------------------------------------------------- */

#define CLI_WHY 256

extern const char *const cli_axis[3]; /* "depth", "height", "width" */

/* Reads integers that are separated by commas, each from 'least' to 'most'; how
 * many there may be is a set of counts.  Returns their number; or 0, with the
 * reason in 'why'. */
#define CLI_VALUES   6
#define CLI_COUNT(n) (1u << (n))
int cli_integers(const char *text, int64_t least, int64_t most, unsigned counts, int64_t *values,
                 char why[CLI_WHY]);

/* One integer option; 'fallback' if it is not given.  Returns 0, or 2 after
 * saying what is wrong. */
int cli_integer(const cli_args *args, cli_id id, int64_t least, int64_t most, int64_t fallback,
                int64_t *value);

/* One finite number.  Returns 0, or 2 after saying what is wrong. */
int cli_number(const cli_args *args, cli_id id, double fallback, double *value);

/* --seed: all 64 bits, as PyTorch's manual_seed() takes them. */
int cli_seed(const cli_args *args, uint64_t fallback, uint64_t *seed);

/* The type of that name, or short name: "bfloat16" and "bf16"; 0 for any other
 * text, and what is legal then. */
#define CLI_DTYPES "float32, float64, bfloat16 and float16"
convt3d_dtype cli_dtype_parse(const char *text);

/* "(20, 33, 21, 46, 97)" */
#define CLI_SHAPE_TEXT 200
const char *cli_shape_text(int rank, const int64_t *size, char text[CLI_SHAPE_TEXT]);

/* ---- The layer's arguments (layer.c) -------------------------------------- */

/* What is known of the layer, and from where: an option's name or a file's;
 * NULL for a default. */
typedef struct cli_layer {
    convt3d_problem problem;
    const char *source[CLI_OPTIONS];
    int has_output_size;
    int64_t output_size[3];
} cli_layer;

/* Fills it from the options alone.  0, or 2 after saying what is wrong. */
int cli_layer_parse(const cli_args *args, cli_layer *layer);

/* Another source states an argument (up to six values).  Sets it; or, if it
 * was stated differently before, says so: 2 if by an option, else 1. */
int cli_layer_state(cli_layer *layer, cli_id id, const int64_t *values, const char *source);

/* The arguments as __metadata__: pairs of key and value.  'text' holds the
 * strings.  Returns the number of pairs. */
#define CLI_METADATA_PAIRS 10
typedef struct cli_metadata {
    const char *item[2 * CLI_METADATA_PAIRS];
    char text[CLI_METADATA_PAIRS][160];
} cli_metadata;
int cli_layer_metadata(const convt3d_problem *problem, cli_metadata *metadata);

/* Takes the arguments that a module file's __metadata__ states. */
int cli_layer_take_metadata(cli_layer *layer, const io_safetensors *file, const char *path);

/* --threads, --isa, --algorithm, --precision and --activation.  0, or 2 after saying what is
 * wrong. */
int cli_run_options(const cli_args *args, convt3d_options *options);

/* The same options for a plan of this direction: an activation is forward's. */
convt3d_options cli_options_of(const convt3d_options *options, convt3d_direction direction);

/* Whether this machine and its environment variables allow any run with these
 * options: so that what fails later is the command line's fault. */
int cli_run_check(const convt3d_options *options);

/* ---- Arrays and files (arrays.c) ------------------------------------------ */

typedef struct cli_parameters {
    io_array weight;
    io_array bias; /* data NULL, rank 0: none */
} cli_parameters;

/* Loads --module, or --weight and --bias; completes 'layer' by what they say
 * and converts them to the layer's dtype, which --dtype or the weight decides (but
 * a bias may be of float32 beside 16 bits). */
int cli_parameters_load(const cli_args *args, cli_layer *layer, cli_parameters *parameters);
void cli_parameters_free(cli_parameters *parameters);

/* Loads an input or a grad_output, of rank 5 or 4, in this dtype. */
int cli_volume_load(const cli_args *args, cli_id id, convt3d_dtype dtype, io_array *array);

/* Completes the problem by the input's shape and --output-size, if given; and
 * gives the output's shape. */
int cli_layer_bind(const cli_args *args, cli_layer *layer, const cli_parameters *parameters,
                   const io_array *input, int64_t shape[5]);

convt3d_tensor cli_tensor(const io_array *array);

/* ---- Results (results.c) -------------------------------------------------- */

/* Whether a file can be written there, told before the work: its name ends in
 * one of these ("" ends the list) and its folder is there. */
int cli_output_check(const char *option, const char *spec, const char *const *endings);
extern const char *const cli_array_endings[];

typedef struct cli_result {
    cli_id id; /* the option that names the file */
    convt3d_dtype dtype;
    io_array array;
} cli_result;

/* Makes its array, of this shape. */
int cli_result_create(cli_result *result, int32_t rank, const int64_t *size);

/* Writes all results; those that name the same .safetensors file into one. */
#define CLI_RESULTS 3
int cli_results_check(const cli_args *args, const cli_result *results, int count);
/* Whether the files can hold the results' dtypes, told before the work. */
int cli_results_check_dtypes(const cli_args *args, const cli_result *results, int count);
int cli_results_save(const cli_args *args, const cli_result *results, int count);

/* ---- Progress and interrupts (progress.c) --------------------------------- */

typedef enum cli_phase {
    CLI_PHASE_LOAD, /* nothing to clean up: a signal ends the process */
    CLI_PHASE_RUN,  /* the run's poll notices */
    CLI_PHASE_SAVE  /* the write fails and removes what it wrote */
} cli_phase;

void cli_signals_catch(void);
void cli_phase_enter(cli_phase phase);
int cli_stopped(void); /* the signal that asked to stop, or 0 */

typedef struct cli_progress {
    const char *label;
    double start;
    int shown;
} cli_progress;

/* Sets up 'run' to draw the bar of 'progress' and to notice interrupts. */
void cli_progress_begin(cli_progress *progress, const char *label, convt3d_run *run);
void cli_progress_end(cli_progress *progress);

#endif
