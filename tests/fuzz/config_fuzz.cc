// A model's folder without its weights: config.json and generation_config.json.

#include "seer/io/model_config.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace seer;
  std::string_view rest = fuzz::view(data, size);
  fuzz::write("config.json", fuzz::next_part(rest));
  fuzz::write("generation_config.json", fuzz::next_part(rest));
  fuzz::expect_answer([] { io::ModelConfig::read(fuzz::folder()); });
  return 0;
}
