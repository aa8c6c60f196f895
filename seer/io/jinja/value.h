#pragma once
// Values of a template, with the meaning that they have in Python: truth, equality, text.

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace seer::io::jinja {

// What goes wrong while a template runs; the statement that runs adds the place.
struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Value;
struct List;
struct Dict;
struct Arguments;

// Something with attributes: a namespace, a loop.
class Object {
 public:
  virtual ~Object() = default;
  virtual std::string_view type_name() const = 0;
  virtual std::optional<Value> attribute(std::string_view name) const = 0;
  virtual bool set_attribute(std::string_view, const Value&) { return false; }
};

struct Function {
  std::string name;
  std::function<Value(const Arguments&)> call;
};

struct Undefined {
  std::string name;  // what was looked for
};
struct None {};

class Value {
 public:
  enum class Kind {
    undefined,
    none,
    boolean,
    integer,
    number,
    string,
    list,
    dict,
    function,
    object
  };

  Value() : data_(Undefined{}) {}
  Value(bool value) : data_(value) {}
  Value(int value) : data_(int64_t{value}) {}
  Value(int64_t value) : data_(value) {}
  Value(double value) : data_(value) {}
  Value(const char* text) : data_(std::string(text)) {}
  Value(std::string text) : data_(std::move(text)) {}
  Value(std::string_view text) : data_(std::string(text)) {}
  Value(std::shared_ptr<Object> object) : data_(std::move(object)) {}
  static Value none();
  static Value undefined(std::string name);
  static Value list(std::vector<Value> items, bool is_tuple = false);
  static Value dict(std::vector<std::pair<Value, Value>> items);
  static Value function(std::string name, std::function<Value(const Arguments&)> call);

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is(Kind wanted) const { return kind() == wanted; }
  bool is_undefined() const { return is(Kind::undefined); }
  bool is_none() const { return is(Kind::none); }
  bool is_string() const { return is(Kind::string); }
  bool is_number() const;  // boolean, integer or number

  // The value of a kind; Failure where it is another one.
  const std::string& string() const;
  int64_t integer() const;  // booleans count
  double number() const;
  const List& list() const;
  const Dict& dict() const;
  const Function& function() const;
  Object* object() const;  // nullptr where it is none

  bool truth() const;
  std::string text() const;  // str(): what a template prints
  std::string repr() const;  // text within a list
  std::string type_name() const;

  bool operator==(const Value& other) const;
  // Orders numbers and strings; Failure for others.
  bool operator<(const Value& other) const;

 private:
  [[noreturn]] void wrong_kind(std::string_view wanted) const;

  std::variant<Undefined, None, bool, int64_t, double, std::string, std::shared_ptr<const List>,
               std::shared_ptr<const Dict>, std::shared_ptr<const Function>,
               std::shared_ptr<Object>>
      data_;
};

struct List {
  std::vector<Value> items;
  bool is_tuple = false;
};

// In order of insertion; small.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  const Value* find(const Value& key) const;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument at `position` or with `name`; nullptr where it is not given.
  const Value* find(size_t position, std::string_view name) const;
  // Failure where there are more than `most` positional ones or a named one that is not listed.
  void check(std::string_view function, size_t most,
             std::initializer_list<std::string_view> names = {}) const;
  const Value& required(std::string_view function, size_t position,
                        std::string_view name = {}) const;
};

// Elements as a loop sees them: of a list, keys of a dict, characters of a string.
std::vector<Value> elements(const Value& value);
// Number of elements; Failure where the value has none.
int64_t length(const Value& value);

// Failure where a value outgrows what a prompt could need (a template may double a text in a loop).
inline constexpr size_t kLargestText = size_t{1} << 28, kLongestList = size_t{1} << 20;
std::string checked(std::string text);

}  // namespace seer::io::jinja
