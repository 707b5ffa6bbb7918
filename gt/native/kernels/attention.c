/* Attention within whole graphs of packed nodes, one graph and head at a time, whose rows fit into the nearest caches.
   Like FlashAttention (Dao et al. 2022) it recomputes the weights in the backward pass. */

#define BLOCK 32    /* readers whose scores are computed at once */
#define READERS 512 /* minimum of a task, for each graph and head; more if there would be too many tasks: */
#define TASKS 16    /* maximum for each graph and head; both as in gt/attention/native.py */

typedef struct {
    const float *q, *k, *v, *grad; /* (N, H, D) with these row strides, in floats: */
    int64_t row_q, row_k, row_v, row_grad;
    const int64_t *ptr;       /* (graphs + 1): the first node of each graph */
    float *out, *norm;        /* (N, H, D); (N, H, 2): the maximum score, and the factor that normalises weights */
    float *dq, *dk, *dv;      /* gradients, with the row stride */
    int64_t row_gradients;
    float *scratch;           /* `attention_scratch` floats per thread */
    const int64_t *graph, *begin; /* of each task; its first row in `partial`; or null: one task per graph */
    float *partial;           /* (rows, 2, H, D): contributions of tasks to dk and dv, for graphs with several */
    int64_t tasks;
    int64_t heads, channels, largest, threads;
    int64_t back, ahead;      /* how many positions before and after itself a node reads */
    const uint8_t *allowed;   /* (graphs, 1 or H, side, side): whether i reads j; or null: positions decide */
    const float *bias;        /* (graphs, 1 or H, side, side), added to scores, or null */
    float *dbias;             /* (graphs, H, side, side): its gradient, initially zeros; or null */
    int64_t allowed_heads, bias_heads, side;
    uint64_t seed;
    uint32_t dropped;         /* threshold of dropout, of 2^32 */
    float scale, kept;        /* of scores; of the weights that dropout keeps */
} Attention;

/* Floats per thread: seven copies of a graph's rows, some transposed, two blocks of scores and one of rows. */
int64_t attention_scratch(const Attention *t) {
    long wide = padded(t->channels, LANES), tall = padded(t->largest, BLOCK);
    return 5 * tall * wide + 2 * wide * tall + 2 * BLOCK * tall + BLOCK * wide;
}

static void copy_rows(const float *from, long row, long count, long channels, float *to, long wide, long tall, float scale) {
    for (long i = 0; i < count; i++) {
        for (long d = 0; d < channels; d++) to[i * wide + d] = from[i * row + d] * scale;
        for (long d = channels; d < wide; d++) to[i * wide + d] = 0;
    }
    memset(to + count * wide, 0, sizeof(float) * (tall - count) * wide);
}

static void transpose_rows(const float *from, long row, long count, long channels, float *to, long wide) {
    for (long d = 0; d < channels; d++) {
        for (long i = 0; i < count; i++) to[d * wide + i] = from[i * row + d];
        for (long i = count; i < wide; i++) to[d * wide + i] = 0;
    }
}

/* The nodes read by any of `count` readers from `first` on: `low`, aligned to vectors, up to but excluding `high`. */
static inline void span_of(const Attention *t, long first, long count, long nodes, long *low, long *high) {
    *low = first > t->back ? (first - t->back) / LANES * LANES : 0;
    *high = first + count - 1 < nodes - t->ahead ? first + count + t->ahead : nodes;
}

/* The offset of the row of reader i in a padded (graphs, heads, side, side). */
static inline long padded_row(const Attention *t, long graph, long heads, long h, long i) {
    return ((graph * heads + h % heads) * t->side + i) * t->side;
}

static inline ints open_at(const uint8_t *allowed, long count) {
    typedef uint8_t bytes __attribute__((vector_size(LANES)));
    bytes some = {};
    memcpy(&some, allowed, least(count, LANES));
    return __builtin_convertvector(some, ints) != 0;
}

/* Add the bias to reader i's scores of `width` nodes from `low` on; those that it may not read become minus infinity. */
static inline void complete_scores(const Attention *t, float *scores, long graph, long h, long i, long nodes, long low, long width) {
    const long first = i > t->back ? i - t->back : 0, after = i < nodes - t->ahead ? i + t->ahead + 1 : nodes;
    if (t->bias) {
        const float *bias = t->bias + padded_row(t, graph, t->bias_heads, h, i) + low;
        for (long j = 0; j < width; j += LANES) store(scores + j, load(scores + j) + load_some(bias + j, t->side - low - j));
    }
    if (t->allowed) {
        const uint8_t *allowed = t->allowed + padded_row(t, graph, t->allowed_heads, h, i) + low;
        for (long j = 0; j < width; j += LANES)
            store(scores + j, pick(open_at(allowed + j, t->side - low - j), load(scores + j), all(-INFINITY)));
    }
    for (long j = low; j < first; j++) scores[j - low] = -INFINITY;
    for (long j = after; j < low + width; j++) scores[j - low] = -INFINITY;
}

