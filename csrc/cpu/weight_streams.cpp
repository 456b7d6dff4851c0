#include "cpu/weight_streams.h"

#include <algorithm>
#include <numeric>

namespace specee {

Range share_blocks(int index, int size, const PackedMatrix& matrix, Epilogue epilogue) {
  const int together = epilogue == Epilogue::swiglu ? 2 : 1;
  const Range range = share(index, size, matrix.blocks() / together);
  return {range.begin * together, range.end * together};
}

Range share_heads(int index, int size, const ModelConfig& config) {
  const int unit = kLanes / std::gcd(kLanes, config.head_dim);
  const int heads = config.num_heads + 2 * config.num_kv_heads;
  // From the end, so that the last members, who have the keys and values to store, are those with one unit
  // less.
  const int units = (heads + unit - 1) / unit;
  const Range mirrored = share(size - 1 - index, size, units);
  return {(units - mirrored.end) * unit, std::min(heads, (units - mirrored.begin) * unit)};
}

Range head_blocks(Range heads, const ModelConfig& config, const PackedMatrix& part, int first) {
  const int begin = std::max(heads.begin * config.head_dim - first, 0);
  const int end = std::min(heads.end * config.head_dim - first, part.outputs());
  return {begin / kLanes, std::max(begin / kLanes, round_up(end, kLanes) / kLanes)};
}

WeightRun weight_run(const PackedMatrix& matrix, Range blocks) {
  const char* from = matrix.data() + blocks.begin * matrix.block_bytes();
  return {reinterpret_cast<uintptr_t>(from), (blocks.end - blocks.begin) * matrix.block_bytes(),
          matrix.block_bytes()};
}

WeightStreams::WeightStreams(const ModelConfig& config, const ModelWeights& weights, int members)
    : layers_(config.num_layers),
      runs_(static_cast<size_t>(members)),
      streams_(static_cast<size_t>(members)) {
  for (int member = 0; member < members; ++member) {
    std::vector<WeightRun>& runs = runs_[static_cast<size_t>(member)];
    const auto add = [&](const PackedMatrix& matrix, Range blocks) {
      runs.push_back(weight_run(matrix, blocks));
    };
    const Range heads = share_heads(member, members, config);
    const auto add_heads = [&](const LayerWeights& w) {
      int first = 0;
      for (const PackedMatrix& part : w.qkv) {
        add(part, head_blocks(heads, config, part, first));
        first += part.outputs();
      }
    };
    first_run_.clear();
    for (int l = 0; l < layers_; ++l) {
      const LayerWeights& w = weights.layer(l);
      first_run_.push_back(runs.size());
      add_heads(w);
      add(w.o, share_blocks(member, members, w.o, Epilogue::add));
      add(w.gate_up, share_blocks(member, members, w.gate_up, Epilogue::swiglu));
      add(w.down, share_blocks(member, members, w.down, Epilogue::add));
    }
    first_run_.push_back(runs.size());
    add(weights.head(), share_blocks(member, members, weights.head(), Epilogue::store));
    add_heads(weights.layer(0));  // the next token's
    streams_[static_cast<size_t>(member)] = {runs.data(), static_cast<int>(runs.size()), 0, 0, 0, 0};
  }
}

void WeightStreams::begin(int member, int layer, int to_layer) {
  WeightStream& stream = *of(member);
  const int head = static_cast<int>(first_run_.back()),
            from = static_cast<int>(first_run_[static_cast<size_t>(layer)]);
  // The pass before may have fetched the beginning of this one: the head's weights, or layer 0's.
  const bool met = stream.current == from || (layer == 0 && stream.current == head + 1);
  stream.count = static_cast<int>(to_layer < layers_ ? first_run_[static_cast<size_t>(to_layer)]
                                                     : runs_[static_cast<size_t>(member)].size());
  stream.current = from;
  stream.left = stream.runs[from].bytes;
  if (!met) stream.fetched = 0;
  stream.fetched_next = 0;
}

void WeightStreams::done(int member) {
  WeightStream& stream = *of(member);
  ++stream.current;
  stream.left = stream.current < stream.count ? stream.runs[stream.current].bytes : 0;
  stream.fetched = stream.fetched_next;
  stream.fetched_next = 0;
}

}  // namespace specee
