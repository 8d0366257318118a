// Algorithms of a block from CUB, NVIDIA's library (in CCCL): `compile_cuda.py` compiles each kernel for itself.

#include <cub/block/block_exchange.cuh>
#include <cub/block/block_radix_sort.cuh>
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>
#include <cub/warp/warp_scan.cuh>

/// Of each block's share of 512 numbers: the sum in sums, and y = the sums of what stands before each number.
extern "C" __global__ void __launch_bounds__(128) sums_before(const float* x, float* y, float* sums, int n) {
    using Scan = cub::BlockScan<float, 128, cub::BLOCK_SCAN_WARP_SCANS>;
    using Reduce = cub::BlockReduce<float, 128>;
    __shared__ union { typename Scan::TempStorage scan; typename Reduce::TempStorage reduce; } storage;
    float v[4], before[4];
    int first = blockIdx.x * 512 + threadIdx.x * 4;
    for (int i = 0; i < 4; i++) v[i] = first + i < n ? x[first + i] : 0;
    Scan(storage.scan).ExclusiveSum(v, before);
    __syncthreads();
    float sum = Reduce(storage.reduce).Sum(v);
    for (int i = 0; i < 4; i++) if (first + i < n) y[first + i] = before[i];
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

/// Each block's 256 pairs in the order of their keys; those of equal keys keep theirs.
extern "C" __global__ void __launch_bounds__(64) ordered_pairs(const int* keys, const int* values, int* keys_out, int* values_out) {
    using Sort = cub::BlockRadixSort<int, 64, 4, int, 4>;
    __shared__ typename Sort::TempStorage storage;
    int k[4], v[4], first = blockIdx.x * 256 + threadIdx.x * 4;
    for (int i = 0; i < 4; i++) k[i] = keys[first + i], v[i] = values[first + i];
    Sort(storage).Sort(k, v);
    for (int i = 0; i < 4; i++) keys_out[first + i] = k[i], values_out[first + i] = v[i];
}

/// Each warp's largest numbers so far, in segments of eight lanes.
extern "C" __global__ void largest_so_far(const int* x, int* y) {
    using Scan = cub::WarpScan<int, 8>;
    __shared__ typename Scan::TempStorage storage[8];
    int i = blockIdx.x * blockDim.x + threadIdx.x, v = x[i];
    Scan(storage[threadIdx.x / 8]).InclusiveScan(v, v, cuda::maximum<>{});
    y[i] = v;
}

/// 512 numbers of a block, those of a thread side by side, to where each is 128 from the next.
extern "C" __global__ void __launch_bounds__(128) exchanged(const float2* x, float2* y) {
    using Exchange = cub::BlockExchange<float2, 128, 4>;
    __shared__ typename Exchange::TempStorage storage;
    float2 v[4];
    for (int i = 0; i < 4; i++) v[i] = x[blockIdx.x * 512 + threadIdx.x * 4 + i];
    Exchange(storage).BlockedToStriped(v);
    for (int i = 0; i < 4; i++) y[blockIdx.x * 512 + threadIdx.x * 4 + i] = v[i];
}