/* A task: some readers of one graph and head. */
typedef struct {
    long graph, h, at, start, nodes, first, after, parts;
    const int64_t *begin;
} Task;

static inline Task task_of(const Attention *t, long number) {
    const long n = number / t->heads, graph = t->graph ? t->graph[n] : n;
    const long nodes = t->ptr[graph + 1] - t->ptr[graph], share = padded((nodes + TASKS - 1) / TASKS, BLOCK);
    const long readers = share > READERS ? share : READERS, parts = t->graph ? padded(nodes, readers) / readers : 1;
    long part = 0;
    while (part < n && parts > 1 && t->graph[n - part - 1] == graph) part++;
    return (Task){graph, number % t->heads, number % t->heads * t->channels, t->ptr[graph], nodes, part * readers,
                  parts > 1 ? least(nodes, (part + 1) * readers) : nodes, parts, t->begin ? t->begin + n : 0};
}

static inline floats keep(const Attention *t, Key key, long place, floats x) {
    return pick((ints)(drawn(key, (uint32_t)place) < t->dropped), all(0.0f), x);
}

void attention_forward(const Attention *t) {
    const long channels = t->channels, heads = t->heads;
    const long wide = padded(channels, LANES), tall = padded(t->largest, BLOCK), size = attention_scratch(t);
#pragma omp parallel num_threads(t->threads)
    {
        float *q = t->scratch + omp_get_thread_num() * size, *v = q + tall * wide, *k_t = v + tall * wide;
        float *weights = k_t + wide * tall, *out = weights + BLOCK * tall;
#pragma omp for schedule(dynamic)
        for (long number = 0; number < t->tasks * heads; number++) {
            const Task task = task_of(t, number);
            const long graph = task.graph, h = task.h, at = task.at, start = task.start, nodes = task.nodes;
            const long ld = padded(nodes, LANES);
            copy_rows(t->q + start * t->row_q + at, t->row_q, nodes, channels, q, wide, padded(nodes, ROWS), t->scale);
            copy_rows(t->v + start * t->row_v + at, t->row_v, nodes, channels, v, wide, nodes, 1);
            transpose_rows(t->k + start * t->row_k + at, t->row_k, nodes, channels, k_t, ld);
            for (long i = task.first; i < task.after; i += BLOCK) {
                long count = least(task.after - i, BLOCK), low, high;
                span_of(t, i, count, nodes, &low, &high);
                long width = padded(high - low, LANES), rows = padded(count, ROWS);
                product(q + i * wide, wide, 1, k_t + low, ld, rows, width, channels, weights, width, 0);
                float share[BLOCK];
                for (long r = 0; r < count; r++) {
                    float *row = weights + r * width;
                    const long reader = (start + i + r) * heads + h;
                    const Key key = key_of(t->seed, reader);
                    complete_scores(t, row, graph, h, i + r, nodes, low, width);
                    floats most = load(row), total = all(0.0f);
                    for (long j = LANES; j < width; j += LANES) most = pick(load(row + j) > most, load(row + j), most);
                    float top = most[0];
                    for (int lane = 1; lane < LANES; lane++) top = most[lane] > top ? most[lane] : top;
                    if ((t->allowed || t->bias) && top == -INFINITY) top = 0; /* nothing to read, or scores are NaN */
                    for (long j = 0; j < width; j += LANES) {
                        floats weight = exponential(load(row + j) - top);
                        total += weight;
                        store(row + j, t->dropped ? keep(t, key, low + j, weight) : weight);
                    }
                    float sum = sum_of(total);
                    share[r] = sum == 0 ? 0 : t->kept / sum; /* 0 if nothing is read */
                    t->norm[2 * reader] = top;
                    t->norm[2 * reader + 1] = sum == 0 ? 0 : 1 / sum;
                }
                product(weights, width, 1, v + low * wide, wide, rows, wide, high - low, out, wide, 0);
                for (long r = 0; r < count; r++)
                    for (long d = 0; d < channels; d++)
                        t->out[((start + i + r) * heads + h) * channels + d] = out[r * wide + d] * share[r];
            }
        }
    }
}

