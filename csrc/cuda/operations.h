// The operations on an NVIDIA GPU. Rows of data are in host memory and stream through the device tile by tile, so that
// data of any size fit, or they are on the device already; all other arrays are in host memory. No CUDA type appears
// here. Sizes and meanings are those of the headers of each operation.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "krrdistill/feature_map.h"
#include "krrdistill/statistics.h"

namespace krrdistill::cuda {

// How float32 products are formed: `automatic` takes integer tensor cores where they are exact or float32-accurate.
enum class Products { automatic, fp32, tf32 };

// How the products in a Gram matrix were formed, and a bound on their ||dG||_2 / ||G||_2 (0: that of float64). What the
// features are off by themselves is another matter.
enum class Arithmetic { float64, integers, slices, float32, tf32 };
struct Formed {
  Arithmetic arithmetic;
  double bound;
};

struct Options {
  int device = 0;
  void* stream = nullptr;     // a cudaStream_t of the caller; null: a stream of the context's own
  int64_t memory_budget = 0;  // bytes of device memory; 0: nine tenths of what is free when an operation starts
  Products products = Products::automatic;
};

// A device, its two streams and the handles of cuBLAS and cuSOLVER. One operation at a time, from any thread.
class Context;
std::shared_ptr<Context> make_context(const Options& options);

// Rows of data. In the memory of the context's device columns may have a stride (in elements) too.
struct Source : Input {
  bool on_device = false;
  int64_t column_stride = 1;
};

// The cudaStream_t on which operations read data on the device: it has to wait for whoever writes them.
void* reading_stream(const Context& context);

struct DeviceFacts {
  std::string name;
  int major;  // compute capability
  int minor;
  int64_t memory;  // bytes
};

// Versions are 1000 major + 10 minor; driver 0: none is loaded. `error` is empty when devices could be asked for.
struct DriverFacts {
  int driver = 0;
  int runtime = 0;
  std::string error;
  std::vector<DeviceFacts> devices;
};
DriverFacts driver_facts();

// Every operation waits for its result. Besides the errors of its CPU counterpart it throws DeviceError and
// DeviceOutOfMemory. Tiles have at most tile_rows rows, fewer where the memory budget asks for it.

// out (n, output_dim), contiguous.
template <typename T>
void transform(Context& context, const FeatureMap<T>& map, const Source& input, int64_t tile_rows, T* out);

// The same in memory of the device, which is ready on every stream and lives as long as the pointer.
template <typename T>
std::shared_ptr<T> transform_there(Context& context, const FeatureMap<T>& map, const Source& input, int64_t tile_rows);

// Adds to the lower triangle of gram (p, p) and to cross (k, p). With T = double, bytes under a map without layers are
// summed as integers, unless `products` says otherwise, with the same bits as on the CPU.
template <typename T>
Formed accumulate(Context& context, const FeatureMap<T>& map, const Source& input, const Targets& targets,
                  int64_t tile_rows, double* gram, double* cross);

void symmetrize(Context& context, double* gram, int64_t p);

// One Cholesky factorisation per lambda, batched; gram is not overwritten.
double ridge_path(Context& context, const double* gram, const double* cross, int64_t p, int64_t k, const double* lambda,
                  int64_t lambdas, double rounding, double* weights, unsigned char* positive_definite,
                  unsigned char* resolved);

template <typename T>
void score_path(Context& context, const FeatureMap<T>& map, const Source& input, const int64_t* labels,
                const T* weights, int64_t models, int64_t k, int64_t tile_rows, int64_t* correct);

// rhs (batch, r, n) is overwritten by the solutions.
void solve_spd(Context& context, const double* a, double* rhs, int64_t batch, int64_t n, int64_t r);

// QR of W^T. Returns the smallest over the largest diagonal entry of R, which bounds the reciprocal condition number
// from above, and leaves x untouched when it is below `rcond_floor`.
double preimage_solve(Context& context, const double* weight, const double* rhs, double* x, int64_t p, int64_t d,
                      int64_t m, double rcond_floor);

void hadamard_solve(Context& context, const Hadamard<double>& a, const double* rhs, double* x, int64_t m);

}  // namespace krrdistill::cuda
