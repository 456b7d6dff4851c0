// Vector functions written once over Vec: the same operations in the same order on every instruction set.
// Include after exactly one vec_*.h. Everything here has internal linkage, and nothing comes from std::, so
// that no code compiled for a newer processor can be picked by the linker for an older one.
#pragma once

namespace {

// e^x within 2 ulp on [-87.3, 88]; arguments outside are clamped to it. Cody-Waite reduction, then the
// degree-6 Taylor-like minimax polynomial in Horner form.
inline Vec vexp(const Vec& argument) {
  const Vec shift = vset(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vec low = vset(-87.3f);
  Vec x = vmax(argument, low);
  x = vmul(vmax(vmul(x, vset(-1.0f)), vset(-88.0f)), vset(-1.0f));
  const Vec t = vfma(x, vset(1.44269504088896341f), shift);
  const Vec n = vadd(t, vset(-12582912.0f));
  Vec r = vfma(n, vset(-0.693145751953125f), x);
  r = vfma(n, vset(-1.42860682030941723e-6f), r);
  Vec p = vset(1.0f / 720.0f);
  p = vfma(p, r, vset(1.0f / 120.0f));
  p = vfma(p, r, vset(1.0f / 24.0f));
  p = vfma(p, r, vset(1.0f / 6.0f));
  p = vfma(p, r, vset(0.5f));
  p = vfma(p, r, vset(1.0f));
  p = vfma(p, r, vset(1.0f));
  return vmul(p, vpow2_shifted(t));
}

// x * sigmoid(x)
inline Vec vsilu(const Vec& x) { return vdiv(x, vadd(vset(1.0f), vexp(vmul(x, vset(-1.0f))))); }

}  // namespace
