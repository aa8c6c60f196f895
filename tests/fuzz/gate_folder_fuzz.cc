// A gate's folder: config.json.

#include "seer/io/gate_file.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace seer;
  fuzz::write("config.json", fuzz::view(data, size));
  fuzz::expect_answer([] {
    const io::GateConfig config = io::read_gate_config(fuzz::folder());
    for (const int head_dim : {64, 128}) config.is_double(head_dim);
    io::GateConfig::count(config.q_pools() | config.k_pools());
    if (config.lookup_heads.empty()) return;
    io::write_gate_config(fuzz::folder(), nlohmann::json::object(), config);
    const io::GateConfig again = io::read_gate_config(fuzz::folder());
    if (again.lookup_rank != config.lookup_rank || again.lookup_heads != config.lookup_heads)
      abort();
  });
  return 0;
}
