// What lets a header be read by the C++ compiler, by nvcc and by NVRTC, which finds no headers of the host.
#pragma once

#if defined(__CUDACC_RTC__)

namespace specee {

using int8_t = signed char;
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using int32_t = int;
using uint32_t = unsigned int;
using int64_t = long long;
using uint64_t = unsigned long long;

}  // namespace specee

#else

#include <cmath>
#include <cstdint>

#endif

#if defined(__CUDACC__)
#define SPECEE_HD __host__ __device__
#else
#define SPECEE_HD
#endif
