/* main: finds the command and hands it its arguments.
 * SPDX-License-Identifier: MIT */
#include "cli.h"

#include <stdio.h>
#include <string.h>

static const cli_command *const commands[] = {&cli_forward, &cli_backward, &cli_init, &cli_shape,
                                              &cli_info,    &cli_check,    &cli_view, &cli_bench};
enum {
    COMMANDS = sizeof(commands) / sizeof(commands[0])
};

static void print_help(void) {
    puts("Usage: convt3d COMMAND [OPTION...]\n"
         "The transposed 3-D convolution layer.\n");
    for (int i = 0; i < COMMANDS; i++)
        printf("  %-9s  %s\n", commands[i]->name, commands[i]->summary);
    puts("\n`convt3d COMMAND --help' lists the options of a command; `man convt3d' explains all.\n"
         "Exit status: 0 success, 1 failure at run time, 2 wrong usage.");
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    cli_signals_catch();
    if (argc < 2) return cli_usage("a command is missing");
    if (strcmp(name, "--help") == 0 || strcmp(name, "-?") == 0) {
        print_help();
        return cli_finish(0);
    }
    if (strcmp(name, "--usage") == 0) {
        puts("Usage: convt3d COMMAND [OPTION...]");
        return cli_finish(0);
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        printf("convt3d %s\n", convt3d_version());
        return cli_finish(0);
    }
    for (int i = 0; i < COMMANDS; i++) {
        cli_args args = {0};
        if (strcmp(name, commands[i]->name) != 0) continue;
        cli_options_parse(commands[i], argc - 1, argv + 1, &args);
        return cli_finish(commands[i]->run(&args));
    }
    return cli_usage("unknown %s '%s'", name[0] == '-' ? "option" : "command", name);
}
