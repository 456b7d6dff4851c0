// Fetching of weights ahead of their use, called from the kernels' loops (kernels.h, WeightStream).
#pragma once

#include "cpu/kernels.h"

namespace {

using specee::WeightStream;

inline constexpr ptrdiff_t kLine = 64;
// Products of many rows fetch their own weights and the beginning of the next product's; from how many on,
// the instruction set's files say (fetch_rows(), quant_fetch_rows()). Where cores have deep hardware
// prefetchers, few rows do better without: prefetchers have more requests under way than fetch instructions
// may, which would take places in the queue from them. With many rows arithmetic takes longer than memory,
// and they lose track. Few rows fetch where prefetchers have to find a stream anew: where it begins
// (NextBlocks), and at every page (fetch_pages()); some packed ones all of the blocks that come next.

// How far ahead; and how much of the next product, at the end of one: what memory delivers while members wait
// for each other and hardware prefetchers find their stride.
inline constexpr ptrdiff_t kBridge = 48 * 1024;
// Of the next product, in a step without weights: a quarter of a second-level cache of 1 MiB.
inline constexpr ptrdiff_t kIdle = 256 * 1024;

// Weights that a tile multiplies, for a stream that may be null, and whether to fetch.
struct FetchShare {
  WeightStream* stream;
  ptrdiff_t bytes;
  bool fetches;

  FetchShare times(int count) const { return {stream, count * bytes, fetches}; }
};

// What one loop fetches. Its state is the loop's own, and in registers; the stream learns of it in done().
class LoopFetch {
 public:
  // While a share of weights is multiplied in `steps` equal steps.
  LoopFetch(const FetchShare& share, int steps) {
    WeightStream* stream = share.stream;
    if (stream == nullptr) return;
    const ptrdiff_t bytes = share.bytes;
    const specee::WeightRun& run = stream->runs[stream->current];
    const ptrdiff_t ahead = run.bytes - stream->left + kBridge;
    stream->left -= bytes;
    if (!share.fetches) return;
    if (stream->left < kBridge && stream->current + 1 < stream->count) {
      per_step_ = static_cast<uintptr_t>(2 * bytes / steps);
      start(stream->runs[stream->current + 1], stream->fetched_next, kBridge);
    } else if (ahead < run.bytes) {
      per_step_ = static_cast<uintptr_t>(bytes / steps);
      from_ = at_ = due_ = run.begin + static_cast<uintptr_t>(ahead);
      end_ = run.begin + static_cast<uintptr_t>(run.bytes);
    }
  }
  // While no weights are read: so many lines a step.
  LoopFetch(WeightStream* stream, int lines) : per_step_(static_cast<uintptr_t>(lines * kLine)) {
    if (stream == nullptr || stream->current >= stream->count) return;
    start(stream->runs[stream->current], stream->fetched, kIdle);
  }
  void step() {
    due_ += per_step_;
    const uintptr_t stop = due_ < end_ ? due_ : end_;
    for (; at_ < stop; at_ += kLine) __builtin_prefetch(reinterpret_cast<const void*>(at_), 0, 2);
  }
  void done() {
    if (counter_ != nullptr) *counter_ += static_cast<ptrdiff_t>(at_ - from_);
  }

 private:
  void start(const specee::WeightRun& run, ptrdiff_t& fetched, ptrdiff_t most) {
    const ptrdiff_t limit = most < run.bytes ? most : run.bytes;
    if (fetched >= limit) return;
    counter_ = &fetched;
    from_ = at_ = due_ = run.begin + static_cast<uintptr_t>(fetched);
    end_ = run.begin + static_cast<uintptr_t>(limit);
  }
  ptrdiff_t* counter_ = nullptr;
  uintptr_t from_ = 0, at_ = 0, due_ = 0, end_ = 0, per_step_ = 0;
};

inline constexpr uintptr_t kPage = 4096, kPageAhead = 1024;
inline constexpr int kPageLines = 8;

// The first lines of the pages that streams come to kPageAhead bytes from now: prefetchers do not run on into
// a page by themselves. `at`, of the first block, moves on by Bytes from call to call. Always inline: to GCC
// a function that fetches does nothing, and is not called.
template <int Blocks, ptrdiff_t Bytes>
__attribute__((always_inline)) inline void fetch_pages(const char* at, ptrdiff_t block_bytes) {
#pragma GCC unroll 8
  for (int b = 0; b < Blocks; ++b) {
    const uintptr_t soon = reinterpret_cast<uintptr_t>(at + b * block_bytes) + kPageAhead;
    if (soon % kPage >= static_cast<uintptr_t>(Bytes)) continue;
    const char* page = reinterpret_cast<const char*>(soon / kPage * kPage);
    for (int i = 0; i < kPageLines; ++i) __builtin_prefetch(page + i * kLine, 0, 2);
  }
}

// The blocks that are read next, as many at a time as there are streams. Of three and more, the beginnings:
// hardware prefetchers follow a stream well, but have to find each anew. Of two, which they find too late too
// often, everything.
class NextBlocks {
 public:
  // `after` a tile that takes `steps` steps: the blocks there; behind a member's last ones, the first of the
  // next product. Made after the tile's LoopFetch, which takes its bytes off the stream. In vain where
  // neither is read.
  NextBlocks(const char* after, ptrdiff_t block_bytes, int steps, const WeightStream* stream)
      : first_(after), block_bytes_(block_bytes), lines_(steps < kLines ? steps : kLines) {
    if (stream == nullptr || stream->left > 0 || stream->current + 1 >= stream->count) return;
    const specee::WeightRun& run = stream->runs[stream->current + 1];
    first_ = reinterpret_cast<const char*>(run.begin);
    block_bytes_ = run.block_bytes;
  }
  // In each of the last steps: a line of each. Always inline, as fetch_pages() is.
  template <int Blocks>
  __attribute__((always_inline)) void step(int steps_left) const {
    if (steps_left > lines_) return;
    const char* line = first_ + (lines_ - steps_left) * kLine;
#pragma GCC unroll 8
    for (int b = 0; b < Blocks; ++b) __builtin_prefetch(line + b * block_bytes_, 0, 2);
  }
  // In each step: as many bytes of each, from `at` on, as the step reads of the blocks in use.
  template <int Blocks, ptrdiff_t Bytes>
  __attribute__((always_inline)) void all(ptrdiff_t at) const {
#pragma GCC unroll 16
    for (ptrdiff_t i = 0; i < Bytes; i += kLine)
#pragma GCC unroll 8
      for (int b = 0; b < Blocks; ++b) __builtin_prefetch(first_ + at + i + b * block_bytes_, 0, 2);
  }

 private:
  static constexpr int kLines = 16;
  const char* first_;
  ptrdiff_t block_bytes_;
  int lines_;
};

}  // namespace
