// seer tokenize: token ids of a text, or the text of ids.

#include <cstdio>
#include <iostream>
#include <iterator>

#include "seer/base/file.h"
#include "seer/cli/settings.h"
#include "seer/cli/verbs.h"
#include "seer/io/text.h"

namespace seer::cli {

int tokenize(int argc, char** argv, int first) {
  ModelArgs model;
  std::string text, file;
  std::vector<int32_t> ids;
  bool special = false;
  Args args("tokenize", "Token ids of a text as a JSON list, or the text of ids.");
  args.add("model", model.model, "folder with tokenizer.json");
  args.add("text", text, "the text");
  args.add("file", file, "a file with the text; -: standard input");
  args.add("ids", ids, repeated(range(0, INT32_MAX)), "ids to turn into text instead");
  args.flag("special", special, "with the tokens that begin and end a text; of ids: shown");
  args.when_read([&] {
    const int given = !text.empty() + !file.empty() + !ids.empty();
    if (given != 1) throw UsageError("tokenize: want one of --text, --file, --ids");
    check_model_folder("model", model.model);
    if (!file.empty() && file != "-") check_input(file);
  });
  if (!args.parse(argc, argv, first)) return 0;

  const io::Tokenizer tokenizer = model.tokenizer();
  if (!ids.empty()) {
    for (const int32_t id : ids) {
      SEER_CHECK(id < tokenizer.vocab_size(), "--ids: no token has the number ", id,
                 ", the vocabulary has ", tokenizer.vocab_size());
    }
    std::puts(tokenizer.decode(ids, !special).c_str());
    return 0;
  }
  if (file == "-") text.assign(std::istreambuf_iterator<char>(std::cin), {});
  if (!file.empty() && file != "-") text = io::read_text(file);
  std::puts(nlohmann::json(tokenizer.encode(text, special)).dump().c_str());
  return 0;
}

}  // namespace seer::cli
