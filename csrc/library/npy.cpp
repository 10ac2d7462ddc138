#include "library/npy.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstring>
#include <utility>

#include "krrdistill/elementwise.h"
#include "krrdistill/errors.h"
#include "library/sha256.h"

namespace krrdistill::library {
namespace {

static_assert(std::endian::native == std::endian::little, "files are little-endian");
constexpr std::string_view magic = "\x93NUMPY";
constexpr size_t longest_header = 4096;

// The header of an array is a Python dictionary of three known keys.
class HeaderParser {
 public:
  explicit HeaderParser(std::string_view text) : text_(text) {}

  struct Header {
    std::string type;
    bool fortran = false;
    std::vector<int64_t> shape;
  };

  Header parse() {
    Header out;
    bool type = false, order = false, shape = false;
    expect("{");
    while (!take("}")) {
      if (!type && take("'descr':")) {
        type = true;
        out.type = quoted();
      } else if (!order && take("'fortran_order':")) {
        order = true;
        out.fortran = take("True");
        if (!out.fortran) {
          expect("False");
        }
      } else if (!shape && take("'shape':")) {
        shape = true;
        out.shape = sizes();
      } else {
        fail();
      }
      if (!take(",")) {
        expect("}");
        break;
      }
    }
    skip_space();
    if (!type || !order || !shape || at_ != text_.size()) {
      fail();
    }
    return out;
  }

 private:
  [[noreturn]] static void fail() { throw DataError("is no plain array of numbers or texts"); }

  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) {
      ++at_;
    }
  }

  bool take(std::string_view word) {
    skip_space();
    const bool there = text_.substr(at_, word.size()) == word;
    at_ += there ? word.size() : 0;
    return there;
  }

  void expect(std::string_view word) {
    if (!take(word)) {
      fail();
    }
  }

  std::string quoted() {
    expect("'");
    const size_t end = text_.find('\'', at_);
    if (end == std::string_view::npos) {
      fail();
    }
    return std::string(text_.substr(std::exchange(at_, end + 1), end - at_));
  }

  std::vector<int64_t> sizes() {
    std::vector<int64_t> out;
    expect("(");
    while (!take(")")) {
      skip_space();
      int64_t size = 0;
      const char* begin = text_.data() + at_;
      const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), size);
      if (error != std::errc() || size < 0) {
        fail();
      }
      at_ += end - begin;
      out.push_back(size);
      if (!take(",")) {
        expect(")");
        break;
      }
    }
    return out;
  }

  std::string_view text_;
  size_t at_ = 0;
};

// Bytes of one element; 0 for a type that files of this package do not have.
int64_t item_size(std::string_view type) {
  constexpr std::array<std::pair<std::string_view, int64_t>, 5> known = {
      {{"<f8", 8}, {"<f4", 4}, {"<f2", 2}, {"|u1", 1}, {"|i1", 1}}};
  const auto* found = std::ranges::find(known, type, &std::pair<std::string_view, int64_t>::first);
  if (found != known.end()) {
    return found->second;
  }
  int32_t letters = 0;
  if (!type.starts_with("<U")) {
    return 0;
  }
  const auto [end, error] = std::from_chars(type.data() + 2, type.data() + type.size(), letters);
  return error == std::errc() && end == type.data() + type.size() && letters > 0 ? int64_t{4} * letters : 0;
}

// Elements of a shape, bounded by `most`.
int64_t count(const std::vector<int64_t>& shape, int64_t most) {
  int64_t out = 1;
  for (const int64_t size : shape) {
    if (__builtin_mul_overflow(out, size, &out) || out > most) {
      throw DataError("promises shape " + shown_shape(shape) + ", more than its bytes can hold");
    }
  }
  return out;
}

std::vector<std::byte> row_major(std::span<const std::byte> bytes, int64_t rows, int64_t columns, int64_t size) {
  std::vector<std::byte> out(bytes.size());
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      std::copy_n(bytes.begin() + (j * rows + i) * size, size, out.begin() + (i * columns + j) * size);
    }
  }
  return out;
}

template <typename T>
std::vector<double> converted(const std::vector<std::byte>& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  std::vector<double> out(values.size());
  if constexpr (std::is_same_v<T, Float16>) {
    elementwise<double>().load_f16(values.data(), nullptr, nullptr, out.data(), static_cast<int64_t>(out.size()));
  } else {
    std::ranges::copy(values, out.begin());
  }
  return out;
}

template <typename T>
StoredArray stored(const char* type, const std::vector<T>& values, std::vector<int64_t> shape) {
  StoredArray out{.type = type, .shape = std::move(shape), .bytes = {}};
  const auto bytes = std::as_bytes(std::span(values));
  out.bytes.assign(bytes.begin(), bytes.end());
  return out;
}

}  // namespace

