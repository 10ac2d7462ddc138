// JSON (RFC 8259) as files have it: strict, at most 64 deep, no key twice, no NaN.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace krrdistill::library {

struct Json {
  using Array = std::vector<Json>;
  using Object = std::map<std::string, Json>;  // sorted, as the package writes them

  std::variant<std::nullptr_t, bool, int64_t, uint64_t, double, std::string, Array, Object> value = nullptr;

  // Members of an object, null where there is none. The others throw DataError, with the key, for what is not of the
  // kind.
  [[nodiscard]] const Json& operator[](const std::string& key) const;
  [[nodiscard]] const std::string& text(const std::string& key) const;
  [[nodiscard]] double number(const std::string& key) const;
  [[nodiscard]] uint64_t natural(const std::string& key) const;
  [[nodiscard]] int64_t size(const std::string& key) const;  // 1 ... 2^31 - 1
  [[nodiscard]] std::vector<int64_t> sizes(const std::string& key) const;
  [[nodiscard]] bool is_null() const { return std::holds_alternative<std::nullptr_t>(value); }
};

Json parse_json(std::string_view text);  // UTF-8. Throws DataError
Json list(const std::vector<int64_t>& values);
std::string to_text(const Json& json);  // ASCII

// A number with the fewest digits that give it back, written as Python writes floats.
std::string shortest(double value);

}  // namespace krrdistill::library
