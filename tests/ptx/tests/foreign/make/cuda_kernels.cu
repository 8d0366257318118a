// Kernels of the interpreter's tests, for NVRTC: what compiled C++ does with shuffles, shared memory, vectors,
// asynchronous copies, predicates and functions. `compile_cuda.py` compiles each for itself.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline.h>

/// sums[block] = sum of the block's share of x, read by fours.
extern "C" __global__ void __launch_bounds__(256) reduce(const float4* __restrict__ x, float* sums, int fours) {
    __shared__ float partial[8];
    float sum = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < fours; i += gridDim.x * blockDim.x) {
        float4 v = x[i];
        sum += v.x + v.y + v.z + v.w;
    }
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_down_sync(0xffffffff, sum, distance);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (lane == 0) partial[warp] = sum;
    __syncthreads();
    if (warp == 0) {
        sum = lane < blockDim.x / 32 ? partial[lane] : 0;
        for (int distance = 4; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffff, sum, distance, 8);
        if (lane == 0) sums[blockIdx.x] = sum;
    }
}

/// y = x transposed, by tiles of 32 x 32 with 8 rows of threads.
extern "C" __global__ void transpose(const float* x, float* y, int rows, int columns) {
    __shared__ float tile[32][33];
    int column = blockIdx.x * 32 + threadIdx.x, row = blockIdx.y * 32 + threadIdx.y;
    for (int i = 0; i < 32; i += 8)
        if (row + i < rows && column < columns) tile[threadIdx.y + i][threadIdx.x] = x[(row + i) * columns + column];
    __syncthreads();
    column = blockIdx.y * 32 + threadIdx.x;
    row = blockIdx.x * 32 + threadIdx.y;
    for (int i = 0; i < 32; i += 8)
        if (row + i < columns && column < rows) y[(row + i) * rows + column] = tile[threadIdx.x][threadIdx.y + i];
}

/// c = a·b, row-major, k and n multiples of 4; tiles of 32 x 32 x 16 in three stages of asynchronous copies, a thread
/// computes 2 x 2. Rows and columns outside are copied as zeros.
extern "C" __global__ void __launch_bounds__(256) pipelined(const float* a, const float* b, float* c, int m, int n, int k) {
    extern __shared__ float4 storage[];
    float (*ta)[32][16] = reinterpret_cast<float (*)[32][16]>(storage);
    float (*tb)[16][32] = reinterpret_cast<float (*)[16][32]>(ta + 3);
    int t = threadIdx.x, row = blockIdx.y * 32, column = blockIdx.x * 32;
    auto copy = [&](int tile) {
        if (tile * 16 < k) {
            int stage = tile % 3;
            if (t < 128) {
                int y = t / 4, x = t % 4 * 4, from = tile * 16 + x;
                bool inside = row + y < m && from < k;
                __pipeline_memcpy_async(&ta[stage][y][x], inside ? &a[(row + y) * k + from] : a, 16, inside ? 0 : 16);
            } else {
                int y = (t - 128) / 8, x = t % 8 * 4, from = tile * 16 + y;
                bool inside = from < k && column + x < n;
                __pipeline_memcpy_async(&tb[stage][y][x], inside ? &b[from * n + column + x] : b, 16, inside ? 0 : 16);
            }
        }
        __pipeline_commit();
    };
    float sum[2][2] = {};
    int y = t / 16, x = t % 16;
    copy(0);
    copy(1);
    for (int tile = 0; tile * 16 < k; tile++) {
        __pipeline_wait_prior(1);
        __syncthreads();
        copy(tile + 2);
        for (int i = 0; i < 16; i++) {
            float p = ta[tile % 3][y][i], q = ta[tile % 3][y + 16][i];
            float r = tb[tile % 3][i][x], s = tb[tile % 3][i][x + 16];
            sum[0][0] = fmaf(p, r, sum[0][0]);
            sum[0][1] = fmaf(p, s, sum[0][1]);
            sum[1][0] = fmaf(q, r, sum[1][0]);
            sum[1][1] = fmaf(q, s, sum[1][1]);
        }
    }
    __pipeline_wait_prior(0);
    for (int i = 0; i < 4; i++) {
        int r = row + y + i / 2 * 16, s = column + x + i % 2 * 16;
        if (r < m && s < n) c[r * n + s] = sum[i / 2][i % 2];
    }
}

