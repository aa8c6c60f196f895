// A safetensors file: header, offsets, metadata.

#include "seer/io/safetensors.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace seer;
  // libFuzzer knows nothing of the length in front of the header: it is the input's, or set right.
  std::string bytes(8, '\0');
  bytes.append(fuzz::view(data, size));
  const size_t header = bytes.find('\n') == std::string::npos ? size : bytes.find('\n') - 8;
  for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(header >> (8 * i));
  const auto path = fuzz::write("a.safetensors", size % 8 == 7 ? fuzz::view(data, size) : bytes);
  fuzz::expect_answer([&] {
    const io::SafetensorsFile file(path);
    for (const auto& [name, tensor] : file.tensors()) {
      // Every byte that a header gives away can be read.
      volatile unsigned sum = 0;
      for (size_t i = 0; i < tensor.bytes; ++i) sum = sum + static_cast<unsigned>(tensor.data[i]);
    }
  });
  return 0;
}
