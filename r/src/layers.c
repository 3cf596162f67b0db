/* layers: forward and the gradients, on views that R has made.
 * SPDX-License-Identifier: MIT */
#include "glue.h"

#include <setjmp.h>

void glue_check(convt3d_status status, const convt3d_error *err) {
    if (status != CONVT3D_OK) Rf_errorcall(R_NilValue, "%s", err->text);
}

/* ---- Interrupts ----------------------------------------------------------------- */

/* The library asks about ten times a second whether to go on.  R's answer may be a
 * jump: for an interrupt, or for a time limit's error.  It is held back until the
 * library has returned, which it mustn't cross. */
typedef struct watch {
    jmp_buf back;
    SEXP jump; /* R's own, to be continued */
    int stopped;
} watch;

static SEXP look(void *unused) {
    (void)unused;
    R_CheckUserInterrupt();
    return R_NilValue;
}

static void hold_back(void *data, Rboolean jumps) {
    if (jumps) longjmp(((watch *)data)->back, 1);
}

static int asked_to_stop(void *data, double done) {
    watch *w = data;
    (void)done;
    if (w->stopped) return 1;
    if (setjmp(w->back)) {
        w->stopped = 1;
        return 1;
    }
    R_UnwindProtect(look, NULL, hold_back, w, w->jump);
    return 0;
}

/* A run that asks; 'w->jump' is protected until finish(). */
static convt3d_run watched_run(watch *w) {
    convt3d_run run;
    w->jump = PROTECT(R_MakeUnwindCont());
    w->stopped = 0;
    convt3d_run_init(&run);
    run.poll = asked_to_stop;
    run.poll_data = w;
    return run;
}

static SEXP finish(const watch *w, convt3d_status status, const convt3d_error *err) {
    if (w->stopped) R_ContinueUnwind(w->jump);
    glue_check(status, err);
    UNPROTECT(1);
    return R_NilValue;
}

/* ---- Shapes ------------------------------------------------------------------------ */

static void set_sizes(convt3d_problem *p, int rank, const int64_t *size) {
    p->batch = rank == 5 ? size[0] : 1;
    for (int a = 0; a < 3; a++) p->input_size[a] = size[rank - 3 + a];
}

/* The problem that a call poses: its sizes from the input's (or its gradient's)
 * shape, its output_padding from the output's. */
static convt3d_problem problem_of_call(SEXP layer, const convt3d_tensor *input,
                                       const convt3d_tensor *output) {
    convt3d_problem p = glue_problem(layer);
    convt3d_error err;
    p.dtype = input->dtype;
    set_sizes(&p, input->rank, input->size);
    convt3d_status status =
        convt3d_problem_set_output_size(&p, output->size + output->rank - 3, &err);
    /* A fresh output has a legal size; what hasn't is a gradient that was given. */
    if (status == CONVT3D_SHAPE) Rf_errorcall(R_NilValue, "grad_output doesn't fit: %s", err.text);
    glue_check(status, &err);
    return p;
}

/* The output's shape for an input of this one (4 or 5 sizes), as doubles.
 * 'output_size' is NULL or three sizes. */
SEXP glue_r_output_shape(SEXP layer, SEXP input_shape, SEXP output_size) {
    convt3d_problem p = glue_problem(layer);
    convt3d_error err;
    int rank = (int)Rf_xlength(input_shape);
    int64_t size[5], wanted[3], shape[5];
    for (int a = 0; a < rank; a++) size[a] = (int64_t)REAL(input_shape)[a];
    set_sizes(&p, rank, size);
    if (!Rf_isNull(output_size)) {
        for (int a = 0; a < 3; a++) wanted[a] = (int64_t)REAL(output_size)[a];
        glue_check(convt3d_problem_set_output_size(&p, wanted, &err), &err);
    }
    glue_check(convt3d_problem_output_shape(&p, shape, &err), &err);
    SEXP result = PROTECT(Rf_allocVector(REALSXP, rank));
    for (int a = 0; a < rank; a++) REAL(result)[a] = (double)shape[a + 5 - rank];
    UNPROTECT(1);
    return result;
}

