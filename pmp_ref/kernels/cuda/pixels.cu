// y = (x/255 − MEAN[c])/STD[c] for states (B, CHANNELS, INNER entries).

__device__ const double means[CHANNELS] = {MEAN};
__device__ const double deviations[CHANNELS] = {STD};

extern "C" __global__ void standardise_pixels(const REAL* x, REAL* y, unsigned entries) {
  const unsigned e = blockIdx.x * blockDim.x + threadIdx.x, c = e / INNER % CHANNELS;
  if (e < entries) y[e] = (x[e] / REAL(255) - REAL(means[c])) / REAL(deviations[c]);
}
