//! The machine's vector instructions: for each operation its code at every width.

use iced_x86::Code::{self, *};

use super::lir::{Level, Op, Width};

/// Codes by instruction set and width: VEX of lane 0, 4 and 8 lanes; EVEX of lane 0, 4, 8, 16.
type Row = [Code; 7];

fn column(level: Level, width: Width) -> usize {
    let width = match width {
        Width::X => 1,
        Width::Y => 2,
        Width::Z => 3,
        _ => 0,
    };
    if level == Level::Avx512 { 3 + width } else { width }
}

/// The code of a vector operation; [`Code::INVALID`] if there is none.
pub fn code(op: Op, level: Level, width: Width) -> Code {
    row(op)[column(level, width)]
}

/// Which of a multiply-add's operands are multiplied: of destination, second and third operand, by number.
pub fn fma(order: Order, level: Level, width: Width) -> Code {
    let row: Row = match order {
        Order::F132 => [
            VEX_Vfmadd132ss_xmm_xmm_xmmm32,
            VEX_Vfmadd132ps_xmm_xmm_xmmm128,
            VEX_Vfmadd132ps_ymm_ymm_ymmm256,
            EVEX_Vfmadd132ss_xmm_k1z_xmm_xmmm32_er,
            EVEX_Vfmadd132ps_xmm_k1z_xmm_xmmm128b32,
            EVEX_Vfmadd132ps_ymm_k1z_ymm_ymmm256b32,
            EVEX_Vfmadd132ps_zmm_k1z_zmm_zmmm512b32_er,
        ],
        Order::F213 => [
            VEX_Vfmadd213ss_xmm_xmm_xmmm32,
            VEX_Vfmadd213ps_xmm_xmm_xmmm128,
            VEX_Vfmadd213ps_ymm_ymm_ymmm256,
            EVEX_Vfmadd213ss_xmm_k1z_xmm_xmmm32_er,
            EVEX_Vfmadd213ps_xmm_k1z_xmm_xmmm128b32,
            EVEX_Vfmadd213ps_ymm_k1z_ymm_ymmm256b32,
            EVEX_Vfmadd213ps_zmm_k1z_zmm_zmmm512b32_er,
        ],
        Order::F231 => [
            VEX_Vfmadd231ss_xmm_xmm_xmmm32,
            VEX_Vfmadd231ps_xmm_xmm_xmmm128,
            VEX_Vfmadd231ps_ymm_ymm_ymmm256,
            EVEX_Vfmadd231ss_xmm_k1z_xmm_xmmm32_er,
            EVEX_Vfmadd231ps_xmm_k1z_xmm_xmmm128b32,
            EVEX_Vfmadd231ps_ymm_k1z_ymm_ymmm256b32,
            EVEX_Vfmadd231ps_zmm_k1z_zmm_zmmm512b32_er,
        ],
    };
    row[column(level, width)]
}

/// How `d`, `x`, `y` (the one that may be in memory) come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `d = d·y + x`
    F132,
    /// `d = x·d + y`
    F213,
    /// `d = x·y + d`
    F231,
}