/* ---- Calls ------------------------------------------------------------------------- */

SEXP glue_r_forward(SEXP layer, SEXP input, SEXP weight, SEXP bias, SEXP output, SEXP threads) {
    convt3d_tensor x = glue_tensor(input), w = glue_tensor(weight), y = glue_tensor(output), b;
    int with_bias = !Rf_isNull(bias);
    if (with_bias) b = glue_tensor(bias);
    convt3d_problem p = problem_of_call(layer, &x, &y);
    const convt3d_plan *plan =
        glue_plan(&p, CONVT3D_FORWARD, Rf_asInteger(threads), glue_precision(layer));
    watch stop;
    convt3d_run run = watched_run(&stop);
    convt3d_error err;
    convt3d_status status =
        convt3d_forward(plan, &x, &w, NULL, with_bias ? &b : NULL, &y, &run, &err);
    return finish(&stop, status, &err);
}

SEXP glue_r_backward_input(SEXP layer, SEXP grad_output, SEXP weight, SEXP grad_input,
                           SEXP threads) {
    convt3d_tensor dy = glue_tensor(grad_output), w = glue_tensor(weight);
    convt3d_tensor dx = glue_tensor(grad_input);
    convt3d_problem p = problem_of_call(layer, &dx, &dy);
    const convt3d_plan *plan =
        glue_plan(&p, CONVT3D_BACKWARD_INPUT, Rf_asInteger(threads), glue_precision(layer));
    watch stop;
    convt3d_run run = watched_run(&stop);
    convt3d_error err;
    convt3d_status status =
        convt3d_backward_input(plan, &dy, &w, NULL, &dx, CONVT3D_OVERWRITE, &run, &err);
    return finish(&stop, status, &err);
}

SEXP glue_r_backward_weight(SEXP layer, SEXP input, SEXP grad_output, SEXP grad_weight,
                            SEXP grad_bias, SEXP threads) {
    convt3d_tensor x = glue_tensor(input), dy = glue_tensor(grad_output);
    convt3d_tensor dw = glue_tensor(grad_weight), db;
    int with_bias = !Rf_isNull(grad_bias);
    if (with_bias) db = glue_tensor(grad_bias);
    convt3d_problem p = problem_of_call(layer, &x, &dy);
    const convt3d_plan *plan =
        glue_plan(&p, CONVT3D_BACKWARD_WEIGHT, Rf_asInteger(threads), glue_precision(layer));
    watch stop;
    convt3d_run run = watched_run(&stop);
    convt3d_error err;
    convt3d_status status = convt3d_backward_weight(plan, &x, &dy, &dw, with_bias ? &db : NULL,
                                                    CONVT3D_OVERWRITE, &run, &err);
    return finish(&stop, status, &err);
}

/* ---- This machine -------------------------------------------------------------------- */

/* list(version, cpu, isa, cpus) */
SEXP glue_r_info(void) {
    static const char *const names[] = {"version", "cpu", "isa", "cpus", ""};
    char cpu[128];
    const char *isa = "";
    convt3d_cpu_name(cpu, sizeof cpu);
    for (int i = 0; convt3d_isa_name(i) && !*isa; i++) {
        if (convt3d_isa_supported(convt3d_isa_name(i))) isa = convt3d_isa_name(i);
    }
    SEXP info = PROTECT(Rf_mkNamed(VECSXP, (const char **)names));
    SET_VECTOR_ELT(info, 0, Rf_mkString(convt3d_version()));
    SET_VECTOR_ELT(info, 1, Rf_mkString(cpu));
    SET_VECTOR_ELT(info, 2, Rf_mkString(isa));
    SET_VECTOR_ELT(info, 3, Rf_ScalarInteger(convt3d_cpu_count()));
    UNPROTECT(1);
    return info;
}
