// Dense float64 matrices of operations on a device: arrays of the host, or what stays there.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "bindings/arrays.h"
#include "cuda/dense.h"

namespace krrdistill::bindings {

// A matrix that stays on the device. Nobody changes it but `combine_into`.
struct ResidentMatrix {
  std::shared_ptr<cuda::Context> context;
  cuda::Resident data;
  int64_t rows;
  int64_t columns;
  bool by_columns = false;

  [[nodiscard]] cuda::Operand operand() const {
    return {.data = data.get(), .rows = rows, .columns = columns, .by_columns = by_columns, .on_device = true};
  }
};

// An operand from either. Throws TypeError for anything else, ValueError for what is of another backend.
cuda::Operand operand_of(const std::shared_ptr<cuda::Context>& context, const py::object& a);

// The operations between such matrices, of one context.
class Dense {
 public:
  explicit Dense(std::shared_ptr<cuda::Context> context) : context_(std::move(context)) {}

  // Without `out` results stay on the device.
  using Out = std::optional<py::array>;

  [[nodiscard]] ResidentMatrix place(const py::array& a) const;
  std::optional<ResidentMatrix> multiply(const py::object& a, const py::object& b, Out out);
  std::optional<ResidentMatrix> gram_of(const py::object& a, Out out);
  std::optional<ResidentMatrix> solve_factored(const py::object& factor, const py::object& b, Out out);
  std::pair<std::optional<ResidentMatrix>, double> cholesky(const py::object& a, double shift);
  [[nodiscard]] ResidentMatrix eigenvectors(const py::object& a, Array<double> values) const;
  [[nodiscard]] ResidentMatrix combine(double alpha, const py::object& a, double beta, const py::object& b) const;
  void combine_into(double alpha, const ResidentMatrix& a, double beta, const py::object& b);
  [[nodiscard]] ResidentMatrix scale_columns(const py::object& a, const Array<double>& factors) const;
  [[nodiscard]] double largest_magnitude(const py::object& a) const;
  [[nodiscard]] ResidentMatrix cosines(int64_t rows, int64_t columns, const Array<double>& table, double flat,
                                       const Array<int64_t>& frequencies, const Array<int8_t>& row_signs,
                                       const Array<int8_t>& column_signs) const;
  [[nodiscard]] ResidentMatrix undo_activation(int activation, double parameter, const py::object& h,
                                               const py::object& b) const;

 private:
  [[nodiscard]] ResidentMatrix resident(cuda::Resident data, int64_t rows, int64_t columns, bool by_columns) const {
    return {.context = context_, .data = std::move(data), .rows = rows, .columns = columns, .by_columns = by_columns};
  }
  // The result (rows, columns) of `run`, which stays on the device.
  template <typename Run>
  ResidentMatrix made(int64_t rows, int64_t columns, bool by_columns, const Run& run) const;
  // The same of a `run` that takes the memory of `out`, null where there is none.
  template <typename Run>
  std::optional<ResidentMatrix> run_to(Out& out, int64_t rows, int64_t columns, bool by_columns, const Run& run);

  std::shared_ptr<cuda::Context> context_;
};

void bind_dense(py::module_& module);

}  // namespace krrdistill::bindings
