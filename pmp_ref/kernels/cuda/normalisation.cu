// Standardisation of rows of ENTRIES numbers, one row (a sample's group of channels) for each block of THREADS threads.
// Sums are formed in double, in fixed order.

// Σ over the block of a thread's a; every thread gets it.
__device__ __forceinline__ double block_sum(double a, double* warps) {
  for (int mask = 16; mask > 0; mask /= 2) a += __shfl_xor_sync(0xffffffffu, a, mask);
  __syncthreads();  // all have read what an earlier sum left in `warps`
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = a;
  __syncthreads();
  a = warps[0];
#pragma unroll
  for (int w = 1; w < THREADS / 32; w++) a += warps[w];
  return a;
}

// y = (x − m(x)) / s, s² = m((x − m(x))²) + delta
extern "C" __global__ void standardise(const REAL* x, REAL* y, double delta) {
  __shared__ double warps[THREADS / 32];
  const size_t start = (size_t)blockIdx.x * ENTRIES;
  x += start;
  y += start;
  double sum = 0, squares = 0;
  for (int e = threadIdx.x; e < ENTRIES; e += THREADS) sum += x[e];
  const REAL mean = (REAL)(block_sum(sum, warps) / ENTRIES);
  for (int e = threadIdx.x; e < ENTRIES; e += THREADS) squares += (double)(x[e] - mean) * (x[e] - mean);
  const REAL s = (REAL)sqrt(block_sum(squares, warps) / ENTRIES + delta);
  for (int e = threadIdx.x; e < ENTRIES; e += THREADS) y[e] = (x[e] - mean) / s;
}

// x̄ = (p − m(p) − y m(y p)) / s; with c = x − m(x) it is y = c / s and y m(y p) = c m(c p) / s²
extern "C" __global__ void standardise_costate(const REAL* x, const REAL* p, REAL* result, double delta) {
  __shared__ double warps[THREADS / 32];
  const size_t start = (size_t)blockIdx.x * ENTRIES;
  x += start;
  p += start;
  result += start;
  double sum = 0, squares = 0, costates = 0, products = 0;
  for (int e = threadIdx.x; e < ENTRIES; e += THREADS) sum += x[e];
  const REAL mean = (REAL)(block_sum(sum, warps) / ENTRIES);
  for (int e = threadIdx.x; e < ENTRIES; e += THREADS) {
    const double c = x[e] - mean;
    squares += c * c;
    costates += p[e];
    products += c * p[e];
  }
  const double variance = block_sum(squares, warps) / ENTRIES + delta;
  const REAL s = (REAL)sqrt(variance), mean_p = (REAL)(block_sum(costates, warps) / ENTRIES);
  const REAL slope = (REAL)(block_sum(products, warps) / ENTRIES / variance);
  for (int e = threadIdx.x; e < ENTRIES; e += THREADS) result[e] = (p[e] - mean_p - (x[e] - mean) * slope) / s;
}
