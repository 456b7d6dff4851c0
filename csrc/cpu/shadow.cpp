#include "cpu/shadow.h"

#include "cpu/running_best.h"

namespace specee {

Shadow::Shadow(const Kernels& kernels, ThreadPool& pool, HeadStream& stream)
    : kernels_(kernels), pool_(pool), stream_(stream) {}

void Shadow::run(const std::vector<const float*>& states, const DraftHead* head, int64_t* tokens,
                 float* confidences) {
  RunningBest running(kernels_, states.size(), pool_.size(), true);
  stream_.run(states, head, [&](int member, const HeadPiece& piece) { running.see(member, piece); });
  const std::vector<int>* ids = head != nullptr ? head->ids() : nullptr;
  for (size_t i = 0; i < states.size(); ++i) {
    const Best best = running.of(i);
    tokens[i] = ids != nullptr ? (*ids)[static_cast<size_t>(best.top.token)] : best.top.token;
    confidences[i] = best.probability();
  }
}

}  // namespace specee
