#include "seer/train/tasks/distill.h"

#include "seer/base/error.h"
#include "seer/train/loop/run_folder.h"
#include "seer/train/tasks/distillation.h"

namespace seer::train {
namespace {

// The gate with its size spelled out, as published gates have it.
io::GateConfig resolved(io::GateConfig gate, const models::Decoder& model) {
  if (gate.gate_dim == 0) gate.gate_dim = model.config().head_dim;
  return gate;
}

// Of the second run, in a folder within the first one's.
LoopSettings lookup_loop(const DistillSettings& settings) {
  LoopSettings loop = settings.loop;
  loop.out /= "lookup";
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
    check_run_folder(settings.loop.out, "distill", gate_files());
    if (settings.lookup.share > 0) check_run_folder(lookup_loop(settings).out, "lookup", {});
  }
}

void save(const models::Decoder& model, const DistillSettings& settings,
          const models::Gates& gates) {
  if (!settings.loop.writes()) return;
  gates.save(settings.loop.out, model);
  models::Gates::load(settings.loop.out, model);  // can be read as it was written
  check_run_is_there(settings.loop.out, "the gates are");
}

DistillResult distill_on(const models::Decoder& model, const io::Tokenizer& tokenizer,
                         Mixture train, const DistillSettings& settings) {
  Mixture valid;
  if (!settings.data.valid.empty()) {
    valid = open_mixture(settings.data.valid, {}, settings.data, tokenizer, settings.tokenizer,
                         model.config().vocab_size);
  }
  const auto gates = models::Gates::create(resolved(settings.gate, model), model, settings.seed);
  Distillation task(model, tokenizer, train, valid, settings, gates);
  DistillResult result;
  static_cast<RunResult&>(result) = run(task, settings.loop);
  result.skipped_documents = train.skipped_documents() + valid.skipped_documents();
  result.attention_seconds = task.attention_seconds();
  result.gate_seconds = task.gate_seconds();
  if (settings.lookup.share == 0) {
    save(model, settings, task.gates());
    return result;
  }
  const models::HeadNeeds needs =
      head_needs(model, task.gates(), task.unused_windows(settings.lookup.windows), settings.seed);
  Distillation of_lookups(
      model, tokenizer, train, valid, settings,
      with_lookup_heads(model, task.gates(), needs, settings.lookup, settings.seed));
  result.lookup = run(of_lookups, lookup_loop(settings));
  save(model, settings, of_lookups.gates());
  if (settings.loop.writes()) write_head_needs(settings.loop.out, needs, of_lookups.gates());
  return result;
}

}  // namespace

void check(const DistillSettings& settings) {
  check_each(settings);
  if (settings.length <= settings.gate.block_size) {
    throw UsageError(message("length is ", settings.length, ", which is one block of ",
                             settings.gate.block_size,
                             " tokens: a gate learns to choose among blocks, want more than one"));
  }
}

DistillResult distill(const models::Decoder& model, const io::Tokenizer& tokenizer,
                      const DistillSettings& settings) {
  check_before(model, settings);
  return distill_on(model, tokenizer,
                    open_mixture(settings.data.train, settings.data.weights, settings.data,
                                 tokenizer, settings.tokenizer, model.config().vocab_size),
                    settings);
}

DistillResult distill(const models::Decoder& model, std::vector<int32_t> tokens,
                      const io::Tokenizer& tokenizer, const DistillSettings& settings) {
  check_before(model, settings);
  auto file = std::make_shared<const TokenFile>(std::move(tokens), "the text");
  return distill_on(model, tokenizer, single_mixture(std::move(file), tokenizer), settings);
}

}  // namespace seer::train
