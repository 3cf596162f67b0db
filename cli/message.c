/* message: the one line on stderr that says what went wrong.
 * SPDX-License-Identifier: MIT */
#include "cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *command_name = "convt3d";

void cli_message_command(const char *name) {
    command_name = name;
}

int cli_usage(const char *format, ...) {
    va_list values;
    fputs("convt3d: ", stderr);
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    /* As GNU programs do. */
    fprintf(stderr, "\nTry `%s --help' or `%s --usage' for more information.\n", command_name,
            command_name);
    return CLI_USAGE;
}

int cli_fail(const char *format, ...) {
    va_list values;
    fputs("convt3d: ", stderr);
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fputc('\n', stderr);
    return CLI_FAILED;
}

int cli_fail_status(const convt3d_error *err) {
    /* After a signal the reason is the signal, whatever call noticed it. */
    int signal_number = cli_stopped();
    if (signal_number != 0) {
        cli_fail("interrupted");
        return 128 + signal_number;
    }
    return cli_fail("%s", err->text);
}

int cli_usage_status(const convt3d_error *err) {
    switch (err->status) {
    case CONVT3D_ARG:
    case CONVT3D_SHAPE:
    case CONVT3D_DTYPE:
    case CONVT3D_OVERFLOW:
        return cli_usage("%s", err->text);
    default:
        return cli_fail_status(err);
    }
}

int cli_finish(int status) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return status;
    return cli_fail("standard output: %s", strerror(errno));
}
