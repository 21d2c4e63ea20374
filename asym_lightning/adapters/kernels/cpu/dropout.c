/* Dropout on a CPU: places of dropped entries are drawn and used at once, by several threads.

   The distance from one drop to the next is geometric. It is looked up: `steps[k]` is P(distance <= k) in units of
   2^-32, and `guide[i]` the smallest k that a 32-bit number starting with the 8 bits i can mean. The last k stands for
   "this far, and draw again", which the geometric distribution's lack of memory allows.

   Rows are dealt with in blocks, each with its own stream of random numbers, so that what is dropped depends on seed,
   probability and shape alone and not on the number of threads. A block stays in the cache from its product to its
   drops. */

#include "narrow_products.h"

#include <string.h>

#define ENTRIES_IN_A_BLOCK 65536

typedef struct {
    const uint64_t *steps;
    const uint16_t *guide;
    int64_t longest;
} Law;

typedef struct {
    uint64_t a, b, c, count; /* of SFC64, by C. Doty-Humphrey */
    uint64_t bits;
    int has_bits;
    int64_t place, num_entries;
} Drops;

static inline uint64_t random_bits(Drops *d) {
    const uint64_t out = d->a + d->b + d->count++;
    d->a = d->b ^ (d->b >> 11);
    d->b = d->c + (d->c << 3);
    d->c = ((d->c << 24) | (d->c >> 40)) + out;
    return out;
}

static inline Drops drops_of_block(uint64_t seed, int64_t block, int64_t num_entries) {
    Drops d = {seed, (uint64_t)block, 0x9E3779B97F4A7C15u, 1, 0, 0, -1, num_entries};
    for (int i = 0; i < 12; i++) random_bits(&d);
    return d;
}

/* The next dropped entry, counted from the block's first, or -1 where there is none left. */
static inline int64_t next_drop(Drops *d, const Law *law) {
    d->place++;
    for (;;) {
        d->bits = d->has_bits ? d->bits >> 32 : random_bits(d);
        d->has_bits = !d->has_bits;
        const uint32_t u = (uint32_t)d->bits;
        int64_t k = law->guide[u >> 24];
        while (u >= law->steps[k]) k++;
        d->place += k;
        if (d->place >= d->num_entries) return -1;
        if (k < law->longest) return d->place;
    }
}

typedef struct {
    int64_t rows, count; /* rows in a block, blocks */
} Blocks;

static inline Blocks blocks_of(int64_t num_rows, int64_t width) {
    const int64_t rows = width < ENTRIES_IN_A_BLOCK ? ENTRIES_IN_A_BLOCK / width : 1;
    return (Blocks){rows, (num_rows + rows - 1) / rows};
}

static inline int64_t rows_in(Blocks blocks, int64_t block, int64_t num_rows) {
    const int64_t left = num_rows - block * blocks.rows;
    return left < blocks.rows ? left : blocks.rows;
}

static inline void drop_sized(char *x, int64_t size, int64_t num_rows, int64_t width, const Law *law,
                              uint64_t seed, int threads) {
    const Blocks blocks = blocks_of(num_rows, width);
#pragma omp parallel for schedule(static) num_threads(threads) if (blocks.count > 1)
    for (int64_t b = 0; b < blocks.count; b++) {
        char *block = x + b * blocks.rows * width * size;
        Drops drops = drops_of_block(seed, b, rows_in(blocks, b, num_rows) * width);
        for (int64_t place; (place = next_drop(&drops, law)) >= 0;) memset(block + place * size, 0, size);
    }
}

/* Zero the dropped entries of x (num_rows, width), whose numbers have `size` bytes: 2, 4 or 8. */
void drop(char *x, int64_t size, int64_t num_rows, int64_t width, const Law *law, uint64_t seed, int threads) {
    if (size == 2) drop_sized(x, 2, num_rows, width, law, seed, threads);
    if (size == 4) drop_sized(x, 4, num_rows, width, law, seed, threads);
    if (size == 8) drop_sized(x, 8, num_rows, width, law, seed, threads);
}

/* h (num_rows, rank) = D(x) A^T, for x (num_rows, width), A (rank, width) and `A_transposed` (width, rank). Where A is
   null, h holds x A^T already. */
void drop_then_project(const float *x, const float *A, const float *A_transposed, float *h, int64_t num_rows,
                       int64_t width, int64_t rank, const Law *law, uint64_t seed, int threads) {
    const Blocks blocks = blocks_of(num_rows, width);
#pragma omp parallel for schedule(static) num_threads(threads) if (blocks.count > 1)
    for (int64_t b = 0; b < blocks.count; b++) {
        const int64_t rows = rows_in(blocks, b, num_rows);
        const float *block = x + b * blocks.rows * width;
        float *h_row = h + b * blocks.rows * rank;
        if (A) project(block, width, A, h_row, rows, width, rank, 1);
        int64_t row_start = 0;
        Drops drops = drops_of_block(seed, b, rows * width);
        for (int64_t place; (place = next_drop(&drops, law)) >= 0;) {
            for (; place >= row_start + width; row_start += width) h_row += rank;
            const float dropped = block[place];
            const float *a = A_transposed + (place - row_start) * rank;
            for (int64_t j = 0; j < rank; j++) h_row[j] -= dropped * a[j];
        }
    }
}

/* out (num_rows, width) = D(h A), for h (num_rows, rank) and A (rank, width). */
void project_back_then_drop(const float *h, const float *A, float *out, int64_t num_rows, int64_t width, int64_t rank,
                            const Law *law, uint64_t seed, int threads) {
    const Blocks blocks = blocks_of(num_rows, width);
#pragma omp parallel for schedule(static) num_threads(threads) if (blocks.count > 1)
    for (int64_t b = 0; b < blocks.count; b++) {
        const int64_t rows = rows_in(blocks, b, num_rows);
        float *block = out + b * blocks.rows * width;
        expand(h + b * blocks.rows * rank, A, block, rows, width, rank);
        Drops drops = drops_of_block(seed, b, rows * width);
        for (int64_t place; (place = next_drop(&drops, law)) >= 0;) block[place] = 0;
    }
}
