/* options: the one table of all options, and the reading of a command line by
 * argp.  What the values mean is for others to find out.
 * SPDX-License-Identifier: MIT */
#include "cli.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The headings under which --help lists them. */
static const char *const group_title[] = {"Files:", "The layer:", "The run:"};
enum {
    FILES,
    LAYER,
    RUN,
    GROUPS
};

static const struct {
    const char *name, *value;
    int group;
    const char *help;
} option[CLI_OPTIONS] = {
    [CLI_OPT_INPUT] = {"--input", "X", FILES, "the input, (N, C, D, H, W) or (C, D, H, W)"},
    [CLI_OPT_WEIGHT] = {"--weight", "W", FILES,
                        "the weight, (in_channels, out_channels/groups, kD, kH, kW)"},
    [CLI_OPT_BIAS] = {"--bias", "B", FILES, "the bias, (out_channels)"},
    [CLI_OPT_MODULE] = {"--module", "M.safetensors", FILES,
                        "weight, bias and arguments of a layer"},
    [CLI_OPT_OUTPUT] = {"--output", "FILE", FILES, "what to write"},
    [CLI_OPT_GRAD_OUTPUT] = {"--grad-output", "DY", FILES,
                             "the gradient with respect to the output"},
    [CLI_OPT_GRAD_INPUT] = {"--grad-input", "DX", FILES,
                            "write the gradient with respect to the input"},
    [CLI_OPT_GRAD_WEIGHT] = {"--grad-weight", "DW", FILES,
                             "write the gradient with respect to the weight"},
    [CLI_OPT_GRAD_BIAS] = {"--grad-bias", "DB", FILES,
                           "write the gradient with respect to the bias"},
    [CLI_OPT_GRAD_WEIGHT_DTYPE] = {"--grad-weight-dtype", "TYPE", FILES,
                                   "float32: so write a 16-bit layer's gradients with respect to "
                                   "weight and bias (the layer's type)"},
    [CLI_OPT_INPUT_SIZE] = {"--input-size", "SIZES", LAYER, "N,C,D,H,W or C,D,H,W or D,H,W"},
    [CLI_OPT_IN_CHANNELS] = {"--in-channels", "C", LAYER, "channels of the input"},
    [CLI_OPT_OUT_CHANNELS] = {"--out-channels", "C", LAYER, "channels of the output"},
    [CLI_OPT_KERNEL_SIZE] = {"--kernel-size", "K[,K,K]", LAYER, "size of the kernel"},
    [CLI_OPT_STRIDE] = {"--stride", "S[,S,S]", LAYER, "step between inputs (1)"},
    [CLI_OPT_PADDING] = {"--padding", "P[,P,P[,P,P,P]]", LAYER,
                         "what is cropped or folded at each border (0); six values: before and "
                         "after in depth, height and width"},
    [CLI_OPT_OUTPUT_PADDING] = {"--output-padding", "P[,P,P]", LAYER,
                                "size added at the far side (0)"},
    [CLI_OPT_DILATION] = {"--dilation", "D[,D,D]", LAYER, "step between taps (1)"},
    [CLI_OPT_GROUPS] = {"--groups", "G", LAYER, "separate groups of channels (1)"},
    [CLI_OPT_PADDING_MODE] = {"--padding-mode", "MODE", LAYER,
                              "zeros, reflect, replicate or circular (zeros)"},
    [CLI_OPT_OUTPUT_SIZE] = {"--output-size", "D,H,W", LAYER,
                             "size of the output, in the place of --output-padding"},
    [CLI_OPT_DTYPE] = {"--dtype", "TYPE", LAYER,
                       "float32, float64, bfloat16 or float16 (the weight's, or float32)"},
    [CLI_OPT_NO_BIAS] = {"--no-bias", NULL, LAYER, "a layer without bias"},
    [CLI_OPT_SEED] = {"--seed", "S", LAYER, "seed of the random numbers"},
    [CLI_OPT_FILL] = {"--fill", "KIND", LAYER, "default, trilinear or icnr (default)"},
    [CLI_OPT_ACTIVATION] = {"--activation", "NAME", LAYER,
                            "what the output goes through: relu, leaky_relu, gelu, gelu_tanh, "
                            "sigmoid or tanh (none)"},
    [CLI_OPT_NEGATIVE_SLOPE] = {"--negative-slope", "X", LAYER, "leaky_relu's slope (0.01)"},
    [CLI_OPT_THREADS] = {"--threads", "T", RUN, "1 to 1024 threads (one per CPU)"},
    [CLI_OPT_ISA] = {"--isa", "NAME", RUN, "force an instruction set, see `convt3d info'"},
    [CLI_OPT_ALGORITHM] = {"--algorithm", "NAME", RUN, "force engine or reference"},
    [CLI_OPT_PROBLEM] = {"--problem", "STRING", LAYER,
                         "a problem, as in n1ci64co32i24x32x64k3s2p1op1nb"},
    [CLI_OPT_DIRECTION] = {"--direction", "NAME", LAYER,
                           "forward, backward_input or backward_weight (all three)"},
    [CLI_OPT_COUNT] = {"--count", "N", RUN, "problems per instruction set and dtype (200)"},
    [CLI_OPT_CHANNEL] = {"--channel", "C", FILES, "which channel, from 0 (0)"},
    [CLI_OPT_BATCH] = {"--batch", "N", FILES, "which sample of the batch, from 0 (0)"},
    [CLI_OPT_FILE] = {"--file", "FILE", FILES, "problems, one a line; # starts a comment"},
    [CLI_OPT_PRECISION] = {"--precision", "NAME", RUN,
                           "of float32: highest, high or medium (highest)"},
    [CLI_OPT_JSON] = {"--json", NULL, RUN, "one JSON object a line, in the place of a table"},
};

