#include "cpu/isa.h"

#include <cerrno>
#include <cstring>
#include <iterator>

#include "specee/errors.h"

#ifdef SPECEE_X86
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace specee {
namespace {

struct Isa {
  const Kernels& (*kernels)();
  bool (*supported)();  // by processor and system; asks for nothing
  bool (*ready)();      // asks the system for what the process needs; errno says why not
};

bool always() { return true; }

#ifdef SPECEE_X86
// __builtin_cpu_supports also asks whether the operating system saves the wide registers.
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
bool has_avx512vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
bool has_avx512bf16() { return has_avx512vnni() && __builtin_cpu_supports("avx512bf16"); }

// Linux gives tile registers to processes that ask, since saving them needs room on every signal's stack: one
// that has been given them can no longer set up an alternate stack of less than about 12 KB.
constexpr long kSupportedParts = 0x1021, kRequestPart = 0x1023;  // ARCH_GET_XCOMP_SUPP, ARCH_REQ_XCOMP_PERM
constexpr long kTileData = 18;                                   // XFEATURE_XTILEDATA

bool has_amx() {
  uint64_t parts = 0;
  return has_avx512bf16() && __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
         syscall(SYS_arch_prctl, kSupportedParts, &parts) == 0 && (parts >> kTileData & 1) != 0;
}
bool granted_tiles() { return syscall(SYS_arch_prctl, kRequestPart, kTileData) == 0; }

// Put together here: every processor lists all tables, and code in an instruction set's own files could not
// run on each.
Kernels with_products(Kernels table, const char* name, const LinearKernels& own) {
  table.name = name;
  for (int type = 0; type < kWeightTypes; ++type)
    if (own.of[type] != nullptr) table.linear.of[type] = own.of[type];
  return table;
}

const Kernels& kernels_avx512vnni() {
  static const Kernels table = with_products(kernels_avx512(), "avx512vnni", kAvx512VnniLinear);
  return table;
}

const Kernels& kernels_avx512bf16() {
  static const Kernels table = [] {
    Kernels made = with_products(kernels_avx512vnni(), "avx512bf16", kAvx512Bf16Linear);
    made.bf16_form = InputForm::halves;
    return made;
  }();
  return table;
}

const Kernels& kernels_amx() {  // with inputs in halves, as the table has them that this one begins with
  static const Kernels table = with_products(kernels_avx512bf16(), "amx", kAmxLinear);
  return table;
}

constexpr Isa kIsas[] = {
    {kernels_portable, always, always},           {kernels_avx2, has_avx2, always},
    {kernels_avx512, has_avx512, always},         {kernels_avx512vnni, has_avx512vnni, always},
    {kernels_avx512bf16, has_avx512bf16, always}, {kernels_amx, has_amx, granted_tiles}};
#else
constexpr Isa kIsas[] = {{kernels_portable, always, always}};
#endif

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

}  // namespace

std::vector<std::string> compiled_isas() {
  std::vector<std::string> names;
  for (const Isa& isa : kIsas) names.push_back(isa.kernels().name);
  return names;
}

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (const Isa& isa : kIsas)
    if (isa.supported()) names.push_back(isa.kernels().name);
  return names;
}

const Kernels& select_kernels(const std::string& name) {
  for (size_t i = std::size(kIsas); i-- > 0;) {
    const Isa& isa = kIsas[i];
    if ((!name.empty() && name != isa.kernels().name) || !isa.supported()) continue;
    if (isa.ready()) return isa.kernels();
    const int why = errno;
    if (!name.empty())
      throw ConfigurationError("instruction set '" + name + "' is not available: the system refuses it (" +
                               std::strerror(why) + "), as it does where a thread has a small stack for " +
                               "signals; choose another with SPECEE_FORCE_ISA, or unset it");
  }
  throw ConfigurationError("instruction set '" + name +
                           "' is not available: this processor and build support " +
                           joined(supported_isas()) + " (compiled: " + joined(compiled_isas()) +
                           "); choose one of those with SPECEE_FORCE_ISA, or unset it");
}

}  // namespace specee
