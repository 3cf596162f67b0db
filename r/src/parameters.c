/* parameters: initial values, and the stream of random numbers behind them.
 * SPDX-License-Identifier: MIT */
#include "glue.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

static convt3d_generator *generator;

void glue_forget_generator(void) {
    convt3d_generator_free(generator);
    generator = NULL;
}

/* Nobody has seeded it: the clock and the process do. */
static convt3d_generator *the_generator(void) {
    convt3d_error err;
    uint64_t seed = (uint64_t)time(NULL) * UINT64_C(2654435761) ^ (uint64_t)getpid();
    if (!generator) glue_check(convt3d_generator_create(seed, &generator, &err), &err);
    return generator;
}

/* As torch.manual_seed(seed). */
SEXP glue_r_seed(SEXP seed) {
    convt3d_generator_seed(the_generator(), (uint64_t)(int64_t)Rf_asReal(seed));
    return R_NilValue;
}

/* 'count' normal values. */
SEXP glue_r_normal(SEXP dtype, SEXP count) {
    convt3d_dtype type = glue_dtype(dtype);
    int64_t n = (int64_t)Rf_asReal(count);
    convt3d_error err;
    SEXP data = PROTECT(glue_storage(type, n));
    void *at = type == CONVT3D_FLOAT32 ? (void *)RAW(data) : (void *)REAL(data);
    glue_check(convt3d_generator_normal(the_generator(), at, type, n, &err), &err);
    UNPROTECT(1);
    return data;
}

static SEXP copy_of(const convt3d_tensor *tensor) {
    int64_t count = glue_count(tensor);
    SEXP data = glue_storage(tensor->dtype, count);
    size_t element = tensor->dtype == CONVT3D_FLOAT32 ? 4 : 8;
    void *at = tensor->dtype == CONVT3D_FLOAT32 ? (void *)RAW(data) : (void *)REAL(data);
    memcpy(at, tensor->data, (size_t)count * element);
    return data;
}

/* What one call of glue_r_fill() is about. */
typedef struct filling {
    convt3d_problem problem;
    convt3d_fill fill;
    convt3d_module *module;
} filling;

static SEXP fill_and_copy(void *data) {
    filling *f = data;
    convt3d_error err;
    SEXP result = PROTECT(Rf_allocVector(VECSXP, 2));
    glue_check(convt3d_module_create(&f->problem, NULL, &f->module, &err), &err);
    glue_check(convt3d_module_fill_next(f->module, f->fill, the_generator(), &err), &err);
    SET_VECTOR_ELT(result, 0, copy_of(convt3d_module_weight(f->module)));
    if (f->problem.bias) SET_VECTOR_ELT(result, 1, copy_of(convt3d_module_bias(f->module)));
    UNPROTECT(1);
    return result;
}

static void free_module(void *data) {
    convt3d_module_free(((filling *)data)->module);
}

/* list(weight, bias) of a new layer; fill is "default", "trilinear" or "icnr".
 * R may jump out of it when it allocates.  A finalizer would free the module too, but
 * could run when this code has been unloaded. */
SEXP glue_r_fill(SEXP layer, SEXP dtype, SEXP bias, SEXP fill) {
    filling f = {glue_problem(layer), CONVT3D_FILL_DEFAULT, NULL};
    const char *name = CHAR(STRING_ELT(fill, 0));
    if (!strcmp(name, "trilinear")) f.fill = CONVT3D_FILL_TRILINEAR;
    if (!strcmp(name, "icnr")) f.fill = CONVT3D_FILL_ICNR;
    f.problem.dtype = glue_dtype(dtype);
    f.problem.bias = Rf_asLogical(bias);
    return R_ExecWithCleanup(fill_and_copy, &f, free_module, &f);
}
