/* Shared by the kernels: vectors that fill a register, a product of small matrices, and random numbers. */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#include <immintrin.h>
#define LANES 16
#else
#define LANES 8 /* with 8 rows of sums this fills the registers of a processor without AVX-512 */
#endif
#define ROWS 8

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t bits __attribute__((vector_size(4 * LANES)));
typedef float unaligned __attribute__((vector_size(4 * LANES), aligned(4)));

static const bits PLACES = {0, 1, 2, 3, 4, 5, 6, 7,
#if LANES == 16
                            8, 9, 10, 11, 12, 13, 14, 15
#endif
};

static inline floats load(const float *from) { return *(const unaligned *)from; }
static inline void store(float *to, floats x) { *(unaligned *)to = x; }
static inline floats all(float x) { return x - (floats){}; }
static inline floats pick(ints where, floats yes, floats no) { return (floats)((where & (ints)yes) | (~where & (ints)no)); }
static inline long least(long a, long b) { return a < b ? a : b; }
static inline long padded(long count, long unit) { return (count + unit - 1) / unit * unit; }

/* The remainder of a row is loaded and stored as a vector of which `count` floats are valid. With AVX-512 that is one
   instruction; elsewhere it is a call, which slows down rows shorter than a vector. */
#ifdef __AVX512F__
static inline floats some_of(const float *from, long count) { return (floats)_mm512_maskz_loadu_ps((1u << count) - 1, from); }
static inline void put_some(float *to, floats x, long count) { _mm512_mask_storeu_ps(to, (1u << count) - 1, (__m512)x); }
#else
static inline floats some_of(const float *from, long count) {
    floats x = {};
    memcpy(&x, from, sizeof(float) * count);
    return x;
}
static inline void put_some(float *to, floats x, long count) { memcpy(to, &x, sizeof(float) * count); }
#endif

static inline floats load_some(const float *from, long count) { return count >= LANES ? load(from) : some_of(from, count); }

static inline void store_some(float *to, floats x, long count) {
    if (count >= LANES) store(to, x);
    else put_some(to, x, count);
}

static inline float sum_of(floats x) {
    float sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += x[lane];
    return sum;
}

/* e^x to within 2 ulp for x up to 88, NaN for NaN, 0 below -87. */
static inline floats exponential(floats x) {
    floats high = pick(x < all(-87.0f), all(-87.0f), x); /* NaN fails the comparison and passes through */
    floats shifted = high * 1.44269504f + 12582912.0f;   /* its low bits hold the nearest exponent of two */
    floats power = shifted - 12582912.0f;
    floats rest = high - power * 0.693359375f + power * 2.12194440e-4f;
    floats y = rest * 1.98756915e-4f + 1.39819995e-3f;
    y = y * rest + 8.33345190e-3f;
    y = y * rest + 4.16657962e-2f;
    y = y * rest + 1.66666657e-1f;
    y = y * rest + 5.00000012e-1f;
    y = y * rest * rest + rest + 1.0f;
    y *= (floats)(((ints)shifted - 0x4B400000 + 127) << 23);
    return pick(x < all(-87.0f), all(0.0f), y);
}

/* Random numbers that depend only on a seed, a row and a position in it: two rounds of a 32-bit mixer, each with a key
   of the row. A backward pass reproduces them with any number of threads. */
#define MIX(x) (x ^= x >> 16, x *= 0x7feb352dU, x ^= x >> 15, x *= 0x846ca68bU, x ^= x >> 16)

typedef struct {
    uint32_t first, second;
} Key;

static inline Key key_of(uint64_t seed, uint64_t row) {
    uint32_t a = (uint32_t)seed + (uint32_t)row * 0x9E3779B9U, b = (uint32_t)(seed >> 32) ^ (uint32_t)(row >> 32);
    MIX(a);
    b ^= a;
    MIX(b);
    a += b;
    MIX(a);
    return (Key){b, a};
}

static inline bits drawn(Key key, uint32_t place) {
    bits x = PLACES + (place + key.first);
    MIX(x);
    x ^= key.second;
    MIX(x);
    return x;
}

/* C = A B, or C += A B with `add`: A (rows, depth) has the strides `down` and `along`, B (depth, columns) and C have the
   row strides `ldb` and `ldc`. Rows come in multiples of eight, columns in whole vectors. */
static inline void product(const float *a, long down, long along, const float *b, long ldb, long rows, long columns,
                           long depth, float *c, long ldc, int add) {
    for (long i = 0; i < rows; i += ROWS)
        for (long j = 0; j < columns; j += LANES) {
            floats sum[ROWS];
            for (int r = 0; r < ROWS; r++) sum[r] = add ? load(c + (i + r) * ldc + j) : all(0.0f);
            for (long d = 0; d < depth; d++) {
                floats right = load(b + d * ldb + j);
                for (int r = 0; r < ROWS; r++) sum[r] += a[(i + r) * down + d * along] * right;
            }
            for (int r = 0; r < ROWS; r++) store(c + (i + r) * ldc + j, sum[r]);
        }
}
