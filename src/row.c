/* row: taps and spans of a grad_output row; rising lists of rows.
 * SPDX-License-Identifier: MIT */
#include "row.h"

#include <string.h>

int64_t convt3d_phase_row(const convt3d_axis *axis, convt3d_tap *taps, convt3d_span *spans,
                          int64_t *count) {
    const int64_t period = convt3d_tap_period(axis), kernel = axis->kernel;
    int crops = axis->mode == CONVT3D_ZEROS;
    int64_t end = 0;
    *count = 0;
    for (int64_t k = 0; k < kernel; k++) {
        int64_t reach = k * axis->dilation, e = reach / axis->stride;
        /* The first and last tap of this one's phase bound the phase's array. */
        int64_t first = k % period, last = k + (kernel - 1 - k) / period * period;
        int64_t e0 = first * axis->dilation / axis->stride;
        int64_t e1 = last * axis->dilation / axis->stride;
        convt3d_tap *tap = &taps[kernel - 1 - k];
        tap->k = k;
        tap->real0 = crops ? convt3d_ceil_div(axis->before - reach, axis->stride) : 0;
        tap->real1 =
            crops ? convt3d_ceil_div(axis->before + axis->out - reach, axis->stride) : axis->in;
        if (k > first) { /* the array is there already */
            tap->offset = taps[kernel - 1 - first].offset + e - e0;
            continue;
        }
        convt3d_span *span = spans + *count;
        int more = convt3d_phase_spans(axis, reach % axis->stride, e0, e1 + axis->in, span);
        for (int i = 0; i < more; i++) span[i].to += end;
        *count += more;
        tap->offset = end;
        end += e1 - e0 + axis->in;
    }
    return end;
}

int64_t convt3d_list_place(const int64_t *list, int64_t count, int64_t row) {
    int64_t low = 0, high = count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (list[middle] < row)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int convt3d_list_has(const int64_t *list, int64_t count, int64_t row) {
    const int64_t at = convt3d_list_place(list, count, row);
    return at < count && list[at] == row;
}

int64_t convt3d_list_add(int64_t *list, int64_t count, int64_t row) {
    int64_t at = convt3d_list_place(list, count, row);
    if (at < count && list[at] == row) return count;
    memmove(list + at + 1, list + at, (size_t)(count - at) * sizeof *list);
    list[at] = row;
    return count + 1;
}
