/* problem_string: problems as text, such as n1ci64co32i24x32x64k3s2p1op1nb:"x".
 * SPDX-License-Identifier: MIT */
#include "error.h"
#include "problem.h"

#include <string.h>

enum {
    FIELD_SCALAR,
    FIELD_AXES,
    FIELD_PADDING,
    FIELD_NO_BIAS,
    FIELD_DTYPE,
    FIELD_MODE
};

/* Longest key first where one begins another ("nb" before "n"). */
static const struct field {
    const char *key;
    int kind;
    int required;
    size_t offset; /* FIELD_DTYPE: the dtype */
} fields[] = {
    {"nb", FIELD_NO_BIAS, 0, 0},
    {"f64", FIELD_DTYPE, 0, CONVT3D_FLOAT64},
    {"bf16", FIELD_DTYPE, 0, CONVT3D_BFLOAT16},
    {"f16", FIELD_DTYPE, 0, CONVT3D_FLOAT16},
    {"op", FIELD_AXES, 0, offsetof(convt3d_problem, output_padding)},
    {"ci", FIELD_SCALAR, 1, offsetof(convt3d_problem, in_channels)},
    {"co", FIELD_SCALAR, 1, offsetof(convt3d_problem, out_channels)},
    {"n", FIELD_SCALAR, 0, offsetof(convt3d_problem, batch)},
    {"g", FIELD_SCALAR, 0, offsetof(convt3d_problem, groups)},
    {"i", FIELD_AXES, 1, offsetof(convt3d_problem, input_size)},
    {"k", FIELD_AXES, 1, offsetof(convt3d_problem, kernel_size)},
    {"s", FIELD_AXES, 0, offsetof(convt3d_problem, stride)},
    {"d", FIELD_AXES, 0, offsetof(convt3d_problem, dilation)},
    {"p", FIELD_PADDING, 0, 0},
    {"m", FIELD_MODE, 0, 0},
};
#define FIELDS ((int)(sizeof fields / sizeof *fields))

/* Reads "12" or "1x2x3" (up to 'most' values); 0 on bad digits or overflow. */
static int read_values(const char **text, int64_t *values, int most) {
    const char *s = *text;
    int count = 0;
    for (;;) {
        int64_t value = 0;
        if (*s < '0' || *s > '9' || count == most) return 0;
        for (; *s >= '0' && *s <= '9'; s++) {
            if (__builtin_mul_overflow(value, 10, &value) ||
                __builtin_add_overflow(value, *s - '0', &value))
                return 0;
        }
        values[count++] = value;
        if (*s != 'x') break;
        s++;
    }
    *text = s;
    return count;
}

static int read_field(const struct field *f, const char **text, convt3d_problem *p) {
    int64_t v[6];
    int64_t *to = (int64_t *)((char *)p + f->offset);
    int count;
    switch (f->kind) {
    case FIELD_SCALAR:
        return read_values(text, to, 1) == 1;
    case FIELD_AXES:
        count = read_values(text, v, 3);
        for (int a = 0; a < 3; a++) to[a] = v[count == 3 ? a : 0];
        return count == 1 || count == 3;
    case FIELD_PADDING:
        count = read_values(text, v, 6);
        for (int a = 0; a < 3; a++) {
            p->padding_before[a] = v[count == 6 ? 2 * a : count == 3 ? a : 0];
            p->padding_after[a] = count == 6 ? v[2 * a + 1] : p->padding_before[a];
        }
        return count == 1 || count == 3 || count == 6;
    case FIELD_MODE:
        for (int m = 0; m < 4; m++) {
            const char *name = convt3d_padding_mode_name((convt3d_padding_mode)m);
            if (strncmp(*text, name, strlen(name)) == 0) {
                p->padding_mode = (convt3d_padding_mode)m;
                *text += strlen(name);
                return 1;
            }
        }
        return 0;
    case FIELD_NO_BIAS:
        p->bias = 0;
        return 1;
    default:
        p->dtype = (convt3d_dtype)f->offset;
        return 1;
    }
}

/* The bytes between the quotes of :"name", which must end the string; -1 if it
 * is none. */
static ptrdiff_t name_length(const char *s) {
    size_t length = strlen(s);
    if (length < 3 || s[1] != '"' || strchr(s + 2, '"') != s + length - 1) return -1;
    return (ptrdiff_t)length - 3;
}

