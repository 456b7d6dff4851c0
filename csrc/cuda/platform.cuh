// What the kernels ask of the device beyond CUDA's own names. Under SPECEE_EMULATED,
// tests/native/cuda/device.h stands in for CUDA and for this file's second half, so that the kernels run on
// the host.
//
// Kernels include only each other and specee/*.h that include no more: NVRTC needs no header of CUDA.
#pragma once

#include "specee/tiles.h"

#ifndef SPECEE_EMULATED

// Shared memory of a block, one variable a kernel.
#define SPECEE_SHARED(Type, name) __shared__ Type name

namespace specee::cuda {

__device__ inline float f16_to_float(uint16_t value) {
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value));
  return wide;
}

// To nearest, ties to even.
__device__ inline uint16_t float_to_f16(float value) {
  uint16_t narrow;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrow) : "f"(value));
  return narrow;
}

// Matrix instructions belong to whole warps: volatile, so that the compiler leaves them where all lanes are.
//
// sums (16 x 8) += a (16 x 16, bf16) b (16 x 8, bf16), in the fragments of mma.m16n8k16.
__device__ inline void multiply_bf16(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// sums (16 x 8) = a (16 x 32, int8) b (32 x 8, int8), in the fragments of mma.m16n8k32; exact.
__device__ inline void multiply_int8(int (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%10,%10,%10,%10};"
      : "=r"(sums[0]), "=r"(sums[1]), "=r"(sums[2]), "=r"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(0));
}

}  // namespace specee::cuda

#endif
