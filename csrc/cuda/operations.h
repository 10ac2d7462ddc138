// The operations on an NVIDIA GPU. Rows of data are in host memory and stream through the device tile by tile, so that
// data of any size fit, or they are on the device already; all other arrays are in host memory, but for the matrices of
// cuda/dense.h, which may stay on the device. No CUDA type appears here. Sizes and meanings are those of the headers of
// each operation.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "krrdistill/feature_map.h"
#include "krrdistill/statistics.h"

namespace krrdistill::cuda {

// How float32 products are formed: `automatic` takes integer tensor cores where they are exact or float32-accurate.
enum class Products { automatic, fp32, tf32 };

// How the products in a Gram matrix were formed, and a bound on their ||dG||_2 / ||G||_2 (0: that of float64). What the
// features are off by themselves is another matter.
enum class Arithmetic { float64, integers, halves, slices, float32, tf32 };
struct Formed {
  Arithmetic arithmetic;
  double bound;
};

struct Options {
  int device = 0;
  void* stream = nullptr;     // a cudaStream_t of the caller; null: a stream of the context's own
  int64_t memory_budget = 0;  // bytes of device memory; 0: nine tenths of what is free when an operation starts
  Products products = Products::automatic;
  bool keep_memory = true;  // device and pinned memory wait for the next operation instead of being freed
};

// CUDA does not survive a fork: in the child of a process that used it, calls fail or hang. Throws DeviceError there.
void check_process();

// Makes a device current for the calling thread, and at the end the one that was. Throws DeviceError.
class CurrentDevice {
 public:
  explicit CurrentDevice(int device);
  ~CurrentDevice();
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice(CurrentDevice&&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;
  CurrentDevice& operator=(CurrentDevice&&) = delete;

 private:
  int previous_ = 0;
};

// A device, its two streams and the handles of cuBLAS and cuSOLVER. One operation at a time, from any thread.
class Context;
std::shared_ptr<Context> make_context(const Options& options);
int device_of(const Context& context);

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

// The same for operations of this context. Rows of the host of which keep_weight has a copy are read from there.
std::shared_ptr<double> transform_here(Context& context, const FeatureMap<double>& map, const Source& input,
                                       int64_t tile_rows);

class ResidentGram;
class Scope;

// `room` numbers and the packed lower triangle of a G (p, p) in one array on the device, for a collective to add: ready
// on every stream.
struct PackedGram {
  std::shared_ptr<Context> context;
  std::shared_ptr<double> numbers;
  int64_t room = 0;
  int64_t p = 0;

  [[nodiscard]] int64_t count() const { return room + p * (p + 1) / 2; }
  // The `room` numbers.
  void write(const double* host) const;
  void read(double* host) const;
  // G of the triangle, which nobody may be writing any more.
  [[nodiscard]] std::shared_ptr<ResidentGram> unpacked() const;
};

// G (p, p) in memory of the device, where it stays between operations. Its lower triangle is kept up; the upper one is
// mirrored when somebody reads it. The context lives as long as it.
class ResidentGram {
 public:
  ResidentGram(std::shared_ptr<Context> context, int64_t p);  // zero

  [[nodiscard]] int64_t order() const { return p_; }
  [[nodiscard]] const Context* context() const { return context_.get(); }
  void clear();
  // += sign times the lower triangle of a matrix (p, p) of the host, or of one in the same context.
  void add(const double* host, double sign);
  void add(const ResidentGram& other, double sign);
  double trace();
  void download(double* host);  // symmetric
  [[nodiscard]] std::shared_ptr<ResidentGram> copy() const;
  [[nodiscard]] PackedGram packed(int64_t room) const;

  // All of it, on the device, ready on every stream.
  const double* symmetric();
  // For an operation that adds to the lower triangle on the context's compute stream.
  double* lower() {
    symmetric_ = false;
    trace_.reset();
    return data_.get();
  }
  // For its end: the trace is on its way to the place that this gives, and there when the stream has been waited for.
  // `take_trace` then saves others the way.
  const double* send_trace(Scope& scope) const;
  void take_trace(double trace) { trace_ = trace; }

