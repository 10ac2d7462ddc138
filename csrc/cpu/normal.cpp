// Compiled without contraction of a * b + c into one rounding (cmake/isa.cmake): the numbers are part of the format.
#include "krrdistill/normal.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numbers>

namespace krrdistill {
namespace {

constexpr int degree = 7;

struct Rational {
  std::array<double, degree + 1> numerator;
  std::array<double, degree + 1> denominator;
};

// Coefficients of AS 241 (M. Wichura, Applied Statistics 37, 1988), constant term first.
constexpr Rational centre = {
    .numerator = {3.3871328727963666080, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
                  4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3},
    .denominator = {1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
                    2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4,
                    5.2264952788528545610e3}};
constexpr Rational tail = {
    .numerator = {1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504,
                  1.27045825245236838258, 2.41780725177450611770e-1, 2.27238449892691845833e-2,
                  7.74545014278341407640e-4},
    .denominator = {1.0, 2.05319162663775882187, 1.67638483018380384940, 6.89767334985100004550e-1,
                    1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4,
                    1.05075007164441684324e-9}};
constexpr Rational far_tail = {
    .numerator = {6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580, 2.96560571828504891230e-1,
                  2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5,
                  2.01033439929228813265e-7},
    .denominator = {1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
                    7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7,
                    2.04426310338993978564e-15}};

inline double evaluate(const Rational& r, double x) {
  double numerator = r.numerator[degree];
  double denominator = r.denominator[degree];
  for (int j = degree - 1; j >= 0; --j) {
    numerator = numerator * x + r.numerator[j];
    denominator = denominator * x + r.denominator[j];
  }
  return numerator / denominator;
}

// (b + 1/2) 2^-52: the bits go into the mantissa of 2^52 + b, so that the conversion vectorises.
inline double to_unit(uint64_t bits) {
  constexpr uint64_t exponent_of_2_52 = 0x4330000000000000;
  constexpr double two_52 = 4503599627370496.0;
  return (std::bit_cast<double>((bits >> 12) | exponent_of_2_52) - two_52 + 0.5) * 0x1p-52;
}

// -ln(x) for normal 0 < x < 1: x = m 2^e with m in [sqrt(1/2), sqrt(2)), ln m = 2 artanh((m - 1) / (m + 1)).
inline double negative_log(double x) {
  constexpr int terms = 12;
  const auto bits = std::bit_cast<uint64_t>(x);
  auto mantissa = std::bit_cast<double>((bits & 0x000FFFFFFFFFFFFF) | 0x3FE0000000000000);
  auto exponent = static_cast<double>(static_cast<int64_t>(bits >> 52) - 1022);
  if (mantissa < 0.70710678118654752440) {
    mantissa *= 2.0;
    exponent -= 1.0;
  }
  const double s = (mantissa - 1.0) / (mantissa + 1.0);
  const double square = s * s;
  double series = 2.0 / (2 * terms - 1);
  for (int j = terms - 2; j >= 0; --j) {
    series = series * square + 2.0 / (2 * j + 1);
  }
  return -(exponent * std::numbers::ln2 + s * series);
}

inline double outer(double u) {
  const double q = u - 0.5;
  const double r = std::sqrt(negative_log(q < 0.0 ? u : 1.0 - u));
  const double value = r <= 5.0 ? evaluate(tail, r - 1.6) : evaluate(far_tail, r - 5.0);
  return std::copysign(value, q);
}

}  // namespace

void normal_from_bits(const uint64_t* bits, double* out, int64_t n) {
  constexpr int64_t block = 4096;
#pragma omp parallel for schedule(static)
  for (int64_t start = 0; start < n; start += block) {
    const int64_t count = std::min(block, n - start);
    // A copy, since `out` may be the same memory.
    std::array<uint64_t, block> source;  // NOLINT(cppcoreguidelines-pro-type-member-init): filled in the next line
    std::memcpy(source.data(), bits + start, static_cast<size_t>(count) * sizeof(uint64_t));
    double* target = out + start;
    for (int64_t i = 0; i < count; ++i) {  // vectorised: the centre for all, right for 85% of them
      const double q = to_unit(source[i]) - 0.5;
      target[i] = q * evaluate(centre, 0.180625 - q * q);
    }
    for (int64_t i = 0; i < count; ++i) {
      const double u = to_unit(source[i]);
      if (std::fabs(u - 0.5) > 0.425) {
        target[i] = outer(u);
      }
    }
  }
}

}  // namespace krrdistill
