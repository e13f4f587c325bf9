#pragma once
// For small functions that kernels and host code share.

#ifdef __CUDACC__
#define FULCRUM_HOST_DEVICE __host__ __device__
#else
#define FULCRUM_HOST_DEVICE
#endif
