#pragma once
// For tests: what calls of any attention op must do.

#include <gtest/gtest.h>
#include <omp.h>

#include <cstring>
#include <functional>
#include <initializer_list>
#include <string>

#include "seer/kernels/attention/testing/attention_closeness.h"

namespace seer::kernels {

inline bool same_bits(const AttentionCall& a, const AttentionCall& b) {
  const auto same = [](const auto& x, const auto& y) {
    return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(x[0])) == 0;
  };
  return same(a.o.bytes, b.o.bytes) && same(a.lse, b.lse) && same(a.map, b.map);
}

// On the CPU.
template <class Call, class Shape, class Attend>
void same_bits_for_every_thread_count(const Shape& shape, const Attend& attend) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Call first(shape, dtype);
    attend(first.params());
    for (const int threads : {1, 2, 3, 2}) {
      Call again(shape, dtype);
      const int before = omp_get_max_threads();
      omp_set_num_threads(threads);
      attend(again.params());
      omp_set_num_threads(before);
      EXPECT_TRUE(same_bits(first, again)) << name(dtype) << " " << threads;
    }
  }
}

// The spoiled call is an error that says all of these.
template <class Call, class Attend, class Spoil>
void expect_error(Call call, const Attend& attend, const Spoil& spoil,
                  std::initializer_list<const char*> texts) {
  auto p = call.params();
  spoil(call, p);
  try {
    attend(p);
    FAIL() << "no error; want " << *texts.begin();
  } catch (const Error& error) {
    for (const char* text : texts) {
      EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
    }
  }
}

}  // namespace seer::kernels
