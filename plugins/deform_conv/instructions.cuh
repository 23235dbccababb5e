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

// Until all sampling threads of a block are here.
template <int kThreads> __device__ __forceinline__ void consumers_wait() { asm volatile("bar.sync 1, %0;" ::"n"(kThreads) : "memory"); }

// Blocks of this one's cluster, along y; until all threads of the cluster are here that have not ended; and a number in the
// shared memory of block `rank`, where `at` is in one's own.
__device__ __forceinline__ int cluster_blocks() {
    int count = 1;
#if __CUDA_ARCH__ >= 900
    asm("mov.u32 %0, %%cluster_nctaid.y;" : "=r"(count));
#endif
    return count;
}

__device__ __forceinline__ void cluster_wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
#endif
}

__device__ __forceinline__ float cluster_read(float const* at, int rank) {
    float found = 0.f;
#if __CUDA_ARCH__ >= 900
    uint32_t place;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(place) : "r"(shared_address(at)), "r"(rank));
    asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(found) : "r"(place) : "memory");
#endif
    return found;
}

// Of the fragment of one quarter of a chunk that two steps read: threads whose vectors lie in the other quarter give zeros.
__device__ __forceinline__ uint32_t quarter(uint32_t word, int which, int lane) { return (lane >> 1 & 1) == (which & 1) ? word : 0; }

#if ONNX_REWRITE_WGMMA
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }

#define LIST_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define LIST_16 LIST_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
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
#define WGMMA_16(K, TYPES, TAIL) WGMMA("m64n16" K, TYPES, LIST_8, "%8, %9, %10, %11", "%12", "%13", TAIL, F8(0))
#define WGMMA_32(K, TYPES, TAIL) WGMMA("m64n32" K, TYPES, LIST_16, "%16, %17, %18, %19", "%20", "%21", TAIL, F8(0), F8(8))
#define WGMMA_64(K, TYPES, TAIL) WGMMA("m64n64" K, TYPES, LIST_0, "%32, %33, %34, %35", "%36", "%37", TAIL, F32(0))
#define WGMMA_128(K, TYPES, TAIL) \
    WGMMA("m64n128" K, TYPES, LIST_0 ", " LIST_32, "%64, %65, %66, %67", "%68", "%69", TAIL, F32(0), F32(32))
#define WGMMA_256(K, TYPES, TAIL) \
    WGMMA("m64n256" K, TYPES, LIST_0 ", " LIST_32 ", " LIST_64 ", " LIST_96, "%128, %129, %130, %131", "%132", "%133", TAIL, \
          F32(0), F32(32), F32(64), F32(96))
#define WGMMA_ANY(K, TYPES, TAIL) \
    if constexpr (N == 16) WGMMA_16(K, TYPES, TAIL); \
    else if constexpr (N == 32) WGMMA_32(K, TYPES, TAIL); \
    else if constexpr (N == 64) WGMMA_64(K, TYPES, TAIL); \
    else if constexpr (N == 128) WGMMA_128(K, TYPES, TAIL); \
    else WGMMA_256(K, TYPES, TAIL)

// d [64 positions x N] += a [64 x 32 bytes] * b [N x 32 bytes], one warpgroup; a in fragments, b by descriptor. Without
// kMore what was in d is forgotten.
template <typename T, int N, int kMore = 1> __device__ __forceinline__ void multiply(float* d, uint32_t const* a, uint64_t b) {
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

// The operand of the matrix unit: as it was sampled, or as APART parts, which meet only their own rows of the tile.
template <int APART> struct Operand { uint32_t parts[APART == 4 ? 2 : 1][16]; };

template <int APART> __device__ __forceinline__ Operand<APART> operand_of(uint32_t const (&a)[16], int lane) {
    Operand<APART> found;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
        if constexpr (APART == 4) found.parts[0][i] = quarter(a[i], 0, lane), found.parts[1][i] = quarter(a[i], 1, lane);
        else found.parts[0][i] = a[i];
    }
    return found;
}

template <int APART> __device__ __forceinline__ void keep(Operand<APART>& a) {
    keep(a.parts[0]);
    if constexpr (APART == 4) keep(a.parts[1]);
}

