/* Products in one thread, for the C files here alone: hidden, so that no other library's function of that name is taken. */

#include <stdint.h>

/* out (num_rows, rank) = scale x m^T, for x (num_rows, width) with rows `x_stride` apart and m (rank, width). */
__attribute__((visibility("hidden"))) void project(const float *x, int64_t x_stride, const float *m, float *out,
                                                   int64_t num_rows, int64_t width, int64_t rank, float scale);

/* out (num_rows, width) = h m, for h (num_rows, rank) and m (rank, width). */
__attribute__((visibility("hidden"))) void expand(const float *h, const float *m, float *out, int64_t num_rows,
                                                  int64_t width, int64_t rank);
