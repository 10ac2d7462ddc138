// Random numbers that are the same everywhere, those of krrdistill.common.random: part of the file format.
#pragma once

#include <cstdint>
#include <vector>

namespace krrdistill::library {

// Independent streams of one seed.
enum class Stream : uint64_t {
  split = 1,
  noise = 2,
  fourier_bias = 5,
  labels = 6,
  noise_order = 10,
  noise_signs = 11,
  weights = 16,  // layer l has weights + l
};

inline Stream layer_stream(int64_t layer) {
  return static_cast<Stream>(static_cast<uint64_t>(Stream::weights) + static_cast<uint64_t>(layer));
}

std::vector<double> uniform(uint64_t seed, Stream stream, int64_t n);       // U(0, 1)
std::vector<double> normal(uint64_t seed, Stream stream, int64_t n);        // N(0, 1), normal.h
std::vector<double> signs(uint64_t seed, Stream stream, int64_t n);         // -1 or 1
std::vector<int64_t> permutation(uint64_t seed, Stream stream, int64_t n);  // of 0 ... n - 1

}  // namespace krrdistill::library
