#include "seer/cli/eval_args.h"

#include <algorithm>

#include "seer/base/limits.h"
#include "seer/io/text.h"
#include "seer/io/tokenizer/token_ids.h"

namespace seer::cli {

void EvalArgs::add(Args& args, const std::vector<std::string>& known, const std::string& about,
                   std::vector<double> default_sparsity) {
  model.add(args);
  args.add("data", data, message("texts: ", io::kTextFiles))->required();
  args.add("documents", documents, range(1, limits::kSequences),
           "documents of each length, at most");
  args.add("min-ratio", min_ratio, range(1, 1e9), "documents must have this many times the length");
  args.add("methods", methods, one_of(known), about);
  args.add("seed", seed, at_least(0), "of random blocks and untrained gates");
  select.add(args, std::move(default_sparsity));
  args.json_output(json);
  args.when_read([this] {
    for (const std::string& path : data) io::check_text_file(path);
  });
}

bool EvalArgs::wants(const std::string& method) const {
  return std::find(methods.begin(), methods.end(), method) != methods.end();
}

std::vector<eval::Windows> EvalArgs::windows(const io::Tokenizer& tokenizer,
                                             const std::vector<int64_t>& lengths,
                                             int64_t vocab_size) const {
  const int32_t bos = tokenizer.bos_id().value_or(-1);
  if (bos >= 0) io::check_token_ids({&bos, 1}, vocab_size, model.model, &tokenizer);
  eval::WindowCutter cutter(lengths, min_ratio, documents, bos);
  for (const std::string& file : data) {
    io::TextReader reader(file);
    while (cutter.wants_more()) {
      const auto document = reader.next();
      if (!document) break;
      const auto ids = tokenizer.encode(document->text, false);
      io::check_token_ids(ids, vocab_size, message(file, ": line ", document->place.line),
                          &tokenizer);
      cutter.add(ids);
    }
  }
  return cutter.take();
}

}  // namespace seer::cli
