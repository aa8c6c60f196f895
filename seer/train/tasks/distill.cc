#include "seer/train/tasks/distill.h"

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/json.h"
#include "seer/train/loop/run_folder.h"
#include "seer/train/tasks/distillation.h"

namespace seer::train {
namespace {

// The gate with its size spelled out, as published gates have it.
io::GateConfig resolved(io::GateConfig gate, const models::Decoder& model) {
  if (gate.gate_dim == 0) gate.gate_dim = model.config().head_dim;
  return gate;
}

DistillSettings with_given_gates(DistillSettings settings) {
  if (settings.gates.empty()) return settings;
  settings.gate = io::read_gate_config(settings.gates);
  SEER_CHECK(settings.gate.lookup_rank == 0, settings.gates.string(),
             " has lookup heads already; give the gates without them");
  return settings;
}

// Of the second run, in a folder within the first one's, where there is a first one.
LoopSettings lookup_loop(const DistillSettings& settings) {
  LoopSettings loop = settings.loop;
  if (settings.gates.empty()) loop.out /= "lookup";
  loop.steps = settings.lookup.steps;
  return loop;
}

void check_lookup(const models::Decoder& model, const DistillSettings& settings) {
  if (settings.lookup.share == 0) return;
  const int rank = settings.lookup.rank, head_dim = model.config().head_dim;
  SEER_CHECK(rank <= head_dim, "lookup heads have ", rank, " features a token, more than the ",
             head_dim, " of a head; choose --lookup-rank ", head_dim, " or less");
  models::HeadNeeds::check_length(settings.length, settings.gate.block_size);
}

// What can be refused before any text is read.
void check_before(const models::Decoder& model, const DistillSettings& settings) {
  check(settings);
  settings.gate.check(model.config().head_dim);
  check_lookup(model, settings);
  SEER_CHECK(!settings.states_on_host || model.is_streamed(),
             "hidden states wait in host memory only where layers are streamed: add --stream, or "
             "leave out --states-on-host");
  if (settings.loop.writes()) {
    const bool is_new = settings.gates.empty();
    if (is_new) check_run_folder(settings.loop.out, "distill", gate_files());
    if (settings.lookup.share > 0) {
      check_run_folder(lookup_loop(settings).out, "lookup",
                       is_new ? std::vector<std::string>{} : gate_files());
    }
  }
}

void save(const models::Decoder& model, const DistillSettings& settings,
          const models::Gates& gates) {
  if (!settings.loop.writes()) return;
  gates.save(settings.loop.out, model);
  models::Gates::load(settings.loop.out, model);  // can be read as it was written
  check_run_is_there(settings.loop.out, "the gates are");
}

// What both runs need; the settings are those of the gates that are given, if any are.
struct Inputs {
  const models::Decoder& model;
  const io::Tokenizer& tokenizer;
  Mixture train, valid;
  DistillSettings settings;

  Distillation task(const models::Gates& gates) const {
    return {model, tokenizer, train, valid, settings, gates};
  }
};

// The run of new gates.
models::Gates train_gates(const Inputs& in, DistillResult& result) {
  Distillation task = in.task(
      models::Gates::create(resolved(in.settings.gate, in.model), in.model, in.settings.seed));
  static_cast<RunResult&>(result) = run(task, in.settings.loop);
  result.attention_seconds = task.attention_seconds();
  result.gate_seconds = task.gate_seconds();
  return task.gates();
}

// The run of lookup heads of these gates.
models::Gates train_lookups(const Inputs& in, const models::Gates& gates, DistillResult& result) {
  const DistillSettings& s = in.settings;
  const at::Tensor windows = in.task(gates).unused_windows(s.lookup.windows);
  const models::HeadNeeds needs = head_needs(in.model, gates, windows, s.seed);
  Distillation task = in.task(with_lookup_heads(in.model, gates, needs, s.lookup, s.seed));
  result.lookup = run(task, lookup_loop(s));
  if (s.loop.writes()) {
    const auto found = models::to_json(needs.lost(), task.gates());
    write_file_atomic(s.loop.out / "heads.json", json_text(found, 2) + "\n");
  }
  return task.gates();
}

DistillResult distill_on(const models::Decoder& model, const io::Tokenizer& tokenizer,
                         Mixture train, const DistillSettings& settings) {
  Inputs in = {model, tokenizer, std::move(train), {}, settings};
  if (!settings.data.valid.empty()) {
    in.valid = open_mixture(settings.data.valid, {}, settings.data, tokenizer, settings.tokenizer,
                            model.config().vocab_size);
  }
  DistillResult result;
  const bool is_new = settings.gates.empty();
  models::Gates gates =
      is_new ? train_gates(in, result) : models::Gates::load(settings.gates, model);
  if (settings.lookup.share > 0) {
    if (is_new) save(model, settings, gates);  // what follows may fail
    gates = train_lookups(in, gates, result);
  }
  if (!is_new) static_cast<RunResult&>(result) = *result.lookup;
  result.skipped_documents = in.train.skipped_documents() + in.valid.skipped_documents();
  save(model, settings, gates);
  return result;
}

}  // namespace

void check(const DistillSettings& settings) {
  check_each(settings);
  if (!settings.gates.empty() && settings.lookup.share == 0) {
    throw UsageError(
        "gates that are there already are not trained again: give --lookup-heads the share of "
        "their heads "
        "that choose blocks by tokens, or leave out --gates");
  }
  if (settings.length <= settings.gate.block_size) {
    throw UsageError(message("length is ", settings.length, ", which is one block of ",
                             settings.gate.block_size,
                             " tokens: a gate learns to choose among blocks, want more than one"));
  }
}

DistillResult distill(const models::Decoder& model, const io::Tokenizer& tokenizer,
                      const DistillSettings& given) {
  const DistillSettings settings = with_given_gates(given);
  check_before(model, settings);
  return distill_on(model, tokenizer,
                    open_mixture(settings.data.train, settings.data.weights, settings.data,
                                 tokenizer, settings.tokenizer, model.config().vocab_size),
                    settings);
}

DistillResult distill(const models::Decoder& model, std::vector<int32_t> tokens,
                      const io::Tokenizer& tokenizer, const DistillSettings& given) {
  const DistillSettings settings = with_given_gates(given);
  check_before(model, settings);
  auto file = std::make_shared<const TokenFile>(std::move(tokens), "the text");
  return distill_on(model, tokenizer, single_mixture(std::move(file), tokenizer), settings);
}

}  // namespace seer::train
