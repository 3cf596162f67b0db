/* progress: the bar on a terminal, and stopping cleanly when a signal asks.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "cli.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t stop_signal;
static volatile sig_atomic_t current_phase = CLI_PHASE_LOAD;

/* No more bytes into files: the write in progress fails with EFBIG, and the
 * file layer then removes what it wrote, as after any failed write.  That
 * leaves no half file behind and doesn't wait for the end of a large one. */
static void refuse_writes(void) {
    struct rlimit none = {0, RLIM_INFINITY};
    getrlimit(RLIMIT_FSIZE, &none);
    none.rlim_cur = 0;
    setrlimit(RLIMIT_FSIZE, &none);
}

/* Only calls that are safe in a signal handler; the two above are bare system
 * calls. */
static void on_signal(int number) {
    static const char text[] = "convt3d: interrupted\n";
    if (current_phase == CLI_PHASE_LOAD) {
        ssize_t written = write(STDERR_FILENO, text, sizeof(text) - 1);
        (void)written; /* there is nobody else to tell */
        _exit(128 + number);
    }
    stop_signal = number;
    if (current_phase == CLI_PHASE_SAVE) refuse_writes();
}

void cli_signals_catch(void) {
    struct sigaction action, old;
    const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    for (int i = 0; i < 3; i++) {
        /* nohup and background jobs ignore some: that stays. */
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(numbers[i], &action, NULL);
    }
    action.sa_handler = SIG_IGN; /* so that the write fails in place of a death */
    sigaction(SIGXFSZ, &action, NULL);
}

void cli_phase_enter(cli_phase phase) {
    current_phase = phase;
    /* A signal between the end of the run and here was only noted. */
    if (phase == CLI_PHASE_SAVE && stop_signal) refuse_writes();
}

int cli_stopped(void) {
    return stop_signal;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void draw(cli_progress *progress, double done, double elapsed) {
    enum {
        WIDTH = 30
    };
    char bar[WIDTH + 1];
    for (int i = 0; i < WIDTH; i++) bar[i] = i < done * WIDTH ? '#' : '.';
    bar[WIDTH] = '\0';
    fprintf(stderr, "\r%s [%s] %3.0f %%", progress->label, bar, 100 * done);
    if (done > 0.02) fprintf(stderr, ", %.0f s left ", elapsed * (1 - done) / done);
    fflush(stderr);
    progress->shown = 1;
}

/* Short jobs, and those that don't write to a terminal, show nothing. */
static int poll_run(void *data, double done) {
    cli_progress *progress = data;
    double elapsed = now() - progress->start;
    if (progress->label && elapsed > 1) draw(progress, done, elapsed);
    return stop_signal != 0;
}

void cli_progress_begin(cli_progress *progress, const char *label, convt3d_run *run) {
    progress->label = isatty(STDERR_FILENO) ? label : NULL;
    progress->start = now();
    progress->shown = 0;
    convt3d_run_init(run);
    run->poll = poll_run;
    run->poll_data = progress;
    cli_phase_enter(CLI_PHASE_RUN);
}

void cli_progress_end(cli_progress *progress) {
    if (progress->shown) fputs("\r\033[K", stderr); /* errors get a clean line */
}
