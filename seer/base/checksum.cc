#include "seer/base/checksum.h"

#include <xxhash.h>

#include <cstdio>
#include <new>

namespace seer {

struct Checksum::State {
  XXH3_state_t* xxh;
};

void Checksum::Free::operator()(State* state) const {
  XXH3_freeState(state->xxh);
  delete state;
}

Checksum::Checksum() : state_(new State{XXH3_createState()}) {
  if (state_->xxh == nullptr) throw std::bad_alloc();
  XXH3_64bits_reset(state_->xxh);
}

void Checksum::add(const void* bytes, size_t size) {
  XXH3_64bits_update(state_->xxh, bytes, size);
}

std::string Checksum::hex() const {
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx",
                static_cast<unsigned long long>(XXH3_64bits_digest(state_->xxh)));
  return text;
}

std::string checksum_of(std::string_view bytes) {
  Checksum checksum;
  checksum.add(bytes.data(), bytes.size());
  return checksum.hex();
}

}  // namespace seer
