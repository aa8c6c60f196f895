#pragma once
// Checked reading of the fields of one JSON object that comes from outside. An error names the
// file, the key, what was expected and what is there.

#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

namespace seer::io {

class JsonFields {
 public:
  // `where` is what errors name: a path, or a path and the key of an inner object. Both outlive
  // this.
  JsonFields(const nlohmann::json& object, const std::string& where);

  // There, and not null.
  bool has(const char* key) const;
  // The value. Error: not there, another type, or outside of [low, high].
  int64_t integer(const char* key, int64_t low, int64_t high) const;
  // The same, or `otherwise` where the key is absent or null.
  int64_t integer_or(const char* key, int64_t low, int64_t high, int64_t otherwise) const;
  double number_or(const char* key, double low, double high, double otherwise) const;
  bool boolean_or(const char* key, bool otherwise) const;
  std::string text_or(const char* key, const std::string& otherwise) const;

  const nlohmann::json& object() const { return object_; }
  const std::string& where() const { return where_; }

 private:
  [[noreturn]] void wrong(const char* key, const std::string& expected) const;
  const nlohmann::json& object_;
  const std::string& where_;
};

// The JSON object in `path`. Error: no such file, not JSON (with the place), not an object.
nlohmann::json read_json_object(const std::string& path);

}  // namespace seer::io
