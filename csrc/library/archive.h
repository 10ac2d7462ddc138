// .npz archives: a zip file of .npy members that are stored, not deflated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace krrdistill::library {

// An array as a file has it: row-major, little-endian.
struct StoredArray {
  std::string type;  // NumPy's: <f8, <f4, <f2, |u1, |i1, <U12
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;

  static StoredArray of(const std::vector<double>& values, std::vector<int64_t> shape);
  static StoredArray of(const std::vector<float>& values, std::vector<int64_t> shape);
  static StoredArray of(std::string_view ascii);

  // The numbers of an array of <f8, <f4, <f2, |u1 or |i1; the letters of one of text, as UTF-8. Throw DataError.
  [[nodiscard]] std::vector<double> numbers() const;
  [[nodiscard]] std::string text() const;
  [[nodiscard]] std::string shown() const;  // "<f8 of shape (10, 64)"
};

using Arrays = std::map<std::string, StoredArray>;

// SHA-256 over names, types, shapes and numbers of arrays, by name.
std::string content_digest(const Arrays& arrays);

// Reads all arrays of a file. Nothing larger than the file is allocated. Throws DataError, with the path, for anything
// but a whole archive of stored arrays of numbers and texts, each of its own name and place in the file.
Arrays read_npz(const std::filesystem::path& path);

// Writes a file under a temporary name and renames it. The same arrays give the same bytes. Throws DataError.
void write_npz(const std::filesystem::path& path, const Arrays& arrays);

}  // namespace krrdistill::library
