// A tokenizer: tokenizer.json, a text to encode and decode, the files beside it.

#include "seer/io/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace seer;
  std::string_view rest = fuzz::view(data, size);
  fuzz::write("tokenizer.json", fuzz::next_part(rest));
  const std::string text(fuzz::next_part(rest));
  for (const char* name :
       {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}) {
    fuzz::write(name, rest.empty() ? "{}" : fuzz::next_part(rest));
  }
  fuzz::expect_answer([&] {
    const io::Tokenizer tokenizer = io::Tokenizer::load(fuzz::folder());
    const auto ids = tokenizer.encode(text, true);
    tokenizer.decode(ids, true);
    io::StreamDecoder stream(tokenizer, false);
    for (const int32_t id : ids) stream.push(id);
    stream.finish();
  });
  return 0;
}
