// Softmax cross-entropy, a warp for each sample: Φ = log Σ_k e^{x_k − m} − (x_y − m) with m = max x, ‖x‖_∞, and the
// terminal costate p = −(e^{x_k − m} / Σ − [k = y]) / samples. A NaN among the x makes all three NaN.

extern "C" __global__ void cross_entropy(const REAL* x, const LABEL* y, REAL* losses, REAL* largest, REAL* p,
                                         unsigned batch, REAL samples) {
  const unsigned s = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  const bool inside = s < batch;  // threads beyond the batch come along for the shuffles
  x += (size_t)(inside ? s : 0) * CLASSES;
  REAL m = x[0], size = 0;
  bool number = true;
  for (unsigned k = lane; k < CLASSES; k += 32) {
    const REAL v = x[k], magnitude = v < 0 ? -v : v;
    m = v > m ? v : m;
    size = magnitude > size ? magnitude : size;
    number = number && v == v;
  }
  int numbers = number;
  for (int mask = 16; mask > 0; mask /= 2) {
    const REAL other = __shfl_xor_sync(0xffffffffu, m, mask), large = __shfl_xor_sync(0xffffffffu, size, mask);
    const int others = __shfl_xor_sync(0xffffffffu, numbers, mask);
    m = other > m ? other : m;
    size = large > size ? large : size;
    numbers = numbers < others ? numbers : others;
  }
  REAL sum = 0;
  for (unsigned k = lane; k < CLASSES; k += 32) sum += exp(x[k] - m);
  for (int mask = 16; mask > 0; mask /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
  if (!inside) return;
  const long long label = (long long)y[s];
  if (lane == 0) {
    losses[s] = log(sum) - (label >= 0 && label < CLASSES ? x[label] - m : REAL(0));
    largest[s] = numbers ? size : sum;  // with a NaN the sum is NaN
  }
  p += (size_t)s * CLASSES;
  for (unsigned k = lane; k < CLASSES; k += 32) p[k] = (REAL(k == label) - exp(x[k] - m) / sum) / samples;
}
