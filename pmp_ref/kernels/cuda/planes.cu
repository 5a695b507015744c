// Global average pooling over planes of PIXELS entries.

// y = mean of the plane, a warp each; the sum is formed in double, in fixed order.
extern "C" __global__ void plane_mean(const REAL* x, REAL* y, unsigned planes) {
  const unsigned plane = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  double sum = 0;
  if (plane < planes)
    for (unsigned e = lane; e < PIXELS; e += 32) sum += x[(size_t)plane * PIXELS + e];
  for (int mask = 16; mask > 0; mask /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
  if (plane < planes && lane == 0) y[plane] = (REAL)(sum / PIXELS);
}

// x̄ = p / PIXELS at every pixel
extern "C" __global__ void plane_costate(const REAL* p, REAL* x, unsigned planes) {
  const unsigned e = blockIdx.x * blockDim.x + threadIdx.x;
  if (e < planes * PIXELS) x[e] = p[e / PIXELS] / PIXELS;
}
