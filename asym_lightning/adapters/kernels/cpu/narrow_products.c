/* Products over the tokens in which one side has few columns (float32).

   A library's matrix product is made for wide ones; with 8 columns it takes two to three times as long as these on two
   cores with AVX-512. Numbers of `WIDE` neighbouring columns are a vector, and `RANKS` ranks are worked on at once, so
   that all sums stay in registers. */

#include "narrow_products.h"

#include <string.h>

#ifdef __AVX512F__
#define WIDE 16
#else
#define WIDE 8
#endif
#define RANKS 8
#define DOT_ROWS 2
#define EXPAND_ROWS 12
#define OUTER_ROWS 16
#define COLUMNS 512 /* of g at once, so that their sums stay in the cache */
#define MAX_OUTER_RANK 64
#define WORTH_A_THREAD 32768

typedef float vec __attribute__((vector_size(4 * WIDE), aligned(4), may_alias));

static inline float sum(vec v) {
    float total = 0;
    for (int i = 0; i < WIDE; i++) total += v[i];
    return total;
}

/* `num_rows` (1 or DOT_ROWS) rows of x times each row of m. */
static inline void dot_rows(const float *x, int64_t x_stride, const float *m, float *out, int64_t width, int64_t rank,
                            float scale, const int num_rows) {
    for (int64_t k0 = 0; k0 < rank; k0 += RANKS) {
        const int64_t num_ranks = rank - k0 < RANKS ? rank - k0 : RANKS;
        const float *m_rows[RANKS]; /* past the last rank: one of them again, for a result that is not stored */
        for (int k = 0; k < RANKS; k++) m_rows[k] = m + (k0 + (k < num_ranks ? k : 0)) * width;
        vec sums[DOT_ROWS][RANKS];
        memset(sums, 0, sizeof sums);
        int64_t j = 0;
        for (; j + WIDE <= width; j += WIDE) {
            vec x_part[DOT_ROWS];
            for (int i = 0; i < num_rows; i++) x_part[i] = *(const vec *)(x + i * x_stride + j);
            for (int k = 0; k < RANKS; k++) {
                const vec m_part = *(const vec *)(m_rows[k] + j);
                for (int i = 0; i < num_rows; i++) sums[i][k] += x_part[i] * m_part;
            }
        }
        for (int i = 0; i < num_rows; i++)
            for (int k = 0; k < num_ranks; k++) {
                float total = sum(sums[i][k]);
                for (int64_t rest = j; rest < width; rest++) total += x[i * x_stride + rest] * m_rows[k][rest];
                out[i * rank + k0 + k] = scale * total;
            }
    }
}

void project(const float *x, int64_t x_stride, const float *m, float *out, int64_t num_rows, int64_t width,
             int64_t rank, float scale) {
    int64_t i = 0;
    for (; i + DOT_ROWS <= num_rows; i += DOT_ROWS)
        dot_rows(x + i * x_stride, x_stride, m, out + i * rank, width, rank, scale, DOT_ROWS);
    for (; i < num_rows; i++) dot_rows(x + i * x_stride, x_stride, m, out + i * rank, width, rank, scale, 1);
}

/* out (num_rows, rank) = scale x m^T, for x (num_rows, width) with rows `x_stride` apart and m (rank, width). */
void dot(const float *x, int64_t x_stride, const float *m, float *out, int64_t num_rows, int64_t width, int64_t rank,
         float scale, int threads) {
    const int64_t parts = num_rows * width > WORTH_A_THREAD ? threads : 1;
#pragma omp parallel for schedule(static) num_threads(parts) if (parts > 1)
    for (int64_t part = 0; part < parts; part++) {
        /* Parts begin with whole DOT_ROWS, so that a row's sums are the same for any number of threads. */
        const int64_t begin = num_rows / DOT_ROWS * part / parts * DOT_ROWS;
        const int64_t end = part + 1 < parts ? num_rows / DOT_ROWS * (part + 1) / parts * DOT_ROWS : num_rows;
        project(x + begin * x_stride, x_stride, m, out + begin * rank, end - begin, width, rank, scale);
    }
}

