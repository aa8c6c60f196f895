#include "seer/train/loop/run_folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "seer/base/checksum.h"
#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/json.h"

namespace seer::train {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kRun = "run.json";
constexpr const char* kMetrics = "metrics.jsonl";
constexpr const char* kCheckpoints = "checkpoints";
constexpr const char* kPrefix = "step-";
constexpr const char* kSuffix = ".safetensors";
constexpr size_t kKept = 2;

std::string reason() {
  return std::strerror(errno);
}

void append(int file, std::string_view text, const fs::path& path) {
  while (!text.empty()) {
    const ssize_t written = ::write(file, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      fail("cannot write ", path.string(), ": ", reason(),
           "; free some space and start the same run again, it goes on from its last checkpoint");
    }
    text.remove_prefix(static_cast<size_t>(written));
  }
}

// Strings are not all UTF-8: names of files.
json readable(const json& value) {
  return json::parse(json_text(value));
}

// What tells runs apart, in their checkpoints.
std::string id_of(const json& settings) {
  return checksum_of(json_text(settings));
}

// Of any kind, a link that leads nowhere, too.
bool lies_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

// A step's number is all digits; -1 where it is not.
int64_t step_of(std::string_view name) {
  name.remove_prefix(std::string_view(kPrefix).size());
  name.remove_suffix(std::string_view(kSuffix).size());
  int64_t step = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  return error == std::errc() && end == name.data() + name.size() && step >= 0 ? step : -1;
}

struct Checkpoint {
  int64_t step;  // -1: its name has none
  fs::path path;
  bool operator<(const Checkpoint& other) const { return step < other.step; }
};

// By step.
std::vector<Checkpoint> checkpoints_in(const fs::path& folder) {
  std::vector<Checkpoint> found;
  if (!fs::exists(folder)) return found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kPrefix) && name.ends_with(kSuffix)) {
      found.push_back({step_of(name), entry.path()});
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

FileLock locked(const fs::path& out) {
  FileLock lock(out / ".lock");
  SEER_CHECK(lock.try_lock(), "another process trains in ", out.string(),
             ": wait for it, or use another folder");
  return lock;
}

// run.json last: until then the folder is this run's. What this process has locked.
void discard(const fs::path& out, const std::vector<std::string>& results) {
  std::vector<FileLock> locks;  // of runs that follow
  for (const std::string& name : results) {
    if (fs::is_directory(out / name)) locks.push_back(locked(out / name));
  }
  for (const Checkpoint& checkpoint : checkpoints_in(out / kCheckpoints)) {
    fs::remove(checkpoint.path);
  }
  for (const std::string& name : results) {
    if (!fs::is_directory(out / name)) {
      fs::remove(out / name);
    } else if (lies_there(out / name / kRun)) {
      discard(out / name, {});
    }
  }
  std::error_code error;
  fs::remove(out / kCheckpoints, error);  // where nothing else is in it
  fs::remove(out / kMetrics);
  fs::remove(out / kRun);
}

// Of the run that a run.json describes, be it settings or (`seer run`) a record of results; empty: it
// is of none.
std::string task_of(const fs::path& path) {
  try {
    const json run = read_json(path);
    for (const char* key : {"task", "operation"}) {
      if (run.is_object() && run.contains(key) && run[key].is_string()) return run[key];
    }
    return "";
  } catch (const Error&) {
    return "";
  }
}

}  // namespace

std::string first_difference(const json& now, const json& before, const std::string& path) {
  if (now == before) return "";
  if (!now.is_object() || !before.is_object()) {
    return path + " is " + shown_value(now) + ", was " + shown_value(before);
  }
  json keys = before;
  keys.update(now);
  for (const auto& [key, value] : keys.items()) {
    const std::string where = path.empty() ? key : path + "." + key;
    if (!before.contains(key)) return where + " is " + shown_value(now[key]) + ", was not there";
    if (!now.contains(key)) return where + " is not there, was " + shown_value(before[key]);
    const std::string difference = first_difference(now[key], before[key], where);
    if (!difference.empty()) return difference;
  }
  return "";
}

void check_run_folder(const fs::path& out, const std::string& task,
                      const std::vector<std::string>& results) {
  SEER_CHECK(!out.empty(), "no folder is given for the run: name one to write to");
  const fs::path run = out / kRun;
  if (lies_there(run)) {
    SEER_CHECK(task_of(run) == task, run.string(), " is not of a run of `seer ", task,
               "`, which would write there: choose another folder");
    return;
  }
  std::vector<std::string> names = results;
  names.insert(names.end(), {kMetrics, kCheckpoints});
  for (const std::string& name : names) {
    SEER_CHECK(!lies_there(out / name), out.string(), " holds ", name, ", which no run of `seer ",
               task, "` has made (there is no ", kRun, "): choose another folder");
  }
}

bool is_run_there(const fs::path& out) {
  std::error_code error;
  return fs::exists(out / kRun, error) && fs::exists(out / kMetrics, error);
}

void check_run_is_there(const fs::path& out, const std::string& result) {
  SEER_CHECK(is_run_there(out), out.string(),
             " was deleted or moved at the end of its run: ", result,
             " saved there anew, checkpoints and metrics are lost");
}

