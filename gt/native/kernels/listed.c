/* Attention over a list of pairs sorted by reader, one reader at a time; saves one number per pair and head. The backward
   pass loops over readers and then, for the gradients of keys and values, over sources. Channels of a head come in whole
   vectors, which gt/attention/listed.py ensures. */

#define NODES 32 /* per chunk of work of a thread */

typedef struct {
    const float *q, *k, *v, *grad;          /* (N, H, D) with these row strides, in floats: */
    int64_t row_q, row_k, row_v, row_grad;
    const int64_t *rowptr, *source;         /* (N + 1,) of readers; (P,) */
    const int64_t *colptr, *order, *target; /* (N + 1,) of sources; (P,) pair indices sorted by source; (P,) */
    const float *bias;                      /* (P, H), added to scores, or null */
    const uint8_t *allowed;                 /* (P, H), or null: every head uses every pair */
    float *weights, *read, *out;            /* (H, P) before and after dropout, the same without dropout; (N, H, D) */
    float *dscores, *dq, *dk, *dv;          /* (H, P); gradients, with the row stride */
    int64_t row_gradients, nodes, pairs, heads, channels, threads;
    uint64_t seed;
    uint32_t dropped;
    float scale, kept;
} Listed;

/* The dropout factors of a reader's weights, from its pair `at` on. */
static inline floats kept_of(const Listed *t, Key key, long at) {
    return pick((ints)(drawn(key, (uint32_t)at) < t->dropped), all(0), all(t->kept));
}

#define ABREAST 8 /* vectors of a row that are accumulated at once */
#define SOON 4    /* how many pairs ahead rows are prefetched */

static inline float dot(const float *a, const float *b, long count) {
    floats sum = all(0);
    for (long d = 0; d < count; d += LANES) sum += load(a + d) * load(b + d);
    return sum_of(sum);
}

/* Rows (H, D) and a weight for each pair and head, with the stride `step` between heads. `which` lists the pairs, or null
   for all in order; `index` maps a pair to its row. */
typedef struct {
    const float *rows, *weights;
    const int64_t *index, *which;
    long row, step;
} Terms;

static inline long numbered(const Terms *t, long p) { return t->which ? t->which[p] : p; }

/* `many` vectors, from vector `first` on, of the weighted sum of rows. */
static inline __attribute__((always_inline)) void sum_up(const Terms *t, long count, long first, long many, long channels,
                                                         float scale, float *to) {
    const float *weights[ABREAST];
    floats sum[ABREAST] = {};
    for (long n = 0; n < many; n++) weights[n] = t->weights + (first + n) * LANES / channels * t->step;
    for (long p = 0; p < count; p++) {
        const long at = numbered(t, p), soon = numbered(t, p + SOON < count ? p + SOON : p);
        const float *row = t->rows + t->index[at] * t->row + first * LANES;
        const float *next = t->rows + t->index[soon] * t->row + first * LANES;
        for (long n = 0; n < many; n++) {
            __builtin_prefetch(next + n * LANES);
            sum[n] += weights[n][at] * load(row + n * LANES);
        }
    }
    for (long n = 0; n < many; n++) store(to + (first + n) * LANES, sum[n] * scale);
}

/* to (H, D) = scale * the weighted sum of the rows of `count` pairs. */
static inline void weighted(const Terms *t, long count, long heads, long channels, float scale, float *to) {
    const long vectors = heads * channels / LANES;
    long first = 0;
    for (; first + ABREAST <= vectors; first += ABREAST) sum_up(t, count, first, ABREAST, channels, scale, to);
    for (; first + 4 <= vectors; first += 4) sum_up(t, count, first, 4, channels, scale, to);
    for (; first < vectors; first++) sum_up(t, count, first, 1, channels, scale, to);
}

/* The scaled dot products, head by head, of a row (H, D) with the rows of pairs; `step` is the stride between heads. */
static inline void products(const float *row, const float *rows, long ld, const int64_t *index, long count, long heads,
                            long channels, float scale, float *to, long step) {
    for (long p = 0; p < count; p++) {
        const float *other = rows + index[p] * ld, *next = rows + index[p + SOON < count ? p + SOON : p] * ld;
        for (long d = 0; d < heads * channels; d += LANES) __builtin_prefetch(next + d);
        for (long h = 0; h < heads; h++) to[h * step + p] = dot(row + h * channels, other + h * channels, channels) * scale;
    }
}

