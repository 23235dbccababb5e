// See cuda_fp16.h.
#pragma once

#include <cstdint>

struct __nv_bfloat16 { uint16_t bits; };
struct __nv_bfloat162 { uint32_t bits; };
float __bfloat162float(__nv_bfloat16);
__nv_bfloat16 __float2bfloat16_rn(float);
__nv_bfloat162 __floats2bfloat162_rn(float, float);
