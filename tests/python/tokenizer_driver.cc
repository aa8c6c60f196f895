// Runs the tokenizer for the Python tests: a JSON object a line on stdin, its answer a line on stdout.
//   {"op": "load", "folder": ...}                      {"vocab_size", "bos", "eos"}
//   {"op": "encode", "text" or "hex": ..., "special"}  {"ids"}
//   {"op": "decode", "ids", "skip_special"}            {"text"}
//   {"op": "stream", "ids", "skip_special"}            {"pieces"}
//   {"op": "chat", "messages", "tools", "add_generation_prompt"} {"text"}
//   {"op": "documents", "path"}                        {"texts"}
// An error of the library is {"error": text}.
#include <iostream>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "seer/base/error.h"
#include "seer/io/text.h"
#include "seer/io/tokenizer/tokenizer.h"

namespace {

using nlohmann::json;
using seer::io::StreamDecoder;
using seer::io::Tokenizer;

std::string text_of(const json& request) {
  if (request.contains("text")) return request["text"];
  const std::string hex = request.at("hex");
  std::string out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    out += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return out;
}

json id_or_null(std::optional<int32_t> id) {
  return id ? json(*id) : json();
}

class Driver {
 public:
  json answer(const json& request) {
    const std::string op = request.at("op");
    if (op == "load") return load(request.at("folder").get<std::string>());
    if (op == "documents") return documents(request.at("path").get<std::string>());
    if (!tokenizer_) seer::fail("load comes first");
    if (op == "encode")
      return {{"ids", tokenizer_->encode(text_of(request), request.at("special"))}};
    if (op == "decode") {
      return {{"text", tokenizer_->decode(request.at("ids"), request.at("skip_special"))}};
    }
    if (op == "stream") return stream(request.at("ids"), request.at("skip_special"));
    if (op == "chat") return chat(request);
    seer::fail("unknown op ", op);
  }

 private:
  json load(const std::string& folder) {
    tokenizer_ = Tokenizer::load(folder);
    return {{"vocab_size", tokenizer_->vocab_size()},
            {"bos", id_or_null(tokenizer_->bos_id())},
            {"eos", id_or_null(tokenizer_->eos_id())}};
  }

  static json documents(const std::string& path) {
    json texts = json::array();
    seer::io::for_each_document(path,
                                [&](std::string&& text) { texts.push_back(std::move(text)); });
    return {{"texts", texts}};
  }

  json stream(const std::vector<int32_t>& ids, bool skip_special) const {
    StreamDecoder decoder(*tokenizer_, skip_special);
    json pieces = json::array();
    for (const int32_t id : ids) pieces.push_back(decoder.push(id));
    pieces.push_back(decoder.finish());
    return {{"pieces", pieces}};
  }

  json chat(const json& request) const {
    if (!tokenizer_->chat_template()) seer::fail("no chat template");
    std::vector<seer::io::Message> messages;
    for (const json& message : request.at("messages")) {
      messages.push_back({message.at("role"), message.at("content")});
    }
    const std::string tools = request.value("tools", "null");
    const bool generation = request.at("add_generation_prompt");
    return {{"text", tokenizer_->chat_template()->render(messages, tools, generation)}};
  }

  std::optional<Tokenizer> tokenizer_;
};

}  // namespace

int main() {
  Driver driver;
  for (std::string line; std::getline(std::cin, line);) {
    json answer;
    try {
      answer = driver.answer(json::parse(line));
    } catch (const seer::Error& error) {
      answer = {{"error", error.what()}};
    }
    std::cout << answer.dump() << std::endl;
  }
}