 private:
  void complete();  // the upper triangle

  std::shared_ptr<Context> context_;
  std::shared_ptr<double> data_;
  int64_t p_;
  bool symmetric_ = true;
  std::optional<double> trace_ = 0.0;  // nullopt: nobody has asked for it since G changed
};

// G of an operation: of the host, or one that stays on the device.
struct Gram {
  double* host = nullptr;
  ResidentGram* resident = nullptr;
};

// Adds to the lower triangle of gram (p, p) and to cross (k, p). With T = double, bytes under a map without layers are
// summed as integers, unless `products` says otherwise, with the same bits as on the CPU.
template <typename T>
Formed accumulate(Context& context, const FeatureMap<T>& map, const Source& input, const Targets& targets,
                  int64_t tile_rows, const Gram& gram, double* cross);

void symmetrize(Context& context, double* gram, int64_t p);

// A copy of rows (rows, width) on the device, which operations take in the place of the weight of this shape at this
// address while it lives: the array must outlive it, and may not change. Null where the copies would take more than a
// quarter of the device's memory.
template <typename T>
std::shared_ptr<const void> keep_weight(Context& context, const T* weight, int64_t rows, int64_t width);

// Gives device and pinned memory that waits for the next operation back.
void release_memory(Context& context);

// A symmetric (p, p) matrix in host memory, or in that of the context's device, ready on every stream.
struct SymmetricMatrix {
  const double* data = nullptr;
  int64_t p = 0;
  bool on_device = false;
};

// The models (count, k, p) of a path in memory of the context's device, ready on every stream; NaN where there is none.
struct Models {
  std::shared_ptr<double> weights;
  int64_t count = 0;
  int64_t k = 0;
  int64_t p = 0;
};

// What ridge_path says of its models, an entry per lambda: ||W||^2 and <W, C>, and as krrdistill/ridge.h.
struct PathFacts {
  double* squares;
  double* products;
  unsigned char* positive_definite;
  unsigned char* resolved;
  double* largest_eigenvalue;  // one: NaN where G is not finite, which then has no model
};

// One Cholesky factorisation per lambda, batched; gram is not overwritten, cross is (k, p). The models stay there.
Models ridge_path(Context& context, const SymmetricMatrix& gram, const double* cross, int64_t k, const double* lambda,
                  int64_t lambdas, double rounding, const PathFacts& facts);

// out (count, p): rows of the models (count k, p).
void download_rows(Context& context, const Models& models, const int64_t* rows, int64_t count, double* out);

// out (count, k) = W vector, for a vector of p numbers.
void multiply_models(Context& context, const Models& models, const double* vector, double* out);

template <typename T>
void score_path(Context& context, const FeatureMap<T>& map, const Source& input, const int64_t* labels,
                const T* weights, int64_t models, int64_t k, int64_t tile_rows, int64_t* correct);

// The same of models on the device. Those that do not exist count as zero.
template <typename T>
void score_models(Context& context, const FeatureMap<T>& map, const Source& input, const int64_t* labels,
                  const Models& models, int64_t tile_rows, int64_t* correct);

// out (n, r) = features, of type T, times the rows of weights (r, p), in double.
template <typename T>
void scores(Context& context, const FeatureMap<T>& map, const Source& input, const double* weights, int64_t r,
            int64_t tile_rows, double* out);

// rhs (batch, r, n) is overwritten by the solutions.
void solve_spd(Context& context, const double* a, double* rhs, int64_t batch, int64_t n, int64_t r);

// QR of W^T. Returns the smallest over the largest diagonal entry of R, which bounds the reciprocal condition number
// from above, and leaves x untouched when it is below `rcond_floor`.
template <typename T>
double preimage_solve(Context& context, const T* weight, const double* rhs, double* x, int64_t p, int64_t d, int64_t m,
                      double rcond_floor);

void hadamard_solve(Context& context, const Hadamard<double>& a, const double* rhs, double* x, int64_t m);

}  // namespace krrdistill::cuda
