#include "seer/train/ranks.h"

#include <ATen/ops/zeros.h>
#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <atomic>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "seer/base/error.h"
#include "seer/base/first_line.h"
#include "seer/train/ranks_backend.h"
#include "seer/train/ranks_round.h"

namespace seer::train {
namespace {

constexpr std::chrono::minutes kPatience{10};  // until all are there
// For a sum: one process may have more to do than another, and the heartbeat finds who has died.
constexpr std::chrono::hours kWork{24 * 7};
constexpr std::chrono::milliseconds kBeat{500};
constexpr std::chrono::seconds kSilence{5};  // after which a process counts as gone, when asked
constexpr std::chrono::seconds kDeath{15};   // after which it is, and others need not wait for it
constexpr std::chrono::seconds kLinger{6};   // in which others can read who is gone
constexpr char kStoreHolder[] = "the process that holds the store (rank 0)";

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

// c10d warns of each connection that breaks, with its stack; what matters of that is in our errors.
// TORCH_CPP_LOG_LEVEL=WARNING shows it.
void set_log_level() {
  if (std::getenv("TORCH_CPP_LOG_LEVEL") != nullptr) {
    c10::initLogging();
  } else {
    FLAGS_caffe2_log_level = c10::GLOG_ERROR;
  }
}

// torchrun's agent may hold the store already.
bool holds_store(int rank) {
  const char* agent = std::getenv("TORCHELASTIC_USE_AGENT_STORE");
  return rank == 0 && !(agent != nullptr && std::strcmp(agent, "True") == 0);
}

c10::intrusive_ptr<c10d::Store> connect(bool holds, int size) {
  c10d::TCPStoreOptions options;
  const int port = number("MASTER_PORT");
  SEER_CHECK(port >= 1 && port <= 65535, "MASTER_PORT is ", port, ", want 1 to 65535");
  options.port = static_cast<uint16_t>(port);
  options.isServer = holds;
  options.numWorkers = size;
  options.waitWorkers = false;
  options.timeout = kPatience;
  const std::string address = variable("MASTER_ADDR");
  try {
    return c10::make_intrusive<c10d::TCPStore>(address, options);
  } catch (const std::exception& error) {
    fail("no store for the processes at ", address, ":", port, " (", first_line(error.what()),
         "): is the port taken, or the first process not running?");
  }
}

// What is said where processes are gone.
std::string lost(int rank, int size, const std::string& gone) {
  return message("rank ", rank, " of ", size, ": ", gone,
                 " does not answer any more; start all of them again, they go on from the last "
                 "checkpoint");
}

// Says that this process lives, and which others do not any more. On a connection of its own.
class Heartbeat {
 public:
  // Where another process dies, this one ends with an error: a sum waits for ever for the dead one
  // (NCCL's always, Gloo's where a machine is gone without a word), and so does whoever waits for the
  // GPU.
  Heartbeat(c10::intrusive_ptr<c10d::Store> store, int rank, int size)
      : store_(std::move(store)), rank_(rank), size_(size) {
    beat_ = std::jthread([this](const std::stop_token& stop) { work(stop); });
  }
  ~Heartbeat() {
    beat_.request_stop();
    beat_.join();
    if (std::uncaught_exceptions() > 0) return;  // who leaves with an error is missed by the others
    try {
      // In peace. Not add(), which waits for an answer: whoever holds the store may read this and
      // leave before it answers, of which c10d complains.
      store_->set(key("left", rank_), "1");
      if (rank_ == 0) wait_for_others();  // it may hold the store
    } catch (const std::exception&) {     // whoever held the store has died
    }
  }

  // "rank 1", "ranks 1, 3"; empty where all answer. Who died first: those that then left with an error
  // are silent, too.
  std::string gone() {
    const std::vector<int64_t> before = counts();
    if (before.empty()) return kStoreHolder;
    for (auto end = Clock::now() + kSilence; Clock::now() < end;) {
      std::this_thread::sleep_for(kBeat / 2);
      const std::string known = told();
      if (!known.empty()) return known;
    }
    const std::vector<int64_t> after = counts();
    if (after.empty()) return kStoreHolder;
    std::string ranks;
    int found = 0;
    for (int i = 0; i < size_; ++i) {
      if (after[static_cast<size_t>(i)] != before[static_cast<size_t>(i)]) continue;
      ranks += (found++ ? ", " : "") + std::to_string(i);
    }
    return ranks.empty() ? "" : tell((found > 1 ? "ranks " : "rank ") + ranks);
  }
  // To be called before this process leaves with an error that says so: whoever holds the store
  // stays until the others have read it.
  void linger() {
    leaving_ = true;
    if (size_ > 2 && holds_store(rank_)) std::this_thread::sleep_for(kLinger);
  }

 private:
  using Clock = std::chrono::steady_clock;
  struct Other {
    int64_t count = 0;
    Clock::time_point since = Clock::now();  // that it has this count
  };

  c10::intrusive_ptr<c10d::Store> store_;
  const int rank_, size_;
  std::atomic<bool> leaving_ = false;
  std::mutex mutex_;
  std::condition_variable_any asleep_;
  std::jthread beat_;

  static std::string key(const char* what, int rank) { return message(what, "/", rank); }

  // False: to be stopped.
  bool sleep(const std::stop_token& stop, std::chrono::milliseconds time) {
    std::mutex own;
    std::unique_lock lock(own);
    asleep_.wait_for(lock, stop, time, [] { return false; });
    return !stop.stop_requested();
  }

