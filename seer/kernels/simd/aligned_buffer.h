#pragma once
// Uninitialised memory aligned for whole vectors.

#include <cstddef>
#include <memory>
#include <new>

namespace seer::kernels {

class AlignedBuffer {
 public:
  explicit AlignedBuffer(size_t bytes)
      : data_(static_cast<std::byte*>(::operator new(bytes, std::align_val_t{64}))) {}
  template <class Element = std::byte>
  Element* as() const {
    return reinterpret_cast<Element*>(data_.get());
  }

 private:
  struct Free {
    void operator()(std::byte* data) const { ::operator delete(data, std::align_val_t{64}); }
  };
  std::unique_ptr<std::byte, Free> data_;
};

}  // namespace seer::kernels
