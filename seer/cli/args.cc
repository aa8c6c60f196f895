#include "seer/cli/args.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "seer/base/json.h"
#include "seer/base/output.h"
#include "seer/base/progress.h"
#include "seer/base/shown.h"

namespace seer::cli {
namespace {

constexpr size_t kPathLength = 300;

std::string type_text(Kind kind, bool is_list) {
  const char* name = kind == Kind::whole ? "INT" : kind == Kind::real ? "NUMBER" : "TEXT";
  return is_list ? std::string(name) + ",..." : name;
}

// A default as it would be typed.
std::string default_text(const nlohmann::json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return value.dump();
  std::string text;
  for (const auto& element : value) text += (text.empty() ? "" : ",") + default_text(element);
  return text;
}

std::vector<std::string> elements_of(const std::string& text) {
  std::vector<std::string> elements;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    elements.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return elements;
}

}  // namespace

void check_folder_of(const std::string& name, const std::filesystem::path& path) {
  try {
    check_output_folder(path);
  } catch (const Error& error) {
    fail("--", name, ": ", error.what());
  }
}

Setting::Setting(std::string name, CLI::Option* option, Allowed allowed, Target target)
    : name_(std::move(name)),
      option_(option),
      allowed_(std::move(allowed)),
      target_(std::move(target)) {
  const nlohmann::json value = target_.get();
  default_is_empty_ = (value.is_array() && value.empty()) || value == "";
}

Setting* Setting::required() {
  is_required_ = true;
  option_->type_name(option_->get_type_name() + " REQUIRED");
  return this;
}

void Setting::refuse(const std::string& where, const std::string& value_text,
                     const std::string& expected, const std::string& hint) const {
  throw UsageError(where + value_text + ": want " + expected + hint);
}

void Setting::set(const nlohmann::json& value, const std::string& value_text,
                  const std::string& where) {
  if (!allowed_.takes(value, target_.kind) || !target_.store(value)) {
    refuse(where, value_text, allowed_.expected(target_.kind), allowed_.suggestion(value));
  }
  if (allowed_.wants && value.is_string()) {
    const std::string wanted = allowed_.wants(value.get<std::string>());
    if (!wanted.empty()) refuse(where, value_text, wanted);
  }
  if (!target_.is_list || allowed_.may_repeat) return;
  const nlohmann::json all = target_.get();
  if (std::count(all.begin(), all.end(), all.back()) > 1) {
    throw UsageError(where + value_text + " twice: want each value once");
  }
}

void Setting::set_from_words(const std::vector<std::string>& words) {
  is_given_ = true;
  const std::string where = flag_text() + " ";
  if (!target_.is_list && target_.kind != Kind::yes_no && words.size() > 1) {
    throw UsageError(message(flag_text(), " is given ", words.size(), " times, want it once"));
  }
  target_.clear();
  for (const std::string& word : words) {
    for (const std::string& text :
         target_.is_list ? elements_of(word) : std::vector<std::string>{word}) {
      if (target_.is_list && text.empty()) {
        refuse(where, typed(word),
               allowed_.expected(target_.kind) + "; several with commas between");
      }
      nlohmann::json value = text;
      if (target_.kind == Kind::yes_no) {
        if (text == "true" || text == "false") value = text == "true";
      } else if (target_.kind != Kind::text) {
        // What is no number stays a text, which no setting of this kind takes.
        if (const auto number = read_number(text, target_.kind)) value = *number;
      }
      set(value, typed(text), where);
    }
  }
}

void Setting::set_from_json(const nlohmann::json& json, const std::string& file) {
  is_given_ = true;
  const std::string where = file + ": \"" + name_ + "\" is ";
  const bool is_empty = (json.is_array() && json.empty()) || json == "";
  // Recorded settings are a settings file, too.
  if (is_empty && default_is_empty_ && !is_required_ && target_.is_list == json.is_array() &&
      (target_.is_list || target_.kind == Kind::text)) {
    target_.clear();
    if (!target_.is_list) target_.store(json);
    return;
  }
  if (!target_.is_list) return set(json, shown_value(json), where);
  if (!json.is_array() || json.empty()) {
    refuse(where, shown_value(json), "a list with at least one element");
  }
  target_.clear();
  for (const auto& element : json)
    set(element, shown_value(element), file + ": \"" + name_ + "\" has ");
}

Args::Args(const std::string& verb, const std::string& about)
    : app_(std::make_unique<CLI::App>(about, "seer " + verb)) {
  app_->get_formatter()->column_width(34);
  app_->allow_extras();
  config_ = app_->add_option("--config")
                ->description("JSON file with settings, keys as the flags; flags win over it")
                ->type_name("FILE")
                ->expected(1)
                ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

Args::~Args() = default;

Setting* Args::add_setting(const std::string& name, const std::string& words, Allowed allowed,
                           Setting::Target target, const std::string& help) {
  const std::string range = allowed.range_text();
  CLI::Option* option = app_->add_option(words)
                            ->description(range.empty() ? help : help + " (" + range + ")")
                            ->type_name(type_text(target.kind, target.is_list))
                            ->default_str(default_text(target.get()))
                            ->expected(1)
                            ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  if (target.is_list && !words.starts_with("--")) option->expected(-1);  // several words
  if (!group_.empty()) option->group(group_);
  settings_.emplace_back(new Setting(name, option, std::move(allowed), std::move(target)));
  return settings_.back().get();
}

Setting* Args::flag(const std::string& name, bool& value, const std::string& help) {
  CLI::Option* option = app_->add_flag("--" + name)->description(help);
  option->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  if (!group_.empty()) option->group(group_);
  settings_.emplace_back(new Setting(name, option, Allowed{}, target_of(value)));
  return settings_.back().get();
}

Setting* Args::output_file(const std::string& name, std::string& value, const std::string& help) {
  when_read([this, name, &value] {
    if (value == "-") {
      throw UsageError("--" + name + " -: want the name of a file; /dev/stdout is standard output");
    }
    if (!value.empty()) check_written(name, value);
  });
  return add(name, value, help);
}

void Args::json_output(std::string& value) {
  json_ = app_->add_option("--json")
              ->description("also write the results as JSON; without FILE to standard output")
              ->expected(0, 1)
              ->option_text("[FILE]")
              ->default_str("-");
  json_->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  when_read([this, &value] {
    if (json_->count() > 1) throw UsageError("--json is given several times, want it once");
    if (json_->count() == 0) return;
    value = json_->results()[0];
    if (value.empty()) throw UsageError("--json \"\": want a file, or nothing for standard output");
    if (value != "-") check_written("json", value);
  });
}

void Args::check_written(const std::string& name, const std::string& path) {
  const auto refuse = [&](const std::string& other) {
    throw UsageError(message("--", name, " ", typed(path), " is also the file of ", other,
                             ", which would be lost: name another one"));
  };
  for (const std::string& config : config_->results()) {
    if (is_same_file(path, config)) refuse("--config");
  }
  for (const auto& setting : settings_) {
    if (setting->name_ == name || setting->target_.kind != Kind::text) continue;
    const nlohmann::json value = setting->target_.get();
    for (const auto& one : value.is_array() ? value : nlohmann::json::array({value})) {
      if (is_same_file(path, one.get<std::string>())) refuse(setting->flag_text());
    }
  }
  // Those that are not there yet. Several may go to what is written through: /dev/null, a pipe.
  const std::filesystem::path replaced = output_at(path).replaced;
  for (const auto& [other, file] : written_) {
    if (!file.empty() && file == replaced) refuse("--" + other);
  }
  written_.emplace_back(name, replaced);
  check_output(path);
}

Setting* Args::find(const std::string& name) const {
  for (const auto& setting : settings_) {
    if (setting->name_ == name) return setting.get();
  }
  return nullptr;
}

std::vector<std::string> Args::names() const {
  std::vector<std::string> names;
  for (const auto& setting : settings_) names.push_back(setting->name_);
  return names;
}

// CLI11 takes the word behind `--name=` as the value: an empty value becomes a word of its own. A
// setting whose value is left out must not take the next one's name.
std::vector<std::string> Args::words_of(int argc, char** argv, int first) const {
  const auto takes_value = [&](const std::string& word) {
    if (!word.starts_with("--")) return false;
    if (word == "--config") return true;
    const Setting* setting = find(word.substr(2));
    return setting != nullptr && setting->target_.kind != Kind::yes_no && !setting->is_positional_;
  };
  const auto is_flag = [&](const std::string& word) {
    return word.starts_with("--") && (find(word.substr(2)) != nullptr || word == "--config" ||
                                      word == "--help" || (json_ != nullptr && word == "--json"));
  };
  std::vector<std::string> words;
  for (int i = first; i < argc; ++i) {
    std::string word = argv[i];
    if (word.ends_with('=') &&
        (takes_value(word.substr(0, word.size() - 1)) || word == "--json=")) {
      word.pop_back();
      words.insert(words.end(), {word, ""});
      continue;
    }
    words.push_back(word);
    if (!takes_value(word)) continue;
    if (i + 1 == argc) throw UsageError(word + " needs a value behind it");
    if (is_flag(argv[i + 1])) {
      throw UsageError(word + " needs a value, but the setting " + argv[i + 1] +
                       " stands behind it");
    }
    words.push_back(argv[++i]);
  }
  return words;
}

void Args::refuse_unknown(const std::vector<std::string>& words) const {
  if (words.empty()) return;
  const auto flag = std::find_if(words.begin(), words.end(),
                                 [](const std::string& word) { return word.starts_with('-'); });
  const std::string advice = "; `" + app_->get_name() + " --help` lists the settings";
  if (flag == words.end()) {
    throw UsageError("the word " + typed(words[0]) + " belongs to no setting" + advice);
  }
  const std::string name = flag->substr(0, flag->find('='));
  std::vector<std::string> known{"--help", "--config"};
  if (json_ != nullptr) known.emplace_back("--json");
  for (const auto& setting : settings_) {
    if (!setting->is_positional_) known.push_back("--" + setting->name_);
  }
  throw UsageError("unknown setting " + typed(name) + did_you_mean(name, known) + advice);
}

void Args::read_config() {
  const auto& paths = config_->results();
  if (paths.empty()) return;
  if (paths.size() > 1) {
    throw UsageError(message("--config is given ", paths.size(), " times, want one file"));
  }
  if (paths[0].empty()) throw UsageError("--config \"\": want a JSON file");
  const nlohmann::json json = read_json(paths[0]);
  const std::string file = one_line(paths[0], kPathLength);
  if (!json.is_object()) throw UsageError(file + ": want one JSON object with settings");
  for (const auto& [key, value] : json.items()) {
    if (key == "about") {
      if (!value.is_string())
        throw UsageError(file + ": \"about\" is a line of text that is shown");
      print_line(value.get<std::string>());
      continue;
    }
    Setting* setting = find(key);
    if (setting == nullptr) {
      throw UsageError(message(file, ": unknown setting ", shown(key), did_you_mean(key, names()),
                               "; `", app_->get_name(), " --help` lists them"));
    }
    setting->set_from_json(value, file);
  }
}

bool Args::parse(int argc, char** argv, int first) {
  try {
    std::vector<std::string> words = words_of(argc, argv, first);
    std::reverse(words.begin(), words.end());  // CLI11 takes them from the back
    app_->parse(words);
  } catch (const CLI::CallForHelp&) {
    std::fputs(app_->help().c_str(), stdout);
    return false;
  } catch (const CLI::ParseError& e) {
    throw UsageError(message(e.what(), "; see `", app_->get_name(), " --help`"));
  }
  refuse_unknown(app_->remaining());
  read_config();
  for (const auto& setting : settings_) {
    if (setting->option_->count() > 0) setting->set_from_words(setting->option_->results());
  }
  for (const auto& setting : settings_) {
    if (setting->is_required_ && !setting->is_given_) {
      throw UsageError(setting->flag_text() + " is required; see `" + app_->get_name() +
                       " --help`");
    }
  }
  for (const auto& check : checks_) check();
  return true;
}

bool Args::has_flag(const std::string& name) const {
  return find(name)->option_->count() > 0;
}

bool Args::is_given(const std::string& name) const {
  return find(name)->is_given_;
}

nlohmann::json Args::settings() const {
  nlohmann::json json;
  for (const auto& setting : settings_) json[setting->name_] = setting->target_.get();
  return json;
}

}  // namespace seer::cli
