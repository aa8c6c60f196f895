// A file of texts. The first byte chooses its name, by which it is read.

#include "seer/io/text.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace seer;
  static constexpr const char* kNames[] = {"a.jsonl",  "a.json",     "a.txt",    "a.jsonl.zst",
                                           "a.txt.gz", "a.json.zst", "a.ndjson", "a"};
  if (size == 0) return 0;
  const auto path =
      fuzz::write(kNames[data[0] % std::size(kNames)], fuzz::view(data + 1, size - 1));
  fuzz::expect_answer([&] { io::for_each_document(path, [](std::string&&) {}); });
  fuzz::expect_answer([&] {
    io::TextReader reader(path, io::TextReader::Broken::skip);
    while (reader.next()) {
    }
    reader.skipped().places();
  });
  fuzz::expect_answer([&] { io::read_text(path); });
  std::filesystem::remove(path);
  return 0;
}
