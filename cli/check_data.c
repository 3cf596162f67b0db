/* check_data: the problems and tensors of the self-test.
 * SPDX-License-Identifier: MIT */
#include "check.h"

#include <math.h>
#include <stdlib.h>

/* splitmix64: any seed will do, and it is the same everywhere. */
uint64_t check_random(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int64_t between(uint64_t *state, int64_t least, int64_t most) {
    return least + (int64_t)(check_random(state) % (uint64_t)(most - least + 1));
}

/* Mostly small; now and then around the widths of vectors and tiles, where
 * kernels have their seams. */
static int64_t pick_channels(uint64_t *state) {
    static const int64_t seams[] = {7, 8, 11, 12, 13, 15, 16, 17, 31, 33};
    if (between(state, 0, 3)) return between(state, 1, 5);
    return seams[between(state, 0, (int64_t)(sizeof(seams) / sizeof(seams[0])) - 1)];
}

static void pick(uint64_t *state, convt3d_problem *p) {
    p->batch = between(state, 1, 3);
    p->groups = between(state, 0, 2) ? 1 : between(state, 2, 6);
    p->in_channels = p->groups * pick_channels(state);
    p->out_channels = p->groups * pick_channels(state);
    p->padding_mode = (convt3d_padding_mode)between(state, 0, 3);
    for (int a = 0; a < 3; a++) {
        p->input_size[a] = between(state, 1, a == 2 && between(state, 0, 2) == 0 ? 70 : 7);
        p->kernel_size[a] = between(state, 1, 5);
        p->stride[a] = between(state, 1, 4);
        p->dilation[a] = between(state, 0, 2) ? 1 : between(state, 2, 4);
        p->padding_before[a] = between(state, 0, 4);
        p->padding_after[a] = between(state, 0, 1) ? p->padding_before[a] : between(state, 0, 4);
        int64_t most = p->stride[a] > p->dilation[a] ? p->stride[a] : p->dilation[a];
        p->output_padding[a] = between(state, 0, most - 1);
    }
}

static int64_t count_products(const convt3d_problem *p) {
    int64_t products = p->batch * p->in_channels * (p->out_channels / p->groups);
    for (int a = 0; a < 3; a++) products *= p->input_size[a] * p->kernel_size[a];
    return products;
}

/* How large sums may become: all integers up to there are exact in what adds them,
 * and finite in float16, the data themselves too. */
static double exact_sums(convt3d_dtype dtype) {
    switch (dtype) {
    case CONVT3D_FLOAT64:
        return 0x1p50;
    case CONVT3D_FLOAT16:
        return 0x1p15;
    default:
        return 0x1p23;
    }
}

void check_problem(uint64_t *state, convt3d_dtype dtype, convt3d_problem *problem, int64_t *limit) {
    enum {
        MOST_PRODUCTS = 300000
    };
    int64_t shape[5], outputs, products;
    do {
        convt3d_problem_init(problem);
        problem->dtype = dtype;
        pick(state, problem);
        products = count_products(problem);
    } while (products > MOST_PRODUCTS ||
             convt3d_problem_output_shape(problem, shape, NULL) != CONVT3D_OK);
    /* No sum of any direction has more terms than there are products, outputs
     * (a bias gradient adds those) and one more for the bias. */
    outputs = shape[0] * shape[2] * shape[3] * shape[4];
    double exact = exact_sums(dtype);
    *limit = (int64_t)sqrt(exact / (double)(products + outputs + 1));
    if (*limit < 1) *limit = 1;
    if (dtype == CONVT3D_BFLOAT16 && *limit > 256) *limit = 256; /* its integers without gaps */
}

static int64_t count_elements(const convt3d_tensor *tensor) {
    int64_t count = 1;
    for (int i = 0; i < tensor->rank; i++) count *= tensor->size[i];
    return count;
}

static void *allocate(const convt3d_tensor *tensor) {
    return malloc((size_t)count_elements(tensor) * convt3d_dtype_size(tensor->dtype));
}

convt3d_tensor check_tensor(uint64_t *state, convt3d_dtype dtype, int rank, const int64_t *size) {
    convt3d_tensor tensor = convt3d_tensor_dense(NULL, dtype, rank, size);
    int order[CONVT3D_MAX_RANK];
    int64_t step = 1;
    /* Half of them dense in C order, as most callers have them. */
    int plain = (int)between(state, 0, 1);
    for (int i = 0; i < rank; i++) {
        int j = (int)between(state, 0, i);
        order[i] = order[j];
        order[j] = i;
    }
    for (int i = 0; i < rank; i++) {
        int axis = plain ? rank - 1 - i : order[i];
        tensor.stride[axis] = step;
        step *= size[axis];
    }
    tensor.data = allocate(&tensor);
    return tensor;
}

convt3d_tensor check_tensor_like(const convt3d_tensor *tensor) {
    convt3d_tensor copy = *tensor;
    copy.data = allocate(tensor);
    return copy;
}

static void *place(const convt3d_tensor *tensor, int64_t index) {
    return (char *)tensor->data + index * (int64_t)convt3d_dtype_size(tensor->dtype);
}

static void put(const convt3d_tensor *tensor, int64_t index, double value) {
    convt3d_convert(place(tensor, index), tensor->dtype, &value, CONVT3D_FLOAT64, 1, NULL);
}

double check_element(const convt3d_tensor *tensor, int64_t index) {
    double value = 0;
    convt3d_convert(&value, CONVT3D_FLOAT64, place(tensor, index), tensor->dtype, 1, NULL);
    return value;
}

void check_fill_integers(uint64_t *state, const convt3d_tensor *tensor, int64_t limit) {
    int64_t count = count_elements(tensor);
    for (int64_t i = 0; i < count; i++) put(tensor, i, (double)between(state, -limit, limit));
}

void check_fill_nan(const convt3d_tensor *tensor) {
    int64_t count = count_elements(tensor);
    for (int64_t i = 0; i < count; i++) put(tensor, i, (double)NAN);
}

int64_t check_compare(const convt3d_tensor *a, const convt3d_tensor *b) {
    int64_t count = count_elements(a);
    for (int64_t i = 0; i < count; i++)
        if (!(check_element(a, i) == check_element(b, i))) return i;
    return -1;
}

int64_t check_nonzero(const convt3d_tensor *tensor) {
    int64_t count = count_elements(tensor), nonzero = 0;
    for (int64_t i = 0; i < count; i++) nonzero += check_element(tensor, i) != 0;
    return nonzero;
}
