/* views: R's vectors as tensors, and copies from one kind to another.
 * SPDX-License-Identifier: MIT */
#include "glue.h"

#include <stdint.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

enum {
    HUGE_PAGE = 2 << 20
};

/* Shapes are R's to tell; memory beyond the data isn't. */
static void check_length(SEXP data, int rank, const int64_t *size) {
    double count = 1;
    for (int a = 0; a < rank; a++) count *= (double)size[a];
    if ((double)Rf_xlength(data) != count * (TYPEOF(data) == RAWSXP ? 4 : 1))
        Rf_errorcall(R_NilValue, "data of length %.0f can't have a shape of %.0f elements",
                     (double)Rf_xlength(data) / (TYPEOF(data) == RAWSXP ? 4 : 1), count);
}

convt3d_tensor glue_tensor(SEXP view) {
    SEXP data = VECTOR_ELT(view, 0), shape = VECTOR_ELT(view, 1);
    int column_major = Rf_asLogical(VECTOR_ELT(view, 2));
    int64_t size[CONVT3D_MAX_RANK] = {0};
    int rank = (int)Rf_xlength(shape);
    convt3d_dtype dtype = TYPEOF(data) == RAWSXP ? CONVT3D_FLOAT32 : CONVT3D_FLOAT64;
    void *at = dtype == CONVT3D_FLOAT32 ? (void *)RAW(data) : (void *)REAL(data);
    for (int a = 0; a < rank && a < CONVT3D_MAX_RANK; a++) size[a] = (int64_t)REAL(shape)[a];
    convt3d_tensor tensor = convt3d_tensor_dense(at, dtype, rank, size);
    if (column_major && rank <= CONVT3D_MAX_RANK) {
        int64_t step = 1;
        for (int a = 0; a < rank; step *= size[a++]) tensor.stride[a] = step;
    }
    if (rank <= CONVT3D_MAX_RANK) check_length(data, rank, size);
    return tensor;
}

int64_t glue_count(const convt3d_tensor *tensor) {
    int64_t count = 1;
    for (int a = 0; a < tensor->rank; a++) count *= tensor->size[a];
    return count;
}

