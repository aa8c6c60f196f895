#include "seer/train/run_folder.h"

#include <ATen/ops/from_blob.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/io/safetensors.h"

namespace seer::train {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kPrefix = "step-";
constexpr const char* kSuffix = ".safetensors";
constexpr size_t kKept = 2;

std::string reason() {
  return std::strerror(errno);
}

std::string short_text(const json& value) {
  std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  return text.size() > 80 ? text.substr(0, 77) + "..." : text;
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

void copy_in(const io::SafetensorsFile& file, const std::string& name, const at::Tensor& tensor) {
  const auto& record = file.at(name);
  SEER_CHECK(record.dtype == "F32" && record.shape == tensor.sizes().vec(), "checkpoint ",
             file.path().string(), ": tensor ", name, " is ", record.dtype, " ",
             at::IntArrayRef(record.shape), ", want F32 ", tensor.sizes());
  tensor.copy_(at::from_blob(const_cast<std::byte*>(record.data), record.shape, at::kFloat));
}

}  // namespace

std::string first_difference(const json& now, const json& before, const std::string& path) {
  if (now == before) return "";
  if (!now.is_object() || !before.is_object()) {
    return path + " is " + short_text(now) + ", was " + short_text(before);
  }
  json keys = before;
  keys.update(now);
  for (const auto& [key, value] : keys.items()) {
    const std::string where = path.empty() ? key : path + "." + key;
    if (!before.contains(key)) return where + " is " + short_text(now[key]) + ", was not there";
    if (!now.contains(key)) return where + " is not there, was " + short_text(before[key]);
    const std::string difference = first_difference(now[key], before[key], where);
    if (!difference.empty()) return difference;
  }
  return "";
}

RunFolder::RunFolder(const fs::path& out, const json& settings, bool restart,
                     const std::vector<std::string>& results)
    : out_(out), checkpoints_(out / "checkpoints") {
  SEER_CHECK(!out.empty(), "no folder is given for the run: name one to write to");
  std::error_code error;
  fs::create_directories(checkpoints_, error);
  if (error) fail("cannot make the folder ", checkpoints_.string(), ": ", error.message());
  // Held until this process ends, however it ends.
  lock_.emplace(out / ".lock");
  SEER_CHECK(lock_->try_lock(), "another process trains in ", out.string(),
             ": wait for it, or use another folder");
  if (restart) discard(results);
  // What a killed process was writing.
  for (const fs::path& folder : {out_, checkpoints_}) remove_unfinished(folder);
  const fs::path run = out / "run.json";
  if (!fs::exists(run)) {
    SEER_CHECK(checkpoints().empty(), out.string(), " has checkpoints but no run.json, which says ",
               "what they are of: use another folder, or --restart to discard them");
    write_file_atomic(run, settings.dump(2) + "\n");
    return;
  }
  check_settings(settings);
}

RunFolder::RunFolder(const fs::path& out, const json& settings)
    : out_(out), checkpoints_(out / "checkpoints"), writes_(false) {
  check_settings(settings);
}

void RunFolder::check_settings(const json& settings) const {
  const json before =
      json::parse(read_file(out_ / "run.json"), nullptr, /*allow_exceptions=*/false);
  const std::string difference = first_difference(settings, before);
  SEER_CHECK(difference.empty(), "the run in ", out_.string(), " has other settings: ", difference,
             "; use the same, another folder, or --restart to discard that run");
}

RunFolder::Descriptor::~Descriptor() {
  if (fd >= 0) ::close(fd);
}

void RunFolder::discard(const std::vector<std::string>& results) {
  for (const auto& [step, path] : checkpoints()) fs::remove(path);
  // Files of these names are the run's only where one lies there.
  if (fs::exists(out_ / "run.json")) {
    for (const std::string& name : results) fs::remove(out_ / name);
  }
  fs::remove(out_ / "metrics.jsonl");
  fs::remove(out_ / "run.json");
}

std::vector<std::pair<int64_t, fs::path>> RunFolder::checkpoints() const {
  std::vector<std::pair<int64_t, fs::path>> found;
  for (const auto& entry : fs::directory_iterator(checkpoints_)) {
    const std::string name = entry.path().filename().string();
    int64_t step = 0;
    char rest[16] = "";
    if (std::sscanf(name.c_str(), "step-%ld%15s", &step, rest) == 2 &&
        std::string_view(rest) == kSuffix) {
      found.emplace_back(step, entry.path());
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::optional<json> RunFolder::resume(const NamedTensors& tensors) {
  const auto found = checkpoints();
  if (found.empty()) {
    open_metrics(0);
    return std::nullopt;
  }
  const io::SafetensorsFile file(found.back().second);
  const auto state = file.metadata().find("state");
  SEER_CHECK(state != file.metadata().end() && file.tensors().size() == tensors.size(),
             found.back().second.string(), " is not a checkpoint of this run: it has ",
             file.tensors().size(), " tensors, want ", tensors.size(),
             "; use another folder, or --restart to discard that run");
  for (const auto& [name, tensor] : tensors) copy_in(file, name, tensor);
  open_metrics(found.back().first);
  return json::parse(state->second);
}

void RunFolder::save(const NamedTensors& tensors, const json& state) {
  if (!writes_) return;
  if (::fsync(metrics_.fd) != 0)
    fail("cannot write metrics.jsonl in ", out_.string(), ": ", reason());
  std::vector<at::Tensor> copies;  // keep the memory that the records point to
  std::vector<io::NamedTensor> records;
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor copy = tensor.detach().to(at::kCPU).contiguous();
    SEER_CHECK(copy.scalar_type() == at::kFloat, "tensor ", name, " of a checkpoint is not f32");
    copies.push_back(copy);
    records.push_back({name,
                       {"F32", copy.sizes().vec(),
                        static_cast<const std::byte*>(copy.const_data_ptr()), copy.nbytes()}});
  }
  char name[48];
  std::snprintf(name, sizeof(name), "%s%08ld%s", kPrefix, state.at("step").get<int64_t>(), kSuffix);
  io::write_safetensors(checkpoints_ / name, records, {{"state", state.dump()}});
  auto found = checkpoints();
  for (size_t i = 0; i + kKept < found.size(); ++i) fs::remove(found[i].second);
}

void RunFolder::open_metrics(int64_t last_step) {
  if (!writes_) return;
  const fs::path path = out_ / "metrics.jsonl";
  if (fs::exists(path)) {
    std::string kept;
    const std::string text = read_file(path);
    for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos;
         begin = end + 1) {
      const auto line = std::string_view(text).substr(begin, end + 1 - begin);
      const json parsed = json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (parsed.is_object() && parsed.value("step", int64_t{0}) <= last_step &&
          parsed.contains("step")) {
        kept += line;
      }
    }
    if (kept != text) write_file_atomic(path, kept);
  }
  metrics_.fd = ::open(path.c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0644);
  if (metrics_.fd < 0) fail("cannot write ", path.string(), ": ", reason());
}

void RunFolder::add_metrics(const nlohmann::ordered_json& line) {
  if (!writes_) return;
  append(metrics_.fd, line.dump() + "\n", out_ / "metrics.jsonl");
}

}  // namespace seer::train
