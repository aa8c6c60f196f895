#include "seer/train/tasks/distill.h"

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/interrupt.h"
#include "seer/base/json.h"
#include "seer/base/progress.h"
#include "seer/models/fingerprint.h"
#include "seer/train/loop/run_folder.h"
#include "seer/train/tasks/distillation.h"

namespace seer::train {
namespace {

namespace fs = std::filesystem;

// The gate with its size spelled out, as published gates have it.
io::GateConfig resolved(io::GateConfig gate, const models::Decoder& model) {
  if (gate.gate_dim == 0) gate.gate_dim = model.config().head_dim;
  return gate;
}

// Of the second run, in a folder within the first one's, where there is a first one.
LoopSettings lookup_loop(const DistillSettings& settings) {
  LoopSettings loop = settings.loop;
  if (settings.gates.empty()) loop.out /= kLookupFolder;
  loop.steps = settings.lookup.steps;
  loop.or_none = true;
  return loop;
}

// Whether gates with lookup heads lie in the folder.
bool has_lookup_heads(const fs::path& folder) {
  std::error_code error;
  if (!fs::exists(folder / "config.json", error)) return false;
  try {
    return io::read_gate_config(folder).lookup_rank > 0;
  } catch (const Error&) {
    return false;  // of something else, which check_run_folder() refuses
  }
}

// Of the folders that will be written.
void check_folders(const DistillSettings& settings) {
  if (!settings.loop.writes()) return;
  const fs::path& out = settings.loop.out;
  const bool finds_heads = settings.lookup.share > 0;
  if (!settings.gates.empty()) return check_run_folder(out, kLookupTask, gate_files());
  check_run_folder(out, kTask, files_of_new_gates());
  if (finds_heads) check_run_folder(lookup_loop(settings).out, kLookupTask, {});
  if (finds_heads || settings.loop.restart) return;
  std::error_code error;
  SEER_CHECK(!fs::exists(lookup_loop(settings).out / "run.json", error) && !has_lookup_heads(out),
             out.string(),
             " has lookup heads, which gates without any would replace: give the --lookup-heads "
             "that they were made with, choose another folder, or add --restart to discard both");
}

// What the model and folders refuse, before any text is read.
void check_before(const models::Decoder& model, const DistillSettings& settings) {
  SEER_CHECK(!settings.states_on_host || model.is_streamed(),
             "hidden states wait in host memory only where layers are streamed: add --stream, or "
             "leave out --states-on-host");
  check_folders(settings);
}

void save(const models::Decoder& model, const DistillSettings& settings,
          const models::Gates& gates) {
  if (!settings.loop.writes()) return;
  gates.save(settings.loop.out, model);
  models::Gates::load(settings.loop.out, model);  // can be read as it was written
  check_run_is_there(settings.loop.out, "the gates are");
}

std::string fingerprint_of(const models::Gates& gates) {
  models::Fingerprint fingerprint;
  for (const Parameter& x : gate_parameters(gates)) fingerprint.add(x.name, x.leaf);
  return fingerprint.text();
}

// What both runs need; the settings are those of the gates that are given, if any are, and say which share of the heads become
// lookup heads.
struct Inputs {
  const models::Decoder& model;
  const io::Tokenizer& tokenizer;
  Mixture train, valid;
  DistillSettings settings;
  bool may_find_none;  // no lookup heads: they were not asked for
  std::optional<models::Gates> given;

  Distillation task(const json& known_by, const models::Gates& gates) const {
    return {model, tokenizer, train, valid, settings, known_by, gates};
  }

