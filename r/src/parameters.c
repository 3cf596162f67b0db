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

static void free_module(SEXP holder) {
    convt3d_module_free(R_ExternalPtrAddr(holder));
    R_ClearExternalPtr(holder);
}

/* list(weight, bias) of a new layer; fill is "default", "trilinear" or "icnr".
 * The module is held by R while R allocates, which may jump. */
SEXP glue_r_fill(SEXP layer, SEXP dtype, SEXP bias, SEXP fill) {
    convt3d_problem p = glue_problem(layer);
    convt3d_module *module;
    convt3d_error err;
    const char *name = CHAR(STRING_ELT(fill, 0));
    convt3d_fill how = !strcmp(name, "trilinear") ? CONVT3D_FILL_TRILINEAR
                       : !strcmp(name, "icnr")    ? CONVT3D_FILL_ICNR
                                                  : CONVT3D_FILL_DEFAULT;
    p.dtype = glue_dtype(dtype);
    p.bias = Rf_asLogical(bias);
    SEXP result = PROTECT(Rf_allocVector(VECSXP, 2));
    SEXP holder = PROTECT(R_MakeExternalPtr(NULL, R_NilValue, R_NilValue));
    R_RegisterCFinalizer(holder, free_module);
    glue_check(convt3d_module_create(&p, NULL, &module, &err), &err);
    R_SetExternalPtrAddr(holder, module);
    glue_check(convt3d_module_fill_next(module, how, the_generator(), &err), &err);
    SET_VECTOR_ELT(result, 0, copy_of(convt3d_module_weight(module)));
    if (p.bias) SET_VECTOR_ELT(result, 1, copy_of(convt3d_module_bias(module)));
    free_module(holder);
    UNPROTECT(2);
    return result;
}