void attention_backward(const Attention *t) {
    const long channels = t->channels, heads = t->heads;
    const long wide = padded(channels, LANES), tall = padded(t->largest, BLOCK), size = attention_scratch(t);
#pragma omp parallel num_threads(t->threads)
    {
        float *q = t->scratch + omp_get_thread_num() * size, *k = q + tall * wide, *grad = k + tall * wide;
        float *dk = grad + tall * wide, *dv = dk + tall * wide, *k_t = dv + tall * wide, *v_t = k_t + wide * tall;
        float *weights = v_t + wide * tall, *dscores = weights + BLOCK * tall, *dq = dscores + BLOCK * tall;
#pragma omp for schedule(dynamic)
        for (long number = 0; number < t->tasks * heads; number++) {
            const Task task = task_of(t, number);
            const long graph = task.graph, h = task.h, at = task.at, start = task.start, nodes = task.nodes;
            const long ld = padded(nodes, LANES);
            copy_rows(t->q + start * t->row_q + at, t->row_q, nodes, channels, q, wide, padded(nodes, ROWS), t->scale);
            copy_rows(t->k + start * t->row_k + at, t->row_k, nodes, channels, k, wide, nodes, 1);
            copy_rows(t->grad + start * t->row_grad + at, t->row_grad, nodes, channels, grad, wide, padded(nodes, ROWS), 1);
            transpose_rows(t->k + start * t->row_k + at, t->row_k, nodes, channels, k_t, ld);
            transpose_rows(t->v + start * t->row_v + at, t->row_v, nodes, channels, v_t, ld);
            memset(dk, 0, sizeof(float) * ld * wide);
            memset(dv, 0, sizeof(float) * ld * wide);
            for (long i = task.first; i < task.after; i += BLOCK) {
                long count = least(task.after - i, BLOCK), low, high;
                span_of(t, i, count, nodes, &low, &high);
                long width = padded(high - low, LANES), rows = padded(count, ROWS);
                product(q + i * wide, wide, 1, k_t + low, ld, rows, width, channels, weights, width, 0);
                product(grad + i * wide, wide, 1, v_t + low, ld, rows, width, channels, dscores, width, 0);
                for (long r = 0; r < count; r++) {
                    float *row = weights + r * width, *drow = dscores + r * width, inner = 0;
                    const long reader = (start + i + r) * heads + h;
                    const Key key = key_of(t->seed, reader);
                    const float top = t->norm[2 * reader], scale = t->norm[2 * reader + 1];
                    complete_scores(t, row, graph, h, i + r, nodes, low, width);
                    for (long d = 0; d < channels; d++) inner += grad[(i + r) * wide + d] * t->out[reader * channels + d];
                    for (long j = 0; j < width; j += LANES) {
                        floats weight = exponential(load(row + j) - top) * scale, read = weight;
                        floats dweight = load(drow + j);
                        if (t->dropped) {
                            read = keep(t, key, low + j, weight * t->kept);
                            dweight = keep(t, key, low + j, dweight * t->kept);
                        }
                        store(row + j, read);
                        store(drow + j, weight * (dweight - inner));
                    }
                    if (t->dbias)
                        memcpy(t->dbias + padded_row(t, graph, heads, h, i + r) + low, drow, sizeof(float) * (high - low));
                }
                memset(weights + count * width, 0, sizeof(float) * (rows - count) * width);
                memset(dscores + count * width, 0, sizeof(float) * (rows - count) * width);
                product(dscores, width, 1, k + low * wide, wide, rows, wide, high - low, dq, wide, 0);
                for (long r = 0; r < count; r++)
                    for (long d = 0; d < channels; d++)
                        t->dq[(start + i + r) * t->row_gradients + at + d] = dq[r * wide + d] * t->scale;
                product(weights, 1, width, grad + i * wide, wide, width, wide, count, dv + low * wide, wide, 1);
                product(dscores, 1, width, q + i * wide, wide, width, wide, count, dk + low * wide, wide, 1);
            }
            for (long i = 0; i < nodes; i++) {
                float *to_k = t->dk + (start + i) * t->row_gradients + at, *to_v = t->dv + (start + i) * t->row_gradients + at;
                if (task.parts > 1) {
                    to_k = t->partial + (*task.begin + i) * 2 * heads * channels + at;
                    to_v = to_k + heads * channels;
                }
                memcpy(to_k, dk + i * wide, sizeof(float) * channels);
                memcpy(to_v, dv + i * wide, sizeof(float) * channels);
            }
        }
        for (long n = 0; t->graph && n < t->tasks; n++) { /* sum over the tasks of a graph, in order */
            const Task task = task_of(t, n * heads);
            if (task.first || task.parts == 1) continue;
#pragma omp for schedule(static)
            for (long i = 0; i < task.nodes; i++)
                for (long d = 0; d < heads * channels; d++) {
                    float k = 0, v = 0;
                    for (long part = 0; part < task.parts; part++) {
                        const float *from = t->partial + (task.begin[part] + i) * 2 * heads * channels + d;
                        k += from[0];
                        v += from[heads * channels];
                    }
                    t->dk[(task.start + i) * t->row_gradients + d] = k;
                    t->dv[(task.start + i) * t->row_gradients + d] = v;
                }
        }
    }
}
