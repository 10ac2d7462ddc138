// What tests/test_embed.py compares alone: steps of the library that Python has, too. Numbers are read and written raw.
// embed_parts random SEED STREAM n OUT               uniform, normal and signs as doubles, then a permutation (int64)
// embed_parts split IN n k FRACTION SEED OUT         IN: n labels of k classes (int64); k = 0 for real-valued targets
//                                                    how many rows are held out, these, then those to train on (int64)
// embed_parts construct IN k p POINTS SEED LIMIT OUT IN: W (k, p); F and Y of POINTS per class
// embed_parts preimage IN m d p fcnn|fourier SEED OUT IN: F (m, p); inputs (m, d) of a map of one layer
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <string>
#include <vector>

#include "library/construct.h"
#include "library/map_parts.h"
#include "library/random.h"
#include "library/train.h"

namespace {

namespace kd = krrdistill;
namespace library = krrdistill::library;
using Text = std::vector<std::string>;

constexpr double sigma2 = 60.0;

template <typename T>
std::vector<T> read(const std::string& path, int64_t count) {
  std::vector<T> out(static_cast<size_t>(count));
  std::ifstream stream(path, std::ios::binary);
  stream.read(reinterpret_cast<char*>(out.data()), count * static_cast<int64_t>(sizeof(T)));
  return out;
}

template <typename T>
void write(std::ofstream& stream, const std::vector<T>& numbers) {
  stream.write(reinterpret_cast<const char*>(numbers.data()), static_cast<int64_t>(numbers.size() * sizeof(T)));
}

kd::Matrix matrix(const std::string& path, int64_t rows, int64_t columns) {
  kd::Matrix out(rows, columns);
  out.values = read<double>(path, rows * columns);
  return out;
}

void draw(const Text& given, std::ofstream& out) {
  const uint64_t seed = std::stoull(given[2]);
  const auto stream = static_cast<library::Stream>(std::stoull(given[3]));
  const int64_t n = std::stoll(given[4]);
  write(out, library::uniform(seed, stream, n));
  write(out, library::normal(seed, stream, n));
  write(out, library::signs(seed, stream, n));
  write(out, library::permutation(seed, stream, n));
}

void split(const Text& given, std::ofstream& out) {
  const int64_t n = std::stoll(given[3]), k = std::stoll(given[4]);
  const auto labels = read<int64_t>(given[2], n);
  const std::vector<double> numbers(static_cast<size_t>(n));
  const kd::Samples X(numbers, 1);
  const kd::Map map = kd::Map::identity(1, {});
  const kd::DistillOptions options{
      .seed = std::stoull(given[6]), .lambdas = {}, .validation_fraction = std::stod(given[5])};
  const library::Problem problem{
      .X = X, .labels = k > 0 ? labels.data() : nullptr, .k = k > 0 ? k : 1, .map = map, .options = options};
  const library::Split found = library::split(problem);
  write(out, std::vector<int64_t>{std::ssize(found.validation)});
  write(out, found.validation);
  write(out, found.training);
}

void construct(const Text& given, std::ofstream& out) {
  const int64_t k = std::stoll(given[3]), p = std::stoll(given[4]);
  const library::Construction made =
      library::construct(matrix(given[2], k, p), library::one_hot_labels(k, std::stoll(given[5])),
                         std::stoull(given[6]), std::stod(given[7]));
  write(out, made.F.values);
  write(out, made.Y.values);
}

void preimage(const Text& given, std::ofstream& out) {
  const int64_t m = std::stoll(given[3]), d = std::stoll(given[4]), p = std::stoll(given[5]);
  const uint64_t seed = std::stoull(given[7]);
  const kd::Map map =
      given[6] == "fcnn" ? kd::Map::fcnn(d, {p}, seed, {}) : kd::Map::random_fourier(d, p, sigma2, seed, {});
  write(out, library::preimage(map, matrix(given[2], m, p)).values);
}

}  // namespace

int main(int count, char** arguments) {
  try {
    const Text given(arguments, arguments + count);
    std::ofstream out(given.back(), std::ios::binary);
    const std::string& what = given.at(1);
    if (what == "random") {
      draw(given, out);
    } else if (what == "split") {
      split(given, out);
    } else if (what == "construct") {
      construct(given, out);
    } else {
      preimage(given, out);
    }
    return EXIT_SUCCESS;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "embed_parts: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