/* `num_rows` (at most EXPAND_ROWS) rows of h times m. */
static inline void expand_rows(const float *h, const float *m, float *out, int64_t width, int64_t rank,
                               const int num_rows) {
    int64_t j = 0;
    for (; j + WIDE <= width; j += WIDE) {
        vec sums[EXPAND_ROWS];
        memset(sums, 0, sizeof sums);
        for (int64_t k = 0; k < rank; k++) {
            const vec m_part = *(const vec *)(m + k * width + j);
            for (int i = 0; i < num_rows; i++) sums[i] += h[i * rank + k] * m_part;
        }
        for (int i = 0; i < num_rows; i++) *(vec *)(out + i * width + j) = sums[i];
    }
    for (int i = 0; i < num_rows; i++)
        for (int64_t rest = j; rest < width; rest++) {
            float total = 0;
            for (int64_t k = 0; k < rank; k++) total += h[i * rank + k] * m[k * width + rest];
            out[i * width + rest] = total;
        }
}

void expand(const float *h, const float *m, float *out, int64_t num_rows, int64_t width, int64_t rank) {
    int64_t i = 0;
    for (; i + EXPAND_ROWS <= num_rows; i += EXPAND_ROWS)
        expand_rows(h + i * rank, m, out + i * width, width, rank, EXPAND_ROWS);
    if (i < num_rows) expand_rows(h + i * rank, m, out + i * width, width, rank, (int)(num_rows - i));
}

/* sums (rank, COLUMNS) += h^T g over `num_rows` (at most OUTER_ROWS) rows and `width` (at most COLUMNS) columns. */
static inline void outer_rows(const float *h, int64_t h_stride, const float *g, int64_t g_stride, float *sums,
                              int64_t width, int64_t rank, const int num_rows) {
    for (int64_t k0 = 0; k0 < rank; k0 += RANKS) {
        const int num_ranks = rank - k0 < RANKS ? (int)(rank - k0) : RANKS;
        float h_part[OUTER_ROWS][RANKS];
        for (int i = 0; i < num_rows; i++)
            for (int k = 0; k < num_ranks; k++) h_part[i][k] = h[i * h_stride + k0 + k];
        float *rows = sums + k0 * COLUMNS;
        int64_t j = 0;
        if (num_ranks == RANKS)
            for (; j + WIDE <= width; j += WIDE) {
                vec held[RANKS];
                for (int k = 0; k < RANKS; k++) held[k] = *(const vec *)(rows + k * COLUMNS + j);
                for (int i = 0; i < num_rows; i++) {
                    const vec g_part = *(const vec *)(g + i * g_stride + j);
                    for (int k = 0; k < RANKS; k++) held[k] += h_part[i][k] * g_part;
                }
                for (int k = 0; k < RANKS; k++) *(vec *)(rows + k * COLUMNS + j) = held[k];
            }
        for (int k = 0; k < num_ranks; k++)
            for (int64_t rest = j; rest < width; rest++) {
                float total = rows[k * COLUMNS + rest];
                for (int i = 0; i < num_rows; i++) total += h_part[i][k] * g[i * g_stride + rest];
                rows[k * COLUMNS + rest] = total;
            }
    }
}

/* sums (parts, rank, width): scale h^T g over each part of the rows of h (num_rows, rank) and g (num_rows, width); rank is at
   most MAX_OUTER_RANK. */
void outer(const float *h, int64_t h_stride, const float *g, int64_t g_stride, float *sums, int64_t num_rows,
           int64_t width, int64_t rank, float scale, int parts) {
#pragma omp parallel for schedule(static) num_threads(parts)
    for (int64_t part = 0; part < parts; part++) {
        const int64_t begin = num_rows * part / parts, end = num_rows * (part + 1) / parts;
        float block[MAX_OUTER_RANK * COLUMNS];
        for (int64_t j = 0; j < width; j += COLUMNS) {
            const int64_t columns = width - j < COLUMNS ? width - j : COLUMNS;
            memset(block, 0, sizeof(float) * rank * COLUMNS);
            int64_t i = begin;
            for (; i + OUTER_ROWS <= end; i += OUTER_ROWS)
                outer_rows(h + i * h_stride, h_stride, g + i * g_stride + j, g_stride, block, columns, rank, OUTER_ROWS);
            if (i < end)
                outer_rows(h + i * h_stride, h_stride, g + i * g_stride + j, g_stride, block, columns, rank,
                           (int)(end - i));
            for (int64_t k = 0; k < rank; k++)
                for (int64_t c = 0; c < columns; c++)
                    sums[(part * rank + k) * width + j + c] = scale * block[k * COLUMNS + c];
        }
    }
}
