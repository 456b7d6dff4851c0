// The native tests, each over random cases made from a seed.
#pragma once

#include <string>

#include "check.h"
#include "cpu/kernels.h"

namespace native {

void test_linear(const specee::Kernels& kernels, Random& random);
void test_bf16_linear(const specee::Kernels& kernels, Random& random);
// That two tables give the same bits.
void test_same_bf16(const specee::Kernels& kernels, const specee::Kernels& other, Random& random);
// Products by AMX over tiles in plain C++, and the processor's, if it has any, beside them.
void test_tile_linear(Random& random);
void test_quant_linear(const specee::Kernels& kernels, Random& random);
void test_quantise_row(const specee::Kernels& kernels, Random& random);
void test_rms_norm(const specee::Kernels& kernels, Random& random);
void test_attention(const specee::Kernels& kernels, Random& random);
void test_logit_runs(const specee::Kernels& kernels, Random& random);
void test_sweep(const specee::Kernels& kernels, Random& random);
void test_thread_pool(Random& random);
// Index arithmetic of the CUDA kernels: where packed weights are, and what depends on the number of rows.
void test_tiles(Random& random);
// Which exit layers are drafted at and looked at, over a random text.
void test_policy(Random& random);
// A whole engine with arbitrary interleavings of the verbs, against plain decoding of the same text.
void test_sequences(const std::string& isa, Random& random);
// Draft heads of a whole engine, against its own head.
void test_draft_heads(const std::string& isa, Random& random);
// What kept states would draft, against drafts of sequences at their layers; passes that are interrupted.
void test_shadow(const std::string& isa, Random& random);
// Chains of a drafter block, whose columns follow texts, against new columns.
void test_drafter(const std::string& isa, Random& random);
// Whole rounds, against plain decoding of the same text.
void test_rounds(const std::string& isa, Random& random);
// Rows that leave early, alone and beside others, and what is completed of them later.
void test_exits(const std::string& isa, Random& random);
// A soak of so many requests from two threads on one engine, against each by itself.
inline constexpr int kSoakRequests = 50;
void test_soak(const std::string& isa, Random& random);

}  // namespace native