std::string shown_shape(const std::vector<int64_t>& shape) {
  std::string out;
  for (const int64_t size : shape) {
    out += (out.empty() ? "" : ", ") + std::to_string(size);
  }
  return "(" + out + (shape.size() == 1 ? ",)" : ")");
}

StoredArray StoredArray::of(const std::vector<double>& values, std::vector<int64_t> shape) {
  return stored("<f8", values, std::move(shape));
}

StoredArray StoredArray::of(const std::vector<float>& values, std::vector<int64_t> shape) {
  return stored("<f4", values, std::move(shape));
}

StoredArray StoredArray::of(std::string_view ascii) {
  StoredArray out = stored("", std::vector<uint32_t>(ascii.begin(), ascii.end()), {});
  out.type = "<U" + std::to_string(ascii.size());
  return out;
}

std::string StoredArray::shown() const { return type + " of shape " + shown_shape(shape); }

std::vector<double> StoredArray::numbers() const {
  if (type == "<f8") {
    return converted<double>(bytes);
  }
  if (type == "<f4") {
    return converted<float>(bytes);
  }
  if (type == "<f2") {
    return converted<Float16>(bytes);
  }
  if (type == "|u1") {
    return converted<uint8_t>(bytes);
  }
  if (type == "|i1") {
    return converted<int8_t>(bytes);
  }
  throw DataError("is " + shown() + ", expected numbers");
}

std::string StoredArray::text() const {
  if (!type.starts_with("<U") || !shape.empty()) {
    throw DataError("is " + shown() + ", expected one text");
  }
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 4) {
    uint32_t letter = 0;
    std::memcpy(&letter, bytes.data() + i, 4);
    if (letter >= 0x80) {
      throw DataError("holds letters beyond ASCII, which files of this package escape");
    }
    out += static_cast<char>(letter);
  }
  out.erase(out.find_last_not_of('\0') + 1);  // NumPy's end of a text
  return out;
}

std::string content_digest(const Arrays& arrays) {
  Sha256 digest;
  for (const auto& [name, array] : arrays) {
    digest.update("('" + name + "', '" + array.type + "', " + shown_shape(array.shape) + ")");
    digest.update(array.bytes);
  }
  return digest.hex();
}

StoredArray read_npy(std::span<const std::byte> file) {
  const std::string_view text = as_text(file);
  if (!text.starts_with(magic) || file.size() < 12) {
    throw DataError("is not a NumPy array");
  }
  const int version = std::to_integer<int>(file[6]);
  if ((version != 1 && version != 2) || std::to_integer<int>(file[7]) != 0) {
    throw DataError("is of another .npy version than 1.0 and 2.0");
  }
  const size_t start = version == 1 ? 10 : 12;
  size_t length = 0;
  for (size_t i = start; i-- > 8;) {
    length = length << 8 | std::to_integer<size_t>(file[i]);
  }
  if (length > longest_header || length > file.size() - start) {
    throw DataError("has a header of " + std::to_string(length) + " bytes");
  }
  auto header = HeaderParser(text.substr(start, length)).parse();
  const std::span<const std::byte> bytes = file.subspan(start + length);
  const int64_t size = item_size(header.type);
  if (size == 0) {
    throw DataError("has dtype " + header.type + ", which no file of this package has (objects are never loaded)");
  }
  StoredArray out{.type = std::move(header.type), .shape = std::move(header.shape), .bytes = {}};
  const auto there = static_cast<int64_t>(bytes.size());
  if (there % size != 0 || count(out.shape, there / size) != there / size) {
    throw DataError("promises " + out.shown() + ", " + std::to_string(there) + " bytes are there");
  }
  if (header.fortran && out.shape.size() > 2) {
    throw DataError("is in Fortran's order; save it in C's (numpy.ascontiguousarray)");
  }
  if (header.fortran && out.shape.size() == 2) {
    out.bytes = row_major(bytes, out.shape[0], out.shape[1], size);
  } else {
    out.bytes.assign(bytes.begin(), bytes.end());
  }
  return out;
}

std::string npy_header(const StoredArray& array) {
  std::string text =
      "{'descr': '" + array.type + "', 'fortran_order': False, 'shape': " + shown_shape(array.shape) + ", }";
  const size_t before = magic.size() + 4;
  text.append(63 - (before + text.size()) % 64, ' ');  // the numbers begin at a multiple of 64 bytes
  text += '\n';
  const auto length = text.size();
  return std::string(magic) + '\1' + '\0' + static_cast<char>(length & 0xFFU) + static_cast<char>(length >> 8) + text;
}

}  // namespace krrdistill::library
