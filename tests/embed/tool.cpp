// embed_tool distill IN OUT KERNEL n d SELECTION PRECISION points_per_class sigma2|width seed standardize TYPE
//     distils IN, n rows of d numbers of TYPE and then n labels (int64), or with TYPE = real n rows of targets (double)
// embed_tool fit FILE OUT           writes W_S and b_S as doubles
// embed_tool copy FILE OUT embed    reads a file and writes it again, with the map's weights or without
// embed_tool damage FILE SEED COUNT reads COUNT damaged copies of a file: each is read, or refused by an exception
#include <krrdistill/distill.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

namespace kd = krrdistill;
using Text = std::vector<std::string>;

std::string content(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

template <typename T>
std::vector<T> part(const std::string& bytes, size_t start, size_t count) {
  std::vector<T> out(count);
  if (bytes.size() < start + count * sizeof(T)) {
    throw std::runtime_error("the input is too short");
  }
  std::memcpy(out.data(), bytes.data() + start, count * sizeof(T));
  return out;
}

void write(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

kd::Map map_of(const std::string& kernel, int64_t d, double option, uint64_t seed, const kd::Preprocessing& before) {
  if (kernel == "identity") {
    return kd::Map::identity(d, before);
  }
  if (kernel == "random_fourier") {
    return kd::Map::random_fourier(d, d, option, seed, before);
  }
  return kd::Map::fcnn(d, {static_cast<int64_t>(option), static_cast<int64_t>(option) - 5}, seed, before);
}

template <typename T>
void distill(const Text& given) {
  const std::string bytes = content(given[2]);
  const int64_t n = std::stoll(given[5]), d = std::stoll(given[6]);
  const auto numbers = part<T>(bytes, 0, n * d);
  const size_t rest = n * d * sizeof(T);
  const kd::Samples X(numbers, d);
  const kd::DistillOptions options{.points_per_class = std::stoll(given[9]),
                                   .seed = std::stoull(given[11]),
                                   .lambdas = {},
                                   .selection = given[7] == "gcv" ? kd::Selection::gcv : kd::Selection::held_out,
                                   .precision = given[8] == "float64" ? kd::Precision::float64 : kd::Precision::float32,
                                   .include_weights = true};
  const kd::Map phi = map_of(given[4], d, std::stod(given[10]), options.seed,
                             given[12] == "1" ? kd::standardize(X) : kd::Preprocessing{});
  if (given[13] == "real") {
    kd::Matrix targets(n, static_cast<int64_t>(bytes.size() - rest) / 8 / n);
    targets.values = part<double>(bytes, rest, targets.values.size());
    kd::distill(X, targets, phi, options).distilled.save(given[3]);
  } else {
    kd::distill(X, part<int64_t>(bytes, rest, n), phi, options).distilled.save(given[3]);
  }
}

void fit(const Text& given) {
  const kd::Model model = kd::DistilledSet::load(given[2]).fit();
  std::vector<double> numbers = model.W.values;
  numbers.insert(numbers.end(), model.b.begin(), model.b.end());
  write(given[3], {reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(double)});
}

// A few bytes changed, a part cut out or doubled, or the end cut off.
std::string damaged(std::string bytes, std::mt19937_64& random) {
  const auto below = [&](size_t limit) { return static_cast<size_t>(random() % std::max<size_t>(limit, 1)); };
  const size_t kind = below(4), at = below(bytes.size()), count = 1 + below(64);
  if (kind == 0) {
    bytes.resize(at);
  } else if (kind == 1) {
    bytes.erase(at, count);
  } else if (kind == 2) {
    bytes.insert(below(bytes.size()), bytes.substr(at, count));
  } else {
    for (size_t i = 0; i < 1 + count / 8; ++i) {
      // Most numbers of a file are weights: half of the changes are in the directory, which is at its end.
      const size_t place =
          below(2) == 0 ? below(bytes.size()) : bytes.size() - 1 - below(std::min<size_t>(1500, bytes.size()));
      bytes[place] = static_cast<char>(below(3) == 0 ? 0xFF : below(256));
    }
  }
  return bytes;
}

void damage(const Text& given) {
  const std::string whole = content(given[2]), file = given[2] + ".damaged";
  std::mt19937_64 random(std::stoull(given[3]));
  int read = 0, refused = 0;
  for (int64_t i = 0; i < std::stoll(given[4]); ++i) {
    write(file, damaged(whole, random));
    try {
      static_cast<void>(kd::DistilledSet::load(file));
      ++read;
    } catch (const kd::DataError&) {
      ++refused;
    }
  }
  std::printf("%d read, %d refused\n", read, refused);
}

void run(const Text& given) {
  const std::string& what = given.at(1);
  if (what == "fit") {
    fit(given);
  } else if (what == "copy") {
    kd::DistilledSet::load(given[2]).save(given[3], given[4] == "1");
  } else if (what == "damage") {
    damage(given);
  } else if (given[13] == "float64") {
    distill<double>(given);
  } else if (given[13] == "float32") {
    distill<float>(given);
  } else if (given[13] == "real") {
    distill<double>(given);
  } else {
    distill<uint8_t>(given);
  }
}

}  // namespace

int main(int count, char** arguments) {
  try {
    run({arguments, arguments + count});
    return EXIT_SUCCESS;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "embed_tool: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
