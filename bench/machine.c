/* machine: what this machine reaches, for the bounds of bench/compare.py: the peak
 * of float32 FMA, and the bandwidth of reading, of non-temporal writing and of copying.
 *
 * Usage: machine THREADS [avx2] [fma]    prints JSON: medians of several rounds
 *   avx2   the peak of AVX2's vectors, whatever the CPU has beyond them
 *   fma    the peak alone, which takes a tenth of a second
 *
 * x86-64 only, like the kernels it is compared with.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include <immintrin.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum {
    CHAINS = 12,       /* independent sums: enough for latency 4 times two units */
    STEPS = 20000,     /* of one FMA measurement */
    BYTES = 256 << 20, /* of one thread's buffer: beyond any cache */
    ROUNDS = 15
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct job {
    double (*work)(struct job *); /* returns what it did: operations or bytes */
    char *from, *to;
    pthread_barrier_t *start;
    double amount, begin, end; /* each thread takes its own time: the one that waits for them
                                  may wake late */
    volatile float sink;
} job;

__attribute__((target("avx512f"))) static double fma_512(job *j) {
    __m512 sum[CHAINS], a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(0.25f);
    for (int c = 0; c < CHAINS; c++) sum[c] = _mm512_set1_ps((float)c);
    for (int i = 0; i < STEPS; i++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) sum[c] = _mm512_fmadd_ps(sum[c], a, b);
    }
    for (int c = 1; c < CHAINS; c++) sum[0] = _mm512_add_ps(sum[0], sum[c]);
    j->sink = _mm512_reduce_add_ps(sum[0]);
    return 2.0 * 16 * CHAINS * STEPS;
}

__attribute__((target("avx2,fma"))) static double fma_256(job *j) {
    __m256 sum[CHAINS], a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(0.25f);
    for (int c = 0; c < CHAINS; c++) sum[c] = _mm256_set1_ps((float)c);
    for (int i = 0; i < STEPS; i++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) sum[c] = _mm256_fmadd_ps(sum[c], a, b);
    }
    for (int c = 1; c < CHAINS; c++) sum[0] = _mm256_add_ps(sum[0], sum[c]);
    j->sink = _mm256_cvtss_f32(sum[0]);
    return 2.0 * 8 * CHAINS * STEPS;
}

__attribute__((target("avx2"))) static double read_memory(job *j) {
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (size_t i = 0; i < BYTES; i += 128) {
        const __m256i *p = (const __m256i *)(j->from + i);
        a = _mm256_xor_si256(a, p[0]);
        b = _mm256_xor_si256(b, p[1]);
        c = _mm256_xor_si256(c, p[2]);
        d = _mm256_xor_si256(d, p[3]);
    }
    a = _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
    j->sink = (float)_mm256_extract_epi32(a, 0);
    return BYTES;
}

__attribute__((target("avx2"))) static double write_memory(job *j) {
    __m256i zero = _mm256_setzero_si256();
    for (size_t i = 0; i < BYTES; i += 32) _mm256_stream_si256((__m256i *)(j->to + i), zero);
    _mm_sfence();
    return BYTES;
}

/* Counts what is read and what is written. */
__attribute__((target("avx2"))) static double copy_memory(job *j) {
    for (size_t i = 0; i < BYTES; i += 32)
        _mm256_stream_si256((__m256i *)(j->to + i), _mm256_load_si256((__m256i *)(j->from + i)));
    _mm_sfence();
    return 2.0 * BYTES;
}

static void *run(void *arg) {
    job *j = arg;
    pthread_barrier_wait(j->start);
    j->begin = now();
    j->amount = j->work(j);
    j->end = now();
    return NULL;
}

static int ascending(const void *a, const void *b) {
    double difference = *(const double *)a - *(const double *)b;
    return (difference > 0) - (difference < 0);
}

/* The median rate of 'threads' threads that do the same, in units of 1e9 a second. */
static double rate(double (*work)(job *), job *jobs, int threads) {
    double rates[ROUNDS];
    for (int r = 0; r < ROUNDS; r++) {
        pthread_barrier_t start;
        pthread_t id[64];
        pthread_barrier_init(&start, NULL, (unsigned)threads);
        for (int t = 0; t < threads; t++) {
            jobs[t].work = work;
            jobs[t].start = &start;
            pthread_create(&id[t], NULL, run, &jobs[t]);
        }
        double begin = 0, end = 0, amount = 0;
        for (int t = 0; t < threads; t++) {
            pthread_join(id[t], NULL);
            amount += jobs[t].amount;
            if (t == 0 || jobs[t].begin < begin) begin = jobs[t].begin;
            if (t == 0 || jobs[t].end > end) end = jobs[t].end;
        }
        pthread_barrier_destroy(&start);
        rates[r] = amount / (end - begin) * 1e-9;
    }
    qsort(rates, ROUNDS, sizeof *rates, ascending);
    return rates[ROUNDS / 2];
}

static double fma_512_long(job *j) {
    double done = 0;
    for (int i = 0; i < 50; i++) done += fma_512(j);
    return done;
}

static double fma_256_long(job *j) {
    double done = 0;
    for (int i = 0; i < 50; i++) done += fma_256(j);
    return done;
}

static char *buffer(void) {
    char *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) exit(1);
    madvise(p, BYTES, MADV_HUGEPAGE);
    memset(p, 1, BYTES);
    return p;
}

static void print_bandwidths(job *jobs, int threads) {
    for (int t = 0; t < threads; t++) {
        jobs[t].from = buffer();
        jobs[t].to = buffer();
    }
    printf(", \"read_gbs\": %.1f", rate(read_memory, jobs, threads));
    printf(", \"nt_write_gbs\": %.1f", rate(write_memory, jobs, threads));
    printf(", \"copy_gbs\": %.1f", rate(copy_memory, jobs, threads));
}

int main(int count, char **argument) {
    int threads = count > 1 ? atoi(argument[1]) : 1, avx2 = 0, fma_alone = 0;
    static job jobs[64];
    if (threads < 1 || threads > 64 || !__builtin_cpu_supports("fma")) return 1;
    for (int i = 2; i < count; i++) {
        avx2 |= !strcmp(argument[i], "avx2");
        fma_alone |= !strcmp(argument[i], "fma");
    }
    int wide = __builtin_cpu_supports("avx512f") && !avx2;
    double (*fma)(job *) = wide ? fma_512_long : fma_256_long;
    double one = rate(fma, jobs, 1);
    printf("{\"fma_gflops\": {\"1\": %.1f, \"%d\": %.1f}, \"vector_bits\": %d", one, threads,
           rate(fma, jobs, threads), wide ? 512 : 256);
    if (!fma_alone) print_bandwidths(jobs, threads);
    puts("}");
    return 0;
}
