/* Gated sums over the edges that each node reads (Bresson & Laurent 2018), and the edges' new states:
   e_ij = D x_i + E x_j + C e_ij, x_i' = A x_i + sum_j s(e_ij) B x_j / (sum_j s(e_ij) + 1e-6), s the sigmoid. */

#define EPSILON 1e-6f

typedef struct {
    const float *node;              /* (N, 4 W): A and D of a reader, B and E of a source */
    const float *given;             /* (E, W): C of each edge */
    const int64_t *source, *rowptr; /* (E,), edges sorted by target; (N + 1,) */
    const int64_t *order, *colptr;  /* (E,) edge indices sorted by source; (N + 1,) */
    float *edge, *out, *mean, *total; /* (E, W) e_ij; (N, W) x_i', the gated mean, and its denominator */
    const float *dout, *dedge;      /* gradients of the outputs */
    float *dnode, *dgiven, *sent;   /* of the inputs; scratch (E, W): the gradient that an edge passes to its value */
    int64_t nodes, width, threads;
} Gated;

static inline floats sigmoid(floats x) { return 1.0f / (1.0f + exponential(-pick(x < all(-87.0f), all(-87.0f), x))); }

void gated_forward(const Gated *t) {
    const long width = t->width;
#pragma omp parallel for num_threads(t->threads) schedule(static)
    for (long i = 0; i < t->nodes; i++)
        for (long c = 0; c < width; c += LANES) {
            const long some = width - c;
            const float *own = t->node + i * 4 * width + c;
            const floats reader = load_some(own + width, some);
            floats sum = all(0), total = all(0);
            for (long at = t->rowptr[i]; at < t->rowptr[i + 1]; at++) {
                const float *source = t->node + t->source[at] * 4 * width + c;
                const floats edge = reader + load_some(source + 3 * width, some) + load_some(t->given + at * width + c, some);
                const floats gate = sigmoid(edge);
                store_some(t->edge + at * width + c, edge, some);
                sum += gate * load_some(source + 2 * width, some);
                total += gate;
            }
            total += EPSILON;
            store_some(t->total + i * width + c, total, some);
            store_some(t->mean + i * width + c, sum / total, some);
            store_some(t->out + i * width + c, load_some(own, some) + sum / total, some);
        }
}

void gated_backward(const Gated *t) {
    const long width = t->width;
#pragma omp parallel num_threads(t->threads)
    {
#pragma omp for schedule(static)
        for (long i = 0; i < t->nodes; i++) /* by target: gradients of edges and of readers' terms */
            for (long c = 0; c < width; c += LANES) {
                const long some = width - c;
                const floats dout = load_some(t->dout + i * width + c, some), mean = load_some(t->mean + i * width + c, some);
                const floats share = dout / load_some(t->total + i * width + c, some);
                floats dreader = all(0);
                for (long at = t->rowptr[i]; at < t->rowptr[i + 1]; at++) {
                    const long e = at * width + c;
                    const floats gate = sigmoid(load_some(t->edge + e, some));
                    const floats value = load_some(t->node + t->source[at] * 4 * width + 2 * width + c, some);
                    const floats dedge = load_some(t->dedge + e, some) + share * (value - mean) * gate * (1.0f - gate);
                    store_some(t->dgiven + e, dedge, some);
                    store_some(t->sent + e, share * gate, some);
                    dreader += dedge;
                }
                store_some(t->dnode + i * 4 * width + c, dout, some);
                store_some(t->dnode + i * 4 * width + width + c, dreader, some);
            }
#pragma omp for schedule(static)
        for (long j = 0; j < t->nodes; j++) /* by source: gradients of sources' terms */
            for (long c = 0; c < width; c += LANES) {
                const long some = width - c;
                floats dvalue = all(0), dquery = all(0);
                for (long at = t->colptr[j]; at < t->colptr[j + 1]; at++) {
                    const long e = t->order[at] * width + c;
                    dvalue += load_some(t->sent + e, some);
                    dquery += load_some(t->dgiven + e, some);
                }
                store_some(t->dnode + j * 4 * width + 2 * width + c, dvalue, some);
                store_some(t->dnode + j * 4 * width + 3 * width + c, dquery, some);
            }
    }
}
