// out[e] = Σ_s partials[s, e], in double and in fixed order: row r of the block adds s = r, r + ROWS, …, then the rows
// are added in turn. Entries from `first` on go to `rest`. With BIAS: + bias[e / INNER % CHANNELS].

extern "C" __global__ void sum_partials(const PARTIAL* partials, const REAL* bias, REAL* out, REAL* rest,
                                        unsigned entries, unsigned first, unsigned count) {
  __shared__ double sums[ROWS][32];
  const unsigned lane = threadIdx.x % 32, row = threadIdx.x / 32, e = blockIdx.x * 32u + lane;
  double sum = 0;
  if (e < entries) {
#pragma unroll 8
    for (unsigned s = row; s < count; s += ROWS) sum += partials[(size_t)s * entries + e];
  }
  sums[row][lane] = sum;
  __syncthreads();
  if (row > 0 || e >= entries) return;
#pragma unroll
  for (int r = 1; r < ROWS; r++) sum += sums[r][lane];
#if BIAS
  sum += bias[e / INNER % CHANNELS];
#endif
  if (e < first) out[e] = (REAL)sum;
  else rest[e - first] = (REAL)sum;
}