  void wait_for_others() {
    const auto end = Clock::now() + kSilence;
    for (int i = 1; i < size_; ++i) {
      while (store_->add(key("left", i), 0) == 0 && Clock::now() < end) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
    }
  }

  void work(const std::stop_token& stop) {
    std::vector<Other> others(static_cast<size_t>(size_));
    do {
      try {
        {
          const std::scoped_lock lock(mutex_);
          store_->add(key("alive", rank_), 1);
        }
        look_at(others);
      } catch (const std::exception&) {
        // The store is gone, with rank 0. In a moment this process ends by itself, or it never does.
        if (sleep(stop, kDeath)) end_process(kStoreHolder);
        return;
      }
    } while (sleep(stop, kBeat));
  }

  void look_at(std::vector<Other>& others) {
    for (int i = 0; i < size_ && !leaving_; ++i) {
      if (is_dead(i, others[static_cast<size_t>(i)])) end_process(tell(message("rank ", i)));
    }
  }

  bool is_dead(int rank, Other& other) {
    const auto now = Clock::now();
    const std::scoped_lock lock(mutex_);
    const int64_t count = store_->add(key("alive", rank), 0);
    if (count != other.count || count == 0) {  // 0: it has not begun
      other = {count, now};
      return false;
    }
    return now - other.since > kDeath && store_->add(key("left", rank), 0) == 0;
  }

  [[noreturn]] void end_process(const std::string& gone) {
    std::fprintf(stderr, "seer: error: %s\n", lost(rank_, size_, gone).c_str());
    std::fflush(nullptr);
    linger();
    std::_Exit(1);  // nothing else would get past the GPU
  }

  // Who is gone, as the first process said that found it; empty: nobody has yet.
  std::string told() {
    try {
      const std::scoped_lock lock(mutex_);
      return store_->check({"gone"}) ? store_->get_to_str("gone") : "";
    } catch (const std::exception&) {
      return kStoreHolder;
    }
  }
  // Says it to the others, unless one was first; what is known then.
  std::string tell(const std::string& gone) {
    try {
      const std::scoped_lock lock(mutex_);
      return store_->compareSet("gone", std::string(), gone);
    } catch (const std::exception&) {
      return gone;
    }
  }

  std::vector<int64_t> counts() {
    std::vector<int64_t> counts;
    try {
      const std::scoped_lock lock(mutex_);
      for (int i = 0; i < size_; ++i) {
        counts.push_back(store_->add(key("alive", i), 0));
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
    const auto store = connect(holds_store(rank), size);
    const std::string prefix = agree_on_round(*store, rank, size);
    store_ = c10::make_intrusive<c10d::PrefixStore>(prefix, store);
    heartbeat_ = std::make_unique<Heartbeat>(
        c10::make_intrusive<c10d::PrefixStore>(prefix, connect(/*holds=*/false, size)), rank, size);
    guard([&] { backend_ = device.is_cuda() ? nccl_backend(store_, rank, size, kWork) : gloo(); });
    meet();
  }

  ~ManyRanks() override {
    if (!backend_) return;
    const bool fails = std::uncaught_exceptions() > 0;
    if (!token_.is_cuda()) {
      // Gloo would wait here for sums that the others will not join.
      if (fails) static_cast<void>(backend_.release());
      return;
    }
    try {
      fails ? backend_->abort() : backend_->shutdown();
    } catch (const std::exception&) {  // of a process that is gone: nothing is left to be summed
    }
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
  c10::intrusive_ptr<c10d::Store> store_;  // longest: the others may still want to read it
  const at::Tensor token_;
  std::unique_ptr<Heartbeat> heartbeat_;
  c10::intrusive_ptr<c10d::Backend> backend_;
  std::vector<c10::intrusive_ptr<c10d::Work>> pending_;

  c10::intrusive_ptr<c10d::Backend> gloo() const {
    auto options = c10d::ProcessGroupGloo::Options::create(kWork);
    options->devices.push_back(c10d::ProcessGroupGloo::createDefaultDevice());
    options->threads = 2;
    return c10::make_intrusive<c10d::ProcessGroupGloo>(store_, rank_, size_, options);
  }

  // What the libraries throw becomes one line.
  template <class Call>
  void guard(const Call& call) {
    try {
      call();
    } catch (const std::exception& error) {
      const std::string gone = heartbeat_->gone();
      if (!gone.empty()) {
        heartbeat_->linger();
        fail(lost(rank_, size_, gone));
      }
      fail("rank ", rank_, " of ", size_, ": the processes cannot reach each other (",
           first_line(error.what()),
           "); start all of them again, they go on from the last checkpoint");
    }
  }
};

}  // namespace

bool Ranks::started_again() {
  const char* count = std::getenv("TORCHELASTIC_RESTART_COUNT");
  return count != nullptr && std::strcmp(count, "0") != 0;
}

std::unique_ptr<Ranks> Ranks::from_environment(const at::Device& device) {
  if (std::getenv("WORLD_SIZE") == nullptr || number("WORLD_SIZE") <= 1) {
    return std::make_unique<Ranks>();
  }
  const int rank = number("RANK"), size = number("WORLD_SIZE");
  set_log_level();
  SEER_CHECK(rank < size, "RANK is ", rank, ", want less than WORLD_SIZE, ", size);
  return std::make_unique<ManyRanks>(rank, size, device);
}

}  // namespace seer::train
