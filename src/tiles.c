/* tiles: which of an ISA's tiles cover a block of sums at the least cost.
 * SPDX-License-Identifier: MIT */
#include "tiles.h"
#include "geometry.h"

/* The rows of the highest tile with this many vectors. */
static int64_t most_rows(const convt3d_type_kernels *type, int64_t vectors) {
    int64_t rows = 0;
    while (rows < CONVT3D_MAX_ROWS && type->gemm[rows][vectors - 1]) rows++;
    return rows;
}

/* A chain of additions takes four cycles a link, so few sums leave the CPU idle. */
static double cycles_of(int64_t rows, int64_t vectors, int split) {
    const double loads = (double)rows + (split ? 1.5 : 1.0) * (double)vectors;
    const double sums = (double)(rows * vectors);
    const double most = sums > loads ? sums : loads;
    return most > 4 ? most : 4;
}

/* 'rows' in equal tiles of 'height' at most, by tiles of one width. */
static double column_cycles(int64_t rows, int64_t height, int64_t vectors, int split) {
    int64_t tiles = convt3d_ceil_div(rows, height), low = rows / tiles, high = rows % tiles;
    return (double)(tiles - high) * cycles_of(low, vectors, split) +
           (double)high * (high ? cycles_of(low + 1, vectors, split) : 0);
}

convt3d_tiles convt3d_tiles_choose(const convt3d_type_kernels *type, int64_t rows, int64_t vectors,
                                   int split, int64_t only) {
    convt3d_tiles best = {1, 1, 0};
    rows = max64(rows, 1);
    vectors = max64(vectors, 1);
    for (int64_t v = only ? only : 1; v <= min64(vectors, only ? only : CONVT3D_MAX_VECTORS); v++) {
        const int64_t height = most_rows(type, v);
        if (!height) break;
        const int64_t tiles = convt3d_ceil_div(vectors, v), low = vectors / tiles;
        const int64_t high = vectors % tiles;
        double cycles = (double)(tiles - high) * column_cycles(rows, height, low, split);
        if (high) cycles += (double)high * column_cycles(rows, height, low + 1, split);
        /* One in a hundred more for each tile there is: its sums have to be stored. */
        cycles += 0.02 * (double)(tiles * convt3d_ceil_div(rows, height));
        if (best.cycles == 0 || cycles < best.cycles)
            best = (convt3d_tiles){
                convt3d_ceil_div(rows, convt3d_ceil_div(rows, height)),
                convt3d_ceil_div(vectors, tiles),
                cycles,
            };
    }
    return best;
}

int64_t convt3d_panel_width(const convt3d_type_kernels *type, int64_t m) {
    int64_t best = 0, least = INT64_MAX;
    if (m < type->lanes) return max64(m, 1);
    for (int64_t v = type->panel; v >= 1; v--) {
        const int64_t width = v * type->lanes, total = convt3d_ceil_div(m, width) * width;
        if (total < least) {
            least = total;
            best = width;
        }
    }
    return best;
}