#[rustfmt::skip]
fn row(op: Op) -> Row {
    match op {
        Op::AddF => [
            VEX_Vaddss_xmm_xmm_xmmm32, VEX_Vaddps_xmm_xmm_xmmm128, VEX_Vaddps_ymm_ymm_ymmm256, EVEX_Vaddss_xmm_k1z_xmm_xmmm32_er,
            EVEX_Vaddps_xmm_k1z_xmm_xmmm128b32, EVEX_Vaddps_ymm_k1z_ymm_ymmm256b32, EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er,
        ],
        Op::SubF => [
            VEX_Vsubss_xmm_xmm_xmmm32, VEX_Vsubps_xmm_xmm_xmmm128, VEX_Vsubps_ymm_ymm_ymmm256, EVEX_Vsubss_xmm_k1z_xmm_xmmm32_er,
            EVEX_Vsubps_xmm_k1z_xmm_xmmm128b32, EVEX_Vsubps_ymm_k1z_ymm_ymmm256b32, EVEX_Vsubps_zmm_k1z_zmm_zmmm512b32_er,
        ],
        Op::MulF => [
            VEX_Vmulss_xmm_xmm_xmmm32, VEX_Vmulps_xmm_xmm_xmmm128, VEX_Vmulps_ymm_ymm_ymmm256, EVEX_Vmulss_xmm_k1z_xmm_xmmm32_er,
            EVEX_Vmulps_xmm_k1z_xmm_xmmm128b32, EVEX_Vmulps_ymm_k1z_ymm_ymmm256b32, EVEX_Vmulps_zmm_k1z_zmm_zmmm512b32_er,
        ],
        Op::DivF => [
            VEX_Vdivss_xmm_xmm_xmmm32, VEX_Vdivps_xmm_xmm_xmmm128, VEX_Vdivps_ymm_ymm_ymmm256, EVEX_Vdivss_xmm_k1z_xmm_xmmm32_er,
            EVEX_Vdivps_xmm_k1z_xmm_xmmm128b32, EVEX_Vdivps_ymm_k1z_ymm_ymmm256b32, EVEX_Vdivps_zmm_k1z_zmm_zmmm512b32_er,
        ],
        Op::MaxF => [
            VEX_Vmaxss_xmm_xmm_xmmm32, VEX_Vmaxps_xmm_xmm_xmmm128, VEX_Vmaxps_ymm_ymm_ymmm256, EVEX_Vmaxss_xmm_k1z_xmm_xmmm32_sae,
            EVEX_Vmaxps_xmm_k1z_xmm_xmmm128b32, EVEX_Vmaxps_ymm_k1z_ymm_ymmm256b32, EVEX_Vmaxps_zmm_k1z_zmm_zmmm512b32_sae,
        ],
        Op::MinF => [
            VEX_Vminss_xmm_xmm_xmmm32, VEX_Vminps_xmm_xmm_xmmm128, VEX_Vminps_ymm_ymm_ymmm256, EVEX_Vminss_xmm_k1z_xmm_xmmm32_sae,
            EVEX_Vminps_xmm_k1z_xmm_xmmm128b32, EVEX_Vminps_ymm_k1z_ymm_ymmm256b32, EVEX_Vminps_zmm_k1z_zmm_zmmm512b32_sae,
        ],
        Op::Sqrt => [
            INVALID, VEX_Vsqrtps_xmm_xmmm128, VEX_Vsqrtps_ymm_ymmm256, INVALID,
            EVEX_Vsqrtps_xmm_k1z_xmmm128b32, EVEX_Vsqrtps_ymm_k1z_ymmm256b32, EVEX_Vsqrtps_zmm_k1z_zmmm512b32_er,
        ],
        Op::Round => [
            INVALID, VEX_Vroundps_xmm_xmmm128_imm8, VEX_Vroundps_ymm_ymmm256_imm8, INVALID,
            EVEX_Vrndscaleps_xmm_k1z_xmmm128b32_imm8, EVEX_Vrndscaleps_ymm_k1z_ymmm256b32_imm8, EVEX_Vrndscaleps_zmm_k1z_zmmm512b32_imm8_sae,
        ],
        Op::AndI => [
            INVALID, VEX_Vpand_xmm_xmm_xmmm128, VEX_Vpand_ymm_ymm_ymmm256, INVALID,
            EVEX_Vpandd_xmm_k1z_xmm_xmmm128b32, EVEX_Vpandd_ymm_k1z_ymm_ymmm256b32, EVEX_Vpandd_zmm_k1z_zmm_zmmm512b32,
        ],
        Op::OrI => [
            INVALID, VEX_Vpor_xmm_xmm_xmmm128, VEX_Vpor_ymm_ymm_ymmm256, INVALID,
            EVEX_Vpord_xmm_k1z_xmm_xmmm128b32, EVEX_Vpord_ymm_k1z_ymm_ymmm256b32, EVEX_Vpord_zmm_k1z_zmm_zmmm512b32,
        ],
        Op::XorI => [
            INVALID, VEX_Vpxor_xmm_xmm_xmmm128, VEX_Vpxor_ymm_ymm_ymmm256, INVALID,
            EVEX_Vpxord_xmm_k1z_xmm_xmmm128b32, EVEX_Vpxord_ymm_k1z_ymm_ymmm256b32, EVEX_Vpxord_zmm_k1z_zmm_zmmm512b32,
        ],
        Op::AddI => [
            INVALID, VEX_Vpaddd_xmm_xmm_xmmm128, VEX_Vpaddd_ymm_ymm_ymmm256, INVALID,
            EVEX_Vpaddd_xmm_k1z_xmm_xmmm128b32, EVEX_Vpaddd_ymm_k1z_ymm_ymmm256b32, EVEX_Vpaddd_zmm_k1z_zmm_zmmm512b32,
        ],
        Op::SubI => [
            INVALID, VEX_Vpsubd_xmm_xmm_xmmm128, VEX_Vpsubd_ymm_ymm_ymmm256, INVALID,
            EVEX_Vpsubd_xmm_k1z_xmm_xmmm128b32, EVEX_Vpsubd_ymm_k1z_ymm_ymmm256b32, EVEX_Vpsubd_zmm_k1z_zmm_zmmm512b32,
        ],
        Op::MulI => [
            INVALID, VEX_Vpmulld_xmm_xmm_xmmm128, VEX_Vpmulld_ymm_ymm_ymmm256, INVALID,
            EVEX_Vpmulld_xmm_k1z_xmm_xmmm128b32, EVEX_Vpmulld_ymm_k1z_ymm_ymmm256b32, EVEX_Vpmulld_zmm_k1z_zmm_zmmm512b32,
        ],
        Op::MaxI => [
            INVALID, VEX_Vpmaxsd_xmm_xmm_xmmm128, VEX_Vpmaxsd_ymm_ymm_ymmm256, INVALID,
            EVEX_Vpmaxsd_xmm_k1z_xmm_xmmm128b32, EVEX_Vpmaxsd_ymm_k1z_ymm_ymmm256b32, EVEX_Vpmaxsd_zmm_k1z_zmm_zmmm512b32,
        ],
        Op::MinI => [
            INVALID, VEX_Vpminsd_xmm_xmm_xmmm128, VEX_Vpminsd_ymm_ymm_ymmm256, INVALID,
            EVEX_Vpminsd_xmm_k1z_xmm_xmmm128b32, EVEX_Vpminsd_ymm_k1z_ymm_ymmm256b32, EVEX_Vpminsd_zmm_k1z_zmm_zmmm512b32,
        ],
        Op::MulWide => [
            INVALID, VEX_Vpmuludq_xmm_xmm_xmmm128, VEX_Vpmuludq_ymm_ymm_ymmm256, INVALID,
            EVEX_Vpmuludq_xmm_k1z_xmm_xmmm128b64, EVEX_Vpmuludq_ymm_k1z_ymm_ymmm256b64, EVEX_Vpmuludq_zmm_k1z_zmm_zmmm512b64,
        ],
        Op::ShlLanes => [
            INVALID, VEX_Vpsllvd_xmm_xmm_xmmm128, VEX_Vpsllvd_ymm_ymm_ymmm256, INVALID,
            EVEX_Vpsllvd_xmm_k1z_xmm_xmmm128b32, EVEX_Vpsllvd_ymm_k1z_ymm_ymmm256b32, EVEX_Vpsllvd_zmm_k1z_zmm_zmmm512b32,
        ],
        Op::SarLanes => [
            INVALID, VEX_Vpsravd_xmm_xmm_xmmm128, VEX_Vpsravd_ymm_ymm_ymmm256, INVALID,
            EVEX_Vpsravd_xmm_k1z_xmm_xmmm128b32, EVEX_Vpsravd_ymm_k1z_ymm_ymmm256b32, EVEX_Vpsravd_zmm_k1z_zmm_zmmm512b32,
        ],
        Op::EqualI => [
            INVALID, VEX_Vpcmpeqd_xmm_xmm_xmmm128, VEX_Vpcmpeqd_ymm_ymm_ymmm256, INVALID,
            INVALID, INVALID, INVALID,
        ],
        Op::GreaterI => [
            INVALID, VEX_Vpcmpgtd_xmm_xmm_xmmm128, VEX_Vpcmpgtd_ymm_ymm_ymmm256, INVALID,
            INVALID, INVALID, INVALID,
        ],
        Op::DivD => [
            INVALID, VEX_Vdivpd_xmm_xmm_xmmm128, VEX_Vdivpd_ymm_ymm_ymmm256, INVALID,
            EVEX_Vdivpd_xmm_k1z_xmm_xmmm128b64, EVEX_Vdivpd_ymm_k1z_ymm_ymmm256b64, EVEX_Vdivpd_zmm_k1z_zmm_zmmm512b64_er,
        ],
        Op::AbsI => [
            INVALID, VEX_Vpabsd_xmm_xmmm128, VEX_Vpabsd_ymm_ymmm256, INVALID,
            EVEX_Vpabsd_xmm_k1z_xmmm128b32, EVEX_Vpabsd_ymm_k1z_ymmm256b32, EVEX_Vpabsd_zmm_k1z_zmmm512b32,
        ],
        Op::IntToFloat => [
            INVALID, VEX_Vcvtdq2ps_xmm_xmmm128, VEX_Vcvtdq2ps_ymm_ymmm256, INVALID,
            EVEX_Vcvtdq2ps_xmm_k1z_xmmm128b32, EVEX_Vcvtdq2ps_ymm_k1z_ymmm256b32, EVEX_Vcvtdq2ps_zmm_k1z_zmmm512b32_er,
        ],
        Op::FloatToInt => [
            INVALID, VEX_Vcvttps2dq_xmm_xmmm128, VEX_Vcvttps2dq_ymm_ymmm256, INVALID,
            EVEX_Vcvttps2dq_xmm_k1z_xmmm128b32, EVEX_Vcvttps2dq_ymm_k1z_ymmm256b32, EVEX_Vcvttps2dq_zmm_k1z_zmmm512b32_sae,
        ],
        Op::ShlLanesImmediate => [
            INVALID, VEX_Vpslld_xmm_xmm_imm8, VEX_Vpslld_ymm_ymm_imm8, INVALID,
            EVEX_Vpslld_xmm_k1z_xmmm128b32_imm8, EVEX_Vpslld_ymm_k1z_ymmm256b32_imm8, EVEX_Vpslld_zmm_k1z_zmmm512b32_imm8,
        ],
        Op::SarLanesImmediate => [
            INVALID, VEX_Vpsrad_xmm_xmm_imm8, VEX_Vpsrad_ymm_ymm_imm8, INVALID,
            EVEX_Vpsrad_xmm_k1z_xmmm128b32_imm8, EVEX_Vpsrad_ymm_k1z_ymmm256b32_imm8, EVEX_Vpsrad_zmm_k1z_zmmm512b32_imm8,
        ],
        Op::ShrLanesImmediate => [
            INVALID, VEX_Vpsrld_xmm_xmm_imm8, VEX_Vpsrld_ymm_ymm_imm8, INVALID,
            EVEX_Vpsrld_xmm_k1z_xmmm128b32_imm8, EVEX_Vpsrld_ymm_k1z_ymmm256b32_imm8, EVEX_Vpsrld_zmm_k1z_zmmm512b32_imm8,
        ],
        Op::ShrQuadsImmediate => [
            INVALID, VEX_Vpsrlq_xmm_xmm_imm8, VEX_Vpsrlq_ymm_ymm_imm8, INVALID,
            EVEX_Vpsrlq_xmm_k1z_xmmm128b64_imm8, EVEX_Vpsrlq_ymm_k1z_ymmm256b64_imm8, EVEX_Vpsrlq_zmm_k1z_zmmm512b64_imm8,
        ],
        Op::ShlLanesBy => [
            INVALID, VEX_Vpslld_xmm_xmm_xmmm128, VEX_Vpslld_ymm_ymm_xmmm128, INVALID,
            EVEX_Vpslld_xmm_k1z_xmm_xmmm128, EVEX_Vpslld_ymm_k1z_ymm_xmmm128, EVEX_Vpslld_zmm_k1z_zmm_xmmm128,
        ],
        Op::SarLanesBy => [
            INVALID, VEX_Vpsrad_xmm_xmm_xmmm128, VEX_Vpsrad_ymm_ymm_xmmm128, INVALID,
            EVEX_Vpsrad_xmm_k1z_xmm_xmmm128, EVEX_Vpsrad_ymm_k1z_ymm_xmmm128, EVEX_Vpsrad_zmm_k1z_zmm_xmmm128,
        ],
        Op::IntToDouble => [
            INVALID, VEX_Vcvtdq2pd_xmm_xmmm64, VEX_Vcvtdq2pd_ymm_xmmm128, INVALID,
            EVEX_Vcvtdq2pd_xmm_k1z_xmmm64b32, EVEX_Vcvtdq2pd_ymm_k1z_xmmm128b32, EVEX_Vcvtdq2pd_zmm_k1z_ymmm256b32_er,
        ],
        Op::DoubleToInt => [
            INVALID, VEX_Vcvttpd2dq_xmm_xmmm128, VEX_Vcvttpd2dq_xmm_ymmm256, INVALID,
            EVEX_Vcvttpd2dq_xmm_k1z_xmmm128b64, EVEX_Vcvttpd2dq_xmm_k1z_ymmm256b64, EVEX_Vcvttpd2dq_ymm_k1z_zmmm512b64_sae,
        ],
        Op::CompareF => [
            VEX_Vcmpss_xmm_xmm_xmmm32_imm8, VEX_Vcmpps_xmm_xmm_xmmm128_imm8, VEX_Vcmpps_ymm_ymm_ymmm256_imm8, EVEX_Vcmpss_kr_k1_xmm_xmmm32_imm8_sae,
            EVEX_Vcmpps_kr_k1_xmm_xmmm128b32_imm8, EVEX_Vcmpps_kr_k1_ymm_ymmm256b32_imm8, EVEX_Vcmpps_kr_k1_zmm_zmmm512b32_imm8_sae,
        ],
        Op::CompareI => [
            INVALID, INVALID, INVALID, INVALID,
            EVEX_Vpcmpd_kr_k1_xmm_xmmm128b32_imm8, EVEX_Vpcmpd_kr_k1_ymm_ymmm256b32_imm8, EVEX_Vpcmpd_kr_k1_zmm_zmmm512b32_imm8,
        ],
        Op::Blend => [
            INVALID, VEX_Vblendvps_xmm_xmm_xmmm128_xmm, VEX_Vblendvps_ymm_ymm_ymmm256_ymm, INVALID,
            EVEX_Vblendmps_xmm_k1z_xmm_xmmm128b32, EVEX_Vblendmps_ymm_k1z_ymm_ymmm256b32, EVEX_Vblendmps_zmm_k1z_zmm_zmmm512b32,
        ],
        Op::BlendImmediate => [
            INVALID, VEX_Vblendps_xmm_xmm_xmmm128_imm8, VEX_Vblendps_ymm_ymm_ymmm256_imm8, INVALID,
            INVALID, INVALID, INVALID,
        ],
        Op::Splat => [
            INVALID, VEX_Vbroadcastss_xmm_xmm, VEX_Vbroadcastss_ymm_xmm, INVALID,
            EVEX_Vbroadcastss_xmm_k1z_xmmm32, EVEX_Vbroadcastss_ymm_k1z_xmmm32, EVEX_Vbroadcastss_zmm_k1z_xmmm32,
        ],
        Op::SplatGeneral => [
            INVALID, INVALID, INVALID, INVALID,
            EVEX_Vpbroadcastd_xmm_k1z_r32, EVEX_Vpbroadcastd_ymm_k1z_r32, EVEX_Vpbroadcastd_zmm_k1z_r32,
        ],
        Op::Permute => [
            INVALID, VEX_Vpermilps_xmm_xmmm128_imm8, INVALID, INVALID,
            EVEX_Vpermilps_xmm_k1z_xmmm128b32_imm8, INVALID, INVALID,
        ],
        Op::ExtractX => [
            INVALID, INVALID, VEX_Vextractf128_xmmm128_ymm_imm8, INVALID,
            INVALID, EVEX_Vextractf32x4_xmmm128_k1z_ymm_imm8, EVEX_Vextractf32x4_xmmm128_k1z_zmm_imm8,
        ],
        Op::ExtractY => [
            INVALID, INVALID, INVALID, INVALID,
            INVALID, INVALID, EVEX_Vextractf64x4_ymmm256_k1z_zmm_imm8,
        ],
        Op::JoinX => [
            INVALID, INVALID, VEX_Vinsertf128_ymm_ymm_xmmm128_imm8, INVALID,
            INVALID, EVEX_Vinsertf32x4_ymm_k1z_ymm_xmmm128_imm8, INVALID,
        ],
        Op::JoinY => [
            INVALID, INVALID, INVALID, INVALID,
            INVALID, INVALID, EVEX_Vinsertf64x4_zmm_k1z_zmm_ymmm256_imm8,
        ],
        Op::MaskToLanes => [
            INVALID, INVALID, INVALID, INVALID,
            EVEX_Vpmovm2d_xmm_kr, EVEX_Vpmovm2d_ymm_kr, EVEX_Vpmovm2d_zmm_kr,
        ],
        Op::ToVector => [
            INVALID, VEX_Vmovd_xmm_rm32, INVALID, INVALID,
            EVEX_Vmovd_xmm_rm32, INVALID, INVALID,
        ],
        Op::ToGeneral => [
            INVALID, VEX_Vmovd_rm32_xmm, INVALID, INVALID,
            EVEX_Vmovd_rm32_xmm, INVALID, INVALID,
        ],
        Op::Copy => [
            VEX_Vmovaps_xmm_xmmm128, VEX_Vmovaps_xmm_xmmm128, VEX_Vmovaps_ymm_ymmm256, EVEX_Vmovaps_xmm_k1z_xmmm128,
            EVEX_Vmovaps_xmm_k1z_xmmm128, EVEX_Vmovaps_ymm_k1z_ymmm256, EVEX_Vmovaps_zmm_k1z_zmmm512,
        ],
        Op::Load => [
            VEX_Vmovss_xmm_m32, VEX_Vmovups_xmm_xmmm128, VEX_Vmovups_ymm_ymmm256, EVEX_Vmovss_xmm_k1z_m32,
            EVEX_Vmovups_xmm_k1z_xmmm128, EVEX_Vmovups_ymm_k1z_ymmm256, EVEX_Vmovups_zmm_k1z_zmmm512,
        ],
        Op::Store => [
            VEX_Vmovss_m32_xmm, VEX_Vmovups_xmmm128_xmm, VEX_Vmovups_ymmm256_ymm, EVEX_Vmovss_m32_k1_xmm,
            EVEX_Vmovups_xmmm128_k1z_xmm, EVEX_Vmovups_ymmm256_k1z_ymm, EVEX_Vmovups_zmmm512_k1z_zmm,
        ],
        _ => [INVALID; 7],
    }
}
