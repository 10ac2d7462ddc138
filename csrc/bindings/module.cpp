// The Python module krrdistill._native: one function per operation, NumPy arrays in and out, GIL released.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "bindings/arrays.h"
#include "bindings/checks.h"
#include "bindings/errors.h"
#include "bindings/scipy_blas.h"
#include "bindings/signals.h"
#include "bindings/workspace.h"
#include "common/threads.h"
#include "krrdistill/band.h"
#include "krrdistill/degrees_of_freedom.h"
#include "krrdistill/hadamard.h"
#include "krrdistill/isa.h"
#include "krrdistill/normal.h"
#include "krrdistill/preimage.h"
#include "krrdistill/ridge.h"
#include "krrdistill/score.h"
#include "krrdistill/solve.h"
#include "krrdistill/statistics.h"

namespace krrdistill::bindings {
namespace {

// noconvert arguments arrive as they are: an array of another type is refused, never copied.
template <typename T>
void transform(const MapHandle<T>& handle, const py::array& x, const Rows& rows, Array<T> out, int64_t tile_rows) {
  const FeatureMap<T>& map = handle.map();
  const Rows chosen = settled(rows);
  const Input input = make_input(x, chosen, map.input_dim);
  const int64_t p = map.output_dim();
  check_features(out, input.n, p);
  check_tile_rows(tile_rows);
  T* target = out.mutable_data();
  const py::gil_scoped_release nogil;
  Workspace<T> workspace(tile_workspace(map, tile_rows));
  for (int64_t first = 0; first < input.n; first += tile_rows) {
    check_interrupt();
    transform_tile(map, input, first, std::min(tile_rows, input.n - first), target + first * p, workspace.get());
  }
}

template <typename T>
void accumulate_statistics(const MapHandle<T>& handle, const py::array& x, const Rows& rows, const py::array& y,
                           Array<double> gram, Array<double> cross, int64_t tile_rows) {
  const FeatureMap<T>& map = handle.map();
  const Rows chosen = settled(rows);
  const Input input = make_input(x, chosen, map.input_dim);
  check_sums(gram, cross, map.output_dim());
  check_tile_rows(tile_rows);
  const HeldTargets held = make_targets(y, cross.shape(0), x.shape(0), input);
  double* gram_data = gram.mutable_data();
  double* cross_data = cross.mutable_data();
  const py::gil_scoped_release nogil;
  Workspace<T> workspace(accumulate_workspace(map, tile_rows, held.targets));
  accumulate(map, input, held.targets, tile_rows, gram_data, cross_data, workspace.get());
}

void mirror(Array<double> gram) {
  const int64_t p = check_gram(gram);
  double* gram_data = gram.mutable_data();
  const py::gil_scoped_release nogil;
  symmetrize(gram_data, p);
}

template <typename T>
void score(const MapHandle<T>& handle, const py::array& x, const Rows& rows, const Array<int64_t>& labels,
           const Array<T>& weights, Array<int64_t> correct, int64_t tile_rows) {
  const FeatureMap<T>& map = handle.map();
  const Rows chosen = settled(rows);
  const Input input = make_input(x, chosen, map.input_dim);
  const auto [models, k] = check_scores(labels, weights, correct, x.shape(0), map.output_dim());
  check_tile_rows(tile_rows);
  int64_t* correct_data = correct.mutable_data();
  const py::gil_scoped_release nogil;
  Workspace<T> workspace(score_path_workspace(map, tile_rows, models, k));
  score_path(map, input, labels.data(), weights.data(), models, k, tile_rows, correct_data, workspace.get());
}

RidgeMethod parse_method(const std::string& name) {
  if (name == "cheaper") {
    return RidgeMethod::cheaper;
  }
  require(name == "band" || name == "cholesky", "method: cheaper, band or cholesky");
  return name == "band" ? RidgeMethod::band : RidgeMethod::cholesky;
}

double path(Array<double> gram, const Array<double>& cross, const Array<double>& lambdas, double rounding,
            Array<double> weights, Array<bool> positive_definite, Array<bool> resolved, const std::string& name) {
  const RidgeMethod method = parse_method(name);
  const auto [p, k, count] = check_path(check_gram(gram, 1), cross, lambdas, weights, positive_definite, resolved);
  unsigned char* definite_data = flags(positive_definite);
  unsigned char* resolved_data = flags(resolved);
  double* gram_data = gram.mutable_data();
  double* weight_data = weights.mutable_data();
  const py::gil_scoped_release nogil;
  Workspace<double> workspace(ridge_path_workspace(p, k, count, method));
  return ridge_path(gram_data, cross.data(), p, k, lambdas.data(), count, rounding, weight_data, definite_data,
                    resolved_data, workspace.get(), method);
}

BandReduction reduction_of(Array<double>& gram, Array<double>& factors, Array<double>& band) {
  const int64_t p = check_gram(gram, 1), width = band_width(p);
  require(factors.size() == p * width && band.size() == p * (width + 1), "factors, band: (p, w), (p, w + 1)");
  return {.p = p,
          .width = width,
          .vectors = gram.mutable_data(),
          .factors = factors.mutable_data(),
          .band = band.mutable_data()};
}

double reduce(Array<double> gram, Array<double> factors, Array<double> band) {
  const BandReduction reduction = reduction_of(gram, factors, band);
  const py::gil_scoped_release nogil;
  Workspace<double> workspace(std::max(reduce_to_band_workspace(reduction.p), largest_of_band_workspace(reduction.p)));
  reduce_to_band(reduction, workspace.get());
  return largest_of_band(reduction, workspace.get());
}

// The vectors in the rows of an array.
int64_t check_vectors(const Array<double>& vectors, int64_t p) {
  require(vectors.ndim() == 2 && vectors.shape(1) == p, "vectors: (count, p)");
  return vectors.shape(0);
}

void rotate(Array<double> gram, Array<double> factors, Array<double> band, Array<double> vectors, bool transposed) {
  const BandReduction reduction = reduction_of(gram, factors, band);
  const int64_t count = check_vectors(vectors, reduction.p);
  double* columns = vectors.mutable_data();
  const py::gil_scoped_release nogil;
  Workspace<double> workspace(apply_q_workspace(reduction.p, count));
  apply_q(reduction, transposed, columns, count, workspace.get());
}

bool banded_solve(Array<double> gram, Array<double> factors, Array<double> band, double shift, Array<double> vectors) {
  const BandReduction reduction = reduction_of(gram, factors, band);
  const int64_t count = check_vectors(vectors, reduction.p);
  double* columns = vectors.mutable_data();
  const py::gil_scoped_release nogil;
  Workspace<double> workspace(solve_band_workspace(reduction.p));
  return solve_band(reduction, shift, columns, count, workspace.get());
}

void degrees(Array<double> gram, const Array<double>& lambdas, Array<double> out) {
  const int64_t p = check_gram(gram, 1), count = lambdas.size();
  require(out.size() == count, "out: (lambdas,)");
  require_aligned(lambdas, out);
  double* gram_data = gram.mutable_data();
  double* out_data = out.mutable_data();
  const py::gil_scoped_release nogil;
  Workspace<double> workspace(degrees_of_freedom_workspace(p));
  degrees_of_freedom(gram_data, p, lambdas.data(), count, out_data, workspace.get());
}

template <typename T>
void solve(Array<T> a, Array<T> rhs) {
  const auto [batch, n, r] = check_systems(a, rhs);
  T* a_data = a.mutable_data();
  T* rhs_data = rhs.mutable_data();
  const py::gil_scoped_release nogil;
  solve_spd(a_data, rhs_data, batch, n, r);
}

double preimage(Array<double> weight, Array<double> rhs, Array<double> x, double rcond_floor) {
  const auto [p, d, m] = check_preimages(weight, rhs, x);
  double* weight_data = weight.mutable_data();
  double* rhs_data = rhs.mutable_data();
  double* x_data = x.mutable_data();
  const py::gil_scoped_release nogil;
  Workspace<double> workspace(preimage_workspace(p, d, m));
  Workspace<int> pivots(2 * p);
  return preimage_solve(weight_data, rhs_data, x_data, p, d, m, rcond_floor, workspace.get(), pivots.get());
}

void structured_preimage(const Array<double>& diagonals, const Array<double>& scale, const Array<double>& rhs,
                         Array<double> x) {
  const Hadamard<double> weight = check_structured(diagonals, scale, rhs, x);
  const int64_t m = x.shape(0);
  const double* rhs_data = rhs.data();
  double* x_data = x.mutable_data();
  const py::gil_scoped_release nogil;
  hadamard_solve(weight, rhs_data, x_data, m);
}

void normal(const Array<uint64_t>& bits, Array<double> out) {
  require(out.size() == bits.size(), "out: as many numbers as bits");
  require_aligned(bits, out);
  double* out_data = out.mutable_data();
  const uint64_t* bit_data = bits.data();
  const int64_t n = bits.size();
  constexpr int64_t step = 4'194'304;
  const py::gil_scoped_release nogil;
  for (int64_t first = 0; first < n; first += step) {
    check_interrupt();
    normal_from_bits(bit_data + first, out_data + first, std::min(step, n - first));
  }
}

template <typename T>
void bind_operations(py::module_& module, const char* map_name) {
  py::class_<MapHandle<T>>(module, map_name)
      .def(py::init<int64_t, std::optional<Array<double>>, std::optional<Array<double>>, const py::list&>(),
           py::arg("input_dim"), py::arg("scale"), py::arg("shift"), py::arg("layers"));
  module.def("transform", &transform<T>, py::arg("feature_map"), py::arg("x"), py::arg("rows").none(true),
             py::arg("out").noconvert(), py::arg("tile_rows"));
  module.def("accumulate", &accumulate_statistics<T>, py::arg("feature_map"), py::arg("x"), py::arg("rows").none(true),
             py::arg("y"), py::arg("gram").noconvert(), py::arg("cross").noconvert(), py::arg("tile_rows"));
  module.def("score_path", &score<T>, py::arg("feature_map"), py::arg("x"), py::arg("rows").none(true),
             py::arg("labels"), py::arg("weights"), py::arg("correct").noconvert(), py::arg("tile_rows"));
  module.def("solve_spd", &solve<T>, py::arg("a").noconvert(), py::arg("rhs").noconvert());
}

py::dict build_facts() {
  py::dict facts;
  facts["compiler"] = std::string(KRRDISTILL_COMPILER);
#ifdef _OPENMP
  facts["openmp_threads"] = max_threads();
#else
  facts["openmp_threads"] = py::none();
#endif
  py::list isas;
  for (const Isa isa : available_isas()) {
    isas.append(isa_name(isa));
  }
  facts["isas"] = isas;
  facts["isa"] = isa_name(current_isa());
  return facts;
}

}  // namespace
}  // namespace krrdistill::bindings

