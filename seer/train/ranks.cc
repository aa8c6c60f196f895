#include "seer/train/ranks.h"

#include <ATen/ops/zeros.h>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "seer/base/error.h"
#include "seer/train/ranks_backend.h"

namespace seer::train {
namespace {

constexpr std::chrono::minutes kPatience{10};
constexpr std::chrono::milliseconds kBeat{500};
constexpr std::chrono::seconds kSilence{5};  // after which a process counts as gone

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  SEER_CHECK(value != nullptr, "WORLD_SIZE is set, but ", name,
             " is not: start the processes with torchrun --no-python");
  return value;
}

int number(const char* name) {
  const std::string text = variable(name);
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  SEER_CHECK(error == std::errc() && end == text.data() + text.size() && value >= 0, name, " is \"",
             text, "\", want a number; start the processes with torchrun --no-python");
  return value;
}

c10::intrusive_ptr<c10d::TCPStore> connect(int rank, int size) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(number("MASTER_PORT"));
  // torchrun's agent may hold the store already.
  const char* agent = std::getenv("TORCHELASTIC_USE_AGENT_STORE");
  options.isServer = rank == 0 && !(agent != nullptr && std::strcmp(agent, "True") == 0);
  options.numWorkers = size;
  options.waitWorkers = false;
  options.timeout = kPatience;
  return c10::make_intrusive<c10d::TCPStore>(variable("MASTER_ADDR"), options);
}

// Says that this process lives, and which others do not any more. On a connection of its own.
class Heartbeat {
 public:
  Heartbeat(c10::intrusive_ptr<c10d::Store> store, int rank, int size)
      : store_(std::move(store)), size_(size), key_("alive/" + std::to_string(rank)) {
    beat_ = std::jthread([this](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        try {
          const std::scoped_lock lock(mutex_);
          store_->add(key_, 1);
        } catch (const std::exception&) {
          return;  // the store is gone; the next sum fails and says so
        }
        std::this_thread::sleep_for(kBeat);
      }
    });
  }

  // "rank 1", "ranks 1, 3"; empty where all answer.
  std::string gone() {
    const std::vector<int64_t> before = counts();
    std::this_thread::sleep_for(kSilence);
    const std::vector<int64_t> after = counts();
    if (after.empty()) return "the process that holds the store (rank 0)";
    std::string ranks;
    int found = 0;
    for (int i = 0; i < size_; ++i) {
      if (after[static_cast<size_t>(i)] != before[static_cast<size_t>(i)]) continue;
      ranks += (found++ ? ", " : "") + std::to_string(i);
    }
    return ranks.empty() ? "" : (found > 1 ? "ranks " : "rank ") + ranks;
  }

 private:
  c10::intrusive_ptr<c10d::Store> store_;
  const int size_;
  const std::string key_;
  std::mutex mutex_;
  std::jthread beat_;  // last: it ends first

  std::vector<int64_t> counts() {
    std::vector<int64_t> counts;
    try {
      const std::scoped_lock lock(mutex_);
      for (int i = 0; i < size_; ++i) {
        counts.push_back(store_->add("alive/" + std::to_string(i), 0));
      }
    } catch (const std::exception&) {
      counts.clear();
    }
    return counts;
  }
};

class ManyRanks : public Ranks {
 public:
  ManyRanks(int rank, int size, const at::Device& device)
      : rank_(rank),
        size_(size),
        token_(at::zeros({1}, at::TensorOptions(device).dtype(at::kFloat))) {
    const auto store = connect(rank, size);
    heartbeat_ = std::make_unique<Heartbeat>(connect_again(size), rank, size);
    guard([&] { backend_ = device.is_cuda() ? nccl_backend(store, rank, size) : gloo(store); });
    meet();
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void start_sum(const at::Tensor& x) override {
    guard([&] {
      std::vector<at::Tensor> tensors{x};
      pending_.push_back(backend_->allreduce(tensors, c10d::AllreduceOptions()));
    });
  }

  void finish_sums() override {
    guard([&] {
      for (const auto& work : pending_) work->wait();
    });
    pending_.clear();
  }

  void meet() override {
    start_sum(token_);
    finish_sums();
    token_.sum().item();  // on a GPU, too, all are here
  }

 private:
  const int rank_, size_;
  const at::Tensor token_;
  std::unique_ptr<Heartbeat> heartbeat_;
  c10::intrusive_ptr<c10d::Backend> backend_;
  std::vector<c10::intrusive_ptr<c10d::Work>> pending_;

  static c10::intrusive_ptr<c10d::Store> connect_again(int size) { return connect(1, size); }

  c10::intrusive_ptr<c10d::Backend> gloo(const c10::intrusive_ptr<c10d::Store>& store) const {
    auto options = c10d::ProcessGroupGloo::Options::create(kPatience);
    options->devices.push_back(c10d::ProcessGroupGloo::createDefaultDevice());
    options->threads = 2;
    return c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank_, size_, options);
  }

  // What the libraries throw becomes one line.
  template <class Call>
  void guard(const Call& call) {
    try {
      call();
    } catch (const std::exception& error) {
      const std::string gone = heartbeat_->gone(), what = error.what();
      fail("rank ", rank_, " of ", size_, ": ",
           gone.empty()
               ? "the processes cannot reach each other (" + what.substr(0, what.find('\n')) + ")"
               : gone + " does not answer any more",
           "; start all of them again, they go on from the last checkpoint");
    }
  }
};

}  // namespace

std::unique_ptr<Ranks> Ranks::from_environment(const at::Device& device) {
  if (std::getenv("WORLD_SIZE") == nullptr || number("WORLD_SIZE") <= 1) {
    return std::make_unique<Ranks>();
  }
  const int rank = number("RANK"), size = number("WORLD_SIZE");
  SEER_CHECK(rank < size, "RANK is ", rank, ", want less than WORLD_SIZE, ", size);
  return std::make_unique<ManyRanks>(rank, size, device);
}

}  // namespace seer::train
