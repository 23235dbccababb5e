// Instructions of GPUs by name: barriers and copies in shared memory, and products of matrices on tensor cores.
#pragma once

#include "sampling.cuh"

namespace onnx_rewrite {
ONNX_REWRITE_LOCAL_BEGIN

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define ONNX_REWRITE_WGMMA 1
#else
#define ONNX_REWRITE_WGMMA 0
#endif

__device__ __forceinline__ uint32_t shared_address(void const* p) { return (uint32_t)__cvta_generic_to_shared(p); }

__device__ __forceinline__ void barrier_init(uint64_t* barrier, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count) : "memory");
}

__device__ __forceinline__ void barrier_arrive(uint64_t* barrier) {
    asm volatile("{ .reg .b64 t; mbarrier.arrive.shared::cta.b64 t, [%0]; }" ::"r"(shared_address(barrier)) : "memory");
}

__device__ __forceinline__ bool barrier_done(uint64_t* barrier, uint32_t parity) {
    uint32_t done;
#if __CUDA_ARCH__ >= 900
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(done) : "r"(shared_address(barrier)), "r"(parity) : "memory");
#else
    asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(done) : "r"(shared_address(barrier)), "r"(parity) : "memory");
#endif
    return done != 0;
}

__device__ __forceinline__ void barrier_wait(uint64_t* barrier, uint32_t parity) {
    while (!barrier_done(barrier, parity)) {
    }
}

// Brings `bytes` (a multiple of 512) to shared memory, by all lanes of one warp, and reports to `barrier`.
__device__ __forceinline__ void copy_tile(char* to, char const* from, int bytes, uint64_t* barrier, int lane) {
#if __CUDA_ARCH__ >= 900
    if (lane == 0)
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                         shared_address(to)), "l"(from), "r"(bytes), "r"(shared_address(barrier)) : "memory");
#else
    for (int i = lane * 16; i < bytes; i += 512)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to + i)), "l"(from + i) : "memory");
#endif
}

// Before and after the copies of one stage: how the barrier learns what to wait for.
__device__ __forceinline__ void copy_begin(uint64_t* barrier, int bytes, int lane) {
#if __CUDA_ARCH__ >= 900
    if (lane == 0)
        asm volatile("{ .reg .b64 t; mbarrier.arrive.expect_tx.shared::cta.b64 t, [%0], %1; }" ::"r"(shared_address(barrier)),
                     "r"(bytes) : "memory");
#endif
}

__device__ __forceinline__ void copy_end(uint64_t* barrier) {
#if __CUDA_ARCH__ < 900
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(barrier)) : "memory");
#endif
}

__host__ __device__ constexpr int full_arrivals() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
    return 32;
#else
    return 1;
#endif
}

#if ONNX_REWRITE_WGMMA
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }

#define LIST_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define LIST_32 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define LIST_64 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define LIST_96 "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define F8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define F32(i) F8(i), F8(i + 8), F8(i + 16), F8(i + 24)
#define WGMMA(SHAPE, TYPES, D, A, B, MORE, TAIL, ...) \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, " MORE ", 0;\n" \
                 "wgmma.mma_async.sync.aligned." SHAPE ".f32." TYPES " {" D "}, {" A "}, " B ", p, 1, 1" TAIL ";\n}\n" \
                 : __VA_ARGS__ : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kMore))
#define WGMMA_64(K, TYPES, TAIL) WGMMA("m64n64" K, TYPES, LIST_0, "%32, %33, %34, %35", "%36", "%37", TAIL, F32(0))
#define WGMMA_128(K, TYPES, TAIL) \
    WGMMA("m64n128" K, TYPES, LIST_0 ", " LIST_32, "%64, %65, %66, %67", "%68", "%69", TAIL, F32(0), F32(32))
#define WGMMA_256(K, TYPES, TAIL) \
    WGMMA("m64n256" K, TYPES, LIST_0 ", " LIST_32 ", " LIST_64 ", " LIST_96, "%128, %129, %130, %131", "%132", "%133", TAIL, \
          F32(0), F32(32), F32(64), F32(96))
#define WGMMA_ANY(K, TYPES, TAIL) \
    if constexpr (N == 64) WGMMA_64(K, TYPES, TAIL); \
    else if constexpr (N == 128) WGMMA_128(K, TYPES, TAIL); \
    else WGMMA_256(K, TYPES, TAIL)

