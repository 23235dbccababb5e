// The names of CUDA's types of 16 bits that the kernels' headers need. Nothing here computes: float alone is emulated.
#pragma once

#include <cstdint>

struct float2 { float x, y; };
struct alignas(8) uint2 { uint32_t x, y; };
struct alignas(16) uint4 { uint32_t x, y, z, w; };
struct __half { uint16_t bits; };
struct __half2 { uint32_t bits; };
float __half2float(__half);
__half __float2half_rn(float);
float2 __half22float2(__half2);
__half2 __floats2half2_rn(float, float);
__half2 __low2half2(__half2);
__half2 __high2half2(__half2);
__half2 __hmul2(__half2, __half2);
__half2 __hfma2(__half2, __half2, __half2);
