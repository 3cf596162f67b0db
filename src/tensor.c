/* tensor: checks of the caller's tensors: type, shape, address range, overlap.
 * SPDX-License-Identifier: MIT */
#include "tensor.h"
#include "error.h"

#include <string.h>

convt3d_tensor convt3d_tensor_dense(void *data, convt3d_dtype dtype, int32_t rank,
                                    const int64_t *size) {
    convt3d_tensor tensor;
    memset(&tensor, 0, sizeof tensor);
    tensor.data = data;
    tensor.dtype = dtype;
    tensor.rank = rank;
    if (!size || rank < 1 || rank > CONVT3D_MAX_RANK) return tensor;
    int64_t stride = 1;
    for (int32_t i = rank - 1; i >= 0; i--) {
        tensor.size[i] = size[i];
        tensor.stride[i] = stride;
        /* A stride that overflows belongs to a shape that every call refuses. */
        if (size[i] > 0 && __builtin_mul_overflow(stride, size[i], &stride)) stride = INT64_MAX;
    }
    return tensor;
}

static const char *axis_label(convt3d_role role, int axis) {
    static const char *const data[5] = {"batch", "channels", "depth", "height", "width"};
    static const char *const weight[5] = {"in_channels", "out_channels/groups", "kernel depth",
                                          "kernel height", "kernel width"};
    return role == CONVT3D_ROLE_BIAS ? "out_channels"
                                     : (role == CONVT3D_ROLE_DATA ? data : weight)[axis];
}

static convt3d_status check_rank(const convt3d_tensor *t, const char *name, convt3d_role role,
                                 const int64_t *shape, int *skip, convt3d_error *err) {
    *skip = 0;
    if (role == CONVT3D_ROLE_BIAS) {
        if (t->rank == 1) return CONVT3D_OK;
        return convt3d_fail(err, CONVT3D_SHAPE, "%s has %d axes, but must have 1", name, t->rank);
    }
    if (t->rank == 5) return CONVT3D_OK;
    if (role == CONVT3D_ROLE_WEIGHT)
        return convt3d_fail(err, CONVT3D_SHAPE,
                            "%s has %d axes, but must have 5 (in_channels, out_channels/groups, "
                            "kD, kH, kW)",
                            name, t->rank);
    if (t->rank == 4 && shape[0] == 1) {
        *skip = 1;
        return CONVT3D_OK;
    }
    return convt3d_fail(err, CONVT3D_SHAPE, "%s has %d axes, but must have 5 (N, C, D, H, W)%s",
                        name, t->rank, shape[0] == 1 ? " or 4 (C, D, H, W)" : "");
}

static convt3d_status check_shape(const convt3d_view *v, convt3d_role role, const int64_t *shape,
                                  int axes, convt3d_error *err) {
    for (int i = 0; i < axes; i++) {
        if (v->size[i] == shape[i]) continue;
        int swapped =
            role == CONVT3D_ROLE_WEIGHT && v->size[0] == shape[1] && v->size[1] == shape[0];
        return convt3d_fail(
            err, CONVT3D_SHAPE, "%s has size %lld on its %s axis, but must have %lld%s", v->name,
            (long long)v->size[i], axis_label(role, i), (long long)shape[i],
            swapped ? "; it looks like a Conv3d weight (out, in, ...): this layer's "
                      "is (in, out/groups, ...), so swap its first two axes"
                    : "");
    }
    return CONVT3D_OK;
}

