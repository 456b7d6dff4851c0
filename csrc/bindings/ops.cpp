#include "bindings/ops.h"

#include <pybind11/stl.h>

#include "bindings/buffers.h"
#include "bindings/parse.h"
#include "cpu/isa.h"
#include "cpu/ops.h"

namespace py = pybind11;

namespace specee {
namespace {

int positive(int64_t value, const char* what) {
  if (value < 1 || value > (1 << 24))
    throw ConfigurationError(std::string(what) + "=" + std::to_string(value) + ": allowed are 1 to 2^24");
  return static_cast<int>(value);
}

void check_shape(bool same, const char* what) {
  if (!same) throw RowError(std::string(what) + " has the wrong shape");
}

std::unique_ptr<LinearOp> make_linear(int64_t outputs, int64_t k, const std::string& format,
                                      const std::string& isa, int threads, int64_t copies, bool swiglu) {
  return std::make_unique<LinearOp>(positive(outputs, "outputs"), positive(k, "k"), parse_weight_type(format),
                                    isa, threads, positive(copies, "copies"), swiglu);
}

template <class Op>
void set_rows(Op& op, int row_begin, const py::buffer& values, const std::string& format) {
  const py::buffer_info info = values.request();
  const WeightType source = parse_weight_type(format);
  const WeightRows rows = weight_rows_of(info, source, "values");
  op.set_rows(row_begin, rows.rows, rows.columns, rows.data, source);
}

void run_linear_op(LinearOp& op, const Array<float>& x, Array<float> y) {
  const py::ssize_t rows = float_rows(x, op.k(), "x");
  check_shape(float_rows(y, op.outputs(), "y") == rows, "y");
  const float* from = x.data();
  float* into = y.mutable_data();
  py::gil_scoped_release release;
  op.run(from, static_cast<int>(rows), into);
}

void bind_linear(py::module_& m) {
  py::class_<LinearOp>(m, "Linear")
      .def(py::init(&make_linear), py::arg("outputs"), py::arg("k"), py::arg("format"), py::arg("isa") = "",
           py::arg("threads") = 1, py::arg("copies") = 1, py::arg("swiglu") = false)
      .def("set_rows", &set_rows<LinearOp>)
      .def("run", &run_linear_op, py::arg("x").noconvert(), py::arg("y").noconvert())
      .def_property_readonly("bytes", &LinearOp::bytes);
}

std::unique_ptr<AttentionOp> make_attention(int num_heads, int num_kv_heads, int head_dim, int context,
                                            const std::string& kv_dtype, const std::string& isa, int threads,
                                            int copies) {
  return std::make_unique<AttentionOp>(num_heads, num_kv_heads, head_dim, context, parse_dtype(kv_dtype), isa,
                                       threads, copies);
}

void set_cache(AttentionOp& op, const Array<float>& keys, const Array<float>& values) {
  const py::ssize_t columns = op.config().kv_dim();
  check_shape(float_rows(keys, columns, "keys") == op.context(), "keys");
  check_shape(float_rows(values, columns, "values") == op.context(), "values");
  op.set(keys.data(), values.data());
}

void run_attention(AttentionOp& op, const Array<float>& q, Array<float> out) {
  const py::ssize_t rows = float_rows(q, op.config().q_dim(), "q");
  check_shape(float_rows(out, op.config().q_dim(), "out") == rows, "out");
  const float* from = q.data();
  float* into = out.mutable_data();
  py::gil_scoped_release release;
  op.run(from, static_cast<int>(rows), into);
}

void bind_attention(py::module_& m) {
  py::class_<AttentionOp>(m, "Attention")
      .def(py::init(&make_attention), py::arg("num_heads"), py::arg("num_kv_heads"), py::arg("head_dim"),
           py::arg("context"), py::arg("kv_dtype"), py::arg("isa") = "", py::arg("threads") = 1,
           py::arg("copies") = 1)
      .def("set", &set_cache, py::arg("keys").noconvert(), py::arg("values").noconvert())
      .def("run", &run_attention, py::arg("q").noconvert(), py::arg("out").noconvert())
      .def_property_readonly("bytes", &AttentionOp::bytes);
}

Array<int64_t> argmax(HeadOp& op, const Array<float>& x) {
  const py::ssize_t rows = float_rows(x, op.k(), "x");
  Array<int64_t> out(rows);
  const float* from = x.data();
  int64_t* into = out.mutable_data();
  py::gil_scoped_release release;
  op.argmax(from, static_cast<int>(rows), into);
  return out;
}

py::tuple shadow(HeadOp& op, const Array<float>& x) {
  const py::ssize_t rows = float_rows(x, op.k(), "x");
  Array<int64_t> tokens(rows);
  Array<float> confidences(rows);
  const float* from = x.data();
  int64_t* token_data = tokens.mutable_data();
  float* confidence_data = confidences.mutable_data();
  {
    py::gil_scoped_release release;
    op.shadow(from, static_cast<int>(rows), token_data, confidence_data);
  }
  return py::make_tuple(tokens, confidences);
}

void bind_head(py::module_& m) {
  py::class_<HeadOp>(m, "Head")
      .def(py::init(
               [](int64_t vocab, int64_t k, const std::string& format, const std::string& isa, int threads) {
                 return std::make_unique<HeadOp>(positive(vocab, "vocab"), positive(k, "k"),
                                                 parse_weight_type(format), isa, threads);
               }),
           py::arg("vocab"), py::arg("k"), py::arg("format"), py::arg("isa") = "", py::arg("threads") = 1)
      .def("set_rows", &set_rows<HeadOp>)
      .def("argmax", &argmax, py::arg("x").noconvert())
      .def("shadow", &shadow, py::arg("x").noconvert())
      .def_property_readonly("bytes", &HeadOp::bytes);
}

void rms_norm(const Array<float>& x, const Array<float>& w, float eps, Array<float> y,
              const std::string& isa) {
  check_shape(x.size() == w.size() && x.size() == y.size() && x.size() > 0, "w or y");
  select_kernels(isa).rms_norm(x.data(), w.data(), eps, static_cast<int>(x.size()), y.mutable_data());
}

// Integers, and the scale of each 32 of them.
py::tuple quantise_row(const Array<float>& x, const std::string& isa) {
  const int k = static_cast<int>(x.size());
  std::vector<QuantUnit> units(static_cast<size_t>(quant_units(k)));
  select_kernels(isa).quantise_row(x.data(), k, units.data());
  Array<int8_t> q(k);
  Array<float> scales(static_cast<py::ssize_t>(units.size()));
  for (int i = 0; i < k; ++i) q.mutable_at(i) = units[static_cast<size_t>(i / kUnit)].q[i % kUnit];
  for (size_t u = 0; u < units.size(); ++u) scales.mutable_at(static_cast<py::ssize_t>(u)) = units[u].scale;
  return py::make_tuple(q, scales);
}

}  // namespace

void bind_ops(py::module_& parent) {
  py::module_ m = parent.def_submodule("ops", "Single operations, for benchmarks and tests");
  bind_linear(m);
  bind_attention(m);
  bind_head(m);
  m.def("rms_norm", &rms_norm, py::arg("x").noconvert(), py::arg("w").noconvert(), py::arg("eps"),
        py::arg("y").noconvert(), py::arg("isa") = "");
  m.def("quantize_row", &quantise_row, py::arg("x").noconvert(), py::arg("isa") = "");
}

}  // namespace specee
