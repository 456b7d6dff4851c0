// How much time shadow tokens of one sequence may take: a share of what the request takes, spent when there
// is enough.
#pragma once

namespace specee::policy {

class ShadowBudget {
 public:
  // A step took `seconds`, `shadow` of them for shadow tokens; `drafting`: whether an exit layer drafted.
  void note(double seconds, double shadow, bool drafting) {
    spent_ += shadow;
    (drafting ? drafting_ : elapsed_) += seconds;
  }
  // Seconds that can be spent, with plain decoding of all that may come taking `coming`; `near`: whether
  // drafting nearly pays.
  double left(double coming, bool near) const {
    const double aside = (near ? kNear : kAside) * (elapsed_ + kAhead * coming);
    return aside + kDrafting * drafting_ - spent_;
  }

 private:
  // Shares of the request's time: while nothing is drafted; while it nearly pays; and while it pays.
  static constexpr double kAside = 0.01, kNear = 0.02, kDrafting = 0.05;
  static constexpr double kAhead =
      0.5;  // of the tokens that may still come, counted on before they are there
  double elapsed_ = 0, drafting_ = 0, spent_ = 0;
};

}  // namespace specee::policy
