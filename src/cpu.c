/* cpu: the list of instruction sets, the choice among them, and the CPUs.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "cpu.h"
#include "error.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

static const convt3d_kernels *const levels[] = {
#define CONVT3D_ISA(name) &convt3d_kernels__##name,
#include "kernels/list.inc"
#undef CONVT3D_ISA
};
#define LEVELS ((int)(sizeof levels / sizeof *levels))

const char *convt3d_isa_name(int index) {
    return index >= 0 && index < LEVELS ? levels[index]->name : NULL;
}

static const convt3d_kernels *find(const char *name) {
    for (int i = 0; i < LEVELS; i++) {
        if (strcmp(levels[i]->name, name) == 0) return levels[i];
    }
    return NULL;
}

int convt3d_isa_supported(const char *name) {
    const convt3d_kernels *kernels = name ? find(name) : NULL;
    return kernels && kernels->supported();
}

convt3d_status convt3d_kernels_choose(const char *isa, const convt3d_kernels **kernels,
                                      convt3d_error *err) {
    const char *where = "options.isa";
    if (!isa || !*isa) {
        isa = getenv("CONVT3D_ISA");
        where = "the environment variable CONVT3D_ISA";
    }
    if (!isa || !*isa) {
        int i = 0;
        while (!levels[i]->supported()) i++; /* the last, generic, always is */
        *kernels = levels[i];
        return CONVT3D_OK;
    }
    *kernels = find(isa);
    if (!*kernels) {
        char names[160];
        convt3d_text text = {names, sizeof names, 0};
        for (int i = 0; i < LEVELS; i++)
            convt3d_text_add(&text, "%s%s", i ? ", " : "", levels[i]->name);
        return convt3d_fail(err, CONVT3D_ARG, "%s is '%.40s', but must be one of %s", where, isa,
                            names);
    }
    if (!(*kernels)->supported())
        return convt3d_fail(err, CONVT3D_UNSUPPORTED, "%s is '%s', which this CPU hasn't", where,
                            isa);
    return CONVT3D_OK;
}

int32_t convt3d_cpu_count(void) {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online < 1 ? 1 : online > CONVT3D_MAX_THREADS ? CONVT3D_MAX_THREADS : (int32_t)online;
}

convt3d_status convt3d_threads_choose(int32_t asked, int32_t *threads, convt3d_error *err) {
    if (asked < 0 || asked > CONVT3D_MAX_THREADS)
        return convt3d_fail(err, CONVT3D_ARG, "options.threads is %d, but must be 0 to %d", asked,
                            CONVT3D_MAX_THREADS);
    const char *text = getenv("CONVT3D_NUM_THREADS");
    if (asked == 0 && text && *text) {
        char *end;
        errno = 0;
        long value = strtol(text, &end, 10);
        if (errno || *end || value < 1 || value > CONVT3D_MAX_THREADS)
            return convt3d_fail(err, CONVT3D_ARG,
                                "the environment variable CONVT3D_NUM_THREADS is '%.40s', but must "
                                "be 1 to %d",
                                text, CONVT3D_MAX_THREADS);
        asked = (int32_t)value;
    }
    *threads = asked ? asked : convt3d_cpu_count();
    return CONVT3D_OK;
}

size_t convt3d_cpu_name(char *buffer, size_t size) {
    convt3d_text text = {buffer, buffer ? size : 0, 0};
    char brand[49] = "unknown";
    convt3d_text_add(&text, "%s", ""); /* the final zero, whatever follows */
#if defined(__x86_64__)
    unsigned r[12];
    if (__get_cpuid(0x80000002, &r[0], &r[1], &r[2], &r[3]) &&
        __get_cpuid(0x80000003, &r[4], &r[5], &r[6], &r[7]) &&
        __get_cpuid(0x80000004, &r[8], &r[9], &r[10], &r[11]))
        memcpy(brand, r, 48);
#endif
    const char *start = brand;
    while (*start == ' ') start++;
    convt3d_text_add(&text, "%s", start);
    return text.length;
}
