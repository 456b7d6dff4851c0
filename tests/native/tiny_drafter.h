// Drafter blocks and exit predictors of random weights.
#pragma once

#include <memory>
#include <vector>

#include "check.h"
#include "cpu/engine.h"

namespace native {

// Of any width, stored in any format; what is missing or misfits is refused on the way.
std::unique_ptr<specee::Drafter> some_drafter(specee::Engine& engine, const std::vector<int>& layers,
                                              Random& random);

// For every layer but the last.
std::unique_ptr<specee::ExitPredictors> some_predictors(specee::Engine& engine, int candidates,
                                                        Random& random);

}  // namespace native
