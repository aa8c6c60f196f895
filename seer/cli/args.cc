#include "seer/cli/args.h"

#include <cstdio>
#include <cstring>

namespace seer::cli {

Args::Args(const std::string& verb, const std::string& about) : app_(about, "seer " + verb) {
  app_.option_defaults()->always_capture_default();
  app_.get_formatter()->column_width(34);
  app_.add_option("--config", config_path_,
                  "JSON file with settings, keys as the flags; flags win over it");
}

CLI::Option* Args::flag(const std::string& name, bool& value, const std::string& help) {
  return finish(app_.add_flag("--" + name, value, help), name, value);
}

void Args::json_output(std::string& value) {
  app_.add_option("--json", value,
                  "also write the results as JSON; without FILE to standard output")
      ->expected(0, 1)
      ->option_text("[FILE]")
      ->default_str("-");
}

void Args::read_config(const std::string& path) {
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(read_file(path));
  } catch (const nlohmann::json::exception& e) {
    fail(path, " is not valid JSON (", e.what(), ")");
  }
  if (!json.is_object()) fail(path, ": want one JSON object with settings");
  for (const auto& [key, value] : json.items()) {
    if (key == "about") {
      std::fprintf(stderr, "%s\n", value.is_string() ? value.get<std::string>().c_str() : "");
      continue;
    }
    const auto field =
        std::find_if(fields_.begin(), fields_.end(), [&](const Field& f) { return f.name == key; });
    if (field == fields_.end()) {
      throw UsageError(message(path, ": unknown setting \"", key, "\"; `", app_.get_name(),
                               " --help` lists them"));
    }
    try {
      field->set(value);
      field->option->required(false);
    } catch (const nlohmann::json::exception&) {
      throw UsageError(message(path, ": setting \"", key, "\" cannot be ", value.dump()));
    }
  }
}

bool Args::parse(int argc, char** argv, int first) {
  // The file's values become the defaults that flags then replace.
  for (int i = first; i + 1 < argc; ++i) {
    if (std::strcmp(argv[i], "--config") == 0) read_config(argv[i + 1]);
  }
  std::vector<std::string> words(argv + first, argv + argc);
  std::reverse(words.begin(), words.end());  // CLI11 takes them from the back
  try {
    app_.parse(words);
  } catch (const CLI::CallForHelp&) {
    std::fputs(app_.help().c_str(), stdout);
    return false;
  } catch (const CLI::ParseError& e) {
    throw UsageError(message(e.what(), "; see `", app_.get_name(), " --help`"));
  }
  return true;
}

nlohmann::json Args::settings() const {
  nlohmann::json json;
  for (const Field& field : fields_) json[field.name] = field.get();
  return json;
}

}  // namespace seer::cli