  // What a run of either kind is known by.
  json of_both() const {
    const DistillSettings& s = settings;
    const io::GateConfig gate = resolved(s.gate, model);
    return {{"model", model.config().raw},
            {"weights", model.origin().fingerprint},
            {"data", train.identity()},
            {"valid", valid.identity()},
            {"synthetic_share", s.data.synthetic_share},
            {"gate", {gate.type, gate.block_size, gate.gate_dim, gate.force_double}},
            {"sequences", s.sequences},
            {"length", s.length},
            {"micro_batch", s.micro_batch},
            {"valid_sequences", s.valid_sequences},
            {"loss", s.loss},
            {"skip", gate_skip(s.skip, s.loss)},
            {"loss_scale", s.loss_scale},
            {"adamw", as_json(s.adamw)},
            {"seed", s.seed},
            {"dtype", c10::toString(model.dtype())},
            {"device", model.device().is_cuda() ? "cuda" : "cpu"}};
  }
  // What new gates are known by, beside that.
  json of_new_gates() const {
    return {{"learning_rate", settings.learning_rate},
            {"schedule", as_json(settings.schedule, settings.loop.steps)}};
  }
  // A run of lookup heads by their settings and its gates, whose heads and start follow from these.
  json of_lookup_heads() const {
    const LookupSettings& lookup = settings.lookup;
    json out = of_both();
    out["gates"] = given ? json(fingerprint_of(*given)) : of_new_gates();
    if (!given) out["gates"]["steps"] = settings.loop.steps;
    out["lookup"] = {{"share", lookup.share},
                     {"rank", lookup.rank},
                     {"windows", lookup.windows},
                     {"learning_rate", lookup.learning_rate},
                     {"schedule", as_json(settings.schedule, lookup.steps)}};
    return out;
  }
};

// Before gates are trained: that a run of their lookup heads which lies there can go on.
void check_lookup_run(const Inputs& in) {
  const LoopSettings loop = lookup_loop(in.settings);
  std::error_code error;
  if (!loop.writes() || loop.restart || !fs::exists(loop.out / "run.json", error)) return;
  json before = read_json(loop.out / "run.json");
  const json::json_pointer lookup("/settings/lookup");
  if (before.contains(lookup / "heads")) before[lookup].erase("heads");  // not known yet
  const json now = run_settings(kLookupTask, in.of_lookup_heads(), loop);
  const std::string difference = first_difference(json::parse(json_text(now)), before);
  SEER_CHECK(
      difference.empty(), "the lookup heads of ", in.settings.loop.out.string(),
      " were made with other settings: ", difference,
      "; use the same, another folder, or --restart to discard them",
      in.given ? "" : " and their gates (to keep the gates, delete " + loop.out.string() + ")");
}

// The run of new gates.
models::Gates train_gates(const Inputs& in, DistillResult& result) {
  json known_by = in.of_both();
  known_by.update(in.of_new_gates());
  Distillation task = in.task(known_by, models::Gates::create(resolved(in.settings.gate, in.model),
                                                              in.model, in.settings.seed));
  static_cast<RunResult&>(result) = run(task, in.settings.loop);
  result.attention_seconds = task.attention_seconds();
  result.gate_seconds = task.gate_seconds();
  return task.gates();
}

// Of a run that goes on without lookup heads.
void say_why_none(const DistillSettings& settings, const std::string& why) {
  if (settings.loop.is_first() && settings.loop.show_progress) {
    print_line(message(kTask, ": no lookup heads: ", why));
  }
}

// The run of lookup heads of these gates.
models::Gates train_lookups(const Inputs& in, const models::Gates& gates, DistillResult& result) {
  const DistillSettings& s = in.settings;
  Distillation source = in.task({}, gates);
  const auto window = [&](int64_t i) { return source.unused_window(i); };
  const models::HeadNeeds needs = find_needs(in.model, gates, window, s.lookup, s.loop, s.seed);
  if (const std::string why = why_none(needs); in.may_find_none && !why.empty()) {
    say_why_none(s, why);
    return gates;
  }
  Distillation task =
      in.task(in.of_lookup_heads(), with_lookup_heads(in.model, gates, needs, s.lookup, s.seed));
  if (s.loop.is_first() && s.loop.show_progress) {
    print_line(message(kLookupTask, ": ", text_of_found(needs, task.gates().config())));
  }
  result.lookup = run(task, lookup_loop(s));
  if (s.loop.writes()) {
    const auto found = models::to_json(needs.lost(), task.gates());
    write_file_atomic(s.loop.out / "heads.json", json_text(found, 2) + "\n");
  }
  return task.gates();
}

// `open` gives the texts, once it is known that nothing else is wrong.
DistillResult distill_on(const models::Decoder& model, const io::Tokenizer& tokenizer,
                         DistillSettings settings, const std::function<Mixture()>& open) {
  if (!settings.gates.empty()) settings.gate = io::read_gate_config(settings.gates);
  check(settings, model.config());
  const LookupShare lookup =
      lookup_share(settings.lookup, model.config(), settings.gate.block_size, settings.length);
  const bool may_find_none =
      settings.lookup.share < 0 && settings.lookup.cost == 0 && settings.gates.empty();
  settings.lookup.share = lookup.share;
  settings.lookup.cost = 0;
  check_before(model, settings);
  Inputs in = {model, tokenizer, open(), {}, settings, may_find_none, {}};
  if (!lookup.why_none.empty()) say_why_none(settings, lookup.why_none);
  if (!settings.data.valid.empty()) {
    in.valid = open_mixture(settings.data.valid, {}, settings.data, tokenizer, settings.tokenizer,
                            model.config().vocab_size);
  }
  if (!settings.gates.empty()) {
    in.given = models::Gates::load(settings.gates, model, settings.foreign_gates);
  }
  if (settings.lookup.share > 0) check_lookup_run(in);
  const InterruptGuard guard(Ranks::same_signal_seconds());  // until all is saved
  DistillResult result;
  models::Gates gates = in.given ? *in.given : train_gates(in, result);
  if (settings.lookup.share > 0) {
    // What follows may fail; gates that have their heads already keep them until these are there again.
    if (!in.given && !has_lookup_heads(settings.loop.out)) save(model, settings, gates);
    gates = train_lookups(in, gates, result);
  }
  if (in.given) static_cast<RunResult&>(result) = *result.lookup;
  result.skipped_documents = in.train.skipped_documents() + in.valid.skipped_documents();
  save(model, settings, gates);
  guard.answer(stopped_when_done("distill", settings.loop, "the gates are"));
  return result;
}

}  // namespace

void check(const DistillSettings& settings) {
  check_each(settings);
  check(settings.lookup);
  if (!settings.gates.empty() && settings.lookup.share == 0) {
    throw UsageError(
        "gates that are there already are not trained again: give --lookup-heads the share of "
        "their heads that choose blocks by tokens, or leave out --gates");
  }
  if (settings.length <= settings.gate.block_size) {
    throw UsageError(message("length is ", settings.length, ", which is one block of ",
                             settings.gate.block_size,
                             " tokens: a gate learns to choose among blocks, want more than one"));
  }
}

void check(const DistillSettings& settings, const io::ModelConfig& model) {
  check(settings);
  settings.gate.check(model.head_dim);
  SEER_CHECK(settings.gate.lookup_rank == 0, settings.gates.string(),
             " has lookup heads already; give the gates without them");
  const LookupShare lookup =
      lookup_share(settings.lookup, model, settings.gate.block_size, settings.length);
  SEER_CHECK(settings.gates.empty() || lookup.share > 0, settings.gates.string(),
             " gets no lookup heads: ", lookup.why_none);
  if (lookup.share == 0) return;
  io::GateConfig with_heads = settings.gate;
  with_heads.lookup_rank = settings.lookup.rank;
  with_heads.lookup_heads = {{0}};  // some
  with_heads.check(model.head_dim);
  models::HeadNeeds::check_length(settings.length, settings.gate.block_size);
}

DistillResult distill(const models::Decoder& model, const io::Tokenizer& tokenizer,
                      const DistillSettings& settings) {
  return distill_on(model, tokenizer, settings, [&] {
    return open_mixture(settings.data.train, settings.data.weights, settings.data, tokenizer,
                        settings.tokenizer, model.config().vocab_size);
  });
}

DistillResult distill(const models::Decoder& model, std::vector<int32_t> tokens,
                      const io::Tokenizer& tokenizer, const DistillSettings& settings) {
  return distill_on(model, tokenizer, settings, [&] {
    return single_mixture(std::make_shared<const TokenFile>(std::move(tokens), "the text"),
                          tokenizer);
  });
}

}  // namespace seer::train