void listed_forward(const Listed *t) {
    const long heads = t->heads, channels = t->channels;
#pragma omp parallel for num_threads(t->threads) schedule(dynamic, NODES)
    for (long i = 0; i < t->nodes; i++) {
        const long first = t->rowptr[i], count = t->rowptr[i + 1] - first;
        const int64_t *source = t->source + first;
        products(t->q + i * t->row_q, t->k, t->row_k, source, count, heads, channels, t->scale, t->weights + first, t->pairs);
        for (long h = 0; h < heads; h++) {
            float *weights = t->weights + h * t->pairs + first, *read = t->read + h * t->pairs + first, top = -INFINITY;
            for (long p = 0; p < count; p++) {
                if (t->bias) weights[p] += t->bias[(first + p) * heads + h];
                if (t->allowed && !t->allowed[(first + p) * heads + h]) weights[p] = -INFINITY;
                top = weights[p] > top ? weights[p] : top;
            }
            if (top == -INFINITY) top = 0; /* nothing to read, or scores are NaN */
            floats total = all(0);
            for (long p = 0; p < count; p += LANES) {
                const ints real = PLACES < (uint32_t)least(count - p, LANES);
                const floats weight = pick(real, exponential(load_some(weights + p, count - p) - top), all(0));
                total += weight;
                store_some(weights + p, weight, count - p);
            }
            const float sum = sum_of(total), share = sum > 0 || sum != sum ? 1 / sum : 0;
            const Key key = key_of(t->seed, i * heads + h);
            for (long p = 0; p < count; p += LANES) {
                const floats weight = load_some(weights + p, count - p) * share;
                store_some(weights + p, weight, count - p);
                if (t->dropped) store_some(read + p, weight * kept_of(t, key, p), count - p);
            }
        }
        const Terms values = {t->v, t->read + first, source, 0, t->row_v, t->pairs};
        weighted(&values, count, heads, channels, 1, t->out + i * heads * channels);
    }
}

void listed_backward(const Listed *t) {
    const long heads = t->heads, channels = t->channels;
#pragma omp parallel num_threads(t->threads)
    {
#pragma omp for schedule(dynamic, NODES)
        for (long i = 0; i < t->nodes; i++) { /* by reader */
            const long first = t->rowptr[i], count = t->rowptr[i + 1] - first;
            const int64_t *source = t->source + first;
            const float *grad = t->grad + i * t->row_grad;
            products(grad, t->v, t->row_v, source, count, heads, channels, 1, t->dscores + first, t->pairs);
            for (long h = 0; h < heads; h++) {
                const long row = h * t->pairs + first;
                const float *weights = t->weights + row;
                float *dscores = t->dscores + row, *read = t->read + row;
                const float inner = dot(grad + h * channels, t->out + (i * heads + h) * channels, channels);
                const Key key = key_of(t->seed, i * heads + h);
                for (long p = 0; p < count; p += LANES) {
                    const floats weight = load_some(weights + p, count - p);
                    const floats kept = t->dropped ? kept_of(t, key, p) : all(1);
                    const floats dweight = load_some(dscores + p, count - p) * kept;
                    if (t->dropped) store_some(read + p, weight * kept, count - p);
                    store_some(dscores + p, weight * (dweight - inner), count - p);
                }
            }
            const Terms keys = {t->k, t->dscores + first, source, 0, t->row_k, t->pairs};
            weighted(&keys, count, heads, channels, t->scale, t->dq + i * t->row_gradients);
        }
#pragma omp for schedule(dynamic, NODES)
        for (long j = 0; j < t->nodes; j++) { /* by source */
            const long first = t->colptr[j], count = t->colptr[j + 1] - first;
            const Terms queries = {t->q, t->dscores, t->target, t->order + first, t->row_q, t->pairs};
            const Terms gradients = {t->grad, t->read, t->target, t->order + first, t->row_grad, t->pairs};
            weighted(&queries, count, heads, channels, t->scale, t->dk + j * t->row_gradients);
            weighted(&gradients, count, heads, channels, 1, t->dv + j * t->row_gradients);
        }
    }
}