/* The byte range that the view touches, checked against wrap-around. */
static convt3d_status find_range(convt3d_view *v, size_t element, convt3d_error *err) {
    int64_t low = 0, high = 0;
    for (int i = 0; i < 5; i++) {
        int64_t span;
        if (v->size[i] == 0) {
            v->low = v->high = (uintptr_t)v->data;
            return CONVT3D_OK;
        }
        if (v->size[i] == 1) v->stride[i] = 0;
        if (__builtin_mul_overflow(v->size[i] - 1, v->stride[i], &span) ||
            __builtin_add_overflow(span < 0 ? low : high, span, span < 0 ? &low : &high))
            goto overflow;
    }
    int64_t bytes;
    if (__builtin_mul_overflow(low, (int64_t)element, &low) ||
        __builtin_add_overflow(high, 1, &high) ||
        __builtin_mul_overflow(high, (int64_t)element, &high) ||
        __builtin_sub_overflow(high, low, &bytes))
        goto overflow;
    if (!v->data) return convt3d_fail(err, CONVT3D_ARG, "%s.data is NULL", v->name);
    uintptr_t base = (uintptr_t)v->data;
    v->low = base + (uintptr_t)low;
    v->high = base + (uintptr_t)high;
    if (v->low > base || v->high <= base) goto overflow;
    return CONVT3D_OK;
overflow:
    return convt3d_fail(err, CONVT3D_OVERFLOW, "%s has strides that leave the address space",
                        v->name);
}

convt3d_status convt3d_view_check(const convt3d_tensor *t, const char *name, convt3d_role role,
                                  convt3d_dtype dtype, int or_float, const int64_t *shape,
                                  convt3d_view *view, convt3d_error *err) {
    if (!t) return convt3d_fail(err, CONVT3D_ARG, "%s is NULL", name);
    or_float = or_float && convt3d_dtype_size(dtype) < sizeof(float);
    if (t->dtype != dtype && !(or_float && t->dtype == CONVT3D_FLOAT32)) {
        const char *its = convt3d_dtype_name(t->dtype);
        return convt3d_fail(err, CONVT3D_DTYPE, "%s is %s (%d), but the problem's dtype is %s%s",
                            name, its ? its : "an unknown dtype", (int)t->dtype,
                            convt3d_dtype_name(dtype),
                            or_float ? ": it must be of that, or float32" : "");
    }
    int skip;
    convt3d_status status = check_rank(t, name, role, shape, &skip, err);
    if (status) return status;
    view->data = t->data;
    view->dtype = t->dtype;
    view->name = name;
    for (int i = 0; i < 5; i++) {
        int from = i - skip;
        int there = from >= 0 && from < t->rank;
        view->size[i] = there ? t->size[from] : 1;
        view->stride[i] = there ? t->stride[from] : 0;
    }
    status = check_shape(view, role, shape, role == CONVT3D_ROLE_BIAS ? 1 : 5, err);
    return status ? status : find_range(view, convt3d_dtype_size(t->dtype), err);
}

/* Sufficient and cheap: in order of magnitude, each stride must step over
 * everything that the smaller ones span. */
convt3d_status convt3d_view_check_output(const convt3d_view *v, convt3d_error *err) {
    int64_t stride[5], size[5];
    int count = 0;
    if (v->low == v->high) return CONVT3D_OK;
    for (int i = 0; i < 5; i++) {
        if (v->size[i] == 1) continue;
        int64_t s = v->stride[i] < 0 ? -v->stride[i] : v->stride[i];
        int j = count++;
        for (; j > 0 && stride[j - 1] > s; j--) {
            stride[j] = stride[j - 1];
            size[j] = size[j - 1];
        }
        stride[j] = s;
        size[j] = v->size[i];
    }
    int64_t span = 1; /* elements spanned so far; can't overflow: find_range() passed */
    for (int j = 0; j < count; j++) {
        if (stride[j] < span)
            return convt3d_fail(err, CONVT3D_ARG,
                                "%s overlaps itself: a stride of %lld elements steps over fewer "
                                "than the %lld that its smaller axes span",
                                v->name, (long long)stride[j], (long long)span);
        span += (size[j] - 1) * stride[j];
    }
    return CONVT3D_OK;
}

convt3d_status convt3d_view_check_apart(const convt3d_view *output, const convt3d_view *other,
                                        convt3d_error *err) {
    if (output->low < other->high && other->low < output->high && output->low != output->high &&
        other->low != other->high)
        return convt3d_fail(err, CONVT3D_ARG, "%s overlaps %s in memory", output->name,
                            other->name);
    return CONVT3D_OK;
}