PYBIND11_MODULE(_native, module) {
  namespace bindings = krrdistill::bindings;
  module.doc() = "Compiled CPU operations of krrdistill; use them through krrdistill.backends.native.";
  bindings::load_scipy_blas();
  bindings::stop_at_signals();
  krrdistill::current_isa();  // an unknown KRRDISTILL_ISA fails here, at import
  pybind11::register_local_exception_translator(&bindings::translate);
  bindings::bind_operations<float>(module, "FeatureMapF32");
  bindings::bind_operations<double>(module, "FeatureMapF64");
  module.def("symmetrize", &bindings::mirror, pybind11::arg("gram").noconvert());
  module.def("ridge_path", &bindings::path, pybind11::arg("gram").noconvert(), pybind11::arg("cross"),
             pybind11::arg("lambdas"), pybind11::arg("rounding"), pybind11::arg("weights").noconvert(),
             pybind11::arg("positive_definite").noconvert(), pybind11::arg("resolved").noconvert(),
             pybind11::arg("method") = "cheaper");
  module.def("band_width", &krrdistill::band_width, pybind11::arg("p"));
  module.def("reduce_to_band", &bindings::reduce, pybind11::arg("gram").noconvert(),
             pybind11::arg("factors").noconvert(), pybind11::arg("band").noconvert());
  module.def("apply_q", &bindings::rotate, pybind11::arg("gram").noconvert(), pybind11::arg("factors").noconvert(),
             pybind11::arg("band").noconvert(), pybind11::arg("vectors").noconvert(), pybind11::arg("transposed"));
  module.def("solve_band", &bindings::banded_solve, pybind11::arg("gram").noconvert(),
             pybind11::arg("factors").noconvert(), pybind11::arg("band").noconvert(), pybind11::arg("shift"),
             pybind11::arg("vectors").noconvert());
  module.def("degrees_of_freedom", &bindings::degrees, pybind11::arg("gram").noconvert(), pybind11::arg("lambdas"),
             pybind11::arg("out").noconvert());
  module.def("preimage_solve", &bindings::preimage, pybind11::arg("weight").noconvert(),
             pybind11::arg("rhs").noconvert(), pybind11::arg("x").noconvert(), pybind11::arg("rcond_floor"));
  module.def("hadamard_solve", &bindings::structured_preimage, pybind11::arg("diagonals"), pybind11::arg("scale"),
             pybind11::arg("rhs"), pybind11::arg("x").noconvert());
  module.def("normal_from_bits", &bindings::normal, pybind11::arg("bits").noconvert(),
             pybind11::arg("out").noconvert());
  module.def("has_byte_products", &krrdistill::has_byte_products);
  module.def("build_facts", &bindings::build_facts);
  module.def(
      "set_threads",
      [](int64_t count) {
        bindings::require(count >= 1 && count <= 1024, "count: 1 to 1024");  // more overflow the stack of OpenMP
        return krrdistill::set_threads(count);
      },
      pybind11::arg("count"));
  module.def(
      "set_isa", [](const std::string& name) { krrdistill::set_isa(krrdistill::parse_isa(name)); },
      pybind11::arg("name"));
}
