// Pooling of `planes` images IN_ROWS × IN_COLUMNS to OUT_ROWS × OUT_COLUMNS: one thread for each entry of the result.
// Windows are ROWS × COLUMNS, every ROW_STRIDE rows and COLUMN_STRIDE columns; all lie inside the image.

typedef unsigned int u32;
#define IN_PIXELS (IN_ROWS * IN_COLUMNS)
#define OUT_PIXELS (OUT_ROWS * OUT_COLUMNS)

// The windows along one axis that contain pixel h: first … last.
__device__ __forceinline__ int first_window(int h, int size, int stride) {
  return h < size ? 0 : (h - size) / stride + 1;
}
__device__ __forceinline__ int last_window(int h, int stride, int count) {
  return h / stride < count ? h / stride : count - 1;
}

// Tap of the first maximal entry of the window that begins at `window`, row by row; NaN is larger than any number.
__device__ __forceinline__ int largest_tap(const REAL* window, REAL* value) {
  REAL best = window[0];
  int tap = 0;
#pragma unroll
  for (int s = 0; s < ROWS; s++)
#pragma unroll
    for (int t = 0; t < COLUMNS; t++) {
      const REAL v = window[s * IN_COLUMNS + t];
      if (v > best || (v != v && best == best)) {
        best = v;
        tap = s * COLUMNS + t;
      }
    }
  *value = best;
  return tap;
}

// y = mean of the window
extern "C" __global__ void average_forward(const REAL* x, REAL* y, u32 planes) {
  const u32 e = blockIdx.x * blockDim.x + threadIdx.x;
  if (e >= planes * OUT_PIXELS) return;
  const u32 pixel = e % OUT_PIXELS, r = pixel / OUT_COLUMNS, c = pixel % OUT_COLUMNS;
  const REAL* window = x + (size_t)(e / OUT_PIXELS) * IN_PIXELS + (r * ROW_STRIDE * IN_COLUMNS + c * COLUMN_STRIDE);
  REAL sum = 0;
#pragma unroll
  for (int s = 0; s < ROWS; s++)
#pragma unroll
    for (int t = 0; t < COLUMNS; t++) sum += window[s * IN_COLUMNS + t];
  y[e] = sum / (ROWS * COLUMNS);
}

// x̄ = Σ p / (window's size) over the windows that contain the pixel
extern "C" __global__ void average_costate(const REAL* p, REAL* x, u32 planes) {
  const u32 e = blockIdx.x * blockDim.x + threadIdx.x;
  if (e >= planes * IN_PIXELS) return;
  const int pixel = e % IN_PIXELS, h = pixel / IN_COLUMNS, w = pixel % IN_COLUMNS;
  const REAL* plane = p + (size_t)(e / IN_PIXELS) * OUT_PIXELS;
  const int r_last = last_window(h, ROW_STRIDE, OUT_ROWS), c_last = last_window(w, COLUMN_STRIDE, OUT_COLUMNS);
  REAL sum = 0;
  for (int r = first_window(h, ROWS, ROW_STRIDE); r <= r_last; r++)
    for (int c = first_window(w, COLUMNS, COLUMN_STRIDE); c <= c_last; c++)
      sum += plane[r * OUT_COLUMNS + c] / (ROWS * COLUMNS);
  x[e] = sum;
}

// y = largest entry of the window
extern "C" __global__ void max_forward(const REAL* x, REAL* y, u32 planes) {
  const u32 e = blockIdx.x * blockDim.x + threadIdx.x;
  if (e >= planes * OUT_PIXELS) return;
  const u32 pixel = e % OUT_PIXELS, r = pixel / OUT_COLUMNS, c = pixel % OUT_COLUMNS;
  REAL best;
  largest_tap(x + (size_t)(e / OUT_PIXELS) * IN_PIXELS + (r * ROW_STRIDE * IN_COLUMNS + c * COLUMN_STRIDE), &best);
  y[e] = best;
}

// x̄ = Σ p over the windows whose first maximal entry is the pixel
extern "C" __global__ void max_costate(const REAL* x, const REAL* p, REAL* result, u32 planes) {
  const u32 e = blockIdx.x * blockDim.x + threadIdx.x;
  if (e >= planes * IN_PIXELS) return;
  const int pixel = e % IN_PIXELS, h = pixel / IN_COLUMNS, w = pixel % IN_COLUMNS;
  const REAL* image = x + (size_t)(e / IN_PIXELS) * IN_PIXELS;
  const REAL* plane = p + (size_t)(e / IN_PIXELS) * OUT_PIXELS;
  const int r_last = last_window(h, ROW_STRIDE, OUT_ROWS), c_last = last_window(w, COLUMN_STRIDE, OUT_COLUMNS);
  REAL sum = 0, best;
  for (int r = first_window(h, ROWS, ROW_STRIDE); r <= r_last; r++)
    for (int c = first_window(w, COLUMNS, COLUMN_STRIDE); c <= c_last; c++) {
      const int tap = (h - r * ROW_STRIDE) * COLUMNS + (w - c * COLUMN_STRIDE);
      if (largest_tap(image + r * ROW_STRIDE * IN_COLUMNS + c * COLUMN_STRIDE, &best) == tap)
        sum += plane[r * OUT_COLUMNS + c];
    }
  result[e] = sum;
}