// Queues the four steps of a stage: 128 bytes of every row of the tile of weights. Without kMore what was in d is forgotten.
template <typename T, int N, int APART, int kMore = 1>
__device__ __forceinline__ void multiply_steps(float (&d)[N / 2], Operand<APART> const& a, uint32_t tile) {
#pragma unroll
    for (int step = 0; step < 4; ++step) {
        uint64_t const b = descriptor(tile + step * 32);
        if constexpr (APART == 1) {
            if (step == 0) multiply<T, N, kMore>(d, a.parts[0], b);
            else multiply<T, N>(d, a.parts[0] + step * 4, b);
        } else {
            // Steps 0 and 1 are the first half of a pixel's bytes, 2 and 3 the second.
            constexpr int kRows = N / APART;
#pragma unroll
            for (int i = 0; i < APART / 2; ++i) {
                int const which = (step >> 1) * (APART / 2) + i;
                uint64_t const rows = b + (which * kRows * kRowBytes >> 4);
                if (step % 2 == 0) multiply<T, kRows, kMore>(d + which * kRows / 2, a.parts[i] + step * 4, rows);
                else multiply<T, kRows>(d + which * kRows / 2, a.parts[i] + step * 4, rows);
            }
        }
    }
}

template <typename T, int N, int APART>
__device__ __forceinline__ void multiply_stage(float (&d)[N / 2], Operand<APART>& a, uint32_t tile, int) {
    keep(d);
    keep(a);
    wgmma_fence();
    multiply_steps<T, N, APART>(d, a, tile);
    wgmma_commit();
}

// The same for factors that are sums of two: d = low * tile + high * tile_low + high * tile, small products first.
template <int N, int APART>
__device__ __forceinline__ void multiply_halves(
    float (&d)[N / 2], Operand<APART>& high, Operand<APART>& low, uint32_t tile, uint32_t tile_low, int) {
    keep(d);
    keep(high);
    keep(low);
    wgmma_fence();
    multiply_steps<float, N, APART, 0>(d, low, tile);
    multiply_steps<float, N, APART>(d, high, tile_low);
    multiply_steps<float, N, APART>(d, high, tile);
    wgmma_commit();
}

template <int N, int APART> __device__ __forceinline__ void multiply_wait(float (&d)[N], Operand<APART>& a) {
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

template <int APART> struct Operand { uint32_t words[16]; };

template <int APART> __device__ __forceinline__ Operand<APART> operand_of(uint32_t const (&a)[16], int) {
    Operand<APART> found;
#pragma unroll
    for (int i = 0; i < 16; ++i) found.words[i] = a[i];
    return found;
}

template <typename T, int N, int APART>
__device__ __forceinline__ void multiply_stage(float (&d)[N / 2], Operand<APART> const& a, uint32_t tile, int lane) {
#if __CUDA_ARCH__ >= 800
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
        uint32_t const place = tile + (lane & 7) * kRowBytes + (((pair * 4 + (lane >> 3)) ^ (lane & 7)) << 4);
#pragma unroll
        for (int block = 0; block < N / 8; ++block) {
            // Where groups share the tile, each has its rows, and its half or quarter of a pixel's bytes.
            int const which = block / (N / 8 / APART);
            if (APART > 1 && which / (APART == 4 ? 2 : 1) != pair) continue;
            uint32_t words[8];
#pragma unroll
            for (int i = 0; i < 8; ++i) words[i] = APART == 4 ? quarter(a.words[pair * 8 + i], which, lane) : a.words[pair * 8 + i];
            uint32_t b[4];
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                         : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3]) : "r"(place + block * 8 * kRowBytes) : "memory");
            multiply<T>(d + block * 4, words, b[0], b[1]);
            multiply<T>(d + block * 4, words + 4, b[2], b[3]);
        }
    }
#endif
}

template <int N, int APART>
__device__ __forceinline__ void multiply_halves(
    float (&d)[N / 2], Operand<APART> const& high, Operand<APART> const& low, uint32_t tile, uint32_t tile_low, int lane) {
#pragma unroll
    for (int i = 0; i < N / 2; ++i) d[i] = 0.f;
    multiply_stage<float, N>(d, low, tile, lane);
    multiply_stage<float, N>(d, high, tile_low, lane);
    multiply_stage<float, N>(d, high, tile, lane);
}

template <int N, int APART> __device__ __forceinline__ void multiply_wait(float (&)[N], Operand<APART> const&) {}
#endif

ONNX_REWRITE_LOCAL_END
}  // namespace onnx_rewrite
