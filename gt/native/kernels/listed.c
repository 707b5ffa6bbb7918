/* Attention over a list of pairs, sorted by reader, a reader and a head at a time: what is kept is a number for each pair
   and head. The backward pass goes over readers and then, for what they sent, over sources. */

#define NODES 32 /* that a thread takes at once */

typedef struct {
    const float *q, *k, *v, *grad;          /* (N, H, D) in rows of so many floats each: */
    int64_t row_q, row_k, row_v, row_grad;
    const int64_t *rowptr, *source;         /* (N + 1,) of readers; (P,) */
    const int64_t *colptr, *order, *target; /* (N + 1,) of sources; (P,) numbers of pairs sorted by source; (P,) */
    const float *bias;                      /* (P, H), added to scores, or none */
    const uint8_t *allowed;                 /* (P, H), or none: every head reads every pair */
    float *weights, *read, *out;            /* (H, P) before and after some are dropped, one where none are; (N, H, D) */
    float *dscores, *dq, *dk, *dv;          /* (H, P); gradients, in rows of */
    int64_t row_gradients, nodes, pairs, heads, channels, threads;
    uint64_t seed;
    uint32_t dropped;
    float scale, kept;
} Listed;

static inline float dot(const float *a, const float *b, long count) {
    floats sum = all(0);
    for (long d = 0; d < count; d += LANES) sum += load_some(a + d, count - d) * load_some(b + d, count - d);
    return sum_of(sum);
}

/* What the weights of a reader are multiplied by, from pair `at` of its own on: 0 where they are dropped. */
static inline floats kept_of(const Listed *t, Key key, long at) {
    return pick((ints)(drawn(key, (uint32_t)at) < t->dropped), all(0), all(t->kept));
}

#define ABREAST 4 /* vectors of a row that are summed up at once */
#define SOON 4    /* pairs ahead whose rows are fetched */

/* Rows of a head that pairs lead to, and their weights. Pairs go by `which`, or in their order; their rows by `index`. */
typedef struct {
    const float *rows, *weights;
    const int64_t *index, *which;
    long row;
} Terms;

static inline long numbered(const Terms *t, long p) { return t->which ? t->which[p] : p; }

static inline void sum_up(const Terms *t, long count, long many, long some, float scale, long first, float *to) {
    floats sum[ABREAST] = {};
    for (long p = 0; p < count; p++) {
        const long at = numbered(t, p), soon = numbered(t, p + SOON < count ? p + SOON : p);
        const float *row = t->rows + t->index[at] * t->row + first, *next = t->rows + t->index[soon] * t->row + first;
        for (long n = 0; n < many; n++) {
            __builtin_prefetch(next + n * LANES);
            sum[n] += t->weights[at] * load_some(row + n * LANES, some - n * LANES);
        }
    }
    for (long n = 0; n < many; n++) store_some(to + first + n * LANES, sum[n] * scale, some - n * LANES);
}

/* to (D,) = scale * the weighted sum of the rows of `count` pairs. */
static inline void weighted(const Terms *t, long count, long channels, float scale, float *to) {
    long first = 0;
    for (; first + ABREAST * LANES <= channels; first += ABREAST * LANES)
        sum_up(t, count, ABREAST, ABREAST * LANES, scale, first, to);
    for (; first + LANES <= channels; first += LANES) sum_up(t, count, 1, LANES, scale, first, to);
    if (first < channels) sum_up(t, count, 1, channels - first, scale, first, to);
}

/* The products of a row (D,) with those that pairs lead to. */
static inline void products(const float *row, const float *rows, long ld, const int64_t *index, long count, long channels,
                            float scale, float *to) {
    for (long p = 0; p < count; p++) {
        const float *next = rows + index[p + SOON < count ? p + SOON : p] * ld;
        for (long d = 0; d < channels; d += LANES) __builtin_prefetch(next + d);
        to[p] = dot(row, rows + index[p] * ld, channels) * scale;
    }
}

/* Head by head, so that what the pairs of one lead to stays in the caches. */
void listed_forward(const Listed *t) {
    const long heads = t->heads, channels = t->channels;
#pragma omp parallel for num_threads(t->threads) schedule(dynamic, NODES) collapse(2)
    for (long h = 0; h < heads; h++)
        for (long i = 0; i < t->nodes; i++) {
            const long first = t->rowptr[i], count = t->rowptr[i + 1] - first, at = h * channels;
            const int64_t *source = t->source + first;
            float *weights = t->weights + h * t->pairs + first, *read = t->read + h * t->pairs + first, top = -INFINITY;
            products(t->q + i * t->row_q + at, t->k + at, t->row_k, source, count, channels, t->scale, weights);
            for (long p = 0; p < count; p++) {
                if (t->bias) weights[p] += t->bias[(first + p) * heads + h];
                if (t->allowed && !t->allowed[(first + p) * heads + h]) weights[p] = -INFINITY;
                top = weights[p] > top ? weights[p] : top;
            }
            if (top == -INFINITY) top = 0; /* reads nobody, or what is not a number */
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
            const Terms values = {t->v + at, read, source, 0, t->row_v};
            weighted(&values, count, channels, 1, t->out + (i * heads + h) * channels);
        }
}

void listed_backward(const Listed *t) {
    const long heads = t->heads, channels = t->channels;
#pragma omp parallel num_threads(t->threads)
    {
#pragma omp for schedule(dynamic, NODES) collapse(2)
        for (long h = 0; h < heads; h++)
            for (long i = 0; i < t->nodes; i++) { /* by reader */
                const long first = t->rowptr[i], count = t->rowptr[i + 1] - first, at = h * channels;
                const long row = h * t->pairs + first;
                const int64_t *source = t->source + first;
                const float *grad = t->grad + i * t->row_grad + at, *weights = t->weights + row;
                float *dscores = t->dscores + row, *read = t->read + row;
                products(grad, t->v + at, t->row_v, source, count, channels, 1, dscores);
                const float inner = dot(grad, t->out + (i * heads + h) * channels, channels);
                const Key key = key_of(t->seed, i * heads + h);
                for (long p = 0; p < count; p += LANES) {
                    const floats weight = load_some(weights + p, count - p);
                    const floats kept = t->dropped ? kept_of(t, key, p) : all(1);
                    const floats dweight = load_some(dscores + p, count - p) * kept;
                    if (t->dropped) store_some(read + p, weight * kept, count - p);
                    store_some(dscores + p, weight * (dweight - inner), count - p);
                }
                const Terms keys = {t->k + at, dscores, source, 0, t->row_k};
                weighted(&keys, count, channels, t->scale, t->dq + i * t->row_gradients + at);
            }
#pragma omp for schedule(dynamic, NODES) collapse(2)
        for (long h = 0; h < heads; h++)
            for (long j = 0; j < t->nodes; j++) { /* by source */
                const long first = t->colptr[j], count = t->colptr[j + 1] - first, at = h * channels;
                const int64_t *order = t->order + first;
                const Terms queries = {t->q + at, t->dscores + h * t->pairs, t->target, order, t->row_q};
                const Terms gradients = {t->grad + at, t->read + h * t->pairs, t->target, order, t->row_grad};
                weighted(&queries, count, channels, t->scale, t->dk + j * t->row_gradients + at);
                weighted(&gradients, count, channels, 1, t->dv + j * t->row_gradients + at);
            }
    }
}