// d [64 positions x N] += a [64 x 32 bytes] * b [N x 32 bytes], one warpgroup; a in fragments, b by descriptor. Without
// kMore what was in d is forgotten.
template <typename T, int N, int kMore = 1> __device__ __forceinline__ void multiply(float (&d)[N / 2], uint32_t const* a, uint64_t b) {
    if constexpr (sizeof(T) == 4) { WGMMA_ANY("k8", "tf32.tf32", ""); }
    else if constexpr (IsHalf<T>::value) { WGMMA_ANY("k16", "f16.f16", ", 0"); }
    else { WGMMA_ANY("k16", "bf16.bf16", ", 0"); }
}

template <int N> __device__ __forceinline__ void keep(float (&d)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

template <int N> __device__ __forceinline__ void keep(uint32_t (&a)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) asm volatile("" : "+r"(a[i])::"memory");
}

// Of a tile of weights, swizzled by 128 bytes: rows are kRowBytes apart, groups of eight rows 1024.
__device__ __forceinline__ uint64_t descriptor(uint32_t tile) {
    return (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 16 | (tile & 0x3ffff) >> 4;
}

// Queues the four steps of a stage: 128 bytes of every row of the tile of weights.
template <typename T, int N>
__device__ __forceinline__ void multiply_stage(float (&d)[N / 2], uint32_t (&a)[16], uint32_t tile, int) {
    keep(d);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < 4; ++step) multiply<T, N>(d, a + step * 4, descriptor(tile + step * 32));
    wgmma_commit();
}

// The same for factors that are sums of two: d = low * tile + high * tile_low + high * tile, small products first.
template <int N>
__device__ __forceinline__ void multiply_halves(
    float (&d)[N / 2], uint32_t (&high)[16], uint32_t (&low)[16], uint32_t tile, uint32_t tile_low, int) {
    keep(d);
    keep(high);
    keep(low);
    wgmma_fence();
    multiply<float, N, 0>(d, low, descriptor(tile));
#pragma unroll
    for (int step = 1; step < 4; ++step) multiply<float, N>(d, low + step * 4, descriptor(tile + step * 32));
#pragma unroll
    for (int step = 0; step < 4; ++step) multiply<float, N>(d, high + step * 4, descriptor(tile_low + step * 32));
#pragma unroll
    for (int step = 0; step < 4; ++step) multiply<float, N>(d, high + step * 4, descriptor(tile + step * 32));
    wgmma_commit();
}

template <int N> __device__ __forceinline__ void multiply_wait(float (&d)[N], uint32_t (&a)[16]) {
    wgmma_wait();
    keep(d);
    keep(a);
}
#else
template <typename T> __device__ __forceinline__ void multiply(float* d, uint32_t const* a, uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
#define MMA(SHAPE, TYPES) \
    asm volatile("mma.sync.aligned." SHAPE ".row.col.f32." TYPES ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
    if constexpr (sizeof(T) == 4) MMA("m16n8k8", "tf32.tf32");
    else if constexpr (IsHalf<T>::value) MMA("m16n8k16", "f16.f16");
    else MMA("m16n8k16", "bf16.bf16");
#endif
}

template <typename T, int N>
__device__ __forceinline__ void multiply_stage(float (&d)[N / 2], uint32_t (&a)[16], uint32_t tile, int lane) {
#if __CUDA_ARCH__ >= 800
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
        uint32_t const place = tile + (lane & 7) * kRowBytes + (((pair * 4 + (lane >> 3)) ^ (lane & 7)) << 4);
#pragma unroll
        for (int block = 0; block < N / 8; ++block) {
            uint32_t b[4];
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                         : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3]) : "r"(place + block * 8 * kRowBytes) : "memory");
            multiply<T>(d + block * 4, a + pair * 8, b[0], b[1]);
            multiply<T>(d + block * 4, a + pair * 8 + 4, b[2], b[3]);
        }
    }
#endif
}

template <int N>
__device__ __forceinline__ void multiply_halves(
    float (&d)[N / 2], uint32_t (&high)[16], uint32_t (&low)[16], uint32_t tile, uint32_t tile_low, int lane) {
#pragma unroll
    for (int i = 0; i < N / 2; ++i) d[i] = 0.f;
    multiply_stage<float, N>(d, low, tile, lane);
    multiply_stage<float, N>(d, high, tile_low, lane);
    multiply_stage<float, N>(d, high, tile, lane);
}

template <int N> __device__ __forceinline__ void multiply_wait(float (&)[N], uint32_t (&)[16]) {}
#endif

ONNX_REWRITE_LOCAL_END
}  // namespace onnx_rewrite
