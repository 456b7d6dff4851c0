// One thread of a soak: answers its requests one after the other, and compares each with its isolated run.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <vector>

#include "soak_locks.h"
#include "soak_request.h"

namespace native {

class SoakClient {
 public:
  // `stranger`: a sequence of another engine, which nobody else has.
  SoakClient(specee::Engine& engine, std::unique_ptr<specee::Sequence> stranger, Locks& locks,
             std::vector<SoakRequest> requests);

  // Before any of them runs. A client now and then touches what its neighbour is working on.
  void meet(SoakClient& neighbour) { neighbour_ = &neighbour; }
  void run();

  // How often a mishap came about, and a draft was accepted.
  int count(Mishap mishap) const { return counts_[static_cast<size_t>(mishap)]; }
  int accepted() const { return accepted_; }

 private:
  struct Active {
    const SoakText* text;
    std::unique_ptr<specee::Sequence> sequence;
    std::vector<int> tokens;
    bool over() const;
    int newest() const { return sequence->length() - 1; }
  };

  void begin(const SoakRequest& request);
  bool answered(const SoakRequest& request);  // to the end
  void end();
  void compare();
  bool over() const;
  void settle();

  void step(const SoakRequest& request, bool mishap, Random& random);
  void draft_at(int layer, Active& active, Random& random);
  void draft_tree(Active& active, Random& random);
  void verify(bool interrupt);
  void between(bool interrupt);
  void accept(Active& active, const std::vector<int>& slots, const int64_t* targets);
  void refuse(Active& active, Random& random);
  void touch_neighbour();

  specee::Engine& engine_;
  const std::unique_ptr<specee::Sequence> stranger_;
  Locks& locks_;
  const std::vector<SoakRequest> requests_;
  SoakClient* neighbour_ = nullptr;
  std::vector<Active> active_;
  specee::Sequence* shown_ = nullptr;  // what the neighbour may touch; under Python's lock
  std::array<int, kMishaps> counts_{};
  int accepted_ = 0;
};

}  // namespace native
