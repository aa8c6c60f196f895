#include "seer/io/tokenizer/post_processor.h"

#include "seer/base/error.h"
#include "seer/base/limits.h"
#include "seer/io/tokenizer/step_count.h"

namespace seer::io {

namespace {

void append_special(const JsonNode& template_field, const std::string& name,
                    std::vector<int32_t>& ids) {
  const JsonNode list = template_field.at("special_tokens").at(name).at("ids");
  for (size_t i = 0; i < list.array_size(); ++i) {
    ids.push_back(static_cast<int32_t>(list.at(i).integer(0, limits::kTokenId)));
  }
}

void check_length(const JsonNode& field, const PostProcessor& out) {
  SEER_CHECK(out.before.size() + out.after.size() <= limits::kTokenizerSpecials, field.where(),
             " puts more than ", limits::kTokenizerSpecials,
             " tokens around a text; the file is damaged or hostile");
}

PostProcessor read_template_processing(const JsonNode& field) {
  PostProcessor out;
  const JsonNode single = field.at("single");
  bool has_text = false;
  for (size_t i = 0; i < single.array_size(); ++i) {
    const JsonNode piece = single.at(i);
    if (const auto special = piece.find("SpecialToken")) {
      append_special(field, special->at("id").string(), has_text ? out.after : out.before);
      check_length(field, out);
    } else if (!has_text && piece.at("Sequence").at("id").string() == "A") {
      has_text = true;
    } else {
      piece.expected("the sequence A once");
    }
  }
  if (!has_text) single.expected("a template with the sequence A");
  return out;
}

PostProcessor read(const JsonNode& field, StepCount& count) {
  count.add(field);
  const std::string& type = field.at("type").string();
  if (type == "TemplateProcessing") return read_template_processing(field);
  if (type == "ByteLevel") return {};  // it changes offsets alone
  if (type != "Sequence") {
    field.unsupported("post-processor", type, "Sequence, TemplateProcessing, ByteLevel");
  }
  PostProcessor out;
  const JsonNode list = field.at("processors");
  for (size_t i = 0; i < list.array_size(); ++i) {
    const PostProcessor next = read(list.at(i), count);
    out.before.insert(out.before.begin(), next.before.begin(), next.before.end());
    out.after.insert(out.after.end(), next.after.begin(), next.after.end());
  }
  return out;
}

}  // namespace

PostProcessor read_post_processor(const JsonNode& field) {
  StepCount count;
  return read(field, count);
}

}  // namespace seer::io