SEXP glue_storage(convt3d_dtype dtype, int64_t count) {
    int single = dtype == CONVT3D_FLOAT32;
    R_xlen_t length = (R_xlen_t)(single ? 4 * count : count);
    SEXP data = Rf_allocVector(single ? RAWSXP : REALSXP, length);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    /* Fresh memory is mapped page by page as it is first written: with huge pages
     * that is 512 times less often.  Only advice, so a refusal doesn't matter. */
    uintptr_t start = single ? (uintptr_t)RAW(data) : (uintptr_t)REAL(data);
    uintptr_t end = start + (uintptr_t)count * (single ? 4 : 8);
    start = (start + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    if (start < end && end - start >= 2 * HUGE_PAGE)
        (void)madvise((void *)start, end - start, MADV_HUGEPAGE);
#endif
    return data;
}

convt3d_dtype glue_dtype(SEXP dtype) {
    return strcmp(CHAR(STRING_ELT(dtype, 0)), "float32") ? CONVT3D_FLOAT64 : CONVT3D_FLOAT32;
}

/* Fresh memory of this shape; with 'as_array' a double array of these dimensions. */
SEXP glue_r_storage(SEXP dtype, SEXP shape, SEXP as_array) {
    int64_t count = 1;
    for (R_xlen_t a = 0; a < Rf_xlength(shape); a++) count *= (int64_t)REAL(shape)[a];
    SEXP data = PROTECT(glue_storage(glue_dtype(dtype), count));
    if (Rf_asLogical(as_array)) {
        SEXP dim = PROTECT(Rf_coerceVector(shape, INTSXP));
        Rf_setAttrib(data, R_DimSymbol, dim);
        UNPROTECT(1);
    }
    UNPROTECT(1);
    return data;
}

/* ---- Copies ------------------------------------------------------------------ */

static double load(const convt3d_tensor *t, int64_t at) {
    return t->dtype == CONVT3D_FLOAT32 ? (double)((const float *)t->data)[at]
                                       : ((const double *)t->data)[at];
}

static void save(const convt3d_tensor *t, int64_t at, double value) {
    if (t->dtype == CONVT3D_FLOAT32)
        ((float *)t->data)[at] = (float)value;
    else
        ((double *)t->data)[at] = value;
}

/* A block of two axes: both sides' cache lines are used while they are there. */
static void copy_plane(const convt3d_tensor *to, int64_t to_at, const convt3d_tensor *from,
                       int64_t from_at, int a, int b) {
    enum {
        BLOCK = 32
    };
    for (int64_t i0 = 0; i0 < to->size[a]; i0 += BLOCK) {
        int64_t i1 = i0 + BLOCK < to->size[a] ? i0 + BLOCK : to->size[a];
        for (int64_t j0 = 0; j0 < to->size[b]; j0 += BLOCK) {
            int64_t j1 = j0 + BLOCK < to->size[b] ? j0 + BLOCK : to->size[b];
            for (int64_t i = i0; i < i1; i++)
                for (int64_t j = j0; j < j1; j++)
                    save(to, to_at + i * to->stride[a] + j * to->stride[b],
                         load(from, from_at + i * from->stride[a] + j * from->stride[b]));
        }
    }
}

/* Both tensors have five axes here; planes are spanned by the outermost and the
 * innermost, of which one is the fastest for each order of memory. */
static void copy_tensor(const convt3d_tensor *to, const convt3d_tensor *from) {
    if (glue_count(to) == 0) return; /* the other axes may be long */
    for (int64_t i = 0; i < to->size[1]; i++)
        for (int64_t j = 0; j < to->size[2]; j++)
            for (int64_t k = 0; k < to->size[3]; k++)
                copy_plane(to, i * to->stride[1] + j * to->stride[2] + k * to->stride[3], from,
                           i * from->stride[1] + j * from->stride[2] + k * from->stride[3], 0, 4);
}

/* Axes of size 1 between the first axis and the rest, up to five. */
static convt3d_tensor five_axes(convt3d_tensor t) {
    int missing = CONVT3D_MAX_RANK - t.rank;
    for (int a = CONVT3D_MAX_RANK - 1; a >= 0; a--) {
        int source = a == 0 && t.rank > 0 ? 0 : a - missing;
        int there = t.rank > 0 && (a == 0 || source > 0);
        t.size[a] = there ? t.size[source] : 1;
        t.stride[a] = there ? t.stride[source] : 0;
    }
    t.rank = CONVT3D_MAX_RANK;
    return t;
}

/* A view's elements as another dtype and in another order of memory.  Column-major
 * doubles become an array. */
SEXP glue_r_convert(SEXP view, SEXP dtype, SEXP column_major) {
    convt3d_tensor from = glue_tensor(view);
    SEXP shape = VECTOR_ELT(view, 1);
    if (from.rank > CONVT3D_MAX_RANK)
        Rf_errorcall(R_NilValue, "data has %d axes, but must have at most %d", (int)from.rank,
                     CONVT3D_MAX_RANK);
    SEXP data = PROTECT(glue_storage(glue_dtype(dtype), glue_count(&from)));
    SEXP result = PROTECT(Rf_allocVector(VECSXP, 3));
    SET_VECTOR_ELT(result, 0, data);
    SET_VECTOR_ELT(result, 1, shape);
    SET_VECTOR_ELT(result, 2, column_major);
    convt3d_tensor to = five_axes(glue_tensor(result));
    from = five_axes(from);
    copy_tensor(&to, &from);
    if (Rf_asLogical(column_major) && Rf_xlength(shape) > 1)
        Rf_setAttrib(data, R_DimSymbol, PROTECT(Rf_coerceVector(shape, INTSXP)));
    else
        PROTECT(data);
    UNPROTECT(3);
    return data;
}
