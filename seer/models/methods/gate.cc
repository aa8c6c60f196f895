// "seer", "gate" and "untrained": a gate's scores.

#include "seer/base/error.h"
#include "seer/models/methods/method.h"

namespace seer::models {
namespace {

class GateMethod : public Method {
 public:
  GateMethod(const Gates& gates, int block) : gates_(gates) {
    SEER_CHECK(gates.config().block_size == block, "the gates were made for blocks of ",
               gates.config().block_size, " tokens, but blocks of ", block, " are asked for");
  }
  at::Tensor scores(const AttentionInput& input, const torch_ops::Ragged& ragged) override {
    return gates_.scores(input, ragged);
  }

 private:
  const Gates gates_;  // shares its tensors with those it was made from
};

}  // namespace

std::unique_ptr<Method> make_seer(const MethodInputs& in) {
  SEER_CHECK(in.gates != nullptr, "the method seer needs a folder of gates");
  return std::make_unique<GateMethod>(*in.gates, in.settings.block);
}

// What the gates choose where no head looks single tokens up.
std::unique_ptr<Method> make_gate(const MethodInputs& in) {
  SEER_CHECK(in.gates != nullptr, "the method gate needs a folder of gates");
  return std::make_unique<GateMethod>(in.gates->without_lookup_heads(), in.settings.block);
}

// Gates as they are created: of the form of those given, or of the one asked for, without lookup heads,
// which are found with trained gates.
std::unique_ptr<Method> make_untrained(const MethodInputs& in) {
  io::GateConfig config = in.gates != nullptr ? in.gates->config() : in.settings.form;
  config.block_size = in.settings.block;
  config.lookup_rank = 0;
  config.lookup_heads.clear();
  return std::make_unique<GateMethod>(Gates::create(config, in.model, in.settings.seed),
                                      in.settings.block);
}

}  // namespace seer::models
