/* Dropout (Srivastava et al. 2014) that saves only a seed; its backward pass is the same operation. */

#define CHUNK 4096 /* elements per key */
#define ALONE 16384 /* elements up to which one thread is used */

void dropout(const float *x, float *y, int64_t count, uint64_t seed, uint32_t dropped, float kept, int64_t threads) {
#pragma omp parallel for num_threads(threads) if (count > ALONE)
    for (long chunk = 0; chunk < padded(count, CHUNK) / CHUNK; chunk++) {
        const Key key = key_of(seed, chunk);
        const float *from = x + chunk * CHUNK;
        float *to = y + chunk * CHUNK;
        long size = least(count - chunk * CHUNK, CHUNK), i = 0;
        for (; i + LANES <= size; i += LANES)
            store(to + i, load(from + i) * pick((ints)(drawn(key, (uint32_t)i) < dropped), all(0.0f), all(kept)));
        const bits last = drawn(key, (uint32_t)i);
        for (int lane = 0; i + lane < size; lane++) to[i + lane] = from[i + lane] * (last[lane] < dropped ? 0.0f : kept);
    }
}