RunFolder::RunFolder(const fs::path& out, const json& settings, bool restart,
                     const std::vector<std::string>& results)
    : out_(out), checkpoints_(out / kCheckpoints), settings_(readable(settings)) {
  check_run_folder(out, settings_.at("task"), results);
  const bool is_new = !fs::exists(out_ / kRun);
  std::error_code error;
  fs::create_directories(out_, error);
  if (error) fail("cannot make the folder ", out_.string(), ": ", error.message());
  take_lock();
  if (restart && !is_new) discard(out_, results);
  // What a killed process was writing.
  for (const fs::path& folder : {out_, checkpoints_}) remove_unfinished(folder);
  if (fs::exists(out_ / kRun)) {
    check_settings();
  } else {
    write_file_atomic(out_ / kRun, json_text(settings_, 2) + "\n");
  }
  fs::create_directories(checkpoints_, error);
  if (error) fail("cannot make the folder ", checkpoints_.string(), ": ", error.message());
}

RunFolder::RunFolder(const fs::path& out, const json& settings)
    : out_(out), checkpoints_(out / kCheckpoints), settings_(readable(settings)), writes_(false) {
  check_settings();
}

// Held until this process ends, however it ends.
void RunFolder::take_lock() {
  lock_.emplace(locked(out_));
}

void RunFolder::check_settings() const {
  const std::string difference = first_difference(settings_, read_json(out_ / kRun));
  SEER_CHECK(difference.empty(), "the run in ", out_.string(), " has other settings: ", difference,
             "; use the same, another folder, or --restart to discard that run");
}

std::optional<RunState> RunFolder::resume(const NamedTensors& tensors, int64_t steps,
                                          const Warn& warn) {
  const auto found = checkpoints_in(checkpoints_);
  std::vector<std::string> damaged;
  for (auto at = found.rbegin(); at != found.rend(); ++at) {
    RunState state;
    std::string why;
    if (at->step < 0 || at->step > steps) {
      why = message("want a step from 0 to ", steps, " in its name");
    } else {
      why = read_checkpoint(at->path, id_of(settings_), at->step, tensors, &state);
    }
    if (why.empty()) {
      for (const std::string& line : damaged) {
        warn(message(line, "; going on from the one before, step ", state.step));
      }
      cut_metrics(state.step);
      open_metrics();
      return state;
    }
    damaged.push_back(message("the checkpoint ", at->path.string(), " is damaged: ", why));
  }
  SEER_CHECK(damaged.empty(), damaged.front(), ", and ",
             damaged.size() == 1 ? "there is no other" : "no other one is whole",
             ": put a whole one there, or delete ", checkpoints_.string(),
             " to begin again at step 0");
  cut_metrics(0);
  open_metrics();
  return std::nullopt;
}

void RunFolder::save(const NamedTensors& tensors, const RunState& state, const Fetch& fetch) {
  if (!writes_) return;
  const bool was_there = is_run_there(out_);
  if (!was_there) {
    take_lock();
    write_file_atomic(out_ / kRun, json_text(settings_, 2) + "\n");
    open_metrics();
  }
  if (::fsync(metrics_.fd()) != 0) {
    fail("cannot write ", (out_ / kMetrics).string(), ": ", reason());
  }
  char name[48];
  std::snprintf(name, sizeof(name), "%s%08lld%s", kPrefix, static_cast<long long>(state.step),
                kSuffix);
  write_checkpoint(checkpoints_ / name, id_of(settings_), tensors, state, fetch);
  SEER_CHECK(was_there, out_.string(), " was deleted or moved while its run went on; step ",
             state.step,
             " is saved there anew, its metrics up to here are lost: the same command "
             "goes on from it");
  // Those of later steps were damaged: the run would have gone on from them.
  auto found = checkpoints_in(checkpoints_);
  std::erase_if(found, [&](const Checkpoint& checkpoint) {
    const bool is_stale = checkpoint.step < 0 || checkpoint.step > state.step;
    if (is_stale) fs::remove(checkpoint.path);
    return is_stale;
  });
  for (size_t i = 0; i + kKept < found.size(); ++i) fs::remove(found[i].path);
}

void RunFolder::cut_metrics(int64_t last_step) const {
  const fs::path path = out_ / kMetrics;
  if (!writes_ || !lies_there(path)) return;
  SEER_CHECK(fs::is_regular_file(fs::symlink_status(path)), path.string(),
             " is not a file: remove it, or choose another folder");
  std::string kept;
  const std::string text = read_file(path);
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos;
       begin = end + 1) {
    const auto line = std::string_view(text).substr(begin, end + 1 - begin);
    std::string problem;
    const json parsed = parse_json(line, &problem);
    const bool is_step =
        parsed.is_object() && parsed.contains("step") && parsed["step"].is_number_integer();
    if (is_step && parsed["step"].get<int64_t>() <= last_step) kept += line;
  }
  if (kept != text) write_file_atomic(path, kept);
}

void RunFolder::open_metrics() {
  if (!writes_) return;
  const fs::path path = out_ / kMetrics;
  // Does not follow a link, nor wait for the reader of a FIFO.
  metrics_ = Descriptor(::open(
      path.c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666));
  if (!metrics_.is_open()) fail("cannot write ", path.string(), ": ", reason());
}

void RunFolder::add_metrics(const nlohmann::ordered_json& line) {
  if (!writes_) return;
  append(metrics_.fd(), json_text(line) + "\n", out_ / kMetrics);
}

}  // namespace seer::train
