// A Cholesky factorisation of G + lambda I per lambda: for a few of them, and for small matrices.
#include <algorithm>
#include <limits>

#include "common/checked_blas.h"
#include "common/checked_size.h"
#include "common/lanczos.h"
#include "cpu/ridge_methods.h"
#include "krrdistill/interrupt.h"
#include "krrdistill/statistics.h"

namespace krrdistill {
namespace {

// G stays in the upper triangle (column-major) and `diagonal`; factors take the lower one.
class ShiftedGram {
 public:
  ShiftedGram(double* gram, int64_t p, double* diagonal) : gram_(gram), p_(p), diagonal_(diagonal) {
    for (int64_t i = 0; i < p; ++i) {
      diagonal_[i] = gram[i * p + i];
    }
  }

  // False when G + shift I is not positive definite.
  bool factor(double shift) {
    check_interrupt();
    if (overwritten_) {
      symmetrize(gram_, p_);  // row-major lower, column-major upper
    }
    overwritten_ = true;
    for (int64_t i = 0; i < p_; ++i) {
      gram_[i * p_ + i] = diagonal_[i] + shift;
    }
    char uplo = 'L';
    int n = blas_int(p_), ld = std::max(n, 1), info = 0;
    blas<double>().potrf(&uplo, &n, gram_, &ld, &info);
    check_info("potrf", info);
    return info == 0;
  }

  void solve(double* columns, int64_t k) const {
    char uplo = 'L';
    int n = blas_int(p_), ld = std::max(n, 1), count = blas_int(k), info = 0;
    blas<double>().potrs(&uplo, &n, &count, gram_, &ld, columns, &ld, &info);
    check_info("potrs", info);
  }

 private:
  double* gram_;
  int64_t p_;
  double* diagonal_;
  bool overwritten_ = false;
};

}  // namespace

int64_t cholesky_path_workspace(int64_t p) { return checked_sum(p, lanczos_workspace(p)); }

double cholesky_path(const RidgeProblem& problem, const RidgeModels& models, double* workspace) {
  const int64_t p = problem.p, k = problem.k;
  const auto multiply = [&problem](const double* x, double* y) { symv('L', problem.p, problem.gram, problem.p, x, y); };
  const double largest = largest_eigenvalue(p, multiply, workspace + p);
  const double floor = problem.rounding * std::max(largest, 0.0);
  ShiftedGram gram(problem.gram, p, workspace);
  // What is positive definite stays so for larger shifts: most lambdas are settled by the factorisations of others.
  double least_definite = std::numeric_limits<double>::infinity();
  double most_indefinite = -least_definite;
  const auto factor = [&](double shift) {
    const bool definite = gram.factor(shift);
    (definite ? least_definite : most_indefinite) =
        definite ? std::min(least_definite, shift) : std::max(most_indefinite, shift);
    return definite;
  };
  for (int64_t l = 0; l < problem.lambdas; ++l) {
    double* solution = models.weights + l * k * p;
    const double lambda = problem.lambda[l];
    models.positive_definite[l] = lambda > most_indefinite && factor(lambda) ? 1 : 0;
    if (models.positive_definite[l] != 0) {
      std::copy(problem.cross, problem.cross + k * p, solution);  // row-major (k, p) is column-major (p, k)
      gram.solve(solution, k);
    }
    const double lowered = lambda - floor;
    models.resolved[l] = lowered >= least_definite || (lowered > most_indefinite && factor(lowered)) ? 1 : 0;
  }
  return largest;
}

}  // namespace krrdistill
