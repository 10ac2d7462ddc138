#include <charconv>
#include <cmath>
#include <locale>
#include <optional>
#include <sstream>
#include <utility>

#include "krrdistill/errors.h"
#include "library/json.h"

namespace krrdistill::library {
namespace {

constexpr int deepest = 64;
constexpr size_t longest = size_t{1} << 24;
constexpr size_t longest_number = 400;  // characters; a double needs 325 at most, without its exponent

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Json document() {
    if (text_.size() > longest) {
      fail("longer than 2^24 characters");
    }
    Json found = value(0);
    skip_space();
    if (at_ != text_.size()) {
      fail("more than one value");
    }
    return found;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw DataError("no JSON of this package: " + what + " at character " + std::to_string(at_));
  }

  void skip_space() {
    while (at_ < text_.size() && std::string_view(" \t\n\r").find(text_[at_]) != std::string_view::npos) {
      ++at_;
    }
  }

  [[nodiscard]] char next() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  bool take(std::string_view word) {
    const bool there = text_.substr(at_, word.size()) == word;
    at_ += there ? word.size() : 0;
    return there;
  }

  // Elements up to `end`, with commas between them.
  template <typename Element>
  void sequence(std::string_view end, Element element) {
    skip_space();
    if (take(end)) {
      return;
    }
    do {
      element();
      skip_space();
    } while (take(","));
    if (!take(end)) {
      fail("no comma and no end");
    }
  }

  Json value(int depth) {  // NOLINT(misc-no-recursion): at most `deepest` deep
    if (depth > deepest) {
      fail("nested more than 64 deep");
    }
    skip_space();
    if (take("{")) {
      Json::Object object;
      sequence("}", [&] {
        skip_space();
        std::string key = string();
        skip_space();
        if (!take(":")) {
          fail("no colon");
        }
        if (!object.try_emplace(std::move(key), value(depth + 1)).second) {
          fail("a key twice");
        }
      });
      return {std::move(object)};
    }
    if (take("[")) {
      Json::Array array;
      sequence("]", [&] { array.push_back(value(depth + 1)); });
      return {std::move(array)};
    }
    if (next() == '"') {
      return {string()};
    }
    if (take("true")) {
      return {true};
    }
    if (take("false")) {
      return {false};
    }
    if (take("null")) {
      return {nullptr};
    }
    return number();
  }

  void digits() {
    if (next() < '0' || next() > '9') {
      fail("no value");
    }
    while (next() >= '0' && next() <= '9') {
      ++at_;
    }
  }

  Json number() {
    const size_t start = at_;
    take("-");
    if (!take("0")) {
      digits();
    }
    bool whole = true;
    if (take(".")) {
      whole = false;
      digits();
    }
    if (take("e") || take("E")) {
      whole = false;
      if (!take("+")) {
        take("-");
      }
      digits();
    }
    const std::string_view found = text_.substr(start, at_ - start);
    if (found.size() > longest_number) {
      fail("a number of too many digits");
    }
    if (whole) {
      if (const auto integer = parsed<int64_t>(found)) {
        return {*integer};
      }
      if (const auto natural = parsed<uint64_t>(found)) {
        return {*natural};
      }
    }
    std::istringstream stream{std::string(found)};  // std::from_chars of doubles is not everywhere
    stream.imbue(std::locale::classic());
    double real = 0.0;
    if (!(stream >> real) || !std::isfinite(real)) {
      fail("a number beyond the range of doubles");
    }
    return {real};
  }

  template <typename Integer>
  static std::optional<Integer> parsed(std::string_view digits) {
    Integer out = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out);
    return error == std::errc() && end == digits.data() + digits.size() ? std::optional(out) : std::nullopt;
  }

  std::string string() {
    if (!take("\"")) {
      fail("no text");
    }
    std::string out;
    while (next() != '"') {
      if (static_cast<unsigned char>(next()) < 0x20) {  // the end of the text, too
        fail("a text without end");
      }
      if (take("\\")) {
        escaped(out);
      } else {
        out += text_[at_++];
      }
    }
    ++at_;
    return out;
  }

  void escaped(std::string& out) {
    constexpr std::string_view names = "\"\\/bfnrt", letters = "\"\\/\b\f\n\r\t";
    const size_t known = names.find(next());
    if (next() != '\0' && known != std::string_view::npos) {
      out += letters[known];
      ++at_;
      return;
    }
    uint32_t letter = unit();
    if (letter >= 0xD800 && letter < 0xDC00) {  // the first of a pair
      const uint32_t second = take("\\") ? unit() : 0;
      if (second < 0xDC00 || second > 0xDFFF) {
        fail("half a letter");
      }
      letter = 0x10000 + ((letter - 0xD800) << 10) + (second - 0xDC00);
    } else if (letter >= 0xDC00 && letter <= 0xDFFF) {
      fail("half a letter");
    }
    append_utf8(out, letter);
  }

  uint32_t unit() {
    uint32_t out = 0;
    if (!take("u") || text_.size() - at_ < 4) {
      fail("an unknown escape");
    }
    const char* begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, begin + 4, out, 16);
    if (error != std::errc() || end != begin + 4) {
      fail("an unknown escape");
    }
    at_ += 4;
    return out;
  }

  static void append_utf8(std::string& out, uint32_t letter) {
    if (letter < 0x80) {
      out += static_cast<char>(letter);
      return;
    }
    const uint32_t more = 1U + static_cast<uint32_t>(letter >= 0x800) + static_cast<uint32_t>(letter >= 0x10000);
    out += static_cast<char>((0xFF00U >> (more + 1U) & 0xFFU) | letter >> (6U * more));
    for (uint32_t left = more; left-- > 0;) {
      out += static_cast<char>(0x80U | (letter >> (6U * left) & 0x3FU));
    }
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

Json parse_json(std::string_view text) { return Parser(text).document(); }

}  // namespace krrdistill::library
