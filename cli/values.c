/* values: numbers and names on the command line, strictly read.
 * SPDX-License-Identifier: MIT */
#include "cli.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const cli_axis[3] = {"depth", "height", "width"};

/* Where value 'index' of a list of 'count' belongs, for messages: an axis with
 * its side for six values, all axes for the one that serves them all, else the
 * last axes of N, C, D, H, W. */
static void place_name(int index, int count, unsigned counts, char *name, size_t size) {
    static const char *const names[5] = {"batch", "channels", "depth", "height", "width"};
    if (count == 6)
        snprintf(name, size, "%s %s is ", cli_axis[index / 2], index % 2 ? "after" : "before");
    else if (count >= 3 && count <= 5)
        snprintf(name, size, "%s is ", names[5 - count + index]);
    else
        snprintf(name, size, "%s", counts & CLI_COUNT(3) ? "depth, height and width are " : "");
}

static int count_values(const char *text) {
    int count = 1;
    for (; *text; text++) count += *text == ',';
    return count;
}

/* strtoll() alone would also take blanks, and the end of one number's text for
 * the whole. */
static int one_integer(const char *text, const char **end, int64_t *value) {
    const char *digits = text + (*text == '-' || *text == '+');
    if (!isdigit((unsigned char)*digits)) return 0;
    char *stop;
    errno = 0;
    *value = strtoll(text, &stop, 10);
    *end = stop;
    return (*stop == ',' || *stop == '\0') ? 1 : 0;
}

static void explain_count(const char *text, int count, unsigned counts, char why[CLI_WHY]) {
    size_t used = (size_t)snprintf(why, CLI_WHY, "'%.60s' has %d values; legal are", text, count);
    for (int n = 1; n <= CLI_VALUES; n++)
        if (counts & CLI_COUNT(n))
            used += (size_t)snprintf(why + used, CLI_WHY - used, "%s %d",
                                     counts & (CLI_COUNT(n) - 1) ? " or" : "", n);
}

int cli_integers(const char *text, int64_t least, int64_t most, unsigned counts, int64_t *values,
                 char why[CLI_WHY]) {
    int count = count_values(text);
    const char *at = text;
    if (count > CLI_VALUES || !(counts & CLI_COUNT(count))) {
        explain_count(text, count, counts, why);
        return 0;
    }
    for (int i = 0; i < count; i++) {
        const char *end;
        if (!one_integer(at, &end, &values[i])) {
            snprintf(why, CLI_WHY, "'%.60s' is not %s", text,
                     counts == CLI_COUNT(1) ? "an integer"
                                            : "a list of integers separated by commas");
            return 0;
        }
        if (errno == ERANGE || values[i] < least || values[i] > most) {
            char place[40];
            place_name(i, count, counts, place, sizeof(place));
            snprintf(why, CLI_WHY, "%s%.*s; legal are %" PRId64 " to %" PRId64, place,
                     (int)(end - at > 60 ? 60 : end - at), at, least, most);
            return 0;
        }
        at = end + 1;
    }
    return count;
}

int cli_integer(const cli_args *args, cli_id id, int64_t least, int64_t most, int64_t fallback,
                int64_t *value) {
    char why[CLI_WHY];
    *value = fallback;
    if (!args->text[id]) return 0;
    if (cli_integers(args->text[id], least, most, CLI_COUNT(1), value, why)) return 0;
    return cli_usage("%s: %s", cli_option_name(id), why);
}

int cli_number(const cli_args *args, cli_id id, double fallback, double *value) {
    const char *text = args->text[id];
    char *end;
    *value = fallback;
    if (!text) return 0;
    *value = strtod(text, &end);
    if (!isspace((unsigned char)*text) && end != text && *end == '\0' && isfinite(*value)) return 0;
    return cli_usage("%s: '%.60s' is not a finite number", cli_option_name(id), text);
}

int cli_seed(const cli_args *args, uint64_t fallback, uint64_t *seed) {
    const char *text = args->text[CLI_OPT_SEED];
    char *end;
    *seed = fallback;
    if (!text) return 0;
    errno = 0;
    *seed = strtoull(text, &end, 10);
    if (isdigit((unsigned char)*text) && *end == '\0' && errno == 0) return 0;
    return cli_usage("--seed: '%.60s'; legal are the integers 0 to %" PRIu64, text, UINT64_MAX);
}

convt3d_dtype cli_dtype_parse(const char *text) {
    static const char *const brief[] = {[CONVT3D_FLOAT32] = "f32",
                                        [CONVT3D_FLOAT64] = "f64",
                                        [CONVT3D_BFLOAT16] = "bf16",
                                        [CONVT3D_FLOAT16] = "f16"};
    for (size_t i = CONVT3D_FLOAT32; i < sizeof(brief) / sizeof(brief[0]); i++) {
        convt3d_dtype dtype = (convt3d_dtype)i;
        if (strcmp(text, brief[i]) == 0 || strcmp(text, convt3d_dtype_name(dtype)) == 0)
            return dtype;
    }
    return (convt3d_dtype)0;
}

const char *cli_shape_text(int rank, const int64_t *size, char text[CLI_SHAPE_TEXT]) {
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < rank; i++)
        used += (size_t)snprintf(text + used, CLI_SHAPE_TEXT - used, "%s%" PRId64,
                                 i == 0 ? "(" : ", ", size[i]);
    snprintf(text + used, CLI_SHAPE_TEXT - used, rank ? ")" : "()");
    return text;
}