convt3d_status convt3d_problem_parse(const char *text, convt3d_problem *problem, char *name,
                                     size_t name_size, convt3d_error *err) {
    if (!text || !problem)
        return convt3d_fail(err, CONVT3D_ARG, "%s is NULL", text ? "problem" : "text");
    convt3d_problem p;
    int seen[FIELDS] = {0}, dtypes = 0;
    const char *s = text;
    convt3d_problem_init(&p);
    while (*s && *s != ':') {
        int f = 0;
        while (f < FIELDS && strncmp(s, fields[f].key, strlen(fields[f].key)) != 0) f++;
        if (f == FIELDS)
            return convt3d_fail(err, CONVT3D_ARG,
                                "problem string: '%.20s' at byte %lld is no field; fields are n, "
                                "ci, co, g, i, k, s, p, op, d, m, nb, f64, bf16 and f16",
                                s, (long long)(s - text));
        if (seen[f]++)
            return convt3d_fail(err, CONVT3D_ARG, "problem string: field %s is given twice",
                                fields[f].key);
        if (fields[f].kind == FIELD_DTYPE && dtypes++)
            return convt3d_fail(err, CONVT3D_ARG, "problem string: %s is a second dtype",
                                fields[f].key);
        s += strlen(fields[f].key);
        if (!read_field(&fields[f], &s, &p))
            return convt3d_fail(err, CONVT3D_ARG,
                                "problem string: field %s has a value that can't be read at byte "
                                "%lld ('%.20s'): one integer, or three (padding: also six) with x "
                                "between them; m takes a padding mode",
                                fields[f].key, (long long)(s - text), s);
    }
    ptrdiff_t length = *s ? name_length(s) : 0;
    if (length < 0)
        return convt3d_fail(err, CONVT3D_ARG,
                            "problem string: '%.20s' is no name; it must be :\"name\"", s);
    for (int f = 0; f < FIELDS; f++) {
        if (fields[f].required && !seen[f])
            return convt3d_fail(err, CONVT3D_ARG, "problem string: field %s is missing",
                                fields[f].key);
    }
    convt3d_status status = convt3d_problem_check(&p, NULL, err);
    if (status) return status;
    *problem = p;
    if (name && name_size) {
        size_t n = (size_t)length < name_size ? (size_t)length : name_size - 1;
        memcpy(name, *s ? s + 2 : s, n);
        name[n] = 0;
    }
    return CONVT3D_OK;
}

static void add_axes(convt3d_text *text, const char *key, const int64_t v[3], int64_t standard) {
    if (v[0] == v[1] && v[1] == v[2]) {
        if (v[0] != standard) convt3d_text_add(text, "%s%lld", key, (long long)v[0]);
    } else {
        convt3d_text_add(text, "%s%lldx%lldx%lld", key, (long long)v[0], (long long)v[1],
                         (long long)v[2]);
    }
}

size_t convt3d_problem_format(const convt3d_problem *p, char *buffer, size_t size) {
    convt3d_text text = {buffer, buffer ? size : 0, 0};
    convt3d_text_add(&text, "%s", ""); /* the final zero, whatever follows */
    if (!p) return 0;
    if (p->batch != 1) convt3d_text_add(&text, "n%lld", (long long)p->batch);
    convt3d_text_add(&text, "ci%lldco%lld", (long long)p->in_channels, (long long)p->out_channels);
    if (p->groups != 1) convt3d_text_add(&text, "g%lld", (long long)p->groups);
    add_axes(&text, "i", p->input_size, -1);
    add_axes(&text, "k", p->kernel_size, -1);
    add_axes(&text, "s", p->stride, 1);
    if (memcmp(p->padding_before, p->padding_after, sizeof p->padding_before) == 0) {
        add_axes(&text, "p", p->padding_before, 0);
    } else {
        convt3d_text_add(&text, "p");
        for (int a = 0; a < 3; a++)
            convt3d_text_add(&text, "%s%lldx%lld", a ? "x" : "", (long long)p->padding_before[a],
                             (long long)p->padding_after[a]);
    }
    add_axes(&text, "op", p->output_padding, 0);
    add_axes(&text, "d", p->dilation, 1);
    if (p->padding_mode != CONVT3D_ZEROS && convt3d_padding_mode_name(p->padding_mode))
        convt3d_text_add(&text, "m%s", convt3d_padding_mode_name(p->padding_mode));
    if (!p->bias) convt3d_text_add(&text, "nb");
    for (int f = 0; f < FIELDS; f++) {
        if (fields[f].kind == FIELD_DTYPE && p->dtype == (convt3d_dtype)fields[f].offset)
            convt3d_text_add(&text, "%s", fields[f].key);
    }
    return text.length;
}
