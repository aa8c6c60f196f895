// Tensors on the memory of safetensors files.

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <atomic>
#include <cstring>

#include "seer/base/error.h"
#include "seer/models/loader.h"

namespace seer::models {
namespace {

struct FloatType {
  const char* name;
  at::ScalarType scalar;
};
constexpr FloatType kFloatTypes[] = {
    {"F32", at::kFloat}, {"BF16", at::kBFloat16}, {"F16", at::kHalf}, {"F64", at::kDouble}};

constexpr int64_t kGrain = 1 << 20;  // elements that one task looks at

// True where some value has all bits of its exponent set: NaN or infinite. Adding the lowest bit of
// the exponent then carries into the sign; no branch, so the loop runs at the speed of memory.
template <class Bits>
bool any_not_finite(const void* data, int64_t count, Bits lowest_exponent_bit) {
  constexpr Bits kSign = static_cast<Bits>(Bits{1} << (8 * sizeof(Bits) - 1));
  std::atomic<bool> found = false;
  at::parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
    Bits carry = 0;
    const char* bytes = static_cast<const char*>(data);
    for (int64_t i = begin; i < end; ++i) {
      Bits bits;
      std::memcpy(&bits, bytes + i * static_cast<int64_t>(sizeof(Bits)), sizeof(Bits));
      bits = static_cast<Bits>(bits & static_cast<Bits>(~kSign));
      carry = static_cast<Bits>(carry | static_cast<Bits>(bits + lowest_exponent_bit));
    }
    if (carry & kSign) found = true;
  });
  return found;
}

bool any_not_finite(const void* data, int64_t count, at::ScalarType type) {
  switch (type) {
    case at::kFloat: return any_not_finite<uint32_t>(data, count, 1u << 23);
    case at::kBFloat16: return any_not_finite<uint16_t>(data, count, 1u << 7);
    case at::kHalf: return any_not_finite<uint16_t>(data, count, 1u << 10);
    case at::kDouble: return any_not_finite<uint64_t>(data, count, uint64_t{1} << 52);
    default: fail("no finite check for this type");
  }
}

}  // namespace

at::Tensor load_tensor(const io::SafetensorsFile& file, const std::string& name,
                       at::IntArrayRef shape, at::ScalarType dtype, const at::Device& device) {
  return mapped_tensor(file, name, shape).to(device, dtype);
}

at::Tensor mapped_tensor(const io::SafetensorsFile& file, const std::string& name,
                         at::IntArrayRef shape) {
  const io::TensorRecord& record = file.at(name);
  const std::string where = file.path().string() + ": tensor " + name;
  SEER_CHECK(at::IntArrayRef(record.shape) == shape, where, " has shape ",
             at::IntArrayRef(record.shape), ", expected ", shape,
             "; do config.json and weights belong together?");
  const FloatType* type = nullptr;
  for (const auto& known : kFloatTypes) {
    if (record.dtype == known.name) type = &known;
  }
  SEER_CHECK(type != nullptr, where, " is of type ", record.dtype, ", expected F32, BF16 or F16");
  const auto options = at::TensorOptions(type->scalar);
  const auto count = static_cast<int64_t>(record.bytes / at::elementSize(type->scalar));
  SEER_CHECK(!any_not_finite(record.data, count, type->scalar), where,
             " holds NaN or infinite values; the file is damaged or was saved from a failed run");

  at::Tensor tensor;
  if (reinterpret_cast<uintptr_t>(record.data) % at::elementSize(type->scalar) == 0) {
    void* data =
        const_cast<std::byte*>(record.data);  // never written: at::Tensor has no const data
    tensor = at::from_blob(data, shape, [mapping = file.mapping()](void*) {}, options);
  } else {
    tensor = at::empty(shape, options);
    if (record.bytes > 0) std::memcpy(tensor.data_ptr(), record.data, record.bytes);
  }
  return tensor;
}

io::NamedTensor tensor_record(const std::string& name, const at::Tensor& tensor) {
  SEER_CHECK(tensor.is_contiguous() && tensor.device().is_cpu(), "tensor ", name,
             " must be contiguous and in CPU memory to be written");
  for (const auto& known : kFloatTypes) {
    if (tensor.scalar_type() != known.scalar) continue;
    return {name,
            {known.name, tensor.sizes().vec(),
             static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}};
  }
  fail("tensor ", name, " is of a type that model files do not hold; convert it to f32 or bf16");
}

}  // namespace seer::models
