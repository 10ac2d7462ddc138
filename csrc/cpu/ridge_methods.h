// The two ways to a ridge path; ridge.cpp chooses.
#pragma once

#include <cstdint>

namespace krrdistill {

struct RidgeProblem {
  double* gram;         // (p, p) symmetric, overwritten
  const double* cross;  // (k, p)
  int64_t p, k;
  const double* lambda;
  int64_t lambdas;
  double rounding;  // of gram, relative to its largest eigenvalue
};

struct RidgeModels {
  double* weights;  // (lambdas, k, p), without meaning where there is no model
  unsigned char* positive_definite;
  unsigned char* resolved;
};

// Each returns the largest eigenvalue of gram, to a relative 1e-3. Workspaces are in doubles.
int64_t band_path_workspace(int64_t p, int64_t k, int64_t lambdas);
double band_path(const RidgeProblem& problem, const RidgeModels& models, double* workspace);

int64_t cholesky_path_workspace(int64_t p);
double cholesky_path(const RidgeProblem& problem, const RidgeModels& models, double* workspace);

}  // namespace krrdistill