/// Twelve functions of n numbers, function after function.
extern "C" __global__ void functions(const float* x, const float* z, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float v = x[i], w = z[i];
    y[i] = fmaf(v, w, v);
    y[n + i] = v / w;
    y[2 * n + i] = sqrtf(fabsf(v));
    y[3 * n + i] = rsqrtf(fabsf(w));
    y[4 * n + i] = expf(v);
    y[5 * n + i] = logf(fabsf(w));
    y[6 * n + i] = tanhf(v);
    y[7 * n + i] = fminf(v, w) - fmaxf(v, -w);
    y[8 * n + i] = __sinf(v) * __cosf(w);
    y[9 * n + i] = erff(v);
    y[10 * n + i] = copysignf(floorf(v) + ceilf(w) - truncf(v) * rintf(w), w);
    y[11 * n + i] = powf(fabsf(v), w);
}

/// Ten functions of n integers.
extern "C" __global__ void integers(const int* x, const int* z, int* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int v = x[i], w = z[i];
    unsigned u = v, t = w;
    y[i] = v / w + v % w;
    y[n + i] = u / t + u % t;
    y[2 * n + i] = v / 7 + v % 10 + (int)(u / 1000);
    y[3 * n + i] = __clz(v) + __popc(w) * 100 + __ffs(v) * 10000;
    y[4 * n + i] = __brev(v) ^ __byte_perm(v, w, 0x5241);
    y[5 * n + i] = __funnelshift_l(v, w, 11) ^ __funnelshift_r(v, w, v);
    y[6 * n + i] = __mulhi(v, w) + __umulhi(u, t);
    y[7 * n + i] = (int)(((long long)v * w) >> 13) + (int)((unsigned long long)u * t % 1000003ull);
    y[8 * n + i] = min(v, w) - max(v, w) + abs(v) + (v << (t & 15)) + (v >> (t & 15)) + (u >> 9 & 0x7f);
    y[9 * n + i] = (short)v * (unsigned char)w + (signed char)v;
}

/// Numbers through the formats of 16 bits, two at a time, and through integers.
extern "C" __global__ void formats(const float2* x, __half2* h, __nv_bfloat162* b, float2* y, short2* s, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float2 v = x[i];
    __half2 half = __floats2half2_rn(v.x, v.y);
    __nv_bfloat162 brain = __floats2bfloat162_rn(v.x, v.y);
    h[i] = half;
    b[i] = brain;
    float2 p = __half22float2(half), q = __bfloat1622float2(brain);
    y[i] = make_float2(p.x - q.x, p.y - q.y);
    s[i] = make_short2((short)__float2int_rn(v.x), (short)__float2int_rd(v.y));
}

/// The positive numbers of x, in order: a block each 256, whose count is in counts.
extern "C" __global__ void __launch_bounds__(256) compact(const float* x, float* y, int* counts, int n) {
    __shared__ int before[8];
    int i = blockIdx.x * 256 + threadIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    float v = i < n ? x[i] : 0;
    unsigned positive = __ballot_sync(0xffffffff, v > 0);
    if (lane == 0) before[warp] = __popc(positive);
    __syncthreads();
    int at = __popc(positive & ((1u << lane) - 1));
    for (int w = 0; w < warp; w++) at += before[w];
    if (v > 0) y[blockIdx.x * 256 + at] = v;
    if (threadIdx.x == 255) counts[blockIdx.x] = at + (v > 0);
}

/// Median of the 3 x 3 neighbours of a pixel; borders are repeated. (Local arrays and selections.)
extern "C" __global__ void median(const unsigned char* x, unsigned char* y, int height, int width) {
    __shared__ unsigned char tile[10][34];
    int column = blockIdx.x * 32, row = blockIdx.y * 8;
    for (int i = threadIdx.y * 32 + threadIdx.x; i < 340; i += 256) {
        int r = min(max(row + i / 34 - 1, 0), height - 1), c = min(max(column + i % 34 - 1, 0), width - 1);
        tile[i / 34][i % 34] = x[r * width + c];
    }
    __syncthreads();
    row += threadIdx.y;
    column += threadIdx.x;
    if (row >= height || column >= width) return;
    int count[9];
    unsigned char middle = 0;
    for (int i = 0; i < 9; i++) {
        unsigned char v = tile[threadIdx.y + i / 3][threadIdx.x + i % 3];
        count[i] = 0;
        for (int j = 0; j < 9; j++) {
            unsigned char w = tile[threadIdx.y + j / 3][threadIdx.x + j % 3];
            count[i] += w < v || (w == v && j < i);
        }
        if (count[i] == 4) middle = v;
    }
    y[row * width + column] = middle;
}

/// y[i] = the sum of those of a row of eight numbers that an index list names: a local array with computed indices.
extern "C" __global__ void gather(const int4* indices, const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float row[8];
    for (int j = 0; j < 8; j++) row[j] = x[i * 8 + j] * (j + 1);
    int4 at = indices[i];
    row[at.w & 7] += 1;
    y[i] = row[at.x & 7] + row[at.y & 7] * row[at.z & 7];
}
