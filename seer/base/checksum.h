#pragma once
// A checksum of bytes against damage (a bad disk, a cut copy), not against forgery: xxHash's XXH3.

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace seer {

class Checksum {
 public:
  Checksum();
  void add(const void* bytes, size_t size);
  // 16 hexadecimal digits, of all bytes so far.
  std::string hex() const;

 private:
  struct State;
  struct Free {
    void operator()(State* state) const;
  };
  std::unique_ptr<State, Free> state_;
};

std::string checksum_of(std::string_view bytes);

}  // namespace seer
