// set_conditions.cuh as PTX, which drivers compile for their device (scripts/condition_ptx.py).
#pragma once

namespace specee::graph {

// clang-format off
inline constexpr char kConditionPtx[] = R"ptx(
.version 7.0
.target sm_80
.address_size 64
.extern .func cudaGraphSetConditional
(
	.param .b64 cudaGraphSetConditional_param_0,
	.param .b32 cudaGraphSetConditional_param_1
)
;
.visible .entry set_conditions(
	.param .align 8 .b8 set_conditions_param_0[1032]
)
.maxntid 64, 1, 1
{
	.reg .pred 	%p<3>;
	.reg .b32 	%r<5>;
	.reg .b64 	%rd<8>;
	mov.b64 	%rd2, set_conditions_param_0;
	ld.param.u32 	%r2, [set_conditions_param_0+1024];
	mov.u32 	%r1, %tid.x;
	setp.ge.s32 	%p1, %r1, %r2;
	@%p1 bra 	$L__BB0_2;
	mul.wide.s32 	%rd3, %r1, 8;
	add.s64 	%rd4, %rd2, %rd3;
	ld.param.u64 	%rd5, [%rd4];
	ld.param.u64 	%rd6, [%rd4+512];
	cvta.to.global.u64 	%rd7, %rd6;
	ld.global.u32 	%r3, [%rd7];
	setp.ne.s32 	%p2, %r3, 0;
	selp.u32 	%r4, 1, 0, %p2;
	{
	.reg .b32 temp_param_reg;
	.param .b64 param0;
	st.param.b64 	[param0+0], %rd5;
	.param .b32 param1;
	st.param.b32 	[param1+0], %r4;
	call.uni
	cudaGraphSetConditional,
	(
	param0,
	param1
	);
	}
$L__BB0_2:
	ret;
}
)ptx";
// clang-format on

}  // namespace specee::graph
