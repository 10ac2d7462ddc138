#include "bindings/cuda_dense.h"

#include <pybind11/stl.h>

namespace krrdistill::bindings {
namespace {

cuda::Operand matrix_of(const py::array& a) {
  require(a.ndim() == 2 && py::isinstance<py::array_t<double>>(a), "matrices must be float64");
  const bool by_rows = py::isinstance<py::array_t<double, py::array::c_style>>(a);
  require(by_rows || py::isinstance<py::array_t<double, py::array::f_style>>(a), "matrices must be contiguous");
  require(reinterpret_cast<std::uintptr_t>(a.data()) % sizeof(double) == 0, "arrays must be aligned to their items");
  return {
      .data = static_cast<const double*>(a.data()), .rows = a.shape(0), .columns = a.shape(1), .by_columns = !by_rows};
}

// What is added to each element of `a`: a matrix of its shape, or a row.
void check_beside(const cuda::Operand& a, const cuda::Operand& b) {
  require(b.columns == a.columns && (b.rows == a.rows || b.rows == 1), "b: the shape of a, or one row of it");
}

// The memory of an array of the host for a result.
double* target_of(py::array& out, int64_t rows, int64_t columns, bool by_columns) {
  const cuda::Operand found = matrix_of(out);
  require(found.rows == rows && found.columns == columns && out.writeable(), "out: the shape of the result");
  require(found.by_columns == by_columns || rows == 1 || columns == 1, "out: the layout of the result");
  return static_cast<double*>(out.mutable_data());
}

// The rows [first, first + count) of a matrix that is contiguous by rows, which live as long as they do.
ResidentMatrix rows_of(const ResidentMatrix& a, int64_t first, int64_t count) {
  require(!a.by_columns && first >= 0 && count >= 0 && first + count <= a.rows, "rows of a matrix by rows");
  ResidentMatrix part = a;
  part.data = cuda::Resident(a.data, a.data.get() + first * a.columns);
  part.rows = count;
  return part;
}

}  // namespace

cuda::Operand operand_of(const std::shared_ptr<cuda::Context>& context, const py::object& a) {
  if (py::isinstance<ResidentMatrix>(a)) {
    const auto& matrix = a.cast<const ResidentMatrix&>();
    require(matrix.context == context, "the matrix is of another backend");
    return matrix.operand();
  }
  if (!py::isinstance<py::array>(a)) {
    throw py::type_error("a matrix must be a float64 array or a ResidentMatrix");
  }
  return matrix_of(py::reinterpret_borrow<py::array>(a));
}

template <typename Run>
std::optional<ResidentMatrix> Dense::run_to(Out& out, int64_t rows, int64_t columns, bool by_columns, const Run& run) {
  double* target = out ? target_of(*out, rows, columns, by_columns) : nullptr;
  cuda::Resident made;
  {
    const py::gil_scoped_release nogil;
    made = run(target);
  }
  return made == nullptr ? std::nullopt : std::optional(resident(std::move(made), rows, columns, by_columns));
}

template <typename Run>
ResidentMatrix Dense::made(int64_t rows, int64_t columns, bool by_columns, const Run& run) const {
  cuda::Resident found;
  {
    const py::gil_scoped_release nogil;
    found = run();
  }
  return resident(std::move(found), rows, columns, by_columns);
}

ResidentMatrix Dense::place(const py::array& a) const {
  const cuda::Operand matrix = matrix_of(a);
  return made(matrix.rows, matrix.columns, matrix.by_columns, [&] { return cuda::place(*context_, matrix); });
}

std::optional<ResidentMatrix> Dense::multiply(const py::object& a, const py::object& b, Out out) {
  const cuda::Operand left = operand_of(context_, a), right = operand_of(context_, b);
  require(left.columns == right.rows, "a: (m, n), b: (n, r)");
  return run_to(out, left.rows, right.columns, false,
                [&](double* target) { return cuda::multiply(*context_, left, right, target); });
}

std::optional<ResidentMatrix> Dense::gram_of(const py::object& a, Out out) {
  const cuda::Operand matrix = operand_of(context_, a);
  return run_to(out, matrix.rows, matrix.rows, false,
                [&](double* target) { return cuda::gram_of(*context_, matrix, target); });
}

std::optional<ResidentMatrix> Dense::solve_factored(const py::object& factor, const py::object& b, Out out) {
  const cuda::Operand lower = operand_of(context_, factor), right = operand_of(context_, b);
  require(lower.by_columns || lower.rows == 1, "factor: by columns");
  require(lower.rows == lower.columns && lower.rows == right.rows, "factor: (n, n), b: (n, r)");
  return run_to(out, right.rows, right.columns, right.by_columns,
                [&](double* target) { return cuda::solve_factored(*context_, lower, right, target); });
}

std::pair<std::optional<ResidentMatrix>, double> Dense::cholesky(const py::object& a, double shift) {
  const cuda::Operand matrix = operand_of(context_, a);
  require(matrix.rows == matrix.columns && matrix.rows >= 1, "a: (n, n)");
  cuda::Factor factor;
  {
    const py::gil_scoped_release nogil;
    factor = cuda::cholesky(*context_, matrix, shift);
  }
  if (factor.lower == nullptr) {
    return {std::nullopt, factor.norm};
  }
  return {resident(std::move(factor.lower), matrix.rows, matrix.rows, true), factor.norm};
}

ResidentMatrix Dense::eigenvectors(const py::object& a, Array<double> values) const {
  const cuda::Operand matrix = operand_of(context_, a);
  require(matrix.rows == matrix.columns && matrix.rows >= 1, "a: (n, n)");
  require(values.ndim() == 1 && values.shape(0) == matrix.rows, "values: (n,)");
  require_aligned(values);
  double* target = values.mutable_data();
  return made(matrix.rows, matrix.rows, true, [&] { return cuda::eigenvectors(*context_, matrix, target); });
}

ResidentMatrix Dense::combine(double alpha, const py::object& a, double beta, const py::object& b) const {
  const cuda::Operand first = operand_of(context_, a), second = operand_of(context_, b);
  check_beside(first, second);
  return made(first.rows, first.columns, first.by_columns,
              [&] { return cuda::combine(*context_, alpha, first, beta, second); });
}

void Dense::combine_into(double alpha, const ResidentMatrix& a, double beta, const py::object& b) {
  require(a.context == context_, "the matrix is of another backend");
  const cuda::Operand first = a.operand(), second = operand_of(context_, b);
  check_beside(first, second);
  const py::gil_scoped_release nogil;
  cuda::combine_into(*context_, alpha, first, beta, second);
}

ResidentMatrix Dense::scale_columns(const py::object& a, const Array<double>& factors) const {
  const cuda::Operand matrix = operand_of(context_, a);
  require(factors.ndim() == 1 && factors.shape(0) == matrix.columns, "factors: (columns,)");
  require_aligned(factors);
  const double* values = factors.data();
  return made(matrix.rows, matrix.columns, matrix.by_columns,
              [&] { return cuda::scale_columns(*context_, matrix, values); });
}

double Dense::largest_magnitude(const py::object& a) const {
  const cuda::Operand matrix = operand_of(context_, a);
  const py::gil_scoped_release nogil;
  return cuda::largest_magnitude(*context_, matrix);
}

ResidentMatrix Dense::cosines(int64_t rows, int64_t columns, const Array<double>& table, double flat,
                              const Array<int64_t>& frequencies, const Array<int8_t>& row_signs,
                              const Array<int8_t>& column_signs) const {
  constexpr int64_t most = 2'147'483'648;  // frequency (2 column + 1) and the bytes of the matrix fit 64 bits
  const Array<int64_t> chosen = settled(frequencies);
  const cuda::Cosines cosines{.table = table.data(),
                              .frequencies = chosen.data(),
                              .row_signs = row_signs.data(),
                              .column_signs = column_signs.data(),
                              .order = table.size() / 4,
                              .chosen = chosen.size(),
                              .odd = column_signs.size(),
                              .flat = flat};
  require_aligned(table);
  require(table.size() % 4 == 0 && cosines.order >= 1 && cosines.order < most, "table: (4 order,)");
  require(cosines.chosen <= rows && cosines.odd <= columns && rows < most && columns < most,
          "frequencies, column_signs: at most as many as rows and columns");
  require(row_signs.size() == cosines.chosen, "row_signs: as many as frequencies");
  check_rows(chosen, cosines.order);
  return made(rows, columns, false, [&] { return cuda::cosines(*context_, cosines, rows, columns); });
}

ResidentMatrix Dense::undo_activation(int activation, double parameter, const py::object& h,
                                      const py::object& b) const {
  require(activation >= 0 && activation <= 2, "unknown activation");
  const cuda::Operand values = operand_of(context_, h), beside = operand_of(context_, b);
  check_beside(values, beside);
  return made(values.rows, values.columns, false, [&] {
    return cuda::undo_activation(*context_, static_cast<Activation>(activation), parameter, values, beside);
  });
}

void bind_dense(py::module_& module) {
  py::class_<ResidentMatrix>(module, "ResidentMatrix", py::module_local())
      .def_property_readonly("shape", [](const ResidentMatrix& a) { return py::make_tuple(a.rows, a.columns); })
      .def_readonly("by_columns", &ResidentMatrix::by_columns)
      .def("transposed",
           [](ResidentMatrix a) {
             std::swap(a.rows, a.columns);
             a.by_columns = !a.by_columns;
             return a;
           })
      .def("part", &rows_of, py::arg("first"), py::arg("count"))
      .def(
          "download",
          [](const ResidentMatrix& a, py::array out) {
            double* target = target_of(out, a.rows, a.columns, a.by_columns);
            const py::gil_scoped_release nogil;
            cuda::fetch(*a.context, a.operand(), target);
          },
          py::arg("out"));
  py::class_<Dense>(module, "Dense", py::module_local())
      .def("place", &Dense::place, py::arg("a"))
      .def("multiply", &Dense::multiply, py::arg("a"), py::arg("b"), py::arg("out").noconvert() = py::none())
      .def("gram_of", &Dense::gram_of, py::arg("a"), py::arg("out").noconvert() = py::none())
      .def("solve_factored", &Dense::solve_factored, py::arg("factor"), py::arg("b"),
           py::arg("out").noconvert() = py::none())
      .def("cholesky", &Dense::cholesky, py::arg("a"), py::arg("shift"))
      .def("eigenvectors", &Dense::eigenvectors, py::arg("a"), py::arg("values").noconvert())
      .def("combine", &Dense::combine, py::arg("alpha"), py::arg("a"), py::arg("beta"), py::arg("b"))
      .def("combine_into", &Dense::combine_into, py::arg("alpha"), py::arg("a"), py::arg("beta"), py::arg("b"))
      .def("scale_columns", &Dense::scale_columns, py::arg("a"), py::arg("factors"))
      .def("largest_magnitude", &Dense::largest_magnitude, py::arg("a"))
      .def("cosines", &Dense::cosines, py::arg("rows"), py::arg("columns"), py::arg("table"), py::arg("flat"),
           py::arg("frequencies"), py::arg("row_signs"), py::arg("column_signs"))
      .def("undo_activation", &Dense::undo_activation, py::arg("activation"), py::arg("parameter"), py::arg("h"),
           py::arg("b"));
}

}  // namespace krrdistill::bindings
