/* judge: one layer by everything that can compute it, against the oracle.
 * SPDX-License-Identifier: MIT */
#include "judge.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

void judge_wrong(const layer *l, const char *who, const char *what) {
    print_error("%s, %s, by %s\n", convt3d_direction_name(l->direction), problem_text(&l->p), who);
    fail_msg("%s", what);
}

/* 'isa' NULL is the reference. */
static void run(layer *l, const char *isa, int with_bias) {
    convt3d_options o;
    convt3d_plan *plan;
    convt3d_error err;
    convt3d_options_init(&o);
    o.isa = isa;
    o.algorithm = isa ? NULL : "reference";
    o.threads = 2;
    for (int role = 0; role < 4; role++)
        if (layer_unknown(l->direction, (oracle_role)role) && l->tensor[role].memory.size)
            memset(l->tensor[role].memory.data, 0xFF, l->tensor[role].memory.size);
    if (convt3d_plan_create(&l->p, l->direction, &o, &plan, &err) ||
        layer_run(l, plan, NULL, with_bias, CONVT3D_OVERWRITE, NULL, &err))
        judge_wrong(l, isa ? isa : "reference", err.text);
    for (int role = 0; role < 4; role++)
        if (layer_unknown(l->direction, (oracle_role)role))
            material_load(&l->tensor[role], l->value[role]);
    convt3d_plan_free(plan);
}

void judge_all(layer *l, int with_bias, verdict *judge, void *arg) {
    real *expected[4];
    for (int role = 0; role < 4; role++) {
        size_t bytes = (size_t)(oracle_count(&l->p, (oracle_role)role) + 1) * sizeof(real);
        if (layer_known(l->direction, (oracle_role)role)) layer_store(l, (oracle_role)role);
        expected[role] = malloc(bytes);
        memcpy(expected[role], l->value[role], bytes);
    }
    real *bias = expected[ORACLE_BIAS];
    if (!with_bias) expected[ORACLE_BIAS] = NULL;
    oracle_run(&l->p, l->direction, expected);
    expected[ORACLE_BIAS] = bias;
    run(l, NULL, with_bias);
    judge(l, expected, "reference", arg);
    const char *isa;
    for (int i = 0; (isa = convt3d_isa_name(i)); i++) {
        if (!convt3d_isa_supported(isa)) continue;
        run(l, isa, with_bias);
        judge(l, expected, isa, arg);
    }
    for (int role = 0; role < 4; role++) free(expected[role]);
}
