// The instructions of instructions.cuh, as the documentation of PTX describes them.
#pragma once

#include "sampling.cuh"

namespace onnx_rewrite {
namespace {

#define ONNX_REWRITE_WGMMA 1

inline uint32_t shared_address(void const* p) { return (uint32_t)((char const*)p - emulation::now->block->base); }

// A barrier in shared memory: what is still to arrive, and the parity of its phase. Copies are done at once.
struct Mbarrier { uint16_t count, pending; uint32_t phase; };

inline void barrier_init(uint64_t* at, int count) {
    Mbarrier const fresh{(uint16_t)count, (uint16_t)count, 0};
    memcpy(at, &fresh, 8);
}

inline void barrier_arrive(uint64_t* at) {
    Mbarrier barrier;
    memcpy(&barrier, at, 8);
    if (--barrier.pending == 0) barrier.pending = barrier.count, barrier.phase ^= 1, emulation::idle = 0;
    memcpy(at, &barrier, 8);
}

inline void barrier_wait(uint64_t* at, uint32_t parity) {
    for (Mbarrier barrier;; emulation::others()) {
        memcpy(&barrier, at, 8);
        if (barrier.phase != parity) return;
    }
}

inline int full_arrivals() { return 1; }
inline void copy_begin(uint64_t*, int, int) {}
inline void copy_tile(char* to, char const* from, int bytes, uint64_t*, int lane) { if (lane == 0) memcpy(to, from, bytes); }
inline void copy_end(uint64_t* barrier) { if ((threadIdx.x & 31) == 0) barrier_arrive(barrier); }

template <int kThreads> void consumers_wait() { emulation::meet(emulation::now->block->consumers, [] { return kThreads; }); }

inline void wgmma_fence() {}
inline void wgmma_commit() {}
inline void wgmma_wait() {}

// d [64 x N] += a [64 x 32 bytes] * b [N x 32 bytes] of float. Of rows g and g + 8 of a warp's sixteen, thread 4 g + t has
// words t and t + 4, and of the sums columns 2 t and 2 t + 1 of every eight. Rows of b are 128 bytes apart, and bits 4 to 6
// of their addresses are changed by bits 7 to 9.
template <typename T, int N, int kMore = 1> void multiply(float* d, uint32_t const* a, uint64_t b) {
    static_assert(sizeof(T) == 4, "float alone");
    static float fragments[16][32][4];
    int const thread = threadIdx.x, lane = thread & 31;
    float(&warp)[32][4] = fragments[thread >> 5];
    memcpy(warp[lane], a, 16);
    __syncwarp();
    for (int i = 0; i < N / 2; ++i) {
        int const row = lane >> 2, high = i >> 1 & 1, column = (i >> 2) * 8 + (lane & 3) * 2 + (i & 1);
        double sum = kMore ? d[i] : 0.0;
        for (int k = 0; k < 8; ++k) {
            uint32_t at = ((uint32_t)(b & 0x3fff) << 4) + column * 128 + k * 4;
            at ^= (at >> 7 & 7) << 4;
            float weight;
            memcpy(&weight, emulation::now->block->base + at, 4);
            sum += (double)warp[row * 4 + (k & 3)][(k >> 2) * 2 + high] * weight;
        }
        d[i] = (float)sum;
    }
    __syncwarp();
}
