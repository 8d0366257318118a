// Matrix products of the interpreter's tests by CuTe, NVIDIA's library of layouts (in CUTLASS): it says itself which lane
// holds which element of a fragment. `compile_cuda.py` compiles each kernel for itself.

#include <cute/tensor.hpp>

using namespace cute;

/// c = a·b for any m, n and k: a is m x k, row-major, b is k x n, given as n x k (`turned`) or else row by row; four warps
/// compute a tile of 32 x 32. Factors go to shared memory, in the layouts given, as T.
template <class Atom, class T, class LoadA, class LoadB, class LayoutA, class LayoutB>
__device__ void multiply(const float* a, const float* b, float* c, int m, int n, int k, bool turned, LayoutA layout_a,
                         LayoutB layout_b) {
    __shared__ alignas(128) T storage_a[cosize_v<LayoutA>], storage_b[cosize_v<LayoutB>];
    Tensor tile_a = make_tensor(make_smem_ptr(storage_a), layout_a);
    Tensor tile_b = make_tensor(make_smem_ptr(storage_b), layout_b);
    constexpr int K = size<1>(LayoutA{});
    auto mma = make_tiled_mma(MMA_Atom<Atom>{}, Layout<Shape<_2, _2>>{}, Tile<_32, _32, Int<K>>{});
    auto mine = mma.get_slice(threadIdx.x);
    auto copy_a = make_tiled_copy_A(Copy_Atom<LoadA, T>{}, mma);
    auto copy_b = make_tiled_copy_B(Copy_Atom<LoadB, T>{}, mma);
    auto mine_a = copy_a.get_slice(threadIdx.x);
    auto mine_b = copy_b.get_slice(threadIdx.x);
    Tensor fragment_a = mine.partition_fragment_A(tile_a);
    Tensor fragment_b = mine.partition_fragment_B(tile_b);
    Tensor places = mine.partition_C(make_identity_tensor(Shape<_32, _32>{}));
    Tensor sums = partition_fragment_C(mma, Shape<_32, _32>{});
    clear(sums);
    int row = blockIdx.y * 32, column = blockIdx.x * 32;
    for (int start = 0; start < k; start += K) {
        for (int i = threadIdx.x; i < 32 * K; i += 128) {
            int line = i / K, depth = i % K;
            bool inside = start + depth < k;
            tile_a(line, depth) = T(inside && row + line < m ? a[(row + line) * k + start + depth] : 0.0f);
            int at = turned ? (column + line) * k + start + depth : (start + depth) * n + column + line;
            tile_b(line, depth) = T(inside && column + line < n ? b[at] : 0.0f);
        }
        __syncthreads();
        copy(copy_a, mine_a.partition_S(tile_a), mine_a.retile_D(fragment_a));
        copy(copy_b, mine_b.partition_S(tile_b), mine_b.retile_D(fragment_b));
        gemm(mma, fragment_a, fragment_b, sums);
        __syncthreads();
    }
    for (int i = 0; i < size(sums); i++) {
        int r = row + get<0>(places(i)), s = column + get<1>(places(i));
        if (r < m && s < n) c[r * n + s] = sums(i);
    }
}

using Along16 = decltype(composition(Swizzle<2, 2, 2>{}, Layout<Shape<_32, _16>, Stride<_16, _1>>{}));
// 16 bytes of a row of 16 bits are eight elements.
using Halves16 = decltype(composition(Swizzle<1, 3, 2>{}, Layout<Shape<_32, _16>, Stride<_16, _1>>{}));
using Across16 = Layout<Shape<_32, _16>, Stride<_1, _32>>;

#define PRODUCT(NAME, TURNED, ATOM, T, LOAD_A, LOAD_B, A, B)                                                            \
    extern "C" __global__ void __launch_bounds__(128) NAME(const float* a, const float* b, float* c, int m, int n, int k) { \
        multiply<ATOM, T, LOAD_A, LOAD_B>(a, b, c, m, n, k, TURNED, A{}, B{});                                          \
    }

/// Both factors by `ldmatrix`.
PRODUCT(tf32, true, SM80_16x8x8_F32TF32TF32F32_TN, tfloat32_t, SM75_U32x4_LDSM_N, SM75_U32x2_LDSM_N, Along16, Along16)

/// The short instruction, by plain loads.
PRODUCT(tf32_short, false, SM80_16x8x4_F32TF32TF32F32_TN, tfloat32_t, UniversalCopy<tfloat32_t>, UniversalCopy<tfloat32_t>, Along16, Along16)

/// Both factors lie across and are transposed by `ldmatrix`.
PRODUCT(bf16, false, SM80_16x8x16_F32BF16BF16F32_TN, bfloat16_t, SM75_U16x8_LDSM_T, SM75_U16x4_LDSM_T, Across16, Across16)

/// The short instruction, by `ldmatrix` and its transposing form.
PRODUCT(bf16_short, false, SM80_16x8x8_F32BF16BF16F32_TN, bfloat16_t, SM75_U32x2_LDSM_N, SM75_U16x2_LDSM_T, Halves16, Across16)

/// f16 by plain loads.
PRODUCT(f16, true, SM80_16x8x16_F32F16F16F32_TN, half_t, UniversalCopy<uint32_t>, UniversalCopy<uint32_t>, Halves16, Halves16)

/// The short instruction.
PRODUCT(f16_short, true, SM80_16x8x8_F32F16F16F32_TN, half_t, SM75_U32x2_LDSM_N, SM75_U32x1_LDSM_N, Halves16, Halves16)