/* Keys beyond the characters, so that argp makes no short options of them. */
#define KEY(id) (256 + (id))
enum {
    KEY_USAGE = KEY(CLI_OPTIONS),
    COMMON = 3
};

/* What every command takes; last in the list of --help. */
static const struct argp_option common[COMMON] = {
    {.name = "help", .key = '?', .doc = "give this help list", .group = -1},
    {.name = "usage", .key = KEY_USAGE, .doc = "give a short usage message", .group = -1},
    {.name = "version", .key = 'V', .doc = "print the version", .group = -1},
};

const char *cli_option_name(cli_id id) {
    return option[id].name;
}

typedef struct reading {
    const struct argp *argp;
    const cli_command *command;
    cli_args *args;
    char *name; /* "convt3d forward" */
    int next;   /* where it stopped, if it is wrong */
} reading;

/* A repeated option is nearly always a slip, and the first or the last of the
 * two would win silently. */
static void take(const char **slot, const char *what, const char *text) {
    if (*slot) exit(cli_usage("%s is given twice", what));
    *slot = text;
}

static void help(const reading *r, unsigned flags) {
    argp_help(r->argp, stdout, flags, r->name);
    exit(cli_finish(0));
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    reading *r = state->input;
    switch (key) {
    case '?':
        help(r, ARGP_HELP_STD_HELP & ~(unsigned)ARGP_HELP_EXIT_OK);
        return 0;
    case KEY_USAGE:
        help(r, ARGP_HELP_USAGE);
        return 0;
    case 'V':
        printf("convt3d %s\n", convt3d_version());
        exit(cli_finish(0));
    case ARGP_KEY_ARG:
        if (!r->command->has_operand && !r->command->may_have_operand)
            exit(cli_usage("'%s' is one argument too many", arg));
        take(&r->args->operand, r->command->has_operand ? "the file" : "the problem", arg);
        return 0;
    case ARGP_KEY_ERROR:
        r->next = state->next;
        return 0;
    default:
        if (key < KEY(0) || key >= KEY(CLI_OPTIONS)) return ARGP_ERR_UNKNOWN;
        take(&r->args->text[key - KEY(0)], option[key - KEY(0)].name, arg ? arg : "");
        return 0;
    }
}

/* The command's options as argp wants them, by groups with their titles. */
static void list_options(uint64_t takes, struct argp_option *list) {
    for (int group = 0; group < GROUPS; group++) {
        int titled = 0;
        for (int id = 0; id < CLI_OPTIONS; id++) {
            if (!(takes & CLI_SET(id)) || option[id].group != group) continue;
            if (!titled++)
                *list++ = (struct argp_option){.doc = group_title[group], .group = group + 1};
            *list++ = (struct argp_option){.name = option[id].name + 2,
                                           .key = KEY(id),
                                           .arg = option[id].value,
                                           .doc = option[id].help,
                                           .group = group + 1};
        }
    }
    for (int i = 0; i < COMMON; i++) *list++ = common[i];
    *list = (struct argp_option){0};
}

/* getopt stopped just behind what it can't read, or inside it. */
static int explain(char **argv, int next) {
    const char *word = argv[next > 1 && argv[next - 1][0] == '-' ? next - 1 : next];
    for (int id = 0; word && id < CLI_OPTIONS; id++)
        if (option[id].value && strcmp(word, option[id].name) == 0)
            return cli_usage("%s needs a value", word);
    return cli_usage("there is no option '%s' here", word ? word : "");
}

void cli_options_parse(const cli_command *command, int argc, char **argv, cli_args *args) {
    static char name[64]; /* static: messages name the command until the end */
    struct argp_option list[CLI_OPTIONS + GROUPS + COMMON + 1];
    struct argp argp = {
        .options = list, .parser = parse, .args_doc = command->synopsis, .doc = command->summary};
    reading r = {&argp, command, args, name, 0};
    snprintf(name, sizeof(name), "convt3d %s", command->name);
    cli_message_command(name);
    list_options(command->takes, list);
    /* argp's own messages would begin and end differently from all others. */
    if (argp_parse(&argp, argc, argv, ARGP_NO_ERRS | ARGP_NO_HELP, NULL, &r) != 0)
        exit(explain(argv, r.next));
    for (int id = 0; id < CLI_OPTIONS; id++)
        if ((command->needs & CLI_SET(id)) && !args->text[id])
            exit(cli_usage("%s is missing", option[id].name));
    if (command->has_operand && !args->operand) exit(cli_usage("the file to read is missing"));
}
