/* info: this build, this machine, and what would be chosen for a problem.
 * SPDX-License-Identifier: MIT */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int print_machine(void) {
    char cpu[200];
    convt3d_cpu_name(cpu, sizeof(cpu));
    printf("convt3d:  %s\n", convt3d_version());
    printf("CPU:      %s\n", cpu);
    printf("threads:  %d\n", convt3d_cpu_count());
    for (int i = 0; convt3d_isa_name(i); i++)
        printf("ISA:      %-12s %s\n", convt3d_isa_name(i),
               convt3d_isa_supported(convt3d_isa_name(i)) ? "yes" : "no");
    /* What makes a run differ from the lines above. */
    static const char *const variables[] = {"CONVT3D_NUM_THREADS", "CONVT3D_ISA"};
    for (int i = 0; i < 2; i++)
        if (getenv(variables[i])) printf("%s=%s\n", variables[i], getenv(variables[i]));
    return 0;
}

static void print_text(const char *text) {
    size_t length = strlen(text);
    fputs(text, stdout);
    if (length > 0 && text[length - 1] != '\n') putchar('\n');
}

static int print_plan(const convt3d_problem *problem, convt3d_direction direction,
                      const convt3d_options *options) {
    convt3d_plan *plan;
    convt3d_error err;
    if (convt3d_plan_create(problem, direction, options, &plan, &err) != CONVT3D_OK)
        return cli_fail_status(&err);
    size_t size = convt3d_plan_describe(plan, NULL, 0) + 1;
    char *text = malloc(size);
    if (text) {
        convt3d_plan_describe(plan, text, size);
        printf("%s:\n", convt3d_direction_name(direction));
        print_text(text);
        free(text);
    }
    convt3d_plan_free(plan);
    return text ? 0 : cli_fail("%zu bytes of memory could not be had", size);
}

static int print_problem(const cli_args *args) {
    static const convt3d_direction directions[3] = {CONVT3D_FORWARD, CONVT3D_BACKWARD_INPUT,
                                                    CONVT3D_BACKWARD_WEIGHT};
    const char *wanted = args->text[CLI_OPT_DIRECTION];
    convt3d_problem problem;
    convt3d_options options;
    convt3d_error err;
    int printed = 0;
    if (cli_run_options(args, &options)) return CLI_USAGE;
    if (convt3d_problem_parse(args->text[CLI_OPT_PROBLEM], &problem, NULL, 0, &err) != CONVT3D_OK)
        return cli_usage("--problem: %s", err.text);
    if (wanted && strcmp(wanted, "forward") != 0 && options.activation)
        return cli_usage("--activation is for --direction=forward");
    for (int i = 0; i < 3; i++) {
        if (wanted && strcmp(wanted, convt3d_direction_name(directions[i])) != 0) continue;
        const convt3d_options of = cli_options_of(&options, directions[i]);
        int status = print_plan(&problem, directions[i], &of);
        if (status) return status;
        printed = 1;
    }
    if (printed) return 0;
    return cli_usage("--direction: '%s'; legal are forward, backward_input and backward_weight",
                     wanted);
}

/* The module itself knows how to print itself. */
static int print_module(const cli_args *args) {
    cli_layer layer;
    cli_parameters parameters;
    convt3d_module *module;
    convt3d_error err;
    char text[1000];
    int status = cli_layer_parse(args, &layer);
    if (status == 0) status = cli_parameters_load(args, &layer, &parameters);
    if (status) return status;
    cli_parameters_free(&parameters);
    if (convt3d_module_create(&layer.problem, NULL, &module, &err) != CONVT3D_OK)
        return cli_fail_status(&err);
    convt3d_module_describe(module, text, sizeof(text));
    convt3d_module_free(module);
    print_text(text);
    return 0;
}

/* Three questions in one command; options that belong to another of them are
 * refused in place of being ignored. */
static int info(const cli_args *args) {
    if (args->text[CLI_OPT_MODULE] && args->text[CLI_OPT_PROBLEM])
        return cli_usage("--module and --problem exclude each other");
    if (!args->text[CLI_OPT_PROBLEM]) {
        for (int id = 0; id < CLI_OPTIONS; id++)
            if (args->text[id] && id != CLI_OPT_MODULE)
                return cli_usage("%s needs --problem", cli_option_name((cli_id)id));
        return args->text[CLI_OPT_MODULE] ? print_module(args) : print_machine();
    }
    return print_problem(args);
}

const cli_command cli_info = {
    .name = "info",
    .synopsis = "\n--problem=STRING\n--module=M.safetensors",
    .summary = "Show version and machine; the plan for a problem; or a module.",
    .takes = CLI_SET(CLI_OPT_PROBLEM) | CLI_SET(CLI_OPT_DIRECTION) | CLI_SET(CLI_OPT_MODULE) |
             CLI_SET_ACTIVATION | CLI_SET_RUN,
    .run = info,
};
