// Scale and shift of channels, states (B, CHANNELS, INNER entries).

#if BIAS
#define SHIFT(c) bias[c]
#else
#define SHIFT(c) REAL(0)
#endif

// y = k[c] x + bias[c]; without BIAS also the costate k[c] p
extern "C" __global__ void scale(const REAL* x, const REAL* k, const REAL* bias, REAL* y, unsigned entries) {
  const unsigned e = blockIdx.x * blockDim.x + threadIdx.x, c = e / INNER % CHANNELS;
  if (e < entries) y[e] = k[c] * x[e] + SHIFT(c);
}

// partials[split, c] = Σ x p and partials[split, CHANNELS + c] = Σ p over `chunk` of the B·INNER entries of channel c,
// in double, added by threads in fixed order: each its own, then 32 threads by halves, then the warps in turn.
extern "C" __global__ void scale_switching(const REAL* x, const REAL* p, double* partials, unsigned batch,
                                           unsigned chunk) {
  __shared__ double warps[2][THREADS / 32];
  const unsigned c = blockIdx.x % CHANNELS, split = blockIdx.x / CHANNELS, all = batch * INNER;
  const unsigned first = split * chunk, last = all - first < chunk ? all : first + chunk;
  double g = 0, ones = 0;
  for (unsigned q = first + threadIdx.x; q < last; q += THREADS) {
    const size_t e = (size_t)(q / INNER) * (CHANNELS * INNER) + (c * INNER + q % INNER);
    g += (double)x[e] * p[e];
    ones += p[e];
  }
  for (int mask = 16; mask > 0; mask /= 2) {
    g += __shfl_xor_sync(0xffffffffu, g, mask);
    ones += __shfl_xor_sync(0xffffffffu, ones, mask);
  }
  if (threadIdx.x % 32 == 0) {
    warps[0][threadIdx.x / 32] = g;
    warps[1][threadIdx.x / 32] = ones;
  }
  __syncthreads();
  if (threadIdx.x > 0) return;
#pragma unroll
  for (int w = 1; w < THREADS / 32; w++) {
    g += warps[0][w];
    ones += warps[1][w];
  }
  partials[(size_t)split * (2 * CHANNELS) + c] = g;
  partials[(size_t)split * (2 * CHANNELS) + CHANNELS + c] = ones;
}
