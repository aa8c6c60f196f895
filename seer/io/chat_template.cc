#include "seer/io/chat_template.h"

#include <csignal>
#include <cstdlib>
#include <cstring>

#include "seer/base/child.h"
#include "seer/base/error.h"
#include "seer/base/json.h"
#include "seer/base/limits.h"
#include "seer/base/shown.h"
#include "seer/io/chat_template_script.h"

namespace seer::io {

namespace {

constexpr const char* kInstead = "; --raw takes the prompt as it is";

std::string python() {
  const char* const chosen = std::getenv("SEER_PYTHON");
  return chosen != nullptr && *chosen != '\0' ? chosen : SEER_PYTHON;
}

[[noreturn]] void fail_without_jinja(const std::string& why) {
  fail("chat templates are rendered by jinja2 in ", shown(python(), 300), ": ", why,
       "; ./run installs it, SEER_PYTHON names another Python", kInstead);
}

}  // namespace

std::string ChatTemplate::render(const std::vector<Message>& messages, const std::string& tools,
                                 bool add_generation_prompt) const {
  nlohmann::json request = {{"template", tools == "null" ? text : with_tools.value_or(text)},
                            {"tokens", tokens},
                            {"messages", nlohmann::json::array()},
                            {"tools", tools},
                            {"add_generation_prompt", add_generation_prompt},
                            {"limits",
                             {{"seconds", limits::kTemplateSeconds},
                              {"memory", limits::kTemplateMemory},
                              {"bytes", limits::kTemplateBytes}}}};
  for (const Message& message : messages) {
    request["messages"].push_back({{"role", message.role}, {"content", message.content}});
  }
  const std::string input = request.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  // -I: neither the user's environment nor the folder in which the program runs takes part.
  const ChildResult child = run_child({python(), "-I", "-c", kChatTemplateScript}, input,
                                      std::chrono::seconds(limits::kTemplateSeconds),
                                      6 * limits::kTemplateBytes + (1 << 20));  // JSON's escapes
  using End = ChildResult::End;
  if (child.end == End::not_started) fail_without_jinja(std::strerror(child.status));
  const std::string blame = "the chat template in " + where;
  // The system kills what has used its CPU time.
  const bool is_late =
      child.end == End::too_long ||
      (child.end == End::killed && (child.status == SIGXCPU || child.status == SIGKILL));
  SEER_CHECK(!is_late, blame, " took more than ", limits::kTemplateSeconds,
             " seconds and was stopped", kInstead);
  SEER_CHECK(child.end != End::too_much, blame, ": it writes more than ", limits::kTemplateBytes,
             " bytes", kInstead);
  SEER_CHECK(child.end != End::killed, blame,
             " made its renderer crash, as templates do that are nested too deeply", kInstead);
  if (child.status != 0) {
    fail_without_jinja(
        message("it ended with status ", child.status, " ", shown(child.last_line, 500)));
  }
  std::string problem;
  const nlohmann::json answer = parse_json(child.output, &problem);
  if (answer.is_discarded() || !answer.is_object()) {
    fail_without_jinja("its answer " + (problem.empty() ? "is no object" : problem));
  }
  if (answer.contains("missing")) fail_without_jinja(answer.at("error").get<std::string>());
  if (answer.contains("text")) return answer.at("text");
  const std::string line =
      answer.at("line").is_null() ? "" : message(", line ", answer.at("line").get<int>());
  fail(blame, line, ": ", shown(answer.at("error").get<std::string>(), 300), kInstead);
}

}  // namespace seer::io
