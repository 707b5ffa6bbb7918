/* Matrix products of linear layers: one dimension is that of a batch, the others are widths of the network. */

#define PANEL (2 * LANES) /* columns of a tile: with eight rows its sums take at least half the registers */
#define DEPTH 512         /* terms per partial sum, which keeps rounding errors small */

/* Eight rows and one panel of C += A B: `depth` terms, A with the stride `along`, B with the row stride `ldb`. */
static inline void tile(const float *const *a, long along, const float *b, long ldb, long depth, floats sum[ROWS][2]) {
    for (long d = 0; d < depth; d++) {
        const floats left = load(b + d * ldb), right = load(b + d * ldb + LANES);
        for (int r = 0; r < ROWS; r++) {
            const float each = a[r][d * along];
            sum[r][0] += each * left;
            sum[r][1] += each * right;
        }
    }
}

/* Pack columns from `first` on, or rows if the matrix is `turned` (transposed), into a panel (depth, PANEL). */
static void pack(const float *from, long ld, long depth, long first, long columns, int turned, float *to) {
    const long count = least(columns - first, PANEL);
    for (long d = 0; d < depth; d++) {
        for (long c = 0; c < count; c++) to[d * PANEL + c] = turned ? from[(first + c) * ld + d] : from[d * ld + first + c];
        for (long c = count; c < PANEL; c++) to[d * PANEL + c] = 0;
    }
}

/* C (rows, columns) = A (rows, depth) B (depth, columns) + bias (columns,); if `turned`, B is (columns, depth) and
   transposed. scratch: depth times the columns, rounded up to panels. */
void linear_rows(const float *a, const float *b, const float *bias, float *c, int64_t rows, int64_t columns, int64_t depth,
                 int64_t turned, float *scratch, int64_t threads) {
    const long panels = padded(columns, PANEL) / PANEL, blocks = padded(rows, ROWS) / ROWS;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (long p = 0; p < panels; p++)
            pack(b, turned ? depth : columns, depth, p * PANEL, columns, turned, scratch + p * depth * PANEL);
#pragma omp for schedule(static)
        for (long block = 0; block < blocks; block++) {
            const long first = block * ROWS, count = least(rows - first, ROWS);
            const float *each[ROWS];
            for (long r = 0; r < ROWS; r++) each[r] = a + (first + least(r, count - 1)) * depth;
            for (long p = 0; p < panels; p++) {
                const long some = columns - p * PANEL;
                floats sum[ROWS][2], begin[2] = {};
                if (bias) {
                    begin[0] = load_some(bias + p * PANEL, some);
                    if (some > LANES) begin[1] = load_some(bias + p * PANEL + LANES, some - LANES);
                }
                for (int r = 0; r < ROWS; r++) sum[r][0] = begin[0], sum[r][1] = begin[1];
                tile(each, 1, scratch + p * depth * PANEL, PANEL, depth, sum);
                for (long r = 0; r < count; r++) {
                    float *to = c + (first + r) * columns + p * PANEL;
                    store_some(to, sum[r][0], some);
                    if (some > LANES) store_some(to + LANES, sum[r][1], some - LANES);
                }
            }
        }
    }
}

/* C (left, right) = A^T B of A (rows, left) and B (rows, right): the gradient of weights; whole tiles only. */
void linear_outer(const float *a, const float *b, float *c, int64_t rows, int64_t left, int64_t right, int64_t threads) {
#pragma omp parallel num_threads(threads)
    {
        float own[DEPTH * ROWS];
        const float *each[ROWS];
        for (int r = 0; r < ROWS; r++) each[r] = own + r;
        for (long start = 0; start < rows || start == 0; start += DEPTH) {
            const long depth = least(rows - start, DEPTH);
#pragma omp for schedule(static) nowait
            for (long first = 0; first < left; first += ROWS) {
                for (long d = 0; d < depth; d++)
                    for (int r = 0; r < ROWS; r++) own[d * ROWS + r] = a[(start + d) * left + first + r];
                for (long column = 0; column < right; column += PANEL) {
                    float *to = c + first * right + column;
                    floats sum[ROWS][2] = {};
                    tile(each, ROWS, b + start * right + column, right, depth, sum);
                    for (int r = 0; r < ROWS; r++)
                        for (int half = 0; half < 2; half++) {
                            float *at = to + r * right + half * LANES;
                            store(at, start ? load(at) + sum[r][half] : sum[r][half]);
                        }
                }
            }
        }
    }
}
