#pragma once
// Settings of a verb: each is registered once, with what it may be, and can then come from a flag or
// from a JSON file (--config FILE, whose keys are the flags' names), is shown in --help with its
// default, and is written into results. Flags win over the file. Whatever is wrong with a value is
// said when settings are read, before the verb begins.

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "seer/base/allowed.h"
#include "seer/base/error.h"
#include "seer/base/output.h"

// Only args.cc includes CLI11, whose header takes seconds.
namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace seer::cli {

class Args;

// Error that names the setting: files cannot be written into the folder `path` of --name.
void check_folder_of(const std::string& name, const std::filesystem::path& path);

// One setting of a verb.
class Setting {
 public:
  Setting* required();

 private:
  friend class Args;
  struct Target {
    Kind kind;
    bool is_list;
    // Stores a value that `allowed` takes, one of a list at a time. False: it does not fit the type.
    std::function<bool(const nlohmann::json&)> store;
    std::function<void()> clear;  // of a list
    std::function<nlohmann::json()> get;
  };
  Setting(std::string name, CLI::Option* option, Allowed allowed, Target target);

  void set_from_words(const std::vector<std::string>& words);
  void set_from_json(const nlohmann::json& json, const std::string& file);
  void set(const nlohmann::json& value, const std::string& value_text, const std::string& where);
  [[noreturn]] void refuse(const std::string& where, const std::string& value_text,
                           const std::string& expected, const std::string& hint = "") const;
  std::string flag_text() const { return is_positional_ ? name_ : "--" + name_; }

  std::string name_;
  CLI::Option* option_;
  Allowed allowed_;
  Target target_;
  bool is_positional_ = false, is_required_ = false, is_given_ = false, default_is_empty_ = false;
};

class Args {
 public:
  // `verb` as typed, e.g. "eval ppl"; `about` is the first line of --help.
  Args(const std::string& verb, const std::string& about);
  ~Args();

  // --name VALUE. `allowed`: what it, or each element of a list, may be. `help` gives the meaning and
  // the unit; what is allowed is added to it. Lists are comma-separated, and have at least one element,
  // each once unless `allowed` says otherwise.
  // On the command line no text is empty, but where `allowed` says so.
  template <class T>
  Setting* add(const std::string& name, T& value, Allowed allowed, const std::string& help) {
    return add_setting(name, "--" + name, std::move(allowed), target_of(value), help);
  }
  template <class T>
  Setting* add(const std::string& name, T& value, const std::string& help) {
    return add(name, value, Allowed{}, help);
  }
  // --name, no value.
  Setting* flag(const std::string& name, bool& value, const std::string& help);
  // A word without a flag; also a key of the JSON file.
  template <class T>
  Setting* positional(const std::string& name, T& value, Allowed allowed, const std::string& help) {
    Setting* setting = add_setting(name, name, std::move(allowed), target_of(value), help);
    setting->is_positional_ = true;
    return setting;
  }
  // All settings that each_setting() describes.
  template <class Settings>
  void add_each(Settings& settings) {
    each_setting(settings,
                 [this](const char* name, auto& value, Allowed allowed, const std::string& help) {
                   if constexpr (std::is_same_v<decltype(value), bool&>) {
                     flag(name, value, help);
                   } else {
                     add(name, value, std::move(allowed), help);
                   }
                 });
  }
  // --json [FILE]: results as JSON, to standard output where no file is named.
  void json_output(std::string& value);
  // --name FILE and --name FOLDER for what the verb writes: checked to be writable before it begins.
  Setting* output_file(const std::string& name, std::string& value, const std::string& help);
  template <class Path>
  Setting* output_folder(const std::string& name, Path& value, const std::string& help) {
    when_read([name, &value] {
      if (!value.empty()) check_folder_of(name, value);
    });
    return add(name, value, help);
  }
  // A setting that has been added must be given.
  void require(const std::string& name) { find(name)->required(); }

  // Heading for the settings that follow, in --help.
  void group(const std::string& name) { group_ = name; }

  // `check` is called when all settings are read, in the order of registration: for what no setting
  // alone can tell. It throws UsageError.
  void when_read(std::function<void()> check) { checks_.push_back(std::move(check)); }

  // Reads argv[first...]. False: --help was printed. Throws UsageError.
  bool parse(int argc, char** argv, int first);

  // Whether the command line has the setting, not only the JSON file.
  bool has_flag(const std::string& name) const;
  // Whether either has it.
  bool is_given(const std::string& name) const;
  // Every setting with its value now.
  nlohmann::json settings() const;

 private:
  template <class T>
  static Setting::Target target_of(T& value);
  Setting* add_setting(const std::string& name, const std::string& words, Allowed allowed,
                       Setting::Target target, const std::string& help);
  std::vector<std::string> words_of(int argc, char** argv, int first) const;
  void refuse_unknown(const std::vector<std::string>& words) const;
  void read_config();
  // UsageError: another setting names the file that --name writes, which would be lost.
  void check_written(const std::string& name, const std::string& path);
  Setting* find(const std::string& name) const;
  std::vector<std::string> names() const;

  std::unique_ptr<CLI::App> app_;
  CLI::Option *config_, *json_ = nullptr;
  std::vector<std::unique_ptr<Setting>> settings_;
  std::vector<std::function<void()>> checks_;
  std::vector<std::pair<std::string, std::filesystem::path>> written_;  // by setting, as checked
  std::string group_;
};

template <class T>
struct ElementOf {
  using Type = T;
};
template <class T>
struct ElementOf<std::vector<T>> {
  using Type = T;
};

template <class T>
Setting::Target Args::target_of(T& value) {
  using Element = typename ElementOf<T>::Type;
  constexpr bool is_list = !std::is_same_v<Element, T>;
  constexpr Kind kind = kKindOf<Element>;
  constexpr bool is_path = std::is_same_v<Element, std::filesystem::path>;
  using Json = std::conditional_t<is_path, std::string, Element>;
  static_assert(kind != Kind::text || std::is_same_v<Json, std::string>);
  const auto store = [&value](const nlohmann::json& json) {
    if constexpr (kind == Kind::whole) {
      const bool fits = json.is_number_unsigned() ? std::in_range<Element>(json.get<uint64_t>())
                                                  : std::in_range<Element>(json.get<int64_t>());
      if (!fits) return false;
    }
    if constexpr (is_list) {
      value.push_back(json.get<Json>());
    } else {
      value = json.get<Json>();
    }
    return true;
  };
  const auto clear = [&value] {
    if constexpr (is_list) value.clear();
  };
  const auto get = [&value] {
    if constexpr (is_path && is_list) {
      return nlohmann::json(std::vector<std::string>(value.begin(), value.end()));
    } else if constexpr (is_path) {
      return nlohmann::json(value.string());
    } else {
      return nlohmann::json(value);
    }
  };
  return {kind, is_list, store, clear, get};
}

}  // namespace seer::cli
