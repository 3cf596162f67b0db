/* terms: which data may be multiplied as sums of bfloat16 terms, and what is said of it.
 * SPDX-License-Identifier: MIT */
#include "terms.h"
#include "number.h"

static double magnitude(uint32_t bits) {
    return (double)convt3d_float(bits);
}

/* Whether one term is all there is of a number. */
static int is_exact(const convt3d_plan *plan) {
    return plan->problem.dtype == CONVT3D_BFLOAT16;
}

/* Splitting multiplies by 2^16 + 1; sums stay finite, whichever products come first; where terms
 * are all of a number, the smallest ones and their products stay normal, since tiles take
 * subnormals as 0. */
int convt3d_ranges_fit(const convt3d_plan *plan, const convt3d_range *x, const convt3d_range *w,
                       double k, int terms) {
    const double each = 0x1p110, most = 0x1p126, least = 0x1p-100;
    const double x_most = magnitude(x->most), w_most = magnitude(w->most);
    if (!(x_most < each && w_most < each && x_most * w_most * k < most)) return 0;
    if ((terms < CONVT3D_TERMS && !is_exact(plan)) || x->most == 0 || w->most == 0) return 1;
    const double x_least = magnitude(x->least), w_least = magnitude(w->least);
    return x_least >= least && w_least >= least && x_least * w_least >= least;
}

int convt3d_has_terms(const convt3d_plan *plan) {
    return plan->kernels->terms && plan->problem.dtype != CONVT3D_FLOAT64;
}

int convt3d_terms_of(const convt3d_plan *plan) {
    return is_exact(plan) ? 1 : CONVT3D_TERMS - (int)plan->precision;
}

void convt3d_describe_terms(const convt3d_plan *plan, int terms, const char *why,
                            convt3d_text *text) {
    static const char *const by[CONVT3D_TERMS] = {"one of bfloat16", "three of two bfloat16 terms",
                                                  "six of three bfloat16 terms"};
    if (!convt3d_has_terms(plan)) return;
    if (terms)
        convt3d_text_add(text, "products: %s for each, where they fit its range\n", by[terms - 1]);
    else
        convt3d_text_add(text, "products: of float32: %s\n", why);
}
