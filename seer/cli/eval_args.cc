#include "seer/cli/eval_args.h"

#include <algorithm>

#include "seer/base/file.h"
#include "seer/base/limits.h"
#include "seer/io/text.h"

namespace seer::cli {

void EvalArgs::add(Args& args, const std::vector<std::string>& known, const std::string& about,
                   std::vector<double> default_sparsity) {
  model.add(args);
  args.add("data", data, "texts: .txt, .jsonl, .jsonl.zst")->required();
  args.add("documents", documents, range(1, limits::kSequences),
           "documents of each length, at most");
  args.add("min-ratio", min_ratio, range(1, 1e9), "documents must have this many times the length");
  args.add("methods", methods, one_of(known), about);
  args.add("seed", seed, at_least(0), "of random blocks and untrained gates");
  select.add(args, std::move(default_sparsity));
  args.json_output(json);
  args.when_read([this] {
    for (const std::string& path : data) check_input(path);
  });
}

bool EvalArgs::wants(const std::string& method) const {
  return std::find(methods.begin(), methods.end(), method) != methods.end();
}

std::vector<std::vector<int32_t>> EvalArgs::tokens(const io::Tokenizer& tokenizer,
                                                   int64_t length) const {
  const auto enough = static_cast<size_t>(min_ratio * static_cast<double>(length));
  std::vector<std::vector<int32_t>> found;
  int64_t long_ones = 0;
  for (const std::string& file : data) {
    io::for_each_document(file, [&](std::string&& text) {
      // A document gives one window: no need to tokenise more of them than asked for.
      if (long_ones >= documents) return;
      found.push_back(tokenizer.encode(text, false));
      if (found.back().size() >= enough) ++long_ones;
    });
  }
  return found;
}

}  // namespace seer::cli
