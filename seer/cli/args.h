#pragma once
// Settings of a verb: each is registered once and can then come from a flag or from a JSON file
// (--config FILE, whose keys are the flags' names), is shown in --help with its default, and is
// written into results. Flags win over the file.

#include <CLI/CLI.hpp>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "seer/base/error.h"
#include "seer/base/file.h"

namespace seer::cli {

class Args {
 public:
  // `verb` as typed, e.g. "eval ppl"; `about` is the first line of --help.
  Args(const std::string& verb, const std::string& about);

  // --name VALUE. `help` gives the meaning and the unit. Lists are comma-separated.
  template <class T>
  CLI::Option* add(const std::string& name, T& value, const std::string& help);
  // --name, no value.
  CLI::Option* flag(const std::string& name, bool& value, const std::string& help);
  // A word or file without a flag; also a key of the JSON file.
  template <class T>
  CLI::Option* positional(const std::string& name, T& value, const std::string& help);
  // --json [FILE]: results as JSON, to standard output where no file is named.
  void json_output(std::string& value);

  // Heading for the settings that follow, in --help.
  void group(const std::string& name) { group_ = name; }

  // Reads argv[first...]. False: --help was printed. Throws UsageError.
  bool parse(int argc, char** argv, int first);

  // Every setting with its value now.
  nlohmann::json settings() const;

 private:
  struct Field {
    std::string name;
    std::function<void(const nlohmann::json&)> set;
    std::function<nlohmann::json()> get;
    CLI::Option* option;
  };
  template <class T>
  CLI::Option* finish(CLI::Option* option, const std::string& name, T& value);
  void read_config(const std::string& path);

  CLI::App app_;
  std::vector<Field> fields_;
  std::string group_, config_path_;
};

template <class T>
CLI::Option* Args::finish(CLI::Option* option, const std::string& name, T& value) {
  if (!group_.empty()) option->group(group_);
  fields_.push_back({name, [&value](const nlohmann::json& json) { json.get_to(value); },
                     [&value] { return nlohmann::json(value); }, option});
  return option;
}

template <class T>
CLI::Option* Args::add(const std::string& name, T& value, const std::string& help) {
  CLI::Option* option = app_.add_option("--" + name, value, help);
  if constexpr (!std::is_same_v<T, std::string> && !std::is_arithmetic_v<T>) {
    option->delimiter(',')->allow_extra_args(false);
  }
  return finish(option, name, value);
}

template <class T>
CLI::Option* Args::positional(const std::string& name, T& value, const std::string& help) {
  return finish(app_.add_option(name, value, help), name, value);
}

}  // namespace seer::cli
